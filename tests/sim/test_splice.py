"""A real VNC server as the screen of a simulated VM."""

import socket

from twisted.internet import reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from tests.sim.pools import OPEN, PoolCase, connect, console_request, opening, read_exactly
from xvpd.sim.pool import SimulatedPool, SimulatedVm
from xvpd.sim.screen import Screen
from xvpd.sim.splice import vnc_endpoint
from xvpd.sim.vnc import QEMU, VncViewer

TOO_MUCH = 64 << 20
"""More than all buffers on the way together."""


class Flood(Protocol):
    """A server that sends as much as is taken, and counts."""

    sent = 0
    gone = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(self, False)  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        assert self.transport is not None
        self.sent += 65536
        self.transport.write(b"x" * 65536)

    def stopProducing(self) -> None:
        """It is over."""

    def connectionLost(self, reason: object = None) -> None:
        self.gone = True


class RealOne(Factory):
    """A VNC server that is no part of any pool."""

    def __init__(self) -> None:
        self.screen = Screen("the real one", QEMU, reactor)

    def buildProtocol(self, addr: IAddress | None) -> VncViewer | None:
        return self.screen.buildProtocol(addr)


class Wheres(SynchronousTestCase):
    def test_where_a_server_may_be(self) -> None:
        for good in ("127.0.0.1:5900", "[::1]:5900", "localhost:1", "unix:/tmp/a:b.sock"):
            vnc_endpoint(reactor, good)
        for bad in ("", "unix:", "5900", ":5900", "host:", "host:0", "host:65536", "host:vnc"):
            self.assertRaises(ValueError, vnc_endpoint, reactor, bad)


class Splices(PoolCase):
    def server(self, factory: Factory) -> str:
        """A listening VNC server; where it is."""
        path = self.mktemp()
        port = reactor.listenUNIX(path, factory)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return f"unix:{path}"

    def shown(self, where: str) -> SimulatedPool:
        return self.pool(vms=[SimulatedVm("real", vnc=where)])

    async def test_what_the_real_server_says_is_what_the_viewer_hears(self) -> None:
        pool = self.shown(self.server(RealOne()))
        with await self.watching(pool, console_request(pool, "real")) as connection:
            self.assertEqual(await self.in_thread(opening, connection), (640, 400, "the real one"))
            self.assertEqual(pool.connections("127.0.0.1"), 1)

    async def test_what_is_sent_ahead_arrives(self) -> None:
        pool = self.shown(self.server(RealOne()))

        def work(request: bytes) -> bytes:
            with connect(pool) as connection:
                connection.sendall(request + b"RFB 003.008\n\1")
                return read_exactly(connection, len(OPEN) + 12 + 2 + 4)

        reply = await self.in_thread(work, console_request(pool, "real"))
        self.assertEqual(reply, OPEN + b"RFB 003.008\n\1\1\0\0\0\0")

    async def test_a_server_that_is_not_there_is_a_200_and_then_the_end(self) -> None:
        pool = self.shown("unix:" + self.mktemp())
        self.assertEqual(await self.asked(pool, console_request(pool, "real")), OPEN)

    async def test_a_viewer_that_reads_nothing_stops_the_server(self) -> None:
        floods: list[Flood] = []

        def flood() -> Flood:
            floods.append(Flood())
            return floods[-1]

        pool = self.shown(self.server(Factory.forProtocol(flood)))

        def start(request: bytes) -> socket.socket:
            connection = connect(pool)
            connection.sendall(request)
            read_exactly(connection, len(OPEN) + 1)
            return connection

        connection = await self.in_thread(start, console_request(pool, "real"))
        (server,) = floods
        lately = [0]

        def stalled() -> bool:
            lately.append(server.sent)
            return (len(lately) > 20 and lately[-20] == lately[-1]) or server.sent > TOO_MUCH

        await self.until(stalled)
        self.assertLess(server.sent, TOO_MUCH)
        connection.close()
        await self.until(lambda: floods[0].gone)

    async def test_a_server_that_leaves_takes_the_viewer_with_it(self) -> None:
        class Short(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"RFB 003.008\n")
                self.transport.loseConnection()

        pool = self.shown(self.server(Factory.forProtocol(Short)))
        self.assertEqual(await self.asked(pool, console_request(pool, "real")), OPEN + b"RFB 003.008\n")
