"""`RedisProxy`: a way to a Redis server that can be made to fail as networks and servers do."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase


class RedisProxy(ProxyFactory):
    """Listens on a free port and passes connections on to a server, unless told otherwise."""

    noisy = False

    def __init__(self, case: TestCase, server_port: int) -> None:
        super().__init__("127.0.0.1", server_port)
        self.resets = 0
        """So many connections, from now on, are reset as soon as they say something."""
        self.hangs = False
        """New connections are accepted, and never answered."""
        self.says = b""
        """What new connections are told instead of anything that the server would say."""
        self.seen = 0
        """How many connections there have been."""
        self._open: set[Any] = set()
        self._listening: Any = reactor.listenTCP(0, self, interface="127.0.0.1")  # type: ignore[arg-type]
        self.listens_at: int = self._listening.getHost().port  # type: ignore[attr-defined,unused-ignore]
        case.addCleanup(self._close)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.resets:
            self.resets -= 1
            protocol: Any = _Resetting()
        elif self.says:
            protocol = _Saying(self.says)
        elif self.hangs:
            protocol = Protocol()
        else:
            protocol = super().buildProtocol(addr)
        protocol.factory = self
        protocol.number, self.seen = self.seen, self.seen + 1
        made, lost = protocol.connectionMade, protocol.connectionLost

        def connection_made() -> None:
            self._open.add(protocol)
            made()

        def connection_lost(reason: Any) -> None:
            self._open.discard(protocol)
            lost(reason)

        protocol.connectionMade, protocol.connectionLost = connection_made, connection_lost
        return protocol

    def freeze(self, number: int) -> None:
        """Pass nothing on any more from the server to the connection of this number, counted from 0."""
        protocol = next(each for each in self._open if each.number == number)
        protocol.peer.transport.pauseProducing()

    def cut(self) -> None:
        """Reset every connection that there is."""
        for protocol in list(self._open):
            protocol.transport.abortConnection()

    async def _close(self) -> None:
        await self._listening.stopListening()
        for protocol in list(self._open):
            protocol.transport.abortConnection()
            peer = getattr(protocol, "peer", None)
            if peer is not None:
                peer.transport.abortConnection()


class _Resetting(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


class _Saying(Protocol):
    def __init__(self, what: bytes) -> None:
        self._what = what

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self._what)
