"""The API's HTTP: limits, deadlines, errors, the log."""

import contextlib
import socket
import ssl
from io import BytesIO
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from tests.api.asking import ISSUER_KEY, METRICS_KEY, OPERATOR_KEY, ApiTestCase, Connection, raw
from tests.certificates import make_identity
from xvpd.api.auth import KeysFile, Role
from xvpd.api.reply import NO_CONTENT, Reply
from xvpd.api.route import Answer, Call, Route
from xvpd.api.site import BODY_LIMIT, REQUEST_SECONDS, ApiChannel, ApiSite
from xvpd.grants.grant import mint_id
from xvpd.net.tls import ServerTls
from xvpd.reason import Reason, Refusal

reactor: Any = _reactor


class Asking(ApiTestCase):
    """With some routes that do what real ones should not."""

    def setUp(self) -> None:
        self.calls: list[Call] = []
        self.pending: Deferred[None] = Deferred()
        self.ended: list[str] = []
        anyone = frozenset(Role)
        self.more_routes = (
            Route("POST", "/echo/{word}", self.echo, anyone),
            Route("GET", "/crash", self.crash, anyone),
            Route("GET", "/wait", self.wait, anyone),
            Route("GET", "/odd", self.odd, anyone),
            Route("GET", "/done", self.done, anyone),
            Route("GET", "/stubborn", self.stubborn, anyone),
        )
        super().setUp()

    async def echo(self, call: Call) -> Answer:
        self.calls.append(call)
        return Reply(200, call.body, "application/octet-stream")

    async def crash(self, call: Call) -> Answer:
        raise RuntimeError("canary-of-the-crash")

    async def wait(self, call: Call) -> Answer:
        try:
            await self.pending
        finally:
            self.ended.append(call.request_id)
        return Reply(200, b"waited", "text/plain")

    async def stubborn(self, call: Call) -> Answer:
        with contextlib.suppress(CancelledError):
            await self.pending
        return Reply(200, b"done all the same", "text/plain")

    async def done(self, call: Call) -> Answer:
        return NO_CONTENT

    async def odd(self, call: Call) -> Answer:
        return Refusal(Reason.CLIENT_CLOSED)


class Answers(Asking):
    def test_every_answer_has_these_headers(self) -> None:
        for answer in (
            self.ask("GET", "/healthz"),
            self.ask("GET", "/nothing"),
            self.ask("GET", "/nothing", ISSUER_KEY),
            self.ask("POST", "/echo/x", ISSUER_KEY, b"x" * (BODY_LIMIT + 1)),
        ):
            self.assertEqual(answer.headers["server"], "xvpd")
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["date"], "Tue, 14 Nov 2023 22:13:20 GMT")
            self.assertRegex(answer.headers["x-request-id"], r"^[A-Za-z0-9_-]{16}$")
            self.assertEqual(answer.headers["content-length"], str(len(answer.body)))

    def test_a_request_id_is_our_own(self) -> None:
        answer = self.ask("GET", "/healthz", X_Request_Id="canary")
        self.assertNotIn("canary", str(answer.headers))

    def test_a_handler_sees_the_request(self) -> None:
        answer = self.ask("POST", "/echo/a%20b?token=canary", ISSUER_KEY, b"\x00\xff", Content_Type="x/y")
        self.assertEqual(answer.body, b"\x00\xff")
        (call,) = self.calls
        assert call.caller is not None
        self.assertEqual((call.caller.name, call.variables, call.content_type), ("portal", {"word": "a b"}, "x/y"))
        self.assertEqual(call.request_id, answer.headers["x-request-id"])

    def test_an_answer_without_content_does_not_say_how_long_nothing_is(self) -> None:
        answer = self.ask("GET", "/done", ISSUER_KEY)
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertIn("x-request-id", answer.headers)
        for header in ("content-length", "content-type", "transfer-encoding"):
            self.assertNotIn(header, answer.headers)

    def test_a_handler_sees_the_query_as_it_was_sent(self) -> None:
        for path, query in (("/echo/x?a=%41+b&c?d", "a=%41+b&c?d"), ("/echo/x?", ""), ("/echo/x", "")):
            self.ask("POST", path, ISSUER_KEY, b"")
            self.assertEqual(self.calls.pop().query, query)

    def test_requests_one_after_the_other_on_one_connection(self) -> None:
        connection = Connection(self.site)
        connection.send(
            raw("POST", "/echo/x", ISSUER_KEY, b"1") + raw("GET", "/healthz") + raw("POST", "/echo/x", ISSUER_KEY, b"2")
        )
        self.assertEqual([answer.body for answer in connection.answers()], [b"1", b"ok\n", b"2"])
        self.assertFalse(connection.transport.disconnecting)

    def test_a_request_may_come_byte_by_byte(self) -> None:
        connection = Connection(self.site)
        for byte in raw("POST", "/echo/x", ISSUER_KEY, b"body"):
            connection.send(bytes([byte]))
        self.assertEqual([answer.body for answer in connection.answers()], [b"body"])


class WhoMay(Asking):
    def test_without_a_key_everything_else_is_401(self) -> None:
        for method, path in (
            ("POST", "/v1/consoles"),
            ("GET", "/metrics"),
            ("GET", "/"),
            ("GET", "/nothing"),
            ("DELETE", "/v1/consoles"),
            ("POST", "/healthz"),
            ("OPTIONS", "*"),
            ("GET", "http://api/healthz"),
        ):
            answer = self.ask(method, path)
            self.assert_problem(answer, 401, "unauthorized")
            self.assertEqual(answer.headers["www-authenticate"], "Bearer")

    def test_with_a_key_one_learns_what_is_there(self) -> None:
        self.assert_problem(self.ask("GET", "/nothing", ISSUER_KEY), 404, "not_found")
        answer = self.ask("DELETE", "/v1/consoles", ISSUER_KEY)
        self.assert_problem(answer, 405, "method_not_allowed")
        self.assertEqual(answer.headers["allow"], "POST, GET, HEAD")
        self.assertEqual(self.ask("POST", "/healthz", ISSUER_KEY).headers["allow"], "GET, HEAD")

    def test_a_key_is_shown_as_a_bearer_token_once(self) -> None:
        for good in (f"Bearer {ISSUER_KEY}", f"bearer  {ISSUER_KEY}"):
            self.assert_problem(self.ask("GET", "/nothing", Authorization=good), 404, "not_found")
        for bad in (ISSUER_KEY, f"Basic {ISSUER_KEY}", "Bearer", f"Bearer {ISSUER_KEY}, Bearer x", f"Bearer {ISSUER_KEY} x"):
            self.assert_problem(self.ask("GET", "/nothing", Authorization=bad), 401, "unauthorized")
        connection = Connection(self.site)
        two = f"Authorization: Bearer {ISSUER_KEY}\r\n" * 2
        connection.send(f"GET /nothing HTTP/1.1\r\n{two}\r\n".encode())
        self.assert_problem(connection.answers()[0], 401, "unauthorized")

    def test_a_key_in_the_query_is_no_key(self) -> None:
        self.assert_problem(self.ask("GET", f"/metrics?key={METRICS_KEY}&access_token={METRICS_KEY}"), 401, "unauthorized")

    def test_a_keys_file_that_broke_is_our_fault_and_not_the_callers(self) -> None:
        self.write_keys("nonsense")
        answer = self.ask("GET", "/metrics", METRICS_KEY)
        self.assert_problem(answer, 500, "internal")
        self.assertNotIn(self.keys_path.encode(), answer.body)


class Failures(Asking):
    def test_an_exception_is_a_500_that_tells_nothing_but_the_request_id(self) -> None:
        with capturedLogs() as events:
            answer = self.ask("GET", "/crash", ISSUER_KEY)
        self.assert_problem(answer, 500, "internal", Reason.INTERNAL.sentence)
        self.assertNotIn(b"canary", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        (critical,) = [event for event in events if event["log_level"] is LogLevel.critical]
        self.assertEqual(critical["request_id"], answer.headers["x-request-id"])

    def test_a_reason_that_is_none_for_a_request_is_a_500(self) -> None:
        self.assert_problem(self.ask("GET", "/odd", ISSUER_KEY), 500, "internal")
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)

    def test_a_client_that_leaves_cancels_the_work(self) -> None:
        connection = Connection(self.site)
        connection.send(raw("GET", "/wait", ISSUER_KEY))
        self.assertEqual((connection.answers(), self.ended), ([], []))
        connection.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(connection.transport.value(), b"")

    def test_an_answer_that_comes_after_its_client_left_goes_nowhere(self) -> None:
        connection = Connection(self.site)
        connection.send(raw("GET", "/stubborn", ISSUER_KEY))
        connection.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(connection.transport.value(), b"")

    def test_an_answer_that_takes_longer_than_a_request_may_is_awaited(self) -> None:
        connection = Connection(self.site)
        connection.send(raw("GET", "/wait", ISSUER_KEY))
        self.clock.advance(REQUEST_SECONDS + 1)
        self.pending.callback(None)
        self.assertEqual([answer.body for answer in connection.answers()], [b"waited"])


class Bodies(Asking):
    def test_a_body_up_to_the_limit(self) -> None:
        self.assertEqual(len(self.ask("POST", "/echo/x", ISSUER_KEY, b"x" * BODY_LIMIT).body), BODY_LIMIT)

    def test_a_longer_one_is_refused_before_it_comes(self) -> None:
        connection = Connection(self.site)
        head = raw("POST", "/echo/x", ISSUER_KEY, Content_Length=str(BODY_LIMIT + 1), Expect="100-continue")
        connection.send(head)
        (answer,) = connection.answers()
        self.assert_problem(answer, 413, "body_too_large")
        self.assertEqual(answer.headers["connection"], "close")

    def test_a_refused_body_is_dropped_and_then_the_connection_closed(self) -> None:
        connection = Connection(self.site)
        connection.send(raw("POST", "/echo/x", ISSUER_KEY, Content_Length=str(BODY_LIMIT + 1)))
        connection.send(b"x" * BODY_LIMIT)
        self.assertFalse(connection.transport.disconnecting)
        connection.send(b"x" + raw("GET", "/healthz"))
        self.assertTrue(connection.transport.disconnecting)
        self.assertEqual([answer.status for answer in connection.answers()], [413])
        self.assertEqual(self.calls, [])

    def test_a_refused_body_without_end_is_dropped_for_some_seconds(self) -> None:
        connection = Connection(self.site)
        connection.send(raw("POST", "/echo/x", ISSUER_KEY, Content_Length="9" * 30))
        for _ in range(5):
            self.assertFalse(connection.transport.disconnecting)
            connection.send(b"x" * BODY_LIMIT)
            self.clock.advance(1)
        self.assertTrue(connection.transport.disconnecting)

    def test_chunked_bodies_are_refused(self) -> None:
        for headers in ({}, {"Expect": "100-continue"}):
            connection = Connection(self.site)
            connection.send(raw("POST", "/echo/x", ISSUER_KEY, Transfer_Encoding="chunked", **headers))
            connection.send(b"4\r\nbody\r\n0\r\n\r\n" + raw("GET", "/healthz"))
            (answer,) = connection.answers()
            self.assert_problem(answer, 411, "length_required")
            self.assertTrue(connection.transport.disconnecting)
        self.assertEqual(self.calls, [])

    def test_a_body_that_was_promised_and_is_wanted_is_asked_for(self) -> None:
        connection = Connection(self.site)
        connection.send(raw("POST", "/echo/x", ISSUER_KEY, Content_Length="2", Expect="100-continue"))
        self.assertEqual(connection.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.transport.clear()
        connection.send(b"hi")
        self.assertEqual(connection.answers()[0].body, b"hi")

    def test_lengths_that_make_no_sense(self) -> None:
        for lengths in (["x"], ["-1"], ["1, 1"], ["9" * 5000], ["3", "3"], ["0", "5"]):
            connection = Connection(self.site)
            lines = "".join(f"Content-Length: {length}\r\n" for length in lengths)
            connection.send(f"POST /echo/x HTTP/1.1\r\n{lines}X: y\r\n\r\nabc".encode())
            self.assertEqual([answer.status for answer in connection.answers()], [400])
            self.assertTrue(connection.transport.disconnecting)
        connection = Connection(self.site)
        connection.send(b"POST /echo/x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        self.assertEqual([answer.status for answer in connection.answers()], [400])


class Deadlines(Asking):
    def test_a_connection_that_brings_nothing_is_closed(self) -> None:
        connection = Connection(self.site)
        self.clock.advance(REQUEST_SECONDS)
        self.assertTrue(connection.transport.disconnecting)

    def test_bytes_that_trickle_do_not_put_the_deadline_off(self) -> None:
        connection = Connection(self.site)
        for byte in raw("POST", "/echo/x", ISSUER_KEY, b"body")[:REQUEST_SECONDS]:
            self.assertFalse(connection.transport.disconnecting)
            connection.send(bytes([byte]))
            self.clock.advance(1)
        self.assertTrue(connection.transport.disconnecting)

    def test_the_deadline_begins_anew_after_each_answer(self) -> None:
        connection = Connection(self.site)
        for _ in range(3):
            self.clock.advance(REQUEST_SECONDS - 1)
            connection.send(raw("GET", "/healthz"))
        self.assertEqual(len(connection.answers()), 3)
        self.clock.advance(REQUEST_SECONDS)
        self.assertTrue(connection.transport.disconnecting)

    def test_a_peer_that_does_not_let_go_is_aborted(self) -> None:
        for ending in (raw("GET", "/healthz", Connection="close"), b"nonsense\r\n\r\n", b""):
            connection = Connection(self.site)
            aborted: list[bool] = []
            self.patch(connection.transport, "abortConnection", lambda aborted=aborted: aborted.append(True))
            connection.send(ending)
            if not ending:
                self.clock.advance(REQUEST_SECONDS)
            self.assertTrue(connection.transport.disconnecting)
            self.clock.advance(14)
            self.assertEqual(aborted, [])
            self.clock.advance(1)
            self.assertEqual(aborted, [True])

    def test_nothing_is_left_of_a_connection_that_is_gone(self) -> None:
        for data in (
            b"",
            raw("GET", "/healthz"),
            raw("GET", "/healthz", Connection="close"),
            raw("GET", "/wait", ISSUER_KEY),
            b"G",
        ):
            connection = Connection(self.site)
            connection.send(data)
            connection.channel.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.clock.getDelayedCalls(), [])


class Strangers(Asking):
    @given(
        st.lists(st.binary(max_size=60), max_size=4), st.sampled_from([b"", b"GET /healthz HTTP/1.1\r\n", b"POST /echo/x "])
    )
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    def test_no_bytes_cause_a_traceback_or_a_5xx(self, pieces: list[bytes], begin: bytes) -> None:
        connection = Connection(self.site)
        with capturedLogs() as events:
            for piece in (begin, *pieces, b"\r\n\r\n"):
                if not connection.transport.disconnecting:
                    connection.send(piece)
        self.assertEqual([event for event in events if event["log_level"] >= LogLevel.error], [])
        for answer in connection.answers():
            self.assertLess(answer.status, 500)


class Logging(Asking):
    def lines(self, *asked: bytes) -> list[str]:
        """What is logged when these are sent."""
        with capturedLogs() as events:
            for data in asked:
                Connection(self.site).send(data)
        return [str(formatEvent(event)) for event in events]

    def test_a_line_says_who_called_which_route_and_what_came_of_it(self) -> None:
        (line,) = self.lines(raw("POST", "/v1/consoles", ISSUER_KEY, {"vm": "web-2", "type": "xvpvnc"}))
        self.assertRegex(line, r"^[\w-]{16}: POST /v1/consoles 404 for portal at 192\.168\.1\.1$")

    def test_the_detail_of_a_refusal_is_in_the_log(self) -> None:
        self.vms.known["web-1"] = Refusal(Reason.HYPERVISOR_UNREACHABLE, "10.0.0.11 refused")
        (line,) = self.lines(raw("POST", "/v1/consoles", ISSUER_KEY, {"vm": "web-1", "type": "xvpvnc"}))
        self.assertTrue(line.endswith(" 502 for portal at 192.168.1.1 (10.0.0.11 refused)"), line)

    def test_refused_requests_are_logged(self) -> None:
        lines = self.lines(
            raw("GET", "/nothing/canary"),
            raw("X" * 100, "/nothing/canary", ISSUER_KEY),
            raw("GET", "/metrics"),
            raw("POST", "/v1/consoles", ISSUER_KEY, b"x" * (BODY_LIMIT + 1)),
        )
        self.assertEqual(
            [line.partition(": ")[2] for line in lines],
            [
                "GET (no route) 401 for nobody at 192.168.1.1 (no key)",
                f"{'X' * 16} (no route) 404 for portal at 192.168.1.1",
                "GET /metrics 401 for nobody at 192.168.1.1 (no key)",
                "- (no route) 413 for nobody at 192.168.1.1",
            ],
        )

    def test_probes_and_scrapes_that_succeed_are_not_worth_a_line(self) -> None:
        self.assertEqual(self.lines(raw("GET", "/healthz"), raw("GET", "/metrics", METRICS_KEY)), [])
        self.draining = True
        self.assertEqual(len(self.lines(raw("GET", "/healthz"))), 1)

    def test_no_key_token_or_target_is_in_the_log(self) -> None:
        issue = raw("POST", "/v1/consoles?token=canary-query", ISSUER_KEY, {"vm": "web-1", "type": "xvpvnc"})
        with capturedLogs() as events:
            connection = Connection(self.site)
            connection.send(issue)
            token = connection.answers()[0].json()["url"].partition("token=")[2]
            Connection(self.site).send(raw("GET", "/crash?canary-query", OPERATOR_KEY))
            Connection(self.site).send(raw("GET", "/v2.1/os-console-auth-tokens/canary-path", OPERATOR_KEY))
            Connection(self.site).send(raw("GET", "/wait", "canary-wrong-key"))
        self.flushLoggedErrors(RuntimeError)
        for event in events:
            everything = f"{formatEvent(event)} {event}"
            for secret in (token, ISSUER_KEY, OPERATOR_KEY, "canary-query", "canary-path", "canary-wrong-key"):
                self.assertNotIn(secret, everything)


class OverTheWire(TestCase):
    """The same with a real reactor, socket and client."""

    def setUp(self) -> None:
        self.keys_path = self.mktemp()
        with open(self.keys_path, "w", encoding="utf-8") as file:
            file.write(f"portal issuer {'0' * 64}\n")

    def listen(self, tls: bool = False) -> int:
        """A port with an API that echoes."""

        async def echo(call: Call) -> Answer:
            return Reply(200, call.body, "application/json", (("X-Word", call.variables["word"]),))

        route = Route("POST", "/echo/{word}", echo, open=True)
        site = ApiSite(reactor, KeysFile(self.keys_path), [route], lambda length: b"\x07" * length)
        factory: IProtocolFactory = site
        if tls:
            factory = TLSMemoryBIOFactory(ServerTls(*make_identity().write(self.mktemp())), False, site)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        assert isinstance(number, int)
        return number

    async def test_a_real_client_is_answered(self) -> None:
        url = f"http://127.0.0.1:{self.listen()}/echo/hello".encode()
        body = b'{"x":"' + b"y" * 60000 + b'"}'
        response = await Agent(reactor).request(b"POST", url, Headers({}), FileBodyProducer(BytesIO(body)))
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers.getRawHeaders("x-word"), ["hello"])
        self.assertEqual(response.headers.getRawHeaders("x-request-id"), [mint_id(lambda length: b"\x07" * length)])
        self.assertEqual(await readBody(response), body)

    async def test_a_client_that_never_ends_tls_is_aborted(self) -> None:
        self.patch(ApiChannel, "abortTimeout", 0.1)
        answer, end = await deferToThread(_ask_and_stay, self.listen(tls=True), b"hello")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nhello"), answer)
        self.assertEqual(end, b"")


def _ask_and_stay(port: int, body: bytes) -> tuple[bytes, bytes]:
    """The answer over TLS, and then what ends the TCP connection, on which close_notify is never answered."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30)) as tls:
        tls.sendall(raw("POST", "/echo/x", None, body, Connection="close"))
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
        with socket.socket(fileno=tls.detach()) as tcp:
            tcp.settimeout(30)
            try:
                return answer, tcp.recv(1)
            except ConnectionResetError:
                return answer, b""
