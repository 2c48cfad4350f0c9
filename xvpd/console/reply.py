"""The door's replies, composed as bytes from our own words alone.

Every reply begins with ``HTTP/1.1``, whatever the request said: the OpenStack Java viewer takes nothing else. Of a refusal it
shows the status line and no more, so the reason phrase is the reason's sentence, with the request id that an operator needs.
"""

from typing import Final

from xvpd.console.head import Head
from xvpd.console.request import METHODS
from xvpd.reason import Reason

OK: Final = b"HTTP/1.1 200 OK\r\n\r\n"
"""The console is open: RFB follows. Nova's proxy answered with these 19 bytes, and viewers rely on them."""

_NO_STATUS: Final = 503
"""For what can also end a session that is open, and has no status of its own."""
_FOR_VIEWERS: Final = "Its token has not been used: give the address to a viewer, as it is."


def refusal(reason: Reason, request_id: str, head: Head | None = None) -> bytes:
    """A request turned down, or a console that could not be opened. ``head`` is the request's, when there was a whole one.

    The body is the reason's sentence. ``request_id`` is one of ours.
    """
    phrase = f"{reason.sentence.removesuffix('.')} (request {request_id})"
    body = f"{reason.sentence} {_FOR_VIEWERS}\n" if reason is Reason.FOR_VIEWERS else f"{reason.sentence}\n"
    headers = {"X-Request-Id": request_id}
    if reason is Reason.METHOD_NOT_ALLOWED and head is not None:
        headers["Allow"] = ", ".join(METHODS[head.path])
    reply = _reply(reason.status or _NO_STATUS, phrase, headers, body)
    # RFC 9110 section 9.3.2: an answer to HEAD has the headers of the whole, and no content.
    return reply.removesuffix(body.encode("ascii")) if head is not None and head.method == "HEAD" else reply


def healthz(draining: bool) -> bytes:
    """Whether clients are accepted, for a load balancer."""
    if draining:
        return _reply(503, "Draining", {}, f"{Reason.DRAINING.sentence}\n")
    return _reply(200, "OK", {}, "ok\n")


def _reply(status: int, phrase: str, headers: dict[str, str], body: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii")
