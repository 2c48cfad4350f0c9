"""What a host puts on the wire, held to xapi's replies byte for byte."""

import base64
import random
import socket
import ssl
import xmlrpc.client
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.sim.pools import OPEN, PoolCase, connect, console_request, opening, read_exactly, sdk
from xvpd.sim.faults import EVERYWHERE, ApiFault, Faults
from xvpd.sim.host import HostConnection, HostServer
from xvpd.sim.model import Account, PoolState
from xvpd.sim.pool import SimulatedVm
from xvpd.sim.xapi import Xapi

_PAGE_HEADERS = "content-type: text/html\r\nconnection: close\r\ncache-control: no-cache, no-store\r\n"
_INTERNAL = (
    "<html><body><h1>HTTP 500 internal server error</h1>An unexpected error occurred; please wait a while and try again. If "
    "the problem persists, please contact your support representative.<h1> Additional information </h1>{}</body></html>"
)


def page(status: str, body: str, more: str = "", version: str = "1.1") -> bytes:
    return f"HTTP/{version} {status}\r\ncontent-length: {len(body)}\r\n{_PAGE_HEADERS}{more}\r\n{body}".encode()


UNAUTHORISED = page(
    "401 Unauthorised",
    "<html><body><h1>HTTP 401 unauthorised</h1>Please check your credentials and retry.</body></html>",
    'WWW-Authenticate: Basic realm="connect_console"\r\n',
)
FORBIDDEN = page(
    "403 Forbidden",
    "<html><body><h1>HTTP 403 forbidden</h1>Access to the requested resource is forbidden.</body></html>",
)
FAILURE = page("500 Internal Error", _INTERNAL.format("Console.Failure"))


class ConsoleReplies(PoolCase):
    """``CONNECT /console``."""

    async def test_a_console_that_may_be_had_is_a_200_and_then_rfb(self) -> None:
        pool = self.pool()

        def work(request: bytes) -> tuple[bytes, bytes, tuple[int, int, str]]:
            with connect(pool) as connection:
                connection.sendall(request)
                reply, banner = read_exactly(connection, len(OPEN)), read_exactly(connection, 12)
                return reply, banner, opening(connection)

        for version in ("1.1", "1.0"):
            reply, banner, init = await self.in_thread(work, console_request(pool, version=version))
            self.assertEqual(reply, OPEN)
            self.assertEqual(banner, b"RFB 003.008\n")
            self.assertEqual(init, (640, 400, "web-1"))

    async def test_what_is_sent_ahead_reaches_the_console(self) -> None:
        pool = self.pool()

        def work(request: bytes) -> bytes:
            with connect(pool) as connection:
                connection.sendall(request + b"RFB 003.008\n\1")
                return read_exactly(connection, len(OPEN) + 12 + 2 + 4)

        reply = await self.in_thread(work, console_request(pool))
        self.assertEqual(reply, OPEN + b"RFB 003.008\n\1\1\0\0\0\0")

    async def test_a_console_may_be_named_by_the_vm_or_by_itself(self) -> None:
        pool = self.pool()
        vm = pool.state.vm_named("web-1")
        record = pool.state.record("VM", vm)
        console = record["consoles"][0]
        names = [
            f"ref={vm}",
            f"uuid={record['uuid']}",
            f"ref={console}",
            f"uuid={pool.state.record('console', console)['uuid']}",
            f"ref=OpaqueRef:nothing&uuid={record['uuid']}",
            f"uuid={record['uuid']}&uuid=another",
        ]
        session = pool.state.log_in(pool.username, pool.password, "tests")

        for name in names:
            request = f"CONNECT /console?{name}&session_id={session} HTTP/1.0\r\n\r\n".encode()
            (await self.watching(pool, request)).close()

    async def test_whoever_is_not_logged_in_is_unauthorised(self) -> None:
        pool = self.pool()
        ref = pool.state.vm_named("web-1")
        session = pool.state.log_in(pool.username, pool.password, "tests")
        lines = [
            "",
            "Cookie: session_id=OpaqueRef:nobody\r\n",
            f"Cookie: a=b; session_id={session}\r\n",  # xapi does not trim: this is a cookie named " session_id"
            f"Authorization: Basic {base64.b64encode(b'root:wrong').decode()}\r\n",
            "Authorization: Basic not-base64\r\n",
        ]
        for line in lines:
            request = f"CONNECT /console?ref={ref} HTTP/1.1\r\n{line}\r\n".encode()
            self.assertEqual(await self.asked(pool, request), UNAUTHORISED, line)

    async def test_the_reply_to_http_1_0_is_http_1_0(self) -> None:
        pool = self.pool()
        request = console_request(pool, session="OpaqueRef:nobody", version="1.0")
        reply = await self.asked(pool, request)
        self.assertEqual(reply, UNAUTHORISED.replace(b"HTTP/1.1", b"HTTP/1.0"))

    async def test_http_basic_opens_a_console_and_leaves_no_session(self) -> None:
        pool = self.pool()
        ref = pool.state.vm_named("web-1")
        credentials = base64.b64encode(f"{pool.username}:{pool.password}".encode()).decode()

        def work() -> bytes:
            with connect(pool) as connection:
                connection.sendall(
                    f"CONNECT /console?ref={ref} HTTP/1.1\r\nAuthorization: Basic {credentials}\r\n\r\n".encode()
                )
                return read_exactly(connection, len(OPEN))

        self.assertEqual(await self.in_thread(work), OPEN)
        self.assertEqual(pool.state.xapi_sessions, {})

    async def test_a_role_that_may_only_read_is_forbidden(self) -> None:
        pool = self.pool()
        pool.state.accounts["reader"] = Account("pass", "read-only")
        session = pool.state.log_in("reader", "pass", "tests")
        reply = await self.asked(pool, console_request(pool, session=session))
        self.assertEqual(reply, FORBIDDEN)

    async def test_a_control_domain_is_for_administrators(self) -> None:
        pool = self.pool()
        pool.state.accounts["operator"] = Account("pass", "vm-operator")
        session = pool.state.log_in("operator", "pass", "tests")
        request = console_request(pool, "Control domain on host: host-1", session)
        reply = await self.asked(pool, request)
        self.assertIn(b"500 Internal Error", reply)
        self.assertIn(b"RBAC_PERMISSION_DENIED", reply)

    async def test_what_cannot_be_shown_is_an_internal_error(self) -> None:
        pool = self.pool()
        session = pool.state.log_in(pool.username, pool.password, "tests")
        pool.state.do(pool.state.vm_named("legacy-pv"), "pause")
        requests = {
            "it is halted": (console_request(pool, "build-agent", session), FAILURE),
            "it is paused": (console_request(pool, "legacy-pv", session), FAILURE),
            "it runs on the other host": (console_request(pool, "db-1", session), FAILURE),
            "nothing is named": (f"CONNECT /console?session_id={session} HTTP/1.1\r\n\r\n".encode(), FAILURE),
            "nobody has the uuid": (f"CONNECT /console?uuid=1&session_id={session} HTTP/1.1\r\n\r\n".encode(), FAILURE),
        }
        for case, (request, expected) in requests.items():
            self.assertEqual(await self.asked(pool, request), expected, case)

    async def test_a_vm_without_a_vnc_server_is_not_found(self) -> None:
        pool = self.pool()
        pool.vnc_server_away("web-1")
        reply = await self.asked(pool, console_request(pool))
        self.assertEqual(reply, b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n")

    async def test_a_limited_pool_has_one_viewer_for_each_vm_and_names_it(self) -> None:
        pool = self.pool()
        pool.state.set_policy(limit_console_sessions=True)
        pool.state.accounts["<script>"] = Account("pass")
        session = pool.state.log_in("<script>", "pass", "tests")

        first = await self.watching(pool, console_request(pool, session=session))
        body = (
            "<html><body><h1>Connection Limit Exceeded</h1><p>User '&lt;script&gt;' is currently connected to this console. "
            "No new connections are allowed. Please check the limit_console_sessions config and try again later.</p>"
            "</body></html>"
        )
        reply = await self.asked(pool, console_request(pool))
        self.assertEqual(reply, page("503 Connection Limit Exceeded", body))
        upgrade = console_request(pool).replace(b"CONNECT", b"GET").replace(b"Host:", b"Sec-WebSocket-Key: abc\r\nHost:")
        reply = await self.asked(pool, upgrade)
        self.assertEqual(
            reply,
            b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n",
        )
        first.close()
        await self.until(lambda: pool.connections("127.0.0.1") == 0)

        (await self.watching(pool, console_request(pool))).close()

    async def test_a_full_vncterm_is_a_200_and_then_the_end(self) -> None:
        pool = self.pool()

        request = console_request(pool, "legacy-pv")
        eight = [await self.watching(pool, request) for _ in range(8)]
        self.assertEqual(await self.asked(pool, request), OPEN)
        for connection in eight:
            connection.close()


class OtherRequests(PoolCase):
    """Heads, paths and methods."""

    async def test_a_head_has_1006_bytes_at_most(self) -> None:
        pool = self.pool()

        def padded(length: int) -> bytes:
            request = console_request(pool, session="OpaqueRef:nobody")[:-2] + b"X-Padding: "
            return request + b"x" * (length - len(request) - 4) + b"\r\n\r\n"

        too_large = page(
            "431 Request Header Fields Too Large",
            "<html><body><h1>HTTP 431 request header fields too large</h1>Exceeded the maximum header size.</body></html>",
        )
        self.assertEqual(await self.asked(pool, padded(1006)), UNAUTHORISED)
        self.assertEqual(await self.asked(pool, padded(1007)), too_large)
        self.assertEqual(await self.asked(pool, b"x" * 1003), too_large)

    async def test_what_nobody_serves(self) -> None:
        pool = self.pool()
        not_implemented = "<html><body><h1>HTTP 501 Method Not Implemented</h1><p>{} not supported.<br /></p></body></html>"
        unreadable = page("500 Internal Error", _INTERNAL.format("The HTTP headers could not be parsed."))
        no_length = _INTERNAL.format("Failure(&quot;We require a content-length: HTTP header&quot;)")
        cases = {
            b"CONNECT /elsewhere HTTP/1.1\r\n\r\n": FORBIDDEN,
            b"GET / HTTP/1.1\r\n\r\n": FORBIDDEN,
            b"BREW /console HTTP/1.1\r\n\r\n": page("501 Method not implemented", not_implemented.format("Unknown BREW")),
            b"nonsense\r\n\r\n": unreadable,
            b"GET / HTTP/1.1 and more\r\n\r\n": unreadable,
            b"POST / HTTP/1.1\r\n\r\n": page("500 Internal Error", no_length),
            b"GET http://[/ HTTP/1.1\r\n\r\n": unreadable,
        }
        for request, expected in cases.items():
            self.assertEqual(await self.asked(pool, request), expected, request)

    async def test_a_call_that_is_no_xml_or_too_large_is_an_internal_error(self) -> None:
        pool = self.pool()
        for body in (b"", b"<methodCall>", b"\xff\xfe", b"<?xml version='1.0'?><a/>"):
            request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            self.assertIn(b"500 Internal Error", await self.asked(pool, request), body)
        huge = b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n"
        self.assertIn(b"Client_requested_size_over_limit", await self.asked(pool, huge))

    async def test_calls_may_be_sent_ahead_and_are_answered_in_order(self) -> None:
        pool = self.pool()
        session = pool.state.log_in(pool.username, pool.password, "tests")
        call = "<methodCall><methodName>{}</methodName><params><param><value>{}</value></param></params></methodCall>"
        requests = b""
        for method in ("pool.get_all", "host.get_all", "nothing.at_all"):
            body = call.format(method, session).encode()
            close = b"Connection: close\r\n" if method == "nothing.at_all" else b""
            requests += b"POST /RPC2 HTTP/1.1\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), close, body)
        answer = await self.asked(pool, requests)
        first, second, third = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
        self.assertIn(pool.state.pool.encode(), first)
        self.assertIn(pool.state.coordinator.encode(), second)
        self.assertIn(b"MESSAGE_METHOD_UNKNOWN", third)
        self.assertIn(b"connection: keep-alive\r\ncache-control: no-cache, no-store\r\ncontent-type: text/xml\r\n\r\n", first)
        self.assertIn(b"connection: close\r\n", third)

    async def test_a_screenshot_is_a_jpeg(self) -> None:
        pool = self.pool()
        request = console_request(pool).replace(b"CONNECT /console", b"GET /vncsnapshot")[:-2] + b"Connection: close\r\n\r\n"
        head, _, body = (await self.asked(pool, request)).partition(b"\r\n\r\n")
        self.assertEqual(head, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: keep-alive" % len(body))
        self.assertEqual((body[:3], body[-2:]), (b"\xff\xd8\xff", b"\xff\xd9"))

    async def test_a_screenshot_needs_a_session(self) -> None:
        pool = self.pool()
        reply = await self.asked(pool, b"GET /vncsnapshot?uuid=1 HTTP/1.1\r\n\r\n")
        self.assertEqual(reply, UNAUTHORISED.replace(b"connect_console", b"get_vncsnapshot"))

    async def test_without_tls_the_same_is_served(self) -> None:
        pool = self.pool(plain=True)
        reply = await self.asked(pool, console_request(pool, session="OpaqueRef:nobody"))
        self.assertEqual(reply, UNAUTHORISED)


class Room(PoolCase):
    """How many connections a host takes."""

    async def test_a_full_host_hangs_until_somebody_leaves(self) -> None:
        pool = self.pool(max_connections=2)

        def fill() -> list[socket.socket]:
            connections = [connect(pool) for _ in range(2)]
            connections.append(socket.create_connection(("127.0.0.1", pool.port), 10))
            return connections

        first, second, third = await self.in_thread(fill)
        await self.until(lambda: pool.connections("127.0.0.1") == 3)
        third.settimeout(0.05)
        self.assertRaises(TimeoutError, ssl.create_default_context().wrap_socket, third, server_hostname="127.0.0.1")
        waiting = self.in_thread(sdk, pool)
        await self.until(lambda: pool.connections("127.0.0.1") == 3)
        first.close()
        session = await waiting
        self.assertTrue(session.handle.startswith("OpaqueRef:"))
        session("close")()
        second.close()


class Streams(PoolCase):
    """What becomes of an open console."""

    VMS: ClassVar = (SimulatedVm("web-1"),)

    async def test_the_end_of_the_domain_is_the_end_of_the_stream(self) -> None:
        for operation in ("hard_reboot", "clean_shutdown", "suspend", "pool_migrate"):
            pool = self.pool(vms=self.VMS)
            with await self.watching(pool, console_request(pool)) as connection:
                pool.state.do(pool.state.vm_named("web-1"), operation, pool.state.host_at("127.0.0.2"))
                self.assertEqual(await self.in_thread(connection.recv, 1), b"", operation)

    async def test_pause_and_logout_leave_the_stream_alone(self) -> None:
        pool = self.pool(vms=self.VMS)
        with await self.watching(pool, console_request(pool)) as connection:
            pool.state.do(pool.state.vm_named("web-1"), "pause")
            pool.state.expire_sessions()
            self.assertEqual(await self.in_thread(opening, connection), (640, 400, "web-1"))

    async def test_after_a_migration_the_new_host_has_the_console_and_the_old_one_has_not(self) -> None:
        pool = self.pool(vms=self.VMS)
        pool.state.do(pool.state.vm_named("web-1"), "pool_migrate", pool.state.host_at("127.0.0.2"))
        self.assertEqual(await self.asked(pool, console_request(pool)), FAILURE)

        (await self.watching(pool, console_request(pool), "127.0.0.2")).close()


class Transport(StringTransport):
    """Knows of aborts, and of TCP_NODELAY."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It makes no difference here."""

    def unregisterProducer(self) -> None:
        """Real transports do not mind when there is none."""


class Deadlines(SynchronousTestCase):
    """Time, and bytes that nobody would send, without a network."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.state = PoolState("pool", random.Random(1))
        self.state.accounts["root"] = Account("secret")
        host = self.state.add_host("host-1", "127.0.0.1")
        self.faults = Faults()
        self.server = HostServer(
            self.state,
            host,
            Xapi(self.state, host, self.clock, self.faults, lambda _: b"PEM"),
            self.faults,
            self.clock,
            console_of=lambda _: None,
            picture_of=lambda _: None,
        )

    def connect(self) -> tuple[HostConnection, Transport]:
        connection, transport = self.server.buildProtocol(None), Transport()
        connection.makeConnection(transport)
        return connection, transport

    def test_a_client_that_says_nothing_for_ten_seconds(self) -> None:
        _, transport = self.connect()
        self.clock.advance(9.9)
        self.assertEqual(transport.value(), b"")
        self.clock.advance(0.2)
        self.assertEqual(
            transport.value(),
            page(
                "408 Request Timeout",
                "<html><body><h1>HTTP 408 request timeout</h1>Timed out waiting for the request.</body></html>",
            ),
        )
        self.assertTrue(transport.disconnecting)

    def test_a_client_that_takes_a_minute_for_its_head(self) -> None:
        connection, transport = self.connect()
        for _ in range(11):
            connection.dataReceived(b"x")
            self.clock.advance(5)
        self.assertEqual(transport.value(), b"")
        self.clock.advance(5)
        self.assertIn(b"408 Request Timeout", transport.value())

    def test_between_two_requests_there_is_no_limit(self) -> None:
        session = self.state.log_in("root", "secret", "")
        connection, transport = self.connect()
        body = xmlrpc.client.dumps((session,), "pool.get_all").encode()
        call = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        connection.dataReceived(call)
        self.clock.advance(3600)
        transport.clear()
        connection.dataReceived(call)
        self.assertIn(self.state.pool.encode(), transport.value())
        self.assertFalse(transport.disconnecting)

    def test_a_client_that_does_not_take_the_end_is_aborted(self) -> None:
        connection, transport = self.connect()
        connection.dataReceived(b"nonsense\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.clock.advance(5)
        self.assertTrue(transport.aborted)
        connection.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_a_waiting_client_sends_ahead_is_limited(self) -> None:
        self.faults.order_api(EVERYWHERE, ApiFault(delay=60))
        session = self.state.log_in("root", "secret", "")
        body = xmlrpc.client.dumps((session,), "pool.get_all").encode()
        connection, transport = self.connect()
        connection.dataReceived(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        connection.dataReceived(b"x" * 70000)
        self.assertEqual(transport.producerState, "paused")
        self.clock.advance(60)
        self.assertIn(b"431 Request Header Fields Too Large", transport.value())

    def test_a_vm_whose_screen_cannot_be_pictured(self) -> None:
        session = self.state.log_in("root", "secret", "")
        dom0 = self.state.vm_named("Control domain on host: host-1")
        connection, transport = self.connect()
        connection.dataReceived(f"GET /vncsnapshot?ref={dom0}&session_id={session} HTTP/1.1\r\n\r\n".encode())
        self.assertIn(b"500 Internal Error", transport.value())

    def test_a_mistake_of_ours_is_answered_and_logged(self) -> None:
        self.state.record("pool", self.state.pool)["uuid"] = object()  # what XML-RPC cannot carry
        session = self.state.log_in("root", "secret", "")
        body = xmlrpc.client.dumps((session,), "pool.get_all_records").encode()
        connection, transport = self.connect()
        connection.dataReceived(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        self.assertIn(b"500 Internal Error", transport.value())
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.sampled_from(
                    [
                        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n<a>",
                        b"CONNECT /console?ref=a&uuid=b HTTP/1.1\r\n\r\n",
                        b"GET /vncsnapshot HTTP/1.0\r\nCookie: session_id=x\r\n\r\n",
                        b"Content-Length: 99999\r\n",
                        b"\r\n\r\n",
                    ]
                ),
            ),
            max_size=8,
        )
    )
    def test_whatever_is_sent_is_answered_or_waited_for(self, pieces: list[bytes]) -> None:
        self.setUp()
        connection, transport = self.connect()
        for piece in pieces:
            connection.dataReceived(piece)
        self.clock.pump([1] * 70)
        answer = transport.value()  # nothing, if the body of a call has not all come: for that, xapi waits for ever
        self.assertTrue(not answer or answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), answer)
        connection.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])
