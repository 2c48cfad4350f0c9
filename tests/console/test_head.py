import re
from typing import Final

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.console import head as head_module
from xvpd.console.head import HEAD_LIMIT, HEADER_LIMIT, Head, HeadReader
from xvpd.reason import Reason, Refusal

TOKEN: Final = "cAnArY-0123456789_abcdefghijklmnopqrstuvwxy"
JAVA: Final = f"CONNECT /console?token={TOKEN} HTTP/1.0\r\n\r\n".encode()
"""All that the OpenStack Java viewer sends."""
PYTHON: Final = f"GET /console?token={TOKEN} HTTP/1.1\r\nHost: console.example.org:6081\r\nAccept: */*\r\n\r\n".encode()


def with_headers(*lines: str, version: str = "1.1") -> bytes:
    head = [f"GET /console?token={TOKEN} HTTP/{version}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1")


def with_target(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.0\r\n\r\n".encode("latin-1")


HOST: Final = "Host: a"
BAD: Final[dict[str, bytes]] = {
    # Where a head, and where a line, ends.
    "bare line feeds": JAVA.replace(b"\r\n", b"\n"),
    "one bare line feed": with_headers(HOST, "X: 1\nY: 2"),
    "a bare line feed for the blank line": with_headers(HOST).removesuffix(b"\r\n") + b"\n",
    "line feed, carriage return": with_headers(HOST, "X: 1\n\rY: 2"),
    "a bare carriage return": with_headers(HOST, "X: 1\rY: 2"),
    "two carriage returns": with_headers(HOST, "X: 1\r"),
    "a folded line": with_headers(HOST, "X: 1", " 2"),
    "a line folded by a tab": with_headers(HOST, "X: 1", "\t2"),
    "a fold before the first header": with_headers(" X: 1", HOST),
    "empty lines first": b"\r\n" + PYTHON,
    "nothing but a blank line": b"\r\n\r\n",
    # Characters.
    "NUL in a value": with_headers(HOST, "X: a\0b"),
    "a control in a value": with_headers(HOST, "X: a\x01b"),
    "DEL in a value": with_headers(HOST, "X: a\x7fb"),
    "vertical tab between words": JAVA.replace(b" ", b"\x0b"),
    "form feed between words": JAVA.replace(b" ", b"\x0c"),
    "NUL in the token": with_target(f"/console?token={TOKEN}\0"),
    "carriage return in the token": with_target(f"/console?token={TOKEN}\rX"),
    "line feed in the token": with_target(f"/console?token={TOKEN}\nX"),
    "tab in the request line": b"GET\t/console HTTP/1.0\r\n\r\n",
    "no ASCII in the target": with_target("/console?token=\xe9"),
    # Bodies.
    "a length": with_headers(HOST, "Content-Length: 5"),
    "a length of nothing": with_headers(HOST, "Content-Length: 0"),
    "two lengths": with_headers(HOST, "Content-Length: 5", "Content-Length: 6"),
    "a list of lengths": with_headers(HOST, "Content-Length: 5, 5"),
    "a length of its own spelling": with_headers(HOST, "cONTENT-lENGTH: +5"),
    "a length in HTTP/1.0": with_headers("Content-Length: 5", version="1.0"),
    "chunks": with_headers(HOST, "Transfer-Encoding: chunked"),
    "chunks by another spelling": with_headers(HOST, "tRANSFER-encoding: \tchunked"),
    "chunks and a length": with_headers(HOST, "Transfer-Encoding: chunked", "Content-Length: 5"),
    "an unknown encoding": with_headers(HOST, "Transfer-Encoding: xchunked"),
    # Headers.
    "a space before the colon": with_headers(HOST, "Content-Length : 5"),
    "a tab before the colon": with_headers(HOST, "Transfer-Encoding\t: chunked"),
    "no colon": with_headers(HOST, "Transfer-Encoding chunked"),
    "no name": with_headers(HOST, ": 1"),
    "a name that is no name": with_headers(HOST, "X(Y): 1"),
    "two hosts": with_headers(HOST, "hOST: b"),
    "two equal hosts": with_headers(HOST, HOST),
    "no host in HTTP/1.1": with_headers("Accept: */*"),
    # Request lines.
    "no version": b"GET /console\r\n\r\n",
    "HTTP/0.9": with_headers(HOST, version="0.9"),
    "HTTP/1.2": with_headers(HOST, version="1.2"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/11": with_headers(HOST, version="11"),
    "two spaces": b"GET  /console HTTP/1.0\r\n\r\n",
    "a space behind the version": b"GET /console HTTP/1.0 \r\n\r\n",
    "a space in the target": with_target(f"/console?token={TOKEN} x"),
    "a space first": b" " + JAVA,
    "a method that is no name": with_target("/console", method="GE(T"),
    # Targets.
    "absolute-form": with_target(f"http://example.org/console?token={TOKEN}"),
    "authority-form": with_target("10.0.0.1:443", method="CONNECT"),
    "asterisk-form": with_target("*", method="OPTIONS"),
    "a relative path": with_target(f"console?token={TOKEN}"),
    "a fragment": with_target(f"/console#token={TOKEN}"),
    "an escape of one digit": with_target("/console?token=%4"),
    "an escape of no digits": with_target("/console?token=%zz"),
    "a percent sign at the end": with_target("/console?token=%"),
    "an escape in the path that is none": with_target("/conso%6/le"),
    "a query that is not UTF-8": with_target("/console?token=%ff"),
    "angle brackets": with_target("/<script>"),
    # CVE-2021-3654 (Launchpad bug 1927677) and its first fix's gap: redirects to elsewhere.
    "an address for a path": with_target("//example.com/%2F.."),
    "an address behind three slashes": with_target("///example.com/%2F.."),
    "an address behind a backslash": with_target("/\\example.com/%2F.."),
    "an address further on": with_target("/console//example.com/%2e%2e"),
    # What is not HTTP at all.
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "RFB": b"RFB 003.008\n",
    "PROXY": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + JAVA,
}

FRAGMENTS: Final = (
    *(b"GET", b"CONNECT", b" ", b"/console?token=T", b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"),
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\t", b"Host: a\r\n", b"Host", b": ", b"X: 1\r\n", b"Content-Length: 3\r\n"),
    *(b"x" * 4000, b"X: 1\r\n" * 40, JAVA, PYTHON),
)
REQUESTS: Final = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(b"".join)


def read(*pieces: bytes) -> Head | Refusal | None:
    """The first answer to the pieces, if any."""
    reader = HeadReader()
    return next((answer for answer in map(reader.receive, pieces) if answer is not None), None)


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def by_h11(data: bytes) -> tuple[h11.Request, bytes] | None:
    """What h11 makes of it: a request and what is behind it; None when it refuses it or wants more."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        request, end = connection.next_event(), connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if isinstance(request, h11.Request) and isinstance(end, h11.EndOfMessage):
        return request, connection.trailing_data[0]
    return None


class Reading(SynchronousTestCase):
    def head(self, data: bytes) -> Head:
        head = read(data)
        assert isinstance(head, Head), head
        return head

    def refusal(self, data: bytes, reason: Reason = Reason.BAD_REQUEST) -> Refusal:
        refusal = read(data)
        assert isinstance(refusal, Refusal), refusal
        self.assertIs(refusal.reason, reason)
        return refusal


class TestAcceptedHeads(Reading):
    def test_the_java_viewers_bytes(self) -> None:
        self.assertEqual(
            self.head(JAVA),
            Head(method="CONNECT", path="/console", query=(("token", TOKEN),), headers=(), http_version="1.0", trailing=b""),
        )

    def test_http_1_1_with_headers(self) -> None:
        head = self.head(PYTHON)
        self.assertEqual((head.method, head.http_version), ("GET", "1.1"))
        self.assertEqual(head.headers, (("host", "console.example.org:6081"), ("accept", "*/*")))

    def test_pipelined_bytes_are_kept_whatever_they_are(self) -> None:
        behind = b"RFB 003.008\n\0\r\n\r\n" + bytes(range(256)) + JAVA
        self.assertEqual(self.head(JAVA + behind).trailing, behind)

    def test_more_may_be_behind_a_head_than_a_head_may_have(self) -> None:
        behind = b"\0" * 4 * HEAD_LIMIT
        self.assertEqual(self.head(JAVA + behind).trailing, behind)

    def test_header_names_are_lower_case_and_values_are_stripped(self) -> None:
        head = self.head(with_headers("hOsT:a", "UPGRADE: \t WebSocket \t", "X-Empty:"))
        self.assertEqual(head.headers, (("host", "a"), ("upgrade", "WebSocket"), ("x-empty", "")))

    def test_a_header_is_found_by_its_name_and_several_are_a_list(self) -> None:
        head = self.head(with_headers(HOST, "Accept: text/plain", "X: 1", "ACCEPT: text/html"))
        self.assertEqual(head.header("accept"), "text/plain, text/html")
        self.assertEqual(head.header("upgrade"), "")

    def test_values_may_have_tabs_and_bytes_above_ascii(self) -> None:
        self.assertEqual(self.head(with_headers(HOST, "X: a\tb \xe9\x85")).header("x"), "a\tb \xe9\x85")

    def test_a_query_is_decoded(self) -> None:
        head = self.head(with_target("/x?a=%41%2fB%26&b=&c&a=caf%C3%A9?//:@!$'()*,;"))
        self.assertEqual(head.query, (("a", "A/B&"), ("b", ""), ("c", ""), ("a", "café?//:@!$'()*,;")))

    def test_a_path_is_left_as_it_came(self) -> None:
        for path in ("/", "/%63onsole", "/a/../console", "/%2F..", "/%5Cexample.com", "/console/", "/console;x"):
            self.assertEqual(self.head(with_target(path + "?q")).path, path)

    def test_any_method_is_read(self) -> None:
        self.assertEqual(self.head(with_target("/", method="PROPFIND")).method, "PROPFIND")

    def test_a_head_of_just_the_limit(self) -> None:
        padding = HEAD_LIMIT - len(with_headers(HOST, "X: "))
        data = with_headers(HOST, "X: " + "x" * padding)
        self.assertEqual(len(data), HEAD_LIMIT)
        self.assertEqual(self.head(data + b"behind").trailing, b"behind")

    def test_just_so_many_headers_as_may_be(self) -> None:
        self.assertEqual(len(self.head(with_headers(HOST, *["X: 1"] * (HEADER_LIMIT - 1))).headers), HEADER_LIMIT)

    def test_the_repr_shows_no_secret(self) -> None:
        data = f"GET /{TOKEN}?token={TOKEN} HTTP/1.1\r\nHost: {TOKEN}\r\nCookie: {TOKEN}\r\n\r\n{TOKEN}".encode()
        self.assertNotIn(TOKEN, repr(self.head(data)))


class TestRefusedHeads(Reading):
    def test_each_is_refused(self) -> None:
        for name, data in BAD.items():
            answer = read(data)
            self.assertTrue(isinstance(answer, Refusal) and answer.reason is Reason.BAD_REQUEST, f"{name}: {answer}")

    def test_each_is_refused_alike_a_byte_at_a_time(self) -> None:
        for name, data in BAD.items():
            self.assertEqual(read(*bytewise(data)), read(data), name)

    def test_no_refusal_quotes_the_request(self) -> None:
        harmless = "".join(str(self.refusal(data)) for data in BAD.values())
        for words in (TOKEN, TOKEN[:6], "example", "chunked", "script", "/console"):
            self.assertNotIn(words, harmless)

    def test_every_refusal_says_why(self) -> None:
        for name, data in BAD.items():
            self.assertNotEqual(self.refusal(data).detail, "", name)

    def test_it_does_not_wait_for_the_end_of_what_can_be_no_head(self) -> None:
        for start, detail in (
            (b"\x16", "TLS on a listener in clear text"),
            (b"GET\0", "a control character at byte 3"),
            (b"GET / HTTP/1.0\n", "a bare line feed at byte 14"),
            (b"GET / HTTP/1.0\rX", "a bare carriage return at byte 14"),
            (b"GET /\x16", "a control character at byte 5"),
            (b"GET\x0b", "a control character at byte 3"),
            (b"GET\x0c", "a control character at byte 3"),
        ):
            self.assertEqual(self.refusal(start).detail, detail)

    def test_a_carriage_return_is_not_judged_before_what_follows_it(self) -> None:
        reader = HeadReader()
        self.assertIsNone(reader.receive(b"GET / HTTP/1.0\r"))
        self.assertIsNone(reader.receive(b"\n\r"))
        self.assertIsInstance(reader.receive(b"\n"), Head)

    def test_a_head_over_the_limit(self) -> None:
        padding = HEAD_LIMIT - len(with_headers(HOST, "X: ")) + 1
        data = with_headers(HOST, "X: " + "x" * padding)
        self.assertEqual(self.refusal(data, Reason.HEAD_TOO_LARGE), read(*bytewise(data)))

    def test_a_head_without_end_is_refused_at_the_limit(self) -> None:
        data = with_headers(HOST, "X: ").removesuffix(b"\r\n\r\n") + b"x" * HEAD_LIMIT
        self.assertIsNone(read(data[: HEAD_LIMIT - 1]))
        self.refusal(data[:HEAD_LIMIT], Reason.HEAD_TOO_LARGE)
        self.refusal(data, Reason.HEAD_TOO_LARGE)

    def test_what_is_wrong_beyond_the_limit_does_not_matter(self) -> None:
        self.refusal(b"x" * HEAD_LIMIT + b"\0", Reason.HEAD_TOO_LARGE)
        self.refusal(b"x" * (HEAD_LIMIT - 1) + b"\0", Reason.BAD_REQUEST)

    def test_too_many_headers(self) -> None:
        refusal = self.refusal(with_headers(HOST, *["X: 1"] * HEADER_LIMIT), Reason.HEAD_TOO_LARGE)
        self.assertEqual(refusal.detail, "65 header lines")


class TestEffort(Reading):
    def test_a_byte_is_looked_at_once_however_small_the_pieces_are(self) -> None:
        looked_at: list[int] = []

        class Spy:
            def search(self, buffer: bytearray, start: int, end: int) -> re.Match[bytes] | None:
                looked_at.extend(range(start, end))
                return forbidden.search(buffer, start, end)

        forbidden = head_module._FORBIDDEN
        self.patch(head_module, "_FORBIDDEN", Spy())
        self.assertIsInstance(read(*bytewise(PYTHON)), Head)
        returns = [index for index, byte in enumerate(PYTHON) if byte == 0x0D]
        self.assertEqual(sorted(looked_at), sorted([*range(len(PYTHON)), *returns]), "but for a return, with what follows it")


class TestAnyBytes(Reading):
    @settings(deadline=None)
    @given(REQUESTS, st.data())
    def test_how_a_request_is_cut_changes_nothing(self, request: bytes, data: st.DataObject) -> None:
        whole = read(request)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(request)))))
        reader, answer, taken = HeadReader(), None, 0
        for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
            answer, taken = reader.receive(request[start:end]), end
            if answer is not None:
                break
        if isinstance(whole, Head) and isinstance(answer, Head):
            self.assertEqual(whole.trailing, answer.trailing + request[taken:])
            self.assertEqual((whole.method, whole.path, whole.query), (answer.method, answer.path, answer.query))
            self.assertEqual((whole.headers, whole.http_version), (answer.headers, answer.http_version))
        else:
            self.assertEqual(whole, answer)

    @settings(deadline=None)
    @given(REQUESTS)
    def test_what_is_accepted_h11_understands_in_the_same_way(self, request: bytes) -> None:
        self.agrees_with_h11(request)

    def test_h11_agrees_on_the_heads_of_this_file(self) -> None:
        for data in (JAVA, PYTHON, *BAD.values()):
            self.agrees_with_h11(data)
            self.agrees_with_h11(data + b"behind")

    @settings(deadline=None)
    @given(st.lists(st.binary()))
    def test_garbage_gets_a_value(self, pieces: list[bytes]) -> None:
        answer = read(*pieces)
        self.assertTrue(answer is None or isinstance(answer, Refusal), answer)

    @settings(deadline=None)
    @given(
        st.binary(),
        st.sampled_from([b"GET %s HTTP/1.0\r\n\r\n", b"GET /?%s HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\n%s\r\n\r\n"]),
    )
    def test_garbage_in_its_place_gets_a_value(self, garbage: bytes, place: bytes) -> None:
        self.agrees_with_h11(place % garbage)

    def agrees_with_h11(self, data: bytes) -> None:
        head = read(data)
        if not isinstance(head, Head):
            return
        theirs = by_h11(data)
        assert theirs is not None, "h11 refuses what was accepted"
        request, behind = theirs
        self.assertEqual(head.trailing, behind)
        self.assertEqual(head.method.encode(), request.method)
        self.assertEqual(head.path.encode(), request.target.partition(b"?")[0])
        self.assertEqual([(n.encode(), v.encode("latin-1")) for n, v in head.headers], list(request.headers))
