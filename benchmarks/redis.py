"""A redis-server for a figure, and the ways to it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.protocols.portforward import ProxyFactory
from zope.interface import directlyProvides, providedBy

from benchmarks.child import BenchmarkError, free_port, running


@dataclass(frozen=True, slots=True)
class Redis:
    """Where a server listens, on this machine alone."""

    port: int
    path: str
    """Of its unix socket."""

    @property
    def url(self) -> str:
        """As ``[grants] store`` takes it."""
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def redis_server(directory: Path) -> Iterator[Redis]:
    """A server that keeps nothing on disk, and has no replicas."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise BenchmarkError("redis-server is missing: install the package redis-server")
    redis = Redis(free_port(), str(directory / "redis.sock"))
    listening = ["--port", str(redis.port), "--bind", "127.0.0.1", "--unixsocket", redis.path]
    keeping = ["--dir", str(directory), "--save", "", "--appendonly", "no"]
    with running([binary, *listening, *keeping], directory / "redis.log", f"connections at {redis.path}"):
        yield redis


class Detour:
    """A reactor whose TCP connections go to a unix socket instead: the store's settings know no such address."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, _host: str, _port: int, factory: Any, timeout: float = 30, bindAddress: object = None) -> Any:  # noqa: N803
        """As the reactor's, but for the destination."""
        return self._reactor.connectUNIX(self._path, factory, timeout)


class Counting(ProxyFactory):
    """Passes connections on to a server, and counts how often clients send."""

    noisy = False

    def __init__(self, server_port: int) -> None:
        super().__init__("127.0.0.1", server_port)
        self.sent = 0

    def buildProtocol(self, addr: Any) -> Any:
        protocol: Any = super().buildProtocol(addr)
        passed_on = protocol.dataReceived

        def count(data: bytes) -> None:
            self.sent += 1
            passed_on(data)

        protocol.dataReceived = count
        return protocol
