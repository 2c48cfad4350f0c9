"""`xvpd.xen.connect`: the bytes of a CONNECT and of its answer."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd import __version__
from xvpd.reason import Reason
from xvpd.xen.connect import ANSWER_CAP, REQUEST_CAP, Answered, AnswerReader, Malformed, compose, refusal_of
from xvpd.xen.syntax import REF_LENGTH

VM = "OpaqueRef:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
SESSION = "OpaqueRef:11111111-2222-3333-4444-555555555555"
OK = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
"""xapi's success, to the byte."""
BUSY = (
    b"HTTP/1.1 503 Connection Limit Exceeded\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n"
    b"content-type: text/html\r\ncontent-length: 60\r\n\r\n"
)
BUSY_BODY = b"<html><body>in use by <script>alert(1)</script></body></html>"


def _read(*pieces: bytes) -> Answered | Malformed | None:
    """The answer as a fresh reader has it after the last of ``pieces``; what came behind an answer's end is joined to it."""
    reader = AnswerReader()
    for index, piece in enumerate(pieces):
        answer = reader.receive(piece)
        if isinstance(answer, Answered):
            return Answered(answer.status, answer.leftover + b"".join(pieces[index + 1 :]))
        if answer is not None:
            return answer
    return None


class ComposeTests(SynchronousTestCase):
    def test_every_byte(self) -> None:
        self.assertEqual(
            compose(VM, SESSION, "10.0.0.11"),
            b"CONNECT /console?ref=OpaqueRef:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 HTTP/1.1\r\n"
            b"Host: 10.0.0.11\r\n"
            b"User-Agent: xvpd/" + __version__.encode() + b"\r\n"
            b"Cookie: session_id=OpaqueRef:11111111-2222-3333-4444-555555555555\r\n\r\n",
        )

    def test_an_ipv6_address_stands_in_brackets(self) -> None:
        self.assertIn(b"\r\nHost: [fd00::11]\r\n", compose(VM, SESSION, "fd00::11"))

    def test_the_longest_values_stay_below_the_cap_of_xapi(self) -> None:
        ref = "OpaqueRef:" + "a" * (REF_LENGTH - 10)
        address = ".".join(["a" * 61] * 4)
        self.assertLess(len(compose(ref, ref, address)), REQUEST_CAP)

    def test_what_is_no_reference_or_address_is_refused_and_not_named(self) -> None:
        for values in (
            (VM + "\r\nX: y", SESSION, "10.0.0.11"),
            (VM + "&uuid=x", SESSION, "10.0.0.11"),
            (VM, SESSION + "; session_id=x", "10.0.0.11"),
            (VM, SESSION, "10.0.0.11\r\nhdr: x"),
            (VM, "", "10.0.0.11"),
        ):
            error = self.assertRaises(ValueError, compose, *values)
            self.assertNotIn("session_id", str(error))
            self.assertNotIn(SESSION, str(error))

    @given(st.text(), st.text(), st.text())
    def test_whatever_it_composes_is_one_request_with_one_cookie(self, vm: str, session: str, address: str) -> None:
        try:
            request = compose(f"OpaqueRef:{vm}", f"OpaqueRef:{session}", address)
        except ValueError:
            return
        lines = request.split(b"\r\n")
        self.assertEqual(len(lines), 6)
        self.assertEqual(lines[-2:], [b"", b""])
        self.assertEqual(request.count(b"\n"), 5)
        self.assertEqual(request.count(b"session_id="), 1)


class AnswerReaderTests(SynchronousTestCase):
    def test_success_with_the_first_rfb_bytes_behind_it(self) -> None:
        self.assertEqual(_read(OK + b"RFB 003.008\n"), Answered(200, b"RFB 003.008\n"))

    def test_leftover_bytes_are_kept_whatever_they_are(self) -> None:
        leftover = b"\r\n\r\nHTTP/1.1 500 \r\n\r\n\x00\xff"
        self.assertEqual(_read(OK + leftover), Answered(200, leftover))

    def test_any_split_reads_the_same(self) -> None:
        for head, rest in ((OK, b"RFB 003.003\n\r\n\r\n"), (BUSY, BUSY_BODY)):
            whole = head + rest
            expected = _read(whole)
            self.assertIsInstance(expected, Answered)
            for split in range(len(whole) + 1):
                self.assertEqual(_read(whole[:split], whole[split:]), expected)

    def test_byte_by_byte_reads_the_same(self) -> None:
        self.assertEqual(_read(*(bytes([byte]) for byte in OK + b"RFB")), Answered(200, b"RFB"))

    @given(st.binary(), st.lists(st.integers(0, 200), max_size=8))
    def test_splits_never_change_what_is_read(self, data: bytes, cuts: list[int]) -> None:
        for whole in (data, OK + data, OK[: len(data)] + data, b"HTTP/1.1 200 " + data + b"\r\n\r\n" + data):
            ends = sorted(min(cut, len(whole)) for cut in cuts)
            pieces = [whole[start:end] for start, end in zip([0, *ends], [*ends, len(whole)], strict=True)]
            self.assertEqual(_read(*pieces), _read(whole))

    def test_http_1_0_is_an_answer_too(self) -> None:
        self.assertEqual(_read(b"HTTP/1.0 503 Service Unavailable\r\n\r\n"), Answered(503, b""))

    def test_headers_of_a_success_say_nothing_about_what_follows(self) -> None:
        """RFC 9110 section 9.3.6: after CONNECT, Content-Length and Transfer-Encoding are ignored."""
        answer = _read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nRFB 003.008\n")
        self.assertEqual(answer, Answered(200, b"RFB 003.008\n"))

    def test_a_status_line_needs_no_phrase(self) -> None:
        self.assertEqual(_read(b"HTTP/1.1 200\r\n\r\n"), Answered(200, b""))
        self.assertEqual(_read(b"HTTP/1.1 200 \r\n\r\n"), Answered(200, b""))

    def test_an_incomplete_answer_is_waited_for(self) -> None:
        for incomplete in (b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r"):
            self.assertIsNone(_read(incomplete))

    def test_a_line_that_ends_with_lf_alone_is_malformed_at_once(self) -> None:
        for bare in (
            b"HTTP/1.1 200 OK\n",
            b"HTTP/1.1 200 OK\r\nA: b\n",
            b"HTTP/1.1 200 OK\r\n\n",
            b"HTTP/1.1 200 OK\n\nRFB 003.008\n",
        ):
            self.assertEqual(_read(bare), Malformed("a line ends without CR"))

    def test_what_does_not_speak_http_is_malformed(self) -> None:
        for other in (
            b"RFB 003.008\r\n",
            b"\r\n",
            b"HTTP/2 200 OK\r\n",
            b"HTTP/1.1 2000\r\n",
            b"HTTP/1.1 20\r\n",
            b"HTTP/1.1 600 x\r\n",
            b"HTTP/1.1  200 OK\r\n",
            b"http/1.1 200 OK\r\n",
            b"HTTP/1.1 200 O\rK\r\n",
            b"HTTP/1.1 200 O\x00K\r\n",
        ):
            self.assertEqual(_read(other), Malformed("it does not begin with an HTTP/1 status line"), other)

    def test_what_is_no_header_is_malformed(self) -> None:
        for line in (b" folded", b"no colon", b": no name", b"a b: c", b"A: b\rc", b"A: \x00"):
            self.assertEqual(_read(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n"), Malformed("a header line is none"), line)

    def test_a_header_is_read_up_to_the_cap(self) -> None:
        start = b"HTTP/1.1 200 OK\r\nA: "
        whole = start + b"a" * (ANSWER_CAP - len(start) - 4) + b"\r\n\r\n"
        self.assertEqual(len(whole), ANSWER_CAP)
        self.assertEqual(_read(whole + b"RFB"), Answered(200, b"RFB"))

    def test_a_header_beyond_the_cap_is_malformed(self) -> None:
        start = b"HTTP/1.1 200 OK\r\nA: "
        whole = start + b"a" * (ANSWER_CAP - len(start) - 3) + b"\r\n\r\n"
        too_large = Malformed("its header has more than 8192 bytes")
        self.assertEqual(_read(whole), too_large)
        self.assertEqual(_read(whole[:-1], whole[-1:]), too_large)
        self.assertEqual(_read(*[b"x" * 1024] * 8), too_large)


class RefusalOfTests(SynchronousTestCase):
    def test_each_status_has_its_reason(self) -> None:
        for status in (401, 403, 404, 408, 431, 500, 501):
            self.assertEqual(refusal_of(status).reason, Reason.HYPERVISOR_REFUSED)
        self.assertEqual(refusal_of(503).reason, Reason.CONSOLE_BUSY)
        for status in (100, 101, 201, 302, 400, 502, 599):
            self.assertEqual(refusal_of(status).reason, Reason.HYPERVISOR_PROTOCOL)

    def test_the_detail_names_the_status(self) -> None:
        for status in (302, 401, 403, 404, 408, 431, 500, 501, 503):
            self.assertIn(f"the host answered {status}", refusal_of(status).detail)
