"""Whole daemons, as ``twistd xvpd`` runs them, in front of a simulated pool: each a process of its own."""

import json
import secrets
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.api import Api
from benchmarks.child import free_port, running
from xvpd.api.auth import digest_of
from xvpd.sim.certificate import self_signed

KEY_NAME: Final = "benchmark"
"""Of the API key, and so the issuer's."""
_CONFIG: Final = """\
[console]
listen = [{console}]
base_url = {base_url}
certificate = {certificate}
private_key = {private_key}
drain_timeout = 0
max_sessions_per_vm = 0
max_sessions_per_host = 0
max_pending_per_client = 0
[grants]
store = {store}
[api]
listen = [{api}]
keys_file = {keys_file}
[state]
dir = {directory}
[[pool]]
name = "simulated"
hosts = {hosts}
port = {port}
username = {username}
password_file = {password_file}
fingerprint_sha256 = {fingerprints}
"""
_TWISTD: Final = (Path(sys.executable).with_name("twistd"), "--nodaemon", "--pidfile=", "xvpd", "--config")


@dataclass(frozen=True, slots=True)
class Node:
    """A daemon that is ready."""

    process: subprocess.Popen[bytes]
    console_port: int
    api_port: int
    key: str
    """Of an operator."""
    tls: ssl.SSLContext
    """What a client needs to trust it."""

    def api(self) -> Api:
        """A connection to its API."""
        return Api(self.api_port, self.key)


@contextmanager
def nodes(count: int, directory: Path, store: str = "memory") -> Iterator[list[Node]]:
    """So many daemons with one configuration, before one pool; their caps are off."""
    with ExitStack() as stack:
        output = directory / "pool.log"
        stack.enter_context(running([sys.executable, "-m", "benchmarks.pool"], output, "}\n"))
        pool: dict[str, Any] = json.loads(output.read_text())
        key = secrets.token_urlsafe()
        certificate = self_signed(["127.0.0.1"], datetime.now(UTC))
        tls = ssl.create_default_context(cadata=certificate.certificate_pem.decode("ascii"))
        shared = {
            "certificate": _file(directory / "cert.pem", certificate.certificate_pem),
            "private_key": _file(directory / "key.pem", certificate.private_key_pem),
            "keys_file": _file(directory / "keys", f"{KEY_NAME} operator {digest_of(key)}\n".encode()),
            "password_file": _file(directory / "password", pool.pop("password").encode()),
            "directory": str(directory),
            "store": store,
            **pool,
        }
        started = []
        for number in range(count):
            console_port, api_port = free_port(), free_port()
            own = {
                "console": f"tcp:{console_port}:interface=127.0.0.1",
                "base_url": f"https://127.0.0.1:{console_port}",
                "api": f"tcp:{api_port}:interface=127.0.0.1",
            }
            # JSON's notation of texts, numbers and lists of them is TOML's.
            text = _CONFIG.format(**{name: json.dumps(value) for name, value in {**shared, **own}.items()})
            config = _file(directory / f"{number}.toml", text.encode())
            process = stack.enter_context(running([*_TWISTD, config], directory / f"{number}.log", "xvpd is ready"))
            started.append(Node(process, console_port, api_port, key, tls))
        yield started


def _file(path: Path, content: bytes) -> str:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return str(path)
