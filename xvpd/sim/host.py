"""One host's HTTP server, as xapi has it behind port 443: XML-RPC, consoles and screenshots on one listener.

Sources: xapi's ocaml/libs/http-lib/http_svr.ml (heads, time limits, keep-alive), ocaml/xapi/xapi_http.ml, console.ml. Whoever
comes when there are as many connections as xapi allows is accepted by the kernel and hears nothing.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from xvpd.sim import http
from xvpd.sim.closing import Closing, Roster
from xvpd.sim.door import Admitted, Door
from xvpd.sim.faults import ConsoleFault, Faults
from xvpd.sim.http import Request
from xvpd.sim.model import PoolState
from xvpd.sim.xapi import MalformedCallError, Xapi

_READ_SECONDS: Final = 10.0
_HEAD_SECONDS: Final = 60.0
"""The first head on a connection: so long for each read, and so long in all."""
_MAX_BODY: Final = 300 * 1024
_MAX_EARLY: Final = 65536
"""What a client may send ahead before its request is answered."""
_PIECE_SECONDS: Final = 0.001
_METHODS: Final = frozenset({"GET", "POST", "PUT", "CONNECT", "OPTIONS"})
_NO_LENGTH: Final = 'Failure("We require a content-length: HTTP header")'


class Console(Protocol):
    """What a VM shows to viewers."""

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """The server's side of one viewer's connection; None when the VNC server takes no more."""

    def caption(self, text: str) -> None:
        """Where the VM is."""

    def restart(self) -> None:
        """The VM starts anew."""

    def hang_up(self) -> None:
        """End every viewer's connection."""


class HostServer(Factory):
    """Makes the connections of one host. ``console_of`` gives a VM's console, None when it has no VNC server; ``picture_of`` a
    VM's screen as JPEG, None when there is none."""

    noisy = False

    def __init__(
        self,
        state: PoolState,
        host: str,
        xapi: Xapi,
        faults: Faults,
        clock: IReactorTime,
        *,
        console_of: Callable[[str], Console | None],
        picture_of: Callable[[str], bytes | None],
        max_connections: int = 800,
    ) -> None:
        self.state = state
        self.host = host
        self.xapi = xapi
        self.faults = faults
        self.clock = clock
        self.console_of = console_of
        self.picture_of = picture_of
        self.max_connections = max_connections
        self.door = Door(state, host)
        self.connections: Roster[HostConnection] = Roster()
        """All, those beyond ``max_connections`` included, which wait their turn."""

    @property
    def address(self) -> str:
        """The host's address as its record has it."""
        return str(self.state.record("host", self.host)["address"])

    def buildProtocol(self, addr: IAddress | None) -> "HostConnection":
        """One connection."""
        return HostConnection(self)

    def joined(self, connection: "HostConnection") -> None:
        """A connection has come: it is served, or waits."""
        self.connections.add(connection)
        if len(self.connections) <= self.max_connections:
            connection.serve()
        else:
            connection.transport.pauseProducing()

    def left(self, connection: "HostConnection") -> None:
        """A connection has gone: the next may be served."""
        self.connections.remove(connection)
        for each in list(self.connections)[: self.max_connections]:
            if not each.served:
                each.serve()
                each.transport.resumeProducing()

    def abort_all(self) -> None:
        """The host is gone, and all its connections."""
        for connection in self.connections:
            connection.transport.abortConnection()


class HostConnection(Closing):
    """One connection: requests one after the other, until one becomes a console."""

    _log = Logger()

    def __init__(self, server: HostServer) -> None:
        super().__init__(server.clock)
        self.served = False
        self._server = server
        self._buffer = bytearray()
        self._request: Request | None = None
        self._busy = False
        self._advancing = False
        self._console: IProtocol | None = None
        self._admitted: Admitted | None = None
        self._pending: Deferred[bytes] | None = None
        self._delayed: IDelayedCall | None = None
        self._timers: list[IDelayedCall] = []

    # What Twisted calls.

    def connectionMade(self) -> None:
        """Take a place on the host."""
        self.transport.setTcpNoDelay(True)
        self._server.joined(self)

    def serve(self) -> None:
        """There is a place: the time for the first request runs."""
        self.served = True
        self._timers = [self.clock.callLater(seconds, self._too_slow) for seconds in (_READ_SECONDS, _HEAD_SECONDS)]

    def dataReceived(self, data: bytes) -> None:
        """Bytes for the console, or for the next request."""
        if self._console is not None:
            self._console.dataReceived(data)
            return
        if self.closing:
            return
        self._buffer += data
        if self._timers:
            self._timers[0].reset(_READ_SECONDS)
        if self._busy and len(self._buffer) > _MAX_EARLY:
            self.transport.pauseProducing()
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing is to be done for this client any more."""
        super().connectionLost(reason)
        self._end_timers()
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        if self._pending is not None:
            self._pending.cancel()
        if self._admitted is not None:
            self._server.door.closed(self._admitted)
        if self._console is not None:
            self._console.connectionLost(reason)
        self._server.left(self)

    # Requests.

    def _advance(self) -> None:
        """Take up the next requests that are all there."""
        if self._advancing:
            return
        self._advancing = True
        while not (self._busy or self.closing) and self._take_up():
            pass
        self._advancing = False

    def _take_up(self) -> bool:
        """Take up the next request; False when it is not all there."""
        if self._request is None and not self._read_head():
            return False
        request = self._request
        assert request is not None
        body = b""
        if request.method == "POST":
            read = self._read_body(request)
            if read is None:
                return False
            body = read
        self._request = None
        self._busy = True
        if request.method == "POST":
            self._call(request, body)
        else:
            self._route(request)
        return True

    def _read_head(self) -> bool:
        length = http.head_length(self._buffer)
        if length is None:
            return False
        self._end_timers()
        if length == 0:
            self._refuse(http.head_too_large())
            return False
        head = bytes(self._buffer[:length])
        del self._buffer[:length]
        try:
            self._request = http.parse(head)
        except http.BadHeadError:
            self._refuse(http.internal_error("1.1", "The HTTP headers could not be parsed."))
            return False
        return True

    def _read_body(self, request: Request) -> bytes | None:
        """The body of an XML-RPC call, once it is all there."""
        text = request.headers.get("content-length", "")
        if not text.isdigit():
            self._refuse(http.internal_error(request.reply_version, _NO_LENGTH))
            return None
        length = int(text)
        if length > _MAX_BODY:
            self._refuse(http.internal_error(request.reply_version, "Http.Client_requested_size_over_limit"))
            return None
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _call(self, request: Request, body: bytes) -> None:
        try:
            answer = self._pending = self._server.xapi.answer(body)
        except MalformedCallError:
            self._refuse(http.internal_error(request.reply_version, "Xmlrpc.Parse_error"))
            return
        answer.addCallback(self._answered, request)
        answer.addErrback(self._failed, request)

    def _answered(self, body: bytes, request: Request) -> None:
        self._pending = None
        self._busy = False
        self.transport.write(http.xml_reply(request, body))
        if request.close:
            self.close()
            return
        self.transport.resumeProducing()
        self._advance()

    def _failed(self, why: Failure, request: Request) -> None:
        if not why.check(CancelledError):
            self._log.failure("a call could not be answered", why)
            self._refuse(http.internal_error(request.reply_version, "Stdlib.Exit"))

    def _route(self, request: Request) -> None:
        """Longest prefix first, as xapi's tree of handlers."""
        if request.method not in _METHODS:
            self._refuse(http.method_not_implemented(request))
        elif request.method == "CONNECT" and request.path.startswith("/console"):
            self._open_console(request)
        elif request.method == "GET" and request.path.startswith("/vncsnapshot"):
            self._snapshot(request)
        elif request.method == "GET" and request.path.startswith("/console"):
            self._refuse(self._server.door.websocket(request))
        else:
            self._refuse(http.forbidden())

    def _snapshot(self, request: Request) -> None:
        verdict = self._server.door.snapshot(request)
        if isinstance(verdict, bytes):
            self._refuse(verdict)
            return
        picture = self._server.picture_of(verdict.vm)
        if picture is None:
            self._refuse(http.internal_error(request.reply_version, "Vncsnapshot.Failure"))
            return
        self._busy = False
        self.transport.write(http.file_reply(picture))
        if request.close:
            self.close()

    # Consoles.

    def _open_console(self, request: Request) -> None:
        vm = self._server.door.vm_of(request)
        uuid = self._server.state.record("VM", vm)["uuid"] if vm is not None else ""
        fault = self._server.faults.take_console(self._server.address, uuid)
        if fault is None:
            self._decide(request, ConsoleFault())
        else:
            self._later(fault.delay, self._decide, request, fault)

    def _decide(self, request: Request, fault: ConsoleFault) -> None:
        """What the host truly says, and what it is ordered to say instead."""
        vm = self._server.door.vm_of(request)
        console = self._server.console_of(vm) if vm is not None else None
        verdict = self._server.door.console(request, console is not None)
        admitted = verdict if isinstance(verdict, Admitted) else None
        reply = verdict if isinstance(verdict, bytes) else http.CONSOLE_OPEN
        if fault.reply is not None:
            reply = fault.reply
        if admitted is not None:
            self._admitted = admitted
            self._server.door.opened(admitted)
        self._say(reply, fault, console if reply[8:13] == b" 200 " and admitted is not None else None)

    def _say(self, rest: bytes, fault: ConsoleFault, console: Console | None) -> None:
        """Send a reply, in pieces if so ordered; then do what comes then."""
        size = fault.piece or len(rest)
        self.transport.write(rest[:size])
        if rest[size:]:
            self._later(_PIECE_SECONDS, self._say, rest[size:], fault, console)
        elif fault.then == "reset":
            self.transport.abortConnection()
        elif fault.then == "close" or (fault.then == "serve" and console is None):
            self.close()
        elif console is not None and fault.then == "serve":
            if fault.banner_in_segment:
                self._connect(console)
            else:
                self._later(_PIECE_SECONDS, self._connect, console)

    def _connect(self, console: Console) -> None:
        """The connection is the VNC server's from here on. One that takes no more viewers closes it, after the 200."""
        protocol = console.buildProtocol(self.transport.getPeer())
        if protocol is None:
            self.close()
            return
        self._console = protocol
        protocol.makeConnection(self.transport)
        self.transport.resumeProducing()
        if self._buffer:
            early = bytes(self._buffer)
            self._buffer.clear()
            protocol.dataReceived(early)

    def _later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        if seconds:
            self._delayed = self.clock.callLater(seconds, what, *arguments)
        else:
            what(*arguments)

    # Ends.

    def _refuse(self, reply: bytes) -> None:
        self.transport.write(reply)
        self.close()

    def _too_slow(self) -> None:
        self._end_timers()
        self._refuse(http.request_timeout())

    def _end_timers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()
