"""For those who start xvpd by an application file: ``XVPD_CONFIG=/etc/xvpd/xvpd.toml twistd -ny xvpd.tac``."""

import os

from twisted.application.service import Application

from xvpd.tap import Options, makeService

options = Options()
options.parseOptions(["--config", os.environ.get("XVPD_CONFIG", "/etc/xvpd/xvpd.toml")])
application = Application("xvpd")
makeService(options).setServiceParent(application)
