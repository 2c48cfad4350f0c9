"""`Leg`: one side's connection, TCP or a unix socket, with TLS or without.

A leg is read in one of two ways. While a session is being set up its owner *pulls*: `read` gives what has arrived, `unread`
puts back what belongs to the next reader. Afterwards a relay has the bytes *pushed* to its `Sink`. Or it takes the connection
away altogether: `detach` hands out the file descriptor and the TLS state, and Twisted forgets both.

TLS is driven here, over memory BIOs, rather than by `twisted.protocols.tls`: that protocol cannot give a connection away
(its `connectionLost` reads from the SSL object, its factory keeps every protocol, and closing its transport shuts the socket
down for whoever holds a duplicate).

Who owns what: the leg owns the socket and the `OpenSSL.SSL.Connection` until `detach` fires; then its caller owns them. A leg
that was not detached must be ended with `close` or `abort`; both may be called at any moment, more than once.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

READ_AHEAD: Final = 65536
"""Bytes that a leg reads before anyone asks for them; then it stops reading until someone does."""
_RECORD: Final = 16384
"""The most that one TLS record carries (RFC 8446 section 5.1). OpenSSL's memory BIOs grow to the largest piece they were ever
given and never shrink, so both directions go in pieces of this size."""
_KEEPALIVE_IDLE: Final = 60
_KEEPALIVE_INTERVAL: Final = 15
_KEEPALIVE_COUNT: Final = 4
_USER_TIMEOUT_MS: Final = 1000 * (_KEEPALIVE_IDLE + _KEEPALIVE_INTERVAL * _KEEPALIVE_COUNT)
"""Unanswered for this long, idle or not, and the kernel gives the peer up (tcp(7), TCP_USER_TIMEOUT)."""


class End(Enum):
    """How a leg came to send us nothing more."""

    CLOSED = "closed by the peer"
    LOST = "connection lost"
    UNTRUSTED = "the peer did not prove its identity"
    BROKEN = "the peer broke the TLS protocol"
    OURS = "closed by us"


class Sink(Protocol):
    """Where a leg in push mode puts what happens. None of these may raise."""

    def leg_received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def leg_ended(self) -> None:
        """The peer sends no more, and everything that it sent was handed over; `Leg.end` says how it ended."""

    def leg_full(self) -> None:
        """The leg holds enough unsent bytes: write no more until `leg_drained`."""

    def leg_drained(self) -> None:
        """The leg takes bytes again."""


@dataclass(frozen=True, slots=True)
class Detached:
    """A connection that no longer belongs to a leg. All of it is the holder's now; closing ``fd`` is the holder's duty."""

    fd: int
    tls: SSL.Connection | None
    unread: bytes
    """Plain bytes that had been received and decrypted, but not read by anyone."""
    unread_ciphertext: bytes
    """What had been received behind ``unread`` and not been given to ``tls`` yet. Empty on a plain leg."""


@implementer(IHalfCloseableProtocol)
class Leg(TwistedProtocol):
    """One side's connection. See the module's docstring for its two ways of reading, and for who owns it.

    ``tls`` is a fresh `SSL.Connection` in connect or accept state, or None for a plain leg. ``verify`` is asked once the
    handshake is complete and before a single byte of ours is sent: it returns what is wrong with the peer, or None.
    ``connected`` is called with the leg when it is connected.
    """

    transport: Any  # ITCPTransport or UNIX, an IConsumer and an IPushProducer all at once: no interface says so

    def __init__(
        self,
        clock: IReactorTime,
        tls: SSL.Connection | None = None,
        verify: Callable[[SSL.Connection], str | None] | None = None,
        connected: Callable[["Leg"], None] | None = None,
    ) -> None:
        self.end: End | None = None
        self.end_detail = ""
        self._clock = clock
        self._tls = tls
        self._verify = verify
        self._connected = connected
        self._secure = tls is None
        self._inbox = bytearray()
        self._ciphertext = bytearray()
        self._outbox = bytearray()
        self._reader: Deferred[bytes] | None = None
        self._sink: Sink | None = None
        self._sink_knows_end = False
        self._paused = False
        self._full = False
        self._closing = False
        self._gone = False
        self._abort_timer: IDelayedCall | None = None
        self._when_secure: list[Deferred[bool]] = []
        self._when_gone: list[Deferred[None]] = []
        self._when_flushed: Deferred[None] | None = None

    # What the owner may ask and do.

    @property
    def peer(self) -> IAddress:
        """Who is at the other end. Behind a ``haproxy:`` listener this is right once the first bytes were read."""
        peer: IAddress = self.transport.getPeer()
        return peer

    @property
    def full(self) -> bool:
        """Whether the leg holds enough unsent bytes."""
        return self._full

    def secure(self) -> Deferred[bool]:
        """Whether the peer can be spoken to: True once TLS is up and the peer verified, at once on a plain leg; False when the
        leg ended before that."""
        if self._secure or self.end is not None:
            return succeed(self._secure and self.end is None)
        waiting: Deferred[bool] = Deferred(self._when_secure.remove)
        self._when_secure.append(waiting)
        return waiting

    def gone(self) -> Deferred[None]:
        """Fires when nothing of the connection is left."""
        if self._gone:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._when_gone.remove)
        self._when_gone.append(waiting)
        return waiting

    def read(self) -> Deferred[bytes]:
        """The next bytes, as many as there are; ``b""`` once the peer sends no more. One read at a time."""
        if self._reader is not None or self._sink is not None:
            raise RuntimeError("a leg has one reader at a time")
        if self._inbox or self.end is not None:
            data = bytes(self._inbox)
            self._inbox.clear()
            self._go_on()
            return succeed(data)
        self._reader = Deferred(self._forget_reader)
        return self._reader

    def unread(self, data: bytes) -> None:
        """Put back what was read and belongs to the next reader."""
        self._inbox[:0] = data

    def push_to(self, sink: Sink) -> None:
        """From now on hand everything to ``sink``, beginning with what is still unread."""
        if self._reader is not None:
            raise RuntimeError("a leg has one reader at a time")
        self._sink = sink
        self._deliver()
        self._go_on()

    def pause(self) -> None:
        """In push mode: stop reading. A paused leg does not notice its peer's end."""
        self._paused = True
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on after `pause`."""
        self._paused = False
        self._deliver()
        self._go_on()

    def write(self, data: bytes) -> None:
        """Send; on a TLS leg, as soon as the peer is verified. Without effect once the leg is closing or lost."""
        if self._closing or self._gone:
            return
        if self._tls is None:
            self.transport.write(data)
        elif self._secure:
            self._encrypt(data)
        else:
            self._outbox += data

    def close(self, seconds: float) -> None:
        """Send what was written, say goodbye (close_notify, FIN), take the peer's goodbye, and be gone; abort after
        ``seconds`` if it does not come."""
        if self._closing or self._gone:
            return
        self._closing = True
        self._abort_timer = self._clock.callLater(seconds, self._expired)
        peer_ended = self.end is not None
        self._ended(End.OURS, "")
        if self._tls is not None:
            if not self._secure:
                self.transport.abortConnection()
                return
            try:
                self._tls.shutdown()
            except SSL.Error:
                pass  # the TLS state is broken already: there is no goodbye to say
            self._send_ciphertext()
        if peer_ended:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        else:
            # Closing with unread bytes in the socket would reset the connection, and the peer might lose the last of what we
            # sent: end our half, and read the peer's to its end.
            self.transport.loseWriteConnection()
            self.transport.resumeProducing()

    def abort(self) -> None:
        """Be gone at once."""
        if not self._gone:
            self._closing = True
            self._ended(End.OURS, "")
            self.transport.abortConnection()

    def detach(self) -> Deferred[Detached | None]:
        """Take the connection away from the leg, once everything written to it has been sent.

        Nothing is shut down and nothing is lost: what arrives from now on stays in the socket. None when the connection ended
        before that. The leg is gone afterwards.
        """
        self._paused = True
        self.transport.pauseProducing()
        return Deferred.fromCoroutine(self._detach())

    # What Twisted calls.

    def connectionMade(self) -> None:
        self._tune()
        self.transport.registerProducer(_Writing(self), True)
        if self._connected is not None:
            self._connected(self)
        if self._tls is not None:
            self._decrypt()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._tls is None:
            self._inbox += data
            self._deliver()
        else:
            self._ciphertext += data
            self._decrypt()

    def readConnectionLost(self) -> None:
        if self._closing:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        else:
            self._ended(End.CLOSED, "")

    def writeConnectionLost(self) -> None:
        """Our half is closed; the peer's end is what we wait for."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._abort_timer is not None and self._abort_timer.active():
            self._abort_timer.cancel()
        self._ended(End.CLOSED if reason.check(ConnectionDone) else End.LOST, reason.getErrorMessage())
        self._tls = None
        self._verify = self._connected = None
        if self._when_flushed is not None:
            flushed, self._when_flushed = self._when_flushed, None
            flushed.callback(None)
        waiting, self._when_gone = self._when_gone, []
        for each in waiting:
            each.callback(None)

    # TLS.

    def _decrypt(self) -> None:
        """Feed what has arrived to TLS, and what comes out of it to the reader, as long as there is someone to take it."""
        while self._tls is not None and self.end is None:
            if self._ciphertext:
                piece = bytes(self._ciphertext[:_RECORD])
                del self._ciphertext[:_RECORD]
                self._tls.bio_write(piece)
            try:
                if not self._secure:
                    self._tls.do_handshake()
                    self._handshake_done()
                    continue
                while self._tls is not None and self.end is None:
                    self._inbox += self._tls.recv(_RECORD)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                self._ended(End.CLOSED, "")
            except SSL.Error as error:
                self._send_ciphertext()  # the alert that tells the peer
                self._fail(End.BROKEN, _explain(error))
            self._send_ciphertext()
            self._deliver()
            if not self._ciphertext or self._stuck():
                return

    def _handshake_done(self) -> None:
        assert self._tls is not None
        problem = self._verify(self._tls) if self._verify is not None else None
        if problem is not None:
            self._fail(End.UNTRUSTED, problem)
            return
        self._secure = True
        waiting, self._when_secure = self._when_secure, []
        for each in waiting:
            each.callback(True)
        if self._outbox:
            data, self._outbox = bytes(self._outbox), bytearray()
            self._encrypt(data)

    def _encrypt(self, data: bytes) -> None:
        assert self._tls is not None
        view = memoryview(data)
        try:
            for start in range(0, len(view), _RECORD):
                self._tls.send(view[start : start + _RECORD])
                self._send_ciphertext()
        except SSL.Error as error:
            self._fail(End.BROKEN, _explain(error))

    def _send_ciphertext(self) -> None:
        if self._tls is None:
            return
        try:
            while True:
                self.transport.write(self._tls.bio_read(2 * _RECORD))
        except SSL.WantReadError:
            return

    def _fail(self, end: End, detail: str) -> None:
        self._ended(end, detail)
        self.transport.abortConnection()

    # Reading.

    def _stuck(self) -> bool:
        """Whether nobody takes what is in the inbox at the moment."""
        return self._paused or len(self._inbox) >= READ_AHEAD

    def _deliver(self) -> None:
        """Hand the inbox, and then the end, to whoever waits for it."""
        if self._sink is not None:
            if self._inbox and not self._paused:
                data = bytes(self._inbox)
                self._inbox.clear()
                self._sink.leg_received(data)
            if self.end is not None and not self._inbox and not self._paused and not self._sink_knows_end:
                self._sink_knows_end = True
                self._sink.leg_ended()
        elif self._reader is not None and (self._inbox or self.end is not None):
            reader, self._reader = self._reader, None
            data = bytes(self._inbox)
            self._inbox.clear()
            reader.callback(data)
        if self._stuck() and not self._closing and not self._gone:
            self.transport.pauseProducing()

    def _go_on(self) -> None:
        """Take up reading again, if the inbox has room."""
        if self._closing or self._gone or self._stuck():
            return
        if self._ciphertext:
            self._decrypt()
        if not self._stuck() and self.end is None:
            self.transport.resumeProducing()

    def _forget_reader(self, _: Deferred[bytes]) -> None:
        self._reader = None

    def _ended(self, end: End, detail: str) -> None:
        if self.end is not None:
            return
        self.end, self.end_detail = end, detail
        waiting, self._when_secure = self._when_secure, []
        for each in waiting:
            each.callback(False)
        self._deliver()

    # Writing.

    def _writable(self, writable: bool) -> None:
        self._full = not writable
        if self._sink is not None and not self._closing:
            if writable:
                self._sink.leg_drained()
            else:
                self._sink.leg_full()

    def _expired(self) -> None:
        self.transport.abortConnection()

    async def _detach(self) -> Detached | None:
        bottom = self._bottom()
        if not self._gone:
            self._when_flushed = Deferred()
            self.transport.unregisterProducer()
            bottom.registerProducer(_Flushing(self), False)
            bottom.startWriting()
            await self._when_flushed
        if self._gone or self.end is End.LOST:
            return None
        bottom.unregisterProducer()
        bottom.stopReading()
        bottom.stopWriting()
        detached = Detached(bottom.socket.detach(), self._tls, bytes(self._inbox), bytes(self._ciphertext))
        self._closing = True
        # The transport unwinds as if the peer had closed; the socket that it would shut down and close is no longer its own.
        bottom.connectionLost(connectionDone)
        return detached

    def _flushed(self) -> None:
        if self._when_flushed is not None:
            flushed, self._when_flushed = self._when_flushed, None
            flushed.callback(None)

    def _bottom(self) -> Any:
        """The transport that has the socket: a ``haproxy:`` listener wraps it."""
        transport: Any = self.transport
        while not hasattr(transport, "socket"):
            transport = transport.transport
        return transport

    def _tune(self) -> None:
        handle: socket.socket = self._bottom().socket
        if handle.family == socket.AF_UNIX:
            return
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


@implementer(IPushProducer)
class _Writing:
    """Hears from the transport whether it takes more bytes."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg

    def pauseProducing(self) -> None:
        self._leg._writable(False)

    def resumeProducing(self) -> None:
        self._leg._writable(True)

    def stopProducing(self) -> None:
        """The connection is lost, of which the leg hears by itself."""


class _Flushing:
    """A pull producer with nothing to produce: the transport asks it for more when all is sent."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._registered = False

    def resumeProducing(self) -> None:
        if self._registered:
            self._leg._flushed()
        self._registered = True  # registering asks once, whether or not there is anything left to send

    def stopProducing(self) -> None:
        """The connection is lost, of which the leg hears by itself."""


def _explain(error: SSL.Error) -> str:
    """OpenSSL's words for what went wrong: a list of (library, function, reason)."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0]) or "TLS failed"
    return str(error) or "TLS failed"
