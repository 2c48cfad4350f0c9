"""Heads, cookies and replies as xapi's HTTP server has them."""

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim import http


class Heads(SynchronousTestCase):
    def test_a_head_ends_with_a_blank_line(self) -> None:
        head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for end in range(len(head)):
            self.assertIsNone(http.head_length(head[:end]), head[:end])
        self.assertEqual(http.head_length(head), len(head))
        self.assertEqual(http.head_length(head + b"more"), len(head))

    def test_a_head_is_too_large_as_soon_as_it_cannot_end_in_time(self) -> None:
        self.assertEqual(http.head_length(b"x" * 1002 + b"\r\n\r\n"), 1006)
        self.assertEqual(http.head_length(b"x" * 1003 + b"\r\n\r\n"), 0)
        self.assertIsNone(http.head_length(b"x" * 1002))
        self.assertEqual(http.head_length(b"x" * 1003), 0)
        self.assertIsNone(http.head_length(b"x" * 1002 + b"\r\n"))
        self.assertEqual(http.head_length(b"x" * 1003 + b"\r\n"), 0)

    @settings(deadline=None)
    @given(st.binary(max_size=1100), st.integers(0, 1100))
    def test_the_verdict_on_a_head_does_not_depend_on_how_it_arrives(self, data: bytes, split: int) -> None:
        early = http.head_length(data[:split])
        if early is not None:
            self.assertEqual(http.head_length(data), early)

    @settings(deadline=None)
    @given(st.binary(max_size=300))
    def test_any_head_is_read_or_refused(self, data: bytes) -> None:
        try:
            request = http.parse(data + b"\r\n\r\n")
        except http.BadHeadError:
            return
        self.assertIsInstance((request.close, request.session, request.credentials, request.reply_version), tuple)

    def test_a_request(self) -> None:
        request = http.parse(b"CONNECT /con%73ole?ref=a%3Ab&ref=c&x= HTTP/1.1\r\nHost: h\r\nCookie: session_id=s%2B\r\n\r\n")
        self.assertEqual((request.method, request.path, request.version), ("CONNECT", "/console", "1.1"))
        self.assertEqual(request.query, {"ref": "a:b", "x": ""})
        self.assertEqual((request.session, request.close), ("s+", False))
        self.assertNotIn("s+", repr(request))

    def test_the_cookie_comes_before_the_query(self) -> None:
        request = http.parse(b"GET /?session_id=query HTTP/1.0\r\nCookie: session_id=cookie\r\n\r\n")
        self.assertEqual((request.session, request.close), ("cookie", True))
        self.assertEqual(http.parse(b"GET /?session_id=query HTTP/1.0\r\n\r\n").session, "query")

    def test_connection_headers(self) -> None:
        self.assertTrue(http.parse(b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n").close)
        self.assertFalse(http.parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").close)

    def test_basic_credentials(self) -> None:
        def credentials(value: bytes) -> tuple[str, str] | None:
            return http.parse(b"GET / HTTP/1.1\r\nAuthorization: " + value + b"\r\n\r\n").credentials

        self.assertEqual(credentials(b"Basic " + base64.b64encode(b"root:a:b")), ("root", "a:b"))
        for bad in (b"Basic ?", b"Bearer " + base64.b64encode(b"a:b"), b"Basic " + base64.b64encode(b"\xff:"), b"Basic YQ=="):
            self.assertIsNone(credentials(bad), bad)


class Cookies(SynchronousTestCase):
    def test_blanks_are_not_trimmed(self) -> None:
        self.assertEqual(http.cookies("a=b; session_id=s"), {"a": "b", " session_id": "s"})
        self.assertEqual(http.cookies("a=b;session_id=s"), {"a": "b", "session_id": "s"})

    def test_ampersands_part_cookies_where_there_is_no_semicolon(self) -> None:
        self.assertEqual(http.cookies("a=b&c=d"), {"a": "b", "c": "d"})
        self.assertEqual(http.cookies("a=b&c=d;e=f"), {"a": "b&c=d", "e": "f"})

    def test_the_first_of_two_counts(self) -> None:
        self.assertEqual(http.cookies("a=1;a=2"), {"a": "1"})


class Replies(SynchronousTestCase):
    def test_several_users_are_named(self) -> None:
        reply = http.limit_exceeded("1.1", ["a", "<b>"])
        self.assertIn(b"<p>Users 'a, &lt;b&gt;' are currently connected", reply)

    def test_a_length_is_that_of_the_body(self) -> None:
        for reply in (http.head_too_large(), http.request_timeout(), http.forbidden(), http.internal_error("1.0", "é<'>")):
            head, _, body = reply.partition(b"\r\n\r\n")
            self.assertIn(b"content-length: %d\r\n" % len(body), head)
