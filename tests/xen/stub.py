"""Hosts that answer whatever a test wants, byte by byte if need be: for what no real host does."""

import xmlrpc.client
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.certificates import Identity

ADDRESS = "127.0.0.1"
SESSION_REF = "OpaqueRef:5e55105e-0000-4000-8000-00000cafe0cd"

Answer = Callable[["StubConnection", str, tuple[Any, ...]], None]
"""Does with the connection what it likes, given a call's method and parameters."""


class RawConnection(Protocol):
    """One connection of a client's, whose bytes are noted."""

    factory: "RawHost"
    transport: Any

    def connectionMade(self) -> None:
        self.factory.live.append(self)
        self.factory.connections += 1
        self.transport.write(self.factory.greeting)

    def connectionLost(self, reason: object = None) -> None:
        self.factory.live.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data
        if self.factory.received.endswith(b"\r\n\r\n"):
            self.factory.asked(self)


class StubConnection(RawConnection):
    """One connection of the SDK's."""

    factory: "StubHost"

    def __init__(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            if len(rest) < lengths[0]:
                return
            self._received = rest[lengths[0] :]
            parameters, method = xmlrpc.client.loads(rest[: lengths[0]])
            assert method is not None
            self.factory.calls.append(method)
            self.factory.answer(self, method, parameters)

    def say(self, value: Any) -> None:
        """A call's success."""
        self.reply({"Status": "Success", "Value": value})

    def refuse(self, *description: Any) -> None:
        """A call's failure."""
        self.reply({"Status": "Failure", "ErrorDescription": list(description)})

    def reply(self, value: Any, headers: bytes = b"") -> None:
        """A whole HTTP response."""
        body = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
        self.http(body, headers)

    def http(self, body: bytes, headers: bytes = b"") -> None:
        """A whole HTTP response with this body."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), headers) + body)


@implementer(IOpenSSLServerConnectionCreator)
class _Tls:
    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N803
        return self.identity.accepting()


class RawHost(Factory):
    """Listens on a port of its own until the test is over. ``asked`` is called with the connection that has brought an empty
    line."""

    noisy = False
    protocol: Any = RawConnection

    def __init__(
        self,
        test: TestCase,
        asked: Callable[[RawConnection], None],
        identity: Identity | None = None,
        address: str = ADDRESS,
    ) -> None:
        self.asked = asked
        self.received = b""
        self.connections = 0
        self.live: list[RawConnection] = []
        self.greeting = b""
        self._tls = _Tls(identity) if identity is not None else None
        factory: Any = TLSMemoryBIOFactory(self._tls, False, self) if self._tls is not None else self
        factory.noisy = False
        listening: Any = reactor.listenTCP(0, factory, interface=address)
        self.port: int = listening.getHost().port
        self._listening = listening
        test.addCleanup(self.stop)
        test.addCleanup(self.hang_up)

    def hang_up(self) -> None:
        """Abort every connection."""
        for connection in list(self.live):
            connection.transport.abortConnection()

    def present(self, identity: Identity) -> None:
        """Show this certificate to new connections."""
        assert self._tls is not None
        self._tls.identity = identity

    def stop(self) -> Deferred[None]:
        """Listen no more."""
        return maybeDeferred(self._listening.stopListening)


class StubHost(RawHost):
    """A host's API."""

    protocol = StubConnection

    def __init__(self, test: TestCase, answer: Answer, identity: Identity | None = None, address: str = ADDRESS) -> None:
        super().__init__(test, lambda connection: None, identity, address)
        self.answer = answer
        self.calls: list[str] = []
