"""Legs for tests, of every kind, each connected over a real socket to a `Peer`."""

import socket
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.net.peers import PATIENCE, Peer, in_thread, our_connection, their_context
from xvpd.net.leg import Leg

reactor: Any = installed_reactor

PROXY_HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n"


@dataclass(frozen=True)
class Kind:
    """One kind of leg."""

    tls: str | None = None
    """See `peers.TLS`; None is a plain leg."""
    via: str = "tcp"
    """``tcp``, ``unix`` or ``haproxy``."""
    dialled: bool = False
    """Whether the leg was dialled, rather than accepted."""

    def leg(self, clock: Any = reactor, **options: Any) -> Leg:
        """One that is not connected."""
        return Leg(clock, tls=our_connection(self.tls, server=not self.dialled), **options)


class LegFactory(Factory[Leg]):
    """Makes legs of a kind."""

    noisy = False

    def __init__(self, kind: Kind, **options: Any) -> None:
        self._kind = kind
        self._options = options

    def buildProtocol(self, addr: IAddress | None) -> Leg:
        return self._kind.leg(**self._options)


async def listen(kind: Kind, description: str, accepted: Callable[[Leg], None], **options: Any) -> Any:
    """A listening port whose clients become legs."""
    return await serverFromString(reactor, description).listen(LegFactory(kind, connected=accepted, **options))


async def dial(kind: Kind, description: str, **options: Any) -> Leg:
    """A leg that is connected to where the endpoint ``description`` leads."""
    factory = LegFactory(kind, **options)
    leg: Leg = await clientFromString(reactor, description).connect(factory)
    return leg


async def connect(case: TestCase, kind: Kind, **options: Any) -> tuple[Leg, Peer]:
    """A leg and its peer, connected; the peer has not spoken TLS yet. Both are ended when the test is over."""
    leg, peer = await (_dial if kind.dialled else _accept)(case, kind, options)
    case.addCleanup(peer.close)
    case.addCleanup(_be_gone, weakref.ref(leg))
    return leg, peer


async def pair(case: TestCase, kind: Kind, **options: Any) -> tuple[Leg, Peer]:
    """A leg and its peer, ready to talk."""
    leg, peer = await connect(case, kind, **options)
    if kind.tls is not None:
        shaken = peer.start_tls(their_context(kind.tls, kind.dialled), kind.dialled)
        case.assertTrue(await leg.secure())
        await shaken
    return leg, peer


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody tells."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError("it did not come to pass")
        await deferLater(reactor, 0.002)


async def read_exactly(leg: Leg, size: int) -> bytes:
    """So many bytes; fewer when the leg ends before."""
    data = bytearray()
    while len(data) < size and (more := await leg.read()):
        data += more
    leg.unread(bytes(data[size:]))
    return bytes(data[:size])


async def read_all(leg: Leg) -> bytes:
    """Everything up to the end."""
    data = bytearray()
    while more := await leg.read():
        data += more
    return bytes(data)


async def _accept(case: TestCase, kind: Kind, options: dict[str, Any]) -> tuple[Leg, Peer]:
    if kind.via == "unix":
        address: Any = case.mktemp()
        description = f"unix:{quoteStringArgument(address)}"
        sock = socket.socket(socket.AF_UNIX)
    else:
        description = "haproxy:tcp:0:interface=127.0.0.1" if kind.via == "haproxy" else "tcp:0:interface=127.0.0.1"
        sock = socket.socket()
    accepted: Deferred[Leg] = Deferred()
    port = await listen(kind, description, accepted.callback, **options)
    if kind.via != "unix":
        address = ("127.0.0.1", port.getHost().port)
    await in_thread(sock.connect, address)
    if kind.via == "haproxy":
        sock.sendall(PROXY_HEADER)
    leg = await accepted
    await port.stopListening()
    return leg, Peer(sock)


async def _dial(case: TestCase, kind: Kind, options: dict[str, Any]) -> tuple[Leg, Peer]:
    if kind.via == "unix":
        path = case.mktemp()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        description = f"unix:{quoteStringArgument(path)}"
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        description = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        leg = await dial(kind, description, **options)
        sock, _ = await in_thread(listener.accept)
    return leg, Peer(sock)


async def _be_gone(reference: "weakref.ref[Leg]") -> None:
    leg = reference()
    if leg is not None:
        leg.abort()
        await leg.gone()
