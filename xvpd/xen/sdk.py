"""What the XenAPI SDK sends its calls over: a transport of ours for its `xmlrpc.client`.

The SDK's own has no timeout, no way to bring a trust root or a pin, and no limit to what it reads.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from xmlrpc.client import ProtocolError, Transport, getparser

from xvpd import __version__
from xvpd.xen.trust import Trust

REPLY_CAP: Final = 64 * 1024 * 1024
"""Bytes of one reply. A VM's record has some 10 KB, in XML up to twice that."""
_PIECE: Final = 16384
"""Bytes that are read and parsed in one go, which holds the interpreter's lock: about a millisecond."""
_CUT: Final = "cut off by xvpd"


class UnreachableError(Exception):
    """No connection came about. The text says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a reply is read, while it comes."""

    parser: Callable[[], tuple[Any, Any]] = getparser
    """Makes what is fed with its bytes, and what has the values then, as `xmlrpc.client.getparser` does."""
    cap: int = REPLY_CAP
    """Bytes."""


WHOLE: Final = Reading()
"""All of it."""


class SdkTransport(Transport):
    """One keep-alive connection to one host's API, verified before a byte of ours is sent.

    Used by one thread at a time; `cut` alone may be called from any other. ``connect_seconds`` is for the TCP connection, per
    address of the host's name, and for TLS; ``call_seconds`` is how long the host may be silent afterwards.
    """

    def __init__(
        self,
        address: str,
        port: int,
        trust: Trust,
        connect_seconds: float,
        call_seconds: float,
        *,
        reading: Reading = WHOLE,
    ) -> None:
        super().__init__()
        self._address = address
        self._port = port
        self._trust = trust
        self._connect_seconds = connect_seconds
        self._call_seconds = call_seconds
        self._reading = reading
        self._http = _HttpConnection(self)
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._in_use = False
        self._cut = False

    def cut(self) -> None:
        """End the call that is under way, and refuse every later one: the thread that waits for the host reads an end of file.
        Nothing of the connection is left when that call has ended."""
        with self._lock:
            self._cut = True
            in_use = self._in_use
            if in_use and self._handle is not None:
                _shut_down(self._handle)
        if not in_use:
            self.close()

    # What xmlrpc.client calls.

    def request(self, host: Any, handler: str, request_body: Any, verbose: Any = False) -> Any:
        """One call."""
        with self._lock:
            if self._cut:
                raise ConnectionAbortedError(_CUT)
            self._in_use = True
        try:
            return self._persevering(handler, request_body)
        finally:
            with self._lock:
                self._in_use = False
                cut = self._cut
            if cut:
                self.close()

    def close(self) -> None:
        """Close the connection. The next call makes another."""
        self._http.close()
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    # How.

    def _persevering(self, handler: str, body: Any) -> Any:
        """One exchange; another when a connection that was kept turns out to have been closed by the host, as it may be at any
        time: what must not be done twice is not asked for on a connection that was kept."""
        kept = self._http.sock is not None
        try:
            return self._exchange(handler, body)
        except (ConnectionError, ssl.SSLEOFError):
            if not kept or self._cut:
                raise
        return self._exchange(handler, body)

    def _exchange(self, handler: str, body: Any) -> Any:
        try:
            self._http.request("POST", handler, body, {"Content-Type": "text/xml", "User-Agent": f"xvpd/{__version__}"})
            with self._http.getresponse() as response:
                if response.status != http.client.OK:
                    raise ProtocolError(self._address, response.status, "", {})
                reply = self._parsed(response)
        except BaseException:
            self.close()
            raise
        if self._http.sock is None:  # the host asked for the end of the connection
            self.close()
        return reply

    def _parsed(self, response: http.client.HTTPResponse) -> Any:
        parser, unmarshaller = self._reading.parser()
        received = 0
        while piece := response.read(_PIECE):
            received += len(piece)
            if received > self._reading.cap:
                raise ValueError("the reply is too large")
            parser.feed(piece)
        parser.close()
        return unmarshaller.close()

    def _open(self) -> socket.socket:
        try:
            connected = socket.create_connection((self._address, self._port), self._connect_seconds)
        except OSError as error:
            raise UnreachableError(error.strerror or "no answer to the attempt to connect") from None
        try:
            self._watch(connected)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secured = self._trust.secured(connected, self._address)
        except BaseException:
            connected.close()
            raise
        secured.settimeout(self._call_seconds)
        return secured

    def _watch(self, connected: socket.socket) -> None:
        """Let `cut` reach the connection by a handle of its own, which no other thread closes under its hands."""
        handle = connected.dup()
        with self._lock:
            self._handle = handle  # the last one went with its connection: see `close`
            if self._cut:
                _shut_down(handle)


class _HttpConnection(http.client.HTTPConnection):
    def __init__(self, transport: SdkTransport) -> None:
        super().__init__(transport._address, transport._port)
        self._transport = transport

    def connect(self) -> None:
        self.sock = self._transport._open()


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):  # the host was faster
        handle.shutdown(socket.SHUT_RDWR)
