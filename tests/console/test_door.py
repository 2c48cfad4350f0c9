"""The door, with bad clients and bad hypervisors: each leaves a clear answer and one record, and nothing else."""

import socket
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.e2e.stage import SECONDS, StageCase, console_request, read_exactly, read_to_end
from tests.sim.pools import certificates
from xvpd.reason import Reason
from xvpd.sim.faults import ConsoleFault
from xvpd.sim.pool import SimulatedVm
from xvpd.sim.viewer import ViewerError

reactor: Any = installed_reactor


class StrangersTests(StageCase):
    """Clients that never show a good token."""

    async def refused(self, status: int, reason: Reason, *pieces: bytes) -> bytes:
        answer = await self.say(*pieces)
        line, _, _ = answer.partition(b"\r\n")
        self.assertTrue(line.startswith(f"HTTP/1.1 {status} ".encode()), line)
        self.assertIn(reason.sentence.encode(), answer)
        await self.until(lambda: self.outcomes() == [reason.word])
        return answer

    async def test_garbage(self) -> None:
        await self.raise_curtain()
        await self.refused(400, Reason.BAD_REQUEST, b"\x00\x01\x02 garbage\r\n\r\n")

    async def test_a_head_that_is_too_large(self) -> None:
        await self.raise_curtain()
        await self.refused(431, Reason.HEAD_TOO_LARGE, b"GET /console HTTP/1.1\r\nX: " + b"a" * 10000)

    async def test_a_head_that_comes_too_slowly(self) -> None:
        await self.raise_curtain(console={"handshake_timeout": 0.3})
        await self.refused(408, Reason.HEAD_SLOW, b"GET /con")

    async def test_a_head_that_never_comes(self) -> None:
        await self.raise_curtain(console={"handshake_timeout": 0.3})
        await self.refused(408, Reason.HEAD_SLOW)

    async def test_a_tls_handshake_that_never_comes(self) -> None:
        await self.raise_curtain(console={"handshake_timeout": 0.3})
        self.assertEqual(await self.in_thread(self.say_plainly), b"")
        await self.until(lambda: self.outcomes() == ["head_slow"])

    async def test_a_client_that_leaves_without_a_word(self) -> None:
        await self.raise_curtain()
        self.assertEqual(await self.say(close=True), b"")
        await self.until(lambda: self.outcomes() == ["client_left"])

    async def test_clear_text_where_tls_is_wanted(self) -> None:
        await self.raise_curtain()
        await self.in_thread(self.say_plainly, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await self.until(lambda: self.outcomes() == ["bad_request"])

    async def test_no_token(self) -> None:
        await self.raise_curtain()
        await self.refused(400, Reason.NO_TOKEN, b"CONNECT /console HTTP/1.0\r\n\r\n")

    async def test_a_token_that_was_never_issued(self) -> None:
        await self.raise_curtain()
        await self.refused(401, Reason.TOKEN_UNKNOWN, b"CONNECT /console?token=" + b"x" * 43 + b" HTTP/1.0\r\n\r\n")

    async def test_a_token_that_has_expired(self) -> None:
        await self.raise_curtain(grants={"ttl": 0.2})
        url = await self.issue("web-1")
        await deferLater(reactor, 0.3)
        await self.refused(401, Reason.TOKEN_EXPIRED, console_request(url))

    async def test_a_path_that_does_not_exist(self) -> None:
        await self.raise_curtain()
        await self.refused(404, Reason.NOT_FOUND, b"GET /etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n")

    async def test_a_method_that_is_not_allowed(self) -> None:
        await self.raise_curtain()
        answer = await self.refused(405, Reason.METHOD_NOT_ALLOWED, b"PUT /console?token=a HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"\r\nAllow: CONNECT, GET\r\n", answer)

    async def test_a_browser_burns_no_token(self) -> None:
        await self.raise_curtain()
        url = await self.issue("web-1", uses=1)
        target = url.partition(f":{self.console_port}")[2].encode()
        await self.refused(
            400, Reason.FOR_VIEWERS, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\n\r\n"
        )
        (await self.view(url)).close()

    async def test_more_connections_from_one_address_than_may_wait(self) -> None:
        await self.raise_curtain(console={"max_pending_per_client": 2})
        waiting = [await self.in_thread(self.connect) for _ in range(2)]
        self.assertEqual(await self.in_thread(self.say_plainly), b"")
        await self.until(lambda: self.outcomes() == ["too_many"])
        for client in waiting:
            client.close()
        await self.until(lambda: len(self.outcomes()) == 3)
        (await self.view(await self.issue("web-1"))).close()

    async def test_health_is_told_to_anyone_and_recorded_for_no_one(self) -> None:
        await self.raise_curtain()
        answer = await self.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nok\n"), answer)
        self.assertEqual(self.outcomes(), [])

    def say_plainly(self, data: bytes = b"") -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.console_port), SECONDS) as client:
                client.sendall(data)
                return read_to_end(client)
        except ConnectionError:
            return b""


class BadHypervisorsTests(StageCase):
    """Clients with a good token, and a hypervisor that does not do what it should."""

    async def refused(self, status: int, reason: Reason) -> None:
        """A viewer is told why, and its single use is given back: it is told the same again."""
        url = await self.issue("web-1", uses=1)
        for _ in range(2):
            with self.assertRaisesRegex(ViewerError, f"{status} {reason.sentence.removesuffix('.')}"):
                await self.view(url)
        await self.until(lambda: self.outcomes() == [reason.word] * 2)

    async def with_fault(self, fault: ConsoleFault) -> None:
        pool = await self.raise_curtain()
        pool.faults.order_console("*", fault)

    async def test_it_refuses(self) -> None:
        await self.with_fault(ConsoleFault(reply=b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n", then="close"))
        await self.refused(502, Reason.HYPERVISOR_REFUSED)

    async def test_it_says_that_the_console_is_in_use(self) -> None:
        reply = b"HTTP/1.1 503 Connection Limit Exceeded\r\nconnection: close\r\n\r\n<script>alert('root')</script>"
        await self.with_fault(ConsoleFault(reply=reply, then="close"))
        await self.refused(503, Reason.CONSOLE_BUSY)

    async def test_it_is_someone_else(self) -> None:
        pool = await self.raise_curtain()
        url = await self.issue("web-1")
        pool.present(pool.addresses[0], certificates()[2])
        with self.assertRaisesRegex(ViewerError, "502 The hypervisor could not prove its identity"):
            await self.view(url)
        await self.until(lambda: self.outcomes() == ["hypervisor_untrusted"])

    async def test_it_closes_after_its_200(self) -> None:
        await self.with_fault(ConsoleFault(reply=b"HTTP/1.1 200 OK\r\n\r\n", then="close"))
        await self.refused(502, Reason.HYPERVISOR_REFUSED)

    async def test_it_resets_the_connection(self) -> None:
        await self.with_fault(ConsoleFault(reply=b"HTTP/1.1 2", then="reset"))
        await self.refused(502, Reason.HYPERVISOR_PROTOCOL)

    async def test_it_answers_nonsense(self) -> None:
        await self.with_fault(ConsoleFault(reply=b"SSH-2.0-OpenSSH_9.9\r\n\r\n", then="close"))
        await self.refused(502, Reason.HYPERVISOR_PROTOCOL)

    async def test_it_answers_without_end(self) -> None:
        await self.with_fault(ConsoleFault(reply=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 9216, then="silence"))
        await self.refused(502, Reason.HYPERVISOR_PROTOCOL)

    async def test_its_banner_comes_in_the_segment_of_its_head(self) -> None:
        await self.with_fault(ConsoleFault(banner_in_segment=True))
        (await self.view(await self.issue("web-1"))).close()

    async def test_its_answer_comes_byte_by_byte(self) -> None:
        await self.with_fault(ConsoleFault(piece=1))
        (await self.view(await self.issue("web-1"))).close()

    async def test_it_has_no_such_vm_any_more(self) -> None:
        pool = await self.raise_curtain()
        url = await self.issue("web-1", uses=1)
        vm = pool.state.vm_named("web-1")
        pool.state.do(vm, "hard_shutdown")
        pool.state.do(vm, "destroy")
        with self.assertRaisesRegex(ViewerError, "404 The virtual machine does not exist"):
            await self.view(url)


class BadVncServersTests(StageCase):
    """Clients with a good token, and behind an honest host a VNC server that is not what it should be."""

    async def stage_with(self, *says: bytes, closes: bool = True) -> str:
        """A console URL for a VM whose VNC server says this, the second and later pieces each after it has heard something."""
        factory: Any = Factory.forProtocol(ScriptedVnc)
        factory.says, factory.closes = says, closes
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        await self.raise_curtain(vms=[SimulatedVm("web-1", vnc=f"127.0.0.1:{port.getHost().port}")])
        return await self.issue("web-1", uses=1)

    async def test_it_wants_a_password(self) -> None:
        url = await self.stage_with(b"RFB 003.008\n", b"\x01\x02", closes=False)
        with self.assertRaisesRegex(ViewerError, "502 The hypervisor did not answer as expected"):
            await self.view(url)
        await self.until(lambda: self.outcomes() == ["hypervisor_protocol"])

    async def test_it_closes_in_the_middle_of_the_opening(self) -> None:
        url = await self.stage_with(b"RFB 003.008\n", b"\x01")
        with self.assertRaisesRegex(ViewerError, "502 The hypervisor refused the console"):
            await self.view(url)
        await self.until(lambda: self.outcomes() == ["hypervisor_refused"])

    async def test_it_closes_when_the_viewer_has_been_let_in(self) -> None:
        url = await self.stage_with(b"RFB 003.008\n", b"\x01\x01", b"\0\0\0\0", b"")
        with self.assertRaisesRegex(ViewerError, "closed"):
            await self.view(url)
        await self.until(lambda: self.outcomes() == ["hypervisor_closed"])

    async def test_its_name_has_no_end(self) -> None:
        url = await self.stage_with(b"RFB 003.008\n", b"\x01\x01", b"\0\0\0\0", b"\0" * 20 + b"\xff" * 4, closes=False)
        with self.assertRaisesRegex(ViewerError, "closed"):
            await self.view(url)
        await self.until(lambda: self.outcomes() == ["hypervisor_protocol"])

    async def test_a_viewer_leaves_in_the_middle_of_the_opening(self) -> None:
        url = await self.stage_with(b"RFB 003.008\n", b"\x01\x01", b"\0\0\0\0", closes=False)
        client = await self.in_thread(self.connect)
        await self.in_thread(client.sendall, console_request(url))
        self.assertEqual(await self.in_thread(read_exactly, client, 31), b"HTTP/1.1 200 OK\r\n\r\nRFB 003.008\n")
        client.close()
        await self.until(lambda: self.outcomes() == ["client_left"])


class ScriptedVnc(Protocol):
    """Says what its factory has to say."""

    factory: Any

    def connectionMade(self) -> None:
        self.left = list(self.factory.says)
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        if self.left:
            self.transport.write(self.left.pop(0))
        if not self.left and self.factory.closes:
            self.transport.loseConnection()


class ConsolesTests(StageCase):
    """Clients that are let through."""

    async def test_a_client_that_leaves_while_the_hypervisor_is_dialled_stops_the_dial(self) -> None:
        pool = await self.raise_curtain()
        pool.faults.order_console("*", ConsoleFault(delay=3600))
        url = await self.issue("web-1", uses=1)
        client = await self.in_thread(self.connect)
        await self.in_thread(client.sendall, console_request(url))
        await self.until(lambda: sum(map(pool.connections, pool.addresses)) > 1)
        client.close()
        await self.until(lambda: self.outcomes() == ["client_left"])
        pool.faults.lift()
        (await self.view(url)).close()

    async def test_a_client_that_does_not_speak_rfb(self) -> None:
        await self.raise_curtain()
        answer = await self.say(console_request(await self.issue("web-1")) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(answer, b"HTTP/1.1 200 OK\r\n\r\nRFB 003.008\n")
        await self.until(lambda: self.outcomes() == ["client_protocol"])

    async def test_a_second_viewer_does_not_throw_the_first_one_out(self) -> None:
        await self.raise_curtain()
        url = await self.issue("web-1")
        first = await self.view(url)
        exclusive = console_request(url) + b"RFB 003.008\n\x01\x00"
        client = await self.in_thread(self.connect)
        await self.in_thread(client.sendall, exclusive)
        await self.until(lambda: len(self.daemon.sessions) == 2)
        await self.in_thread(first.framebuffer)
        first.close()
        client.close()

    async def test_more_viewers_of_one_machine_than_may_be(self) -> None:
        await self.raise_curtain(console={"max_sessions_per_vm": 1})
        url = await self.issue("web-1")
        with await self.view(url), self.assertRaisesRegex(ViewerError, "429"):
            await self.view(url)

    async def test_the_hypervisor_ends_the_console(self) -> None:
        pool = await self.raise_curtain()
        viewer = await self.view(await self.issue("web-1"))
        pool.state.do(pool.state.vm_named("web-1"), "hard_reboot")
        with self.assertRaisesRegex(ViewerError, "closed"):
            await self.in_thread(viewer.framebuffer)
        await self.until(lambda: self.outcomes() == ["hypervisor_closed"])
        viewer.close()

    async def test_a_single_use_is_there_again_after_a_reboot(self) -> None:
        pool = await self.raise_curtain()
        url = await self.issue("web-1", uses=1)
        viewer = await self.view(url)
        pool.state.do(pool.state.vm_named("web-1"), "hard_reboot")
        await self.until(lambda: self.outcomes() == ["hypervisor_closed"])
        viewer.close()
        (await self.view(url)).close()
