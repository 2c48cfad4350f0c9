"""HTTP as xapi's own server reads and writes it, without a connection.

Every reply is what ocaml/libs/http-lib/http_svr.ml and http.ml put on the wire, byte for byte: error pages have lower-case
header names, ``content-length`` first; what a handler writes by hand (200 and 404 of ``/console``) has capitals and no length.
"""

import base64
import binascii
from dataclasses import dataclass, field
from html import escape
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

HEAD_CAP: Final = 1006
"""Bytes of a request's head, its blank line included: 1024 less the 18 of the smallest request."""
_END: Final = b"\r\n\r\n"
_NO_STORE: Final = "no-cache, no-store"

CONSOLE_OPEN: Final = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
"""What a console begins with, whatever version the request had."""
NO_CONSOLE: Final = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n"
NO_WEBSOCKETS: Final = b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n"
"""What a WebSocket handshake meets while `pool.limit_console_sessions` is on."""
NO_WSPROXY: Final = b"HTTP/1.0 501 Method Not Implemented\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n"
"""What it meets when there is no wsproxy, as here."""


class BadHeadError(Exception):
    """A request that xapi cannot read."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head."""

    method: str
    path: str
    query: dict[str, str] = field(repr=False)
    version: str
    headers: dict[str, str] = field(repr=False)
    """By name in lower case; the last of several."""

    @property
    def close(self) -> bool:
        """Whether the connection ends with the reply."""
        wish = self.headers.get("connection", "").lower()
        return wish == "close" or (self.version == "1.0" and wish != "keep-alive")

    @property
    def reply_version(self) -> str:
        """The version of a reply: the request's if that is 1.0, else 1.1."""
        return "1.0" if self.version == "1.0" else "1.1"

    @property
    def session(self) -> str | None:
        """The xapi session: from the cookie, else from the query."""
        return cookies(self.headers.get("cookie", "")).get("session_id", self.query.get("session_id"))

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password of HTTP Basic."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return (user, password) if scheme == "Basic" and colon else None


def head_length(data: bytes | bytearray) -> int | None:
    """How long the head at the beginning of ``data`` is; 0 when it is longer than `HEAD_CAP`, None when more has to come."""
    end = data.find(_END)
    if end >= 0:
        return end + len(_END) if end + len(_END) <= HEAD_CAP else 0
    matched = next(length for length in range(len(_END) - 1, -1, -1) if data.endswith(_END[:length]))
    return 0 if len(data) + len(_END) - matched > HEAD_CAP else None


def parse(head: bytes) -> Request:
    """Read a head. `BadHeadError` when its first line has not three words, or names no version."""
    lines = head.decode("latin-1").split("\n")
    words = lines[0].split()
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise BadHeadError("the request line")
    method, uri, version = words
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise BadHeadError("the request's address") from error
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = {name: value for name, value in reversed(pairs)}  # noqa: C416 # of several, the first counts
    return Request(method, unquote(parts.path), query, version.removeprefix("HTTP/"), headers)


def cookies(text: str) -> dict[str, str]:
    """What xapi sees of a Cookie header: pairs between ``;`` (or ``&`` where there is none), blanks not trimmed. So the second
    of two cookies, sent with the usual blank before it, is not seen by its name."""
    pairs = text.split(";" if ";" in text else "&")
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        found.setdefault(unquote_plus(name), unquote_plus(value))
    return found


def xml_reply(request: Request, body: bytes) -> bytes:
    """The reply to an XML-RPC call."""
    head = (
        f"HTTP/{request.reply_version} 200 OK\r\ncontent-length: {len(body)}\r\n"
        f"connection: {'close' if request.close else 'keep-alive'}\r\ncache-control: {_NO_STORE}\r\n"
        "content-type: text/xml\r\n\r\n"
    )
    return head.encode("ascii") + body


def file_reply(body: bytes) -> bytes:
    """The reply that carries a file, such as a screenshot."""
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: keep-alive\r\n\r\n".encode("ascii") + body


def unauthorised(version: str, realm: str) -> bytes:
    """401, in xapi's spelling."""
    text = "<h1>HTTP 401 unauthorised</h1>Please check your credentials and retry."
    return _page(version, "401 Unauthorised", text, f'WWW-Authenticate: Basic realm="{realm}"\r\n')


def forbidden(version: str = "1.1") -> bytes:
    """403: a role that does not suffice, and any path that is not served."""
    return _page(version, "403 Forbidden", "<h1>HTTP 403 forbidden</h1>Access to the requested resource is forbidden.")


def request_timeout() -> bytes:
    """408: a head that took too long."""
    return _page("1.1", "408 Request Timeout", "<h1>HTTP 408 request timeout</h1>Timed out waiting for the request.")


def head_too_large() -> bytes:
    """431: a head of more than `HEAD_CAP` bytes."""
    text = "<h1>HTTP 431 request header fields too large</h1>Exceeded the maximum header size."
    return _page("1.1", "431 Request Header Fields Too Large", text)


def internal_error(version: str, extra: str) -> bytes:
    """500, with the exception's name in it: also what a console that cannot be opened is answered."""
    text = (
        "<h1>HTTP 500 internal server error</h1>An unexpected error occurred; please wait a while and try again. If the "
        "problem persists, please contact your support representative.<h1> Additional information </h1>"
    )
    return _page(version, "500 Internal Error", text + escape(extra).replace("&#x27;", "&apos;"))


def method_not_implemented(request: Request) -> bytes:
    """501: a method that no handler has."""
    text = f"<h1>HTTP 501 Method Not Implemented</h1><p>Unknown {request.method} not supported.<br /></p>"
    return _page(request.reply_version, "501 Method not implemented", text)


def limit_exceeded(version: str, users: list[str]) -> bytes:
    """503: `pool.limit_console_sessions` is on, and somebody, who is named, has the console."""
    who = f"User '{escape(users[0])}' is" if len(users) == 1 else f"Users '{', '.join(map(escape, users))}' are"
    text = (
        f"<h1>Connection Limit Exceeded</h1><p>{who} currently connected to this console. No new connections are allowed. "
        "Please check the limit_console_sessions config and try again later.</p>"
    )
    return _page(version, "503 Connection Limit Exceeded", text)


def _page(version: str, status: str, text: str, more_headers: str = "") -> bytes:
    body = f"<html><body>{text}</body></html>".encode()
    head = (
        f"HTTP/{version} {status}\r\ncontent-length: {len(body)}\r\ncontent-type: text/html\r\nconnection: close\r\n"
        f"cache-control: {_NO_STORE}\r\n{more_headers}\r\n"
    )
    return head.encode("latin-1", "replace") + body
