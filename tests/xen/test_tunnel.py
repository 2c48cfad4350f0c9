"""`xvpd.xen.tunnel`: the connection to a host, up to the first bytes of RFB."""

from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.certificates import Identity, make_identity
from tests.xen.stub import ADDRESS, SESSION_REF, RawConnection, RawHost
from xvpd.net.leg import Leg
from xvpd.reason import Reason
from xvpd.xen.connect import compose
from xvpd.xen.trust import Authority, Pins, Plain, Trust
from xvpd.xen.tunnel import Dialler, NotDialled
from xvpd.xen.xapi import XapiSession

VM = "OpaqueRef:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
OK = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
BANNER = b"RFB 003.008\n"

Asked = Callable[[RawConnection], None]


def says(*pieces: bytes) -> Asked:
    """Answer with these pieces, each in a turn of the reactor of its own."""

    def asked(connection: RawConnection) -> None:
        Deferred.fromCoroutine(_send(connection, pieces))

    return asked


def says_and_closes(answer: bytes) -> Asked:
    def asked(connection: RawConnection) -> None:
        connection.transport.write(answer)
        connection.transport.loseConnection()

    return asked


async def _send(connection: RawConnection, pieces: tuple[bytes, ...]) -> None:
    for piece in pieces:
        connection.transport.write(piece)
        await deferLater(reactor, 0)


class TunnelCase(TestCase):
    timeout = 30

    def dial(self, port: int, trust: Trust | None = None, address: str = ADDRESS) -> Deferred[Leg | NotDialled]:
        dialler = Dialler(reactor, trust or Plain(), port, connect_seconds=5.0)
        return dialler.dial(address, VM, XapiSession(SESSION_REF))

    async def opened(self, dialling: Deferred[Leg | NotDialled]) -> Leg:
        leg = await dialling
        assert isinstance(leg, Leg), leg
        self.addCleanup(leg.gone)
        self.addCleanup(leg.abort)
        return leg

    async def refused(self, dialling: Deferred[Leg | NotDialled], reason: Reason, *words: str) -> NotDialled:
        """The refusal, which names the host and no secret."""
        outcome = await dialling
        assert isinstance(outcome, NotDialled), outcome
        self.assertEqual(outcome.refusal.reason, reason, outcome.refusal)
        for word in words:
            self.assertIn(word, outcome.refusal.detail)
        self.assertNotIn(SESSION_REF, repr(outcome))
        return outcome

    async def left_alone(self, host: RawHost) -> None:
        """Wait until the host has no connection; the test's own timeout is the deadline."""
        while host.live:
            await deferLater(reactor, 0.001)

    async def read(self, leg: Leg, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await leg.read()
            self.assertTrue(piece, data)
            data += piece
        return data


class OpeningTests(TunnelCase):
    async def test_the_request_is_all_that_the_host_gets(self) -> None:
        host = RawHost(self, says(OK + BANNER))
        await self.opened(self.dial(host.port))
        self.assertEqual(host.received, compose(VM, SESSION_REF, ADDRESS))

    async def test_every_byte_behind_the_answer_is_still_to_be_read(self) -> None:
        whole = OK + BANNER + b"\1\1 and more"
        rest = whole[len(OK) :]
        for pieces in ((whole,), (OK, rest), (OK[:-1], whole[len(OK) - 1 :]), tuple(bytes([byte]) for byte in whole)):
            host = RawHost(self, says(*pieces))
            leg = await self.opened(self.dial(host.port))
            self.assertEqual(await self.read(leg, len(rest)), rest)

    async def test_an_answer_of_http_1_0(self) -> None:
        host = RawHost(self, says(b"HTTP/1.0 200 OK\r\n\r\n" + BANNER))
        self.assertEqual(await (await self.opened(self.dial(host.port))).read(), BANNER)

    async def test_over_tls(self) -> None:
        identity = make_identity(ADDRESS)
        host = RawHost(self, says(OK + BANNER), identity)
        certificate_file, _ = identity.write(self.mktemp())
        for trust in (Pins(frozenset({identity.fingerprint})), Authority(certificate_file)):
            leg = await self.opened(self.dial(host.port, trust))
            self.assertEqual(await leg.read(), BANNER)

    async def test_a_host_with_an_ipv6_address(self) -> None:
        host = RawHost(self, says(OK + BANNER), address="::1")
        await self.opened(self.dial(host.port, address="::1"))
        self.assertIn(b"\r\nHost: [::1]\r\n", host.received)

    async def test_a_host_with_a_name(self) -> None:
        host = RawHost(self, says(OK + BANNER))
        await self.opened(self.dial(host.port, address="localhost"))
        self.assertIn(b"\r\nHost: localhost\r\n", host.received)


class RefusalTests(TunnelCase):
    async def test_nobody_listens(self) -> None:
        host = RawHost(self, says())
        await host.stop()
        await self.refused(self.dial(host.port), Reason.HYPERVISOR_UNREACHABLE, ADDRESS, "refused")

    async def test_a_name_that_does_not_resolve(self) -> None:
        await self.refused(self.dial(443, address="xen.invalid"), Reason.HYPERVISOR_UNREACHABLE, "xen.invalid")

    async def test_each_status_is_told(self) -> None:
        for status, reason in {
            401: Reason.HYPERVISOR_REFUSED,
            403: Reason.HYPERVISOR_REFUSED,
            404: Reason.HYPERVISOR_REFUSED,
            500: Reason.HYPERVISOR_REFUSED,
            503: Reason.CONSOLE_BUSY,
            302: Reason.HYPERVISOR_PROTOCOL,
        }.items():
            body = b"<html>in use by <script>" + SESSION_REF.encode()
            host = RawHost(self, says_and_closes(b"HTTP/1.1 %d Some Words\r\ncontent-length: 99\r\n\r\n" % status + body))
            outcome = await self.refused(self.dial(host.port), reason, ADDRESS, str(status))
            self.assertEqual(outcome.status, status)
            self.assertNotIn("script", outcome.refusal.detail)
            await self.left_alone(host)

    async def test_a_host_that_closes_after_its_200_has_no_console(self) -> None:
        for answer in (OK, OK + BANNER[:-1]):
            host = RawHost(self, says_and_closes(answer))
            outcome = await self.refused(self.dial(host.port), Reason.HYPERVISOR_REFUSED, ADDRESS, "200")
            self.assertEqual(outcome.status, 200)

    async def test_a_host_that_closes_without_an_answer(self) -> None:
        for answer in (b"", b"HTTP/1.1 200 OK\r\n"):
            host = RawHost(self, says_and_closes(answer))
            await self.refused(self.dial(host.port), Reason.HYPERVISOR_PROTOCOL, ADDRESS, "without an answer")

    async def test_a_host_that_resets_the_connection(self) -> None:
        host = RawHost(self, lambda connection: connection.transport.abortConnection())
        await self.refused(self.dial(host.port), Reason.HYPERVISOR_PROTOCOL, ADDRESS)

    async def test_an_answer_that_is_none(self) -> None:
        for answer in (BANNER, b"HTTP/1.1 200 OK\n\n" + BANNER, b"HTTP/1.1 200 OK\r\nA: " + b"a" * 9000):
            host = RawHost(self, says(answer))
            await self.refused(self.dial(host.port), Reason.HYPERVISOR_PROTOCOL, ADDRESS)
            await self.left_alone(host)

    async def test_a_host_that_does_not_speak_tls(self) -> None:
        host = RawHost(self, says())
        host.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        await self.refused(self.dial(host.port, Pins(frozenset())), Reason.HYPERVISOR_PROTOCOL, ADDRESS, "TLS")

    async def test_a_host_that_closes_instead_of_a_handshake(self) -> None:
        host = RawHost(self, says())
        dialling = self.dial(host.port, Pins(frozenset()))
        while not host.live:
            await deferLater(reactor, 0.001)
        host.live[0].transport.loseConnection()
        await self.refused(dialling, Reason.HYPERVISOR_PROTOCOL, ADDRESS, "TLS")


class TrustTests(TunnelCase):
    """A host that does not prove its identity gets not a byte of ours."""

    async def untrusted(self, trust: Trust, identity: Identity, address: str, *words: str) -> None:
        host = RawHost(self, says(OK + BANNER), identity)
        host.greeting = OK + BANNER  # it lies, too
        await self.refused(self.dial(host.port, trust, address), Reason.HYPERVISOR_UNTRUSTED, address, *words)
        await self.left_alone(host)
        self.assertEqual(host.received, b"")

    async def test_another_certificate_than_the_pinned(self) -> None:
        identity = make_identity(ADDRESS)
        shown = bytes.fromhex(identity.fingerprint).hex(":").upper()
        await self.untrusted(Pins(frozenset({"ab" * 32})), identity, ADDRESS, shown, ":".join(["AB"] * 32))

    async def test_a_certificate_of_another_authority(self) -> None:
        certificate_file, _ = make_identity(ADDRESS, authority=True).write(self.mktemp())
        await self.untrusted(Authority(certificate_file), make_identity(ADDRESS), ADDRESS)

    async def test_a_certificate_of_another_host(self) -> None:
        identity = make_identity("10.0.0.12", "elsewhere")
        certificate_file, _ = identity.write(self.mktemp())
        for address in (ADDRESS, "localhost"):
            await self.untrusted(Authority(certificate_file), identity, address, "does not name it")


class CancellingTests(TunnelCase):
    async def cancelled(self, host: RawHost, trust: Trust | None = None) -> None:
        """Dial, and cancel when the host has something from us."""
        dialling = self.dial(host.port, trust)
        while not host.received:
            await deferLater(reactor, 0.001)
        dialling.cancel()
        await self.assertFailure(dialling, CancelledError)
        await self.left_alone(host)

    async def test_while_it_connects(self) -> None:
        host = RawHost(self, says())
        dialling = self.dial(host.port)
        dialling.cancel()
        await self.assertFailure(dialling, CancelledError)
        await self.left_alone(host)

    async def test_in_the_handshake(self) -> None:
        await self.cancelled(RawHost(self, says()), Pins(frozenset()))

    async def test_before_the_answer(self) -> None:
        await self.cancelled(RawHost(self, says()))

    async def test_before_the_first_bytes_of_rfb(self) -> None:
        for answer in (OK[:-2], OK, OK + BANNER[:-1]):
            await self.cancelled(RawHost(self, says(answer)))
