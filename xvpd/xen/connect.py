"""The request that opens a console, and xapi's answer to it, as bytes. Pure: no reactor, no socket, no clock.

Facts from xapi: ocaml/xapi/console.ml and ocaml/libs/http-lib (``http.ml``, ``http_svr.ml``). A request's header may have
1024 bytes. Cookies are split at ``;`` and not trimmed, so that a second one would hide the first: there is exactly one. The
answer ``200 OK`` comes before the VM's VNC socket is opened, and the first RFB bytes may come with it.
"""

import re
from dataclasses import dataclass
from typing import Final

from xvpd import __version__
from xvpd.reason import Reason, Refusal
from xvpd.xen.syntax import bracketed, is_address, is_ref

REQUEST_CAP: Final = 1024
ANSWER_CAP: Final = 8192
"""Bytes of an answer's status line and headers; xapi's are below 200."""
_USER_AGENT: Final = f"xvpd/{__version__}"
"""Constant, as newer xapi can be told to limit the rate by user agent and address."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class Answered:
    """The host's status, and the bytes that came behind its headers: behind a 200, the first of RFB."""

    status: int
    leftover: bytes


@dataclass(frozen=True, slots=True)
class Malformed:
    """What came is no answer of HTTP/1.0 or HTTP/1.1; why, for an operator."""

    detail: str


def compose(vm_ref: str, xapi_session_ref: str, address: str) -> bytes:
    """The request for the console of the VM ``vm_ref`` on the host at ``address``.

    Raises ValueError for what is not a reference or an address (without naming it: one of them is a secret): whoever calls
    this has checked what it got from the pool.
    """
    if not is_ref(vm_ref):
        raise ValueError("the VM's reference is none")
    if not is_ref(xapi_session_ref):
        raise ValueError("the xapi session's reference is none")
    if not is_address(address):
        raise ValueError("the host's address is none")
    request = (
        f"CONNECT /console?ref={vm_ref} HTTP/1.1\r\n"
        f"Host: {bracketed(address)}\r\n"
        f"User-Agent: {_USER_AGENT}\r\n"
        f"Cookie: session_id={xapi_session_ref}\r\n"
        "\r\n"
    ).encode("ascii")
    assert len(request) < REQUEST_CAP
    return request


class AnswerReader:
    """Reads an answer as it comes, in whatever pieces.

    Lines end with CRLF. A line that ends with LF alone is malformed at once, rather than part of a header that would swallow
    RFB bytes while it waits for its end.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._line_start = 0
        self._searched = 0
        self._status = 0

    def receive(self, data: bytes) -> Answered | Malformed | None:
        """Take more bytes; None while the answer is incomplete. Not to be called again after an answer."""
        self._received += data
        while (end := self._received.find(b"\n", self._searched)) >= 0:
            if end >= ANSWER_CAP:
                break
            line = bytes(self._received[self._line_start : end])
            self._line_start = self._searched = end + 1
            if not line.endswith(b"\r"):
                return Malformed("a line ends without CR")
            problem = self._take(line[:-1])
            if problem is not None:
                return problem
            if line == b"\r":
                return Answered(self._status, bytes(self._received[end + 1 :]))
        self._searched = len(self._received)
        if len(self._received) >= ANSWER_CAP:
            return Malformed(f"its header has more than {ANSWER_CAP} bytes")
        return None

    def _take(self, line: bytes) -> Malformed | None:
        """A line without its end: the status line, a header, or the empty line behind them."""
        if not self._status:
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                return Malformed("it does not begin with an HTTP/1 status line")
            self._status = int(match[1])
        elif line and _HEADER_LINE.fullmatch(line) is None:
            return Malformed("a header line is none")
        return None


def refusal_of(status: int) -> Refusal:
    """What it means that the host answered ``status``, which is not 200 (xapi's own replies; console.ml and http_svr.ml)."""
    match status:
        case 401:
            return _refused(status, "it does not know the xapi session")
        case 403:
            return _refused(status, "the account's role lacks http/connect_console; it needs vm-operator")
        case 404:
            return _refused(status, "it has no VNC server for this VM: the VM is starting, or has disable_pv_vnc")
        case 408 | 431:
            return _refused(status, "it did not accept the form of the request")
        case 500:
            return _refused(status, "the VM is not running, or not on this host any more")
        case 501:
            return _refused(status, "it cannot connect consoles")
        case 503:
            return Refusal(
                Reason.CONSOLE_BUSY, "the host answered 503: someone is connected, and the pool limits console sessions"
            )
        case _:
            return Refusal(Reason.HYPERVISOR_PROTOCOL, f"the host answered {status}")


def _refused(status: int, meaning: str) -> Refusal:
    return Refusal(Reason.HYPERVISOR_REFUSED, f"the host answered {status}: {meaning}")
