from twisted.application.service import ServiceMaker

xvpd = ServiceMaker("xvpd", "xvpd.tap", "A console proxy daemon for XenServer and XCP-ng.", "xvpd")
