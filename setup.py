"""Packaging of xvpd.

`package_dir` makes an editable install a plain path entry: setuptools' usual import hook would hide `twisted/plugins` from
Twisted. `twisted.plugins` is a namespace shared with Twisted itself, which `find_packages` cannot see.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "xvpd" / "__init__.py").read_text())[1]

setup(
    name="xvpd",
    version=VERSION,
    description="A console proxy daemon for XenServer and XCP-ng",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    package_dir={"": "."},
    packages=[*find_packages(include=["xvpd", "xvpd.*"]), "twisted.plugins"],
    package_data={"xvpd": ["py.typed"]},
    install_requires=[
        "Twisted[tls]>=24.10",
        "txredisapi>=1.6",
        "XenAPI>=24.11",
        "service-identity>=24.2",
        "pyOpenSSL>=24.3",
        "h11>=0.14",
        "pydantic>=2.10",
        "prometheus-client>=0.21",
    ],
    extras_require={
        "dev": [
            "build",
            "coverage[toml]",
            "hypothesis",
            "import-linter",
            "mypy",
            "mypy-zope",
            "ruff",
        ],
    },
    entry_points={"console_scripts": ["xvpd = xvpd.cli:main"]},
    zip_safe=False,
)
