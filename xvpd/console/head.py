"""The head of a client's request, sans-io: strict, capped, and separate from whatever bytes come behind it.

The raw bytes are judged before any parser sees them. Then h11 reads the head, and only the head. h11 alone would take bare
line feeds, folded lines, control characters in values, bodies, and 60 KB in one piece; here none of these gets that far, so
there are no two opinions about where a request ends (RFC 9112 section 11.2).

Accepted: one request without a body, HTTP/1.0 (no header at all is fine) or HTTP/1.1 (with Host, RFC 9112 section 3.2), its
target in origin-form (section 3.2.1). No refusal quotes the request: a token might be in it.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

import h11

from xvpd.reason import Reason, Refusal

HEAD_LIMIT: Final = 8192
"""Bytes of a head, its blank line included."""
HEADER_LIMIT: Final = 64
"""Header lines of a head."""

_BLANK_LINE: Final = b"\r\n\r\n"
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
"""Controls but tab and whole line ends. A carriage return at the very end of what has arrived is not judged yet."""
_REQUEST_LINE: Final = re.compile(rb"[^ \t]+ (?P<target>[^ \t]+) HTTP/1\.[01]")
_TARGET: Final = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
"""RFC 3986 sections 3.3 and 3.4: what a path and a query may be made of."""
_TLS_HANDSHAKE: Final = 0x16


@dataclass(frozen=True, slots=True)
class Head:
    """What a client asked for. Secrets may be anywhere in it, so its repr shows next to nothing."""

    method: str
    path: str = field(repr=False)
    """As it came, still percent-encoded: paths are compared, never resolved."""
    query: tuple[tuple[str, str], ...] = field(repr=False)
    """Names and values, decoded, in order."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Lower-case names, and values (Latin-1), in order."""
    http_version: str
    """``1.0`` or ``1.1``."""
    trailing: bytes = field(repr=False)
    """What was received behind the head, for the next reader."""

    def header(self, name: str) -> str:
        """A header's value, by its lower-case name; several are one list (RFC 9110 section 5.3). Empty when there is none."""
        return ", ".join(value for known, value in self.headers if known == name)


class HeadReader:
    """Reads one head, from pieces of any size. A byte is looked at once, however small the pieces are."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._judged = 0

    def receive(self, data: bytes) -> Head | Refusal | None:
        """Take bytes; None until there is an answer. Then the reader is done: what comes behind a head is not for it.

        Refusals: BAD_REQUEST as soon as a byte cannot be part of a head, HEAD_TOO_LARGE.
        """
        self._buffer += data
        blank_line = self._buffer.find(_BLANK_LINE, max(0, self._judged - len(_BLANK_LINE) + 1), HEAD_LIMIT)
        complete = blank_line >= 0
        limit = blank_line + len(_BLANK_LINE) if complete else min(len(self._buffer), HEAD_LIMIT)
        forbidden = _FORBIDDEN.search(self._buffer, self._judged, limit)
        if forbidden is not None:
            return _bad(_explain(self._buffer[forbidden.start()], forbidden.start()))
        if complete:
            return _parse(bytes(self._buffer[:limit]), bytes(self._buffer[limit:]))
        if limit == HEAD_LIMIT:
            return Refusal(Reason.HEAD_TOO_LARGE, f"no end of the head within {HEAD_LIMIT} bytes")
        self._judged = limit - self._buffer.endswith(b"\r")
        return None


def _parse(raw: bytes, trailing: bytes) -> Head | Refusal:
    """A whole head, whose bytes have been judged."""
    request_line, *header_lines = raw.removesuffix(_BLANK_LINE).split(b"\r\n")
    if len(header_lines) > HEADER_LIMIT:
        return Refusal(Reason.HEAD_TOO_LARGE, f"{len(header_lines)} header lines")
    fault = _fault_in_request_line(request_line) or _fault_in_headers(header_lines)
    if fault:
        return _bad(fault)
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(raw)
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return _bad("a malformed method or header line, more than one Host, or HTTP/1.1 without one")
    assert isinstance(request, h11.Request)
    path, _, query = request.target.decode("ascii").partition("?")
    try:
        parameters = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return _bad("a query that is not UTF-8")
    return Head(
        method=request.method.decode("ascii"),
        path=path,
        query=tuple(parameters),
        headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers),
        http_version=request.http_version.decode("ascii"),
        trailing=trailing,
    )


def _fault_in_request_line(line: bytes) -> str:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        return "no request line of HTTP/1.0 or HTTP/1.1"
    target = match["target"]
    if not target.startswith(b"/"):
        return "a target that is no path: xvpd is not a proxy for addresses"
    if b"//" in target.partition(b"?")[0]:
        return "a path with an empty segment"
    if _TARGET.fullmatch(target) is None:
        return "a target with a character or an escape that may not be in it"
    return ""


def _fault_in_headers(lines: list[bytes]) -> str:
    if any(line.startswith((b" ", b"\t")) for line in lines):
        return "a folded header line"
    names = {line.partition(b":")[0].lower() for line in lines}
    if b"content-length" in names or b"transfer-encoding" in names:
        return "a body, or what announces one"
    return ""


def _explain(byte: int, position: int) -> str:
    if byte == _TLS_HANDSHAKE and position == 0:
        return "TLS on a listener in clear text"
    what = {0x0A: "a bare line feed", 0x0D: "a bare carriage return"}.get(byte, "a control character")
    return f"{what} at byte {position}"


def _bad(detail: str) -> Refusal:
    return Refusal(Reason.BAD_REQUEST, detail)
