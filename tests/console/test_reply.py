from typing import Final

import h11
from twisted.trial.unittest import SynchronousTestCase

from xvpd.console.head import Head
from xvpd.console.reply import OK, healthz, refusal
from xvpd.console.request import CONSOLE, HEALTH
from xvpd.reason import Reason

ID: Final = "kZ3-_aB9cD2eF4gH"


def head(method: str = "GET", path: str = CONSOLE) -> Head:
    return Head(method=method, path=path, query=(), headers=(), http_version="1.0", trailing=b"")


def received(reply: bytes, method: str = "GET") -> tuple[h11.Response, dict[str, str], bytes]:
    """A reply as an HTTP client has it: the response, its headers, its body."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(reply)
    response = client.next_event()
    assert isinstance(response, h11.Response), response
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert client.trailing_data == (b"", False), "something is behind the reply"
    return response, {name.decode(): value.decode() for name, value in response.headers}, body


class TestReply(SynchronousTestCase):
    def test_success_is_19_bytes(self) -> None:
        self.assertEqual(OK, b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(len(OK), 19)

    def test_a_refusal_byte_for_byte(self) -> None:
        self.assertEqual(
            refusal(Reason.TOKEN_EXPIRED, ID),
            b"HTTP/1.1 401 The token is not valid; ask for a new console URL (request kZ3-_aB9cD2eF4gH)\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 51\r\n"
            b"Connection: close\r\n"
            b"Cache-Control: no-store\r\n"
            b"X-Content-Type-Options: nosniff\r\n"
            b"X-Request-Id: kZ3-_aB9cD2eF4gH\r\n"
            b"\r\n"
            b"The token is not valid; ask for a new console URL.\n",
        )

    def test_every_reason_has_a_reply_that_an_http_client_understands(self) -> None:
        for reason in Reason:
            response, headers, body = received(refusal(reason, ID))
            self.assertEqual(response.status_code, reason.status or 503)
            self.assertTrue(body.startswith(reason.sentence.encode()) and body.endswith(b".\n"), reason)
            self.assertEqual(headers["x-request-id"], ID)
            self.assertEqual(headers["connection"], "close")
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["content-type"], "text/plain; charset=utf-8")
            self.assertNotIn("location", headers)

    def test_the_status_line_tells_a_person_why(self) -> None:
        for reason in Reason:
            line = refusal(reason, ID).partition(b"\r\n")[0].decode("ascii")
            self.assertTrue(line.startswith("HTTP/1.1 "), line)
            self.assertTrue(line.isprintable(), line)
            self.assertIn(reason.sentence.rstrip("."), line)
            self.assertTrue(line.endswith(f" (request {ID})"), line)

    def test_a_token_that_was_good_once_is_refused_like_any_other(self) -> None:
        replies = {
            refusal(reason, ID)
            for reason in (Reason.TOKEN_UNKNOWN, Reason.TOKEN_EXPIRED, Reason.TOKEN_USED, Reason.TOKEN_REVOKED)
        }
        self.assertEqual(len(replies), 1)

    def test_a_browser_reads_that_its_token_is_untouched(self) -> None:
        _, _, body = received(refusal(Reason.FOR_VIEWERS, ID))
        self.assertIn(b"has not been used", body)

    def test_a_method_that_is_not_allowed_gets_those_that_are(self) -> None:
        for path, allowed in ((CONSOLE, "CONNECT, GET"), (HEALTH, "GET")):
            _, headers, _ = received(refusal(Reason.METHOD_NOT_ALLOWED, ID, head("POST", path)))
            self.assertEqual(headers["allow"], allowed)

    def test_only_that_reply_names_methods(self) -> None:
        self.assertNotIn(b"Allow", refusal(Reason.NOT_FOUND, ID, head(path="/x")))
        self.assertNotIn(b"Allow", refusal(Reason.METHOD_NOT_ALLOWED, ID))

    def test_head_is_answered_without_a_body(self) -> None:
        whole = refusal(Reason.NOT_FOUND, ID, head("GET", "/x"))
        reply = refusal(Reason.NOT_FOUND, ID, head("HEAD", "/x"))
        self.assertEqual(reply, whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        self.assertEqual(received(reply, "HEAD")[2], b"")

    def test_health(self) -> None:
        response, headers, body = received(healthz(draining=False))
        self.assertEqual((response.status_code, headers["cache-control"], body), (200, "no-store", b"ok\n"))

    def test_health_while_draining(self) -> None:
        response, headers, body = received(healthz(draining=True))
        self.assertEqual((response.status_code, headers["cache-control"]), (503, "no-store"))
        self.assertEqual(body.decode(), f"{Reason.DRAINING.sentence}\n")
