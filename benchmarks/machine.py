"""What the benchmarks run on: a figure means nothing without it."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from OpenSSL import SSL

import xvpd

_PACKAGES: Final = ("Twisted", "txredisapi", "pyOpenSSL", "XenAPI")


def description() -> list[str]:
    """The machine and the versions, in a few lines."""
    load = os.getloadavg()[0]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
    return [
        f"{len(os.sched_getaffinity(0))} cores, {_cpu_model()}, {platform.system()} {platform.release()}, load {load:.2f}",
        f"xvpd {xvpd.__version__}, Python {platform.python_version()}, {packages}, {openssl}, {_redis()}",
    ]


def _cpu_model() -> str:
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def _redis() -> str:
    binary = shutil.which("redis-server")
    if binary is None:
        return "no redis-server"
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\S+)", said)
    return f"redis-server {match[1] if match else '?'}"
