from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.console.head import Head, HeadReader
from xvpd.console.request import METHODS, ConsoleRequest, Health, route
from xvpd.grants.grant import is_token
from xvpd.reason import Reason, Refusal

TOKEN: Final = "cAnArY-0123456789_abcdefghijklmnopqrstuvwxy"
CHROME: Final = (
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site: none",
    "Sec-Fetch-Mode: navigate",
)


def ask(target: str, *headers: str, method: str = "GET", behind: bytes = b"") -> ConsoleRequest | Health | Refusal:
    lines = [f"{method} {target} HTTP/1.1", "Host: console.example.org:6081", *headers, "", ""]
    head = HeadReader().receive("\r\n".join(lines).encode() + behind)
    assert isinstance(head, Head), head
    return route(head)


class TestRoute(SynchronousTestCase):
    def refused(self, reason: Reason, target: str, *headers: str, method: str = "GET") -> Refusal:
        answer = ask(target, *headers, method=method)
        assert isinstance(answer, Refusal), answer
        self.assertIs(answer.reason, reason)
        return answer

    def test_a_console_is_asked_for_by_connect_and_by_get(self) -> None:
        for method in ("CONNECT", "GET"):
            self.assertEqual(ask(f"/console?token={TOKEN}", method=method), ConsoleRequest(TOKEN, b""))

    def test_what_the_client_sent_ahead_goes_with_the_request(self) -> None:
        self.assertEqual(ask(f"/console?token={TOKEN}", behind=b"RFB"), ConsoleRequest(TOKEN, b"RFB"))

    def test_an_escaped_token_is_the_token(self) -> None:
        self.assertEqual(ask(f"/console?%74oken=%63{TOKEN[1:]}"), ConsoleRequest(TOKEN, b""))

    def test_other_parameters_are_ignored(self) -> None:
        self.assertEqual(ask(f"/console?a=1&token={TOKEN}&Token=x&b"), ConsoleRequest(TOKEN, b""))

    def test_scripts_may_ask_for_anything_but_a_page(self) -> None:
        for header in ("Accept: */*", "Accept: application/octet-stream", "Upgrade: h2c", "User-Agent: curl/8.5.0"):
            self.assertEqual(ask(f"/console?token={TOKEN}", header), ConsoleRequest(TOKEN, b""))

    def test_a_browser_is_told_what_the_address_is_for(self) -> None:
        for header in (*CHROME[::2], "accept: TEXT/HTML", "Sec-Fetch-Mode: cors"):
            self.refused(Reason.FOR_VIEWERS, f"/console?token={TOKEN}", header)
        self.refused(Reason.FOR_VIEWERS, "/console", *CHROME)

    def test_a_viewer_that_says_connect_is_no_browser(self) -> None:
        self.assertEqual(ask(f"/console?token={TOKEN}", *CHROME, method="CONNECT"), ConsoleRequest(TOKEN, b""))

    def test_no_token(self) -> None:
        for target in ("/console", "/console?", "/console?token", "/console?token=", "/console?Token=x", "/console?a=token=x"):
            self.refused(Reason.NO_TOKEN, target)

    def test_two_tokens_are_one_too_many(self) -> None:
        self.refused(Reason.BAD_REQUEST, f"/console?token={TOKEN}&token={TOKEN}")
        self.refused(Reason.BAD_REQUEST, f"/console?token=&token={TOKEN}")

    def test_what_cannot_be_a_token_reaches_no_store(self) -> None:
        for text in (
            f"{TOKEN}%0d%0aX:%20y",
            f"{TOKEN}%0a",
            f"{TOKEN}%00",
            f"{TOKEN}%20",
            f"{TOKEN}+",
            f"{TOKEN}%26uuid=1",
            "%C3%A9" * 20,
            "a" * 129,
            "../../etc/passwd",
            "OpaqueRef:1",
            "*",
        ):
            refusal = self.refused(Reason.TOKEN_UNKNOWN, f"/console?token={text}", method="CONNECT")
            self.assertNotIn(TOKEN, str(refusal))

    def test_a_websocket_is_not_served(self) -> None:
        for upgrade in ("websocket", "WebSocket", "h2c, websocket"):
            refusal = self.refused(
                Reason.BAD_REQUEST, f"/console?token={TOKEN}", f"Upgrade: {upgrade}", "Connection: Upgrade", *CHROME
            )
            self.assertIn("WebSocket", refusal.detail)

    def test_health_is_there_for_anyone(self) -> None:
        self.assertEqual(ask("/healthz"), Health())
        self.assertEqual(ask("/healthz?token=x", *CHROME), Health())

    def test_other_methods_are_not_allowed(self) -> None:
        for method in ("POST", "HEAD", "OPTIONS", "PUT", "DELETE", "get", "Connect"):
            self.refused(Reason.METHOD_NOT_ALLOWED, f"/console?token={TOKEN}", method=method)
        for method in ("POST", "HEAD", "CONNECT"):
            self.refused(Reason.METHOD_NOT_ALLOWED, "/healthz", method=method)

    def test_other_paths_are_not_there(self) -> None:
        near = ("/Console", "/console/", "/console/x", "/consoles", "/%63onsole", "/a/../console", "/healthz/")
        far = ("/", "/%2F..", "/%5Cexample.com", "/vnc.html")
        for path in near + far:
            for method in ("CONNECT", "GET", "POST"):
                self.refused(Reason.NOT_FOUND, f"{path}?token={TOKEN}", method=method)

    def test_no_refusal_holds_the_token_or_anything_of_the_request(self) -> None:
        answers = [
            ask(f"{path}?token={TOKEN}{suffix}", *headers, method=method)
            for path in (*METHODS, f"/{TOKEN}")
            for suffix in ("", "%00", f"&token={TOKEN}")
            for headers in ((), CHROME, ("Upgrade: websocket",))
            for method in ("GET", "POST", TOKEN)
        ]
        said = "".join(str(answer) + repr(answer) for answer in answers)
        self.assertNotIn(TOKEN, said)

    @settings(deadline=None)
    @given(st.sampled_from(["/console", "/healthz", "/"]), st.text(), st.sampled_from(["CONNECT", "GET", "POST"]))
    def test_only_a_token_gets_to_a_store(self, path: str, value: str, method: str) -> None:
        head = Head(method=method, path=path, query=(("token", value),), headers=(), http_version="1.0", trailing=b"")
        answer = route(head)
        if isinstance(answer, ConsoleRequest):
            self.assertTrue(is_token(answer.token))
            self.assertEqual((path, answer.token), ("/console", value))
