"""`Leg`: one side's connection, TCP or a unix socket, with TLS or without.

A leg is read in one of two ways. While a session is being set up its owner *pulls*: `read` gives what has arrived, `unread`
puts back what belongs to the next reader. Afterwards a relay has the bytes *pushed* to its `Sink`. Or it takes the connection
away altogether: `detach` hands out the file descriptor and the TLS state, and Twisted forgets both.

TLS is driven here, over memory BIOs, rather than by `twisted.protocols.tls`: that protocol cannot give a connection away
(its `connectionLost` reads from the SSL object, its factory keeps every protocol, and closing its transport shuts the socket
down for whoever holds a duplicate).

Who owns what: the leg owns the socket and the `OpenSSL.SSL.Connection` until `detach` fires; then its caller owns them. A leg
that was not detached must be ended with `close` or `abort`, also when its peer has ended it; both may be called at any moment,
more than once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol, TypeVar

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xvpd.net.tls_state import BrokenTlsError, TlsState, UntrustedPeerError
from xvpd.net.transport import bottom_of, take_socket, tune, watch_room, when_flushed

T = TypeVar("T")

READ_AHEAD: Final = 65536
"""Bytes that a leg reads before anyone asks for them; then it stops reading until someone does."""


class End(Enum):
    """How a leg came to send us nothing more."""

    CLOSED = "closed by the peer"
    LOST = "connection lost"
    UNTRUSTED = "the peer did not prove its identity"
    BROKEN = "the peer broke the TLS protocol"
    OURS = "closed by us"


class Sink(Protocol):
    """Where a leg in push mode puts what happens. None of these may raise; all of them may call the leg."""

    def leg_received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def leg_ended(self) -> None:
        """Nothing more comes, and everything that did was handed over; `Leg.end` says how it ended. The last call."""

    def leg_full(self) -> None:
        """The leg holds enough unsent bytes: write no more until `leg_drained`. May be said again meanwhile."""

    def leg_drained(self) -> None:
        """The leg takes bytes again."""


@dataclass(frozen=True, slots=True)
class Detached:
    """A connection that no longer belongs to a leg. All of it is the holder's now; closing ``fd`` is the holder's duty."""

    fd: int
    """The connected socket: non-blocking, not inheritable."""
    tls: SSL.Connection | None
    unread: bytes
    """Plain bytes that had been received and decrypted, but not read by anyone."""
    unread_ciphertext: bytes
    """What had been received behind ``unread`` and not been given to ``tls`` yet. Empty on a plain leg."""


@implementer(IHalfCloseableProtocol)
class Leg(TwistedProtocol):
    """One side's connection. See the module's docstring for its two ways of reading, and for who owns it.

    ``tls`` and ``verify`` are what `TlsState` wants; for a plain leg, None. ``connected`` is called with the leg when it is
    connected.
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
        """How the peer's bytes ended, known once the last of them has arrived; some may still be unread."""
        self.end_detail = ""
        self._clock = clock
        self._tls = TlsState(tls, verify) if tls is not None else None
        self._connected = connected
        self._inbox = bytearray()
        self._reader: Deferred[bytes] | None = None
        self._sink: Sink | None = None
        self._pumping = False
        self._paused = False
        self._reading = True  # what the transport does, as `_regulate` last told it
        self._full = False
        self._over: tuple[End, str] | None = None  # the transport gives nothing more; what it gave may not be decrypted yet
        self._peer_finished = False
        self._closing = False
        self._gone = False
        self._abort_timer: IDelayedCall | None = None
        self._answer_seconds = 0.0
        self._when_secure: list[Deferred[bool]] = []
        self._when_ended: list[Deferred[None]] = []
        self._when_gone: list[Deferred[None]] = []
        self._detaching: Deferred[Detached | None] | None = None

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
        if self.end is not None:
            return succeed(False)
        return succeed(True) if self._is_secure() else _wait(self._when_secure)

    def ended(self) -> Deferred[None]:
        """Fires when `end` is known."""
        return succeed(None) if self.end is not None else _wait(self._when_ended)

    def gone(self) -> Deferred[None]:
        """Fires when nothing of the connection is left."""
        return succeed(None) if self._gone else _wait(self._when_gone)

    def read(self) -> Deferred[bytes]:
        """The next bytes, as many as there are; ``b""`` once the peer sends no more. One read at a time."""
        self._claim()
        waiting = self._reader = Deferred(self._forget_reader)
        self._pump()
        return waiting

    def unread(self, data: bytes) -> None:
        """Put back what was read and belongs to the next reader."""
        if not self._closing:
            self._inbox[:0] = data
            self._pump()

    def push_to(self, sink: Sink) -> None:
        """From now on hand everything to ``sink``, beginning with what is still unread."""
        self._claim()
        self._sink = sink
        if self._full:
            sink.leg_full()
        self._pump()

    def pause(self) -> None:
        """Stop reading. A paused leg does not notice its peer's end, unless the connection is lost by writing: then it hands
        over at once what it had read, and its end."""
        if self._over is None:
            self._paused = True
            self._regulate()

    def resume(self) -> None:
        """Read on after `pause`."""
        if self._paused:
            self._paused = False
            self._pump()

    def read_no_more(self) -> None:
        """In push mode: hand over what has been read, paused or not, and then the end, and read no more."""
        self._finish(End.OURS, "")

    def write(self, data: bytes) -> None:
        """Send; on a TLS leg, as soon as the peer is verified. Without effect once the leg is closing or lost."""
        if self._closing or self._gone:
            return
        if self._tls is None:
            self.transport.write(data)
            return
        try:
            self._send(self._tls.encrypt(data))
        except BrokenTlsError as broken:
            self._finish(End.BROKEN, str(broken))

    def close(self, seconds: float, flush_seconds: float | None = None) -> None:
        """Send what was written, say goodbye (close_notify, FIN), take the peer's goodbye, and be gone. What is unread is
        dropped. A leg whose TLS handshake is not complete can say nothing: it is aborted.

        The leg is aborted if all that is not done in ``seconds``. With ``flush_seconds``, that is how long sending may take,
        and ``seconds`` count from then.
        """
        if self._closing or self._gone:
            return
        if self.end is None and not self._is_secure():
            self.abort()
            return
        self._closing = True
        self._answer_seconds = seconds if flush_seconds is not None else 0.0
        self._abort_timer = self._clock.callLater(seconds if flush_seconds is None else flush_seconds, self._expired)
        if self._tls is not None and self.end in (None, End.CLOSED, End.OURS):
            self._tls.goodbye()
            self._send(self._tls.outgoing())
        self.transport.unregisterProducer()  # a transport that waits for its producer closes neither half
        if self._peer_finished:
            self.transport.loseConnection()
        else:
            # Closing with unread bytes in the socket would reset the connection, and the peer might lose the last of what we
            # sent: end our half, and read the peer's to its end.
            self.transport.loseWriteConnection()
            self.transport.resumeProducing()
        self._drop()

    def abort(self) -> None:
        """Be gone at once."""
        if not self._gone:
            self._closing = True
            self.transport.abortConnection()
            self._drop()

    def detach(self) -> "Deferred[Detached | None]":
        """Take the connection away from the leg, once everything written to it has been sent.

        Nothing is shut down and nothing is lost: what arrives from now on stays in the socket. None when the connection ended
        before that in any way but the peer's orderly close. The leg is gone afterwards; its sink hears nothing more.
        Cancelling aborts the leg.
        """
        if self._reader is not None or self._detaching is not None or not (self._is_secure() or self.end):
            raise RuntimeError("a leg is detached once, when it is secure and nobody reads it")
        if self._closing or self._gone or self.end not in (None, End.CLOSED):
            return succeed(None)
        waiting = self._detaching = Deferred(self._give_up_detaching)
        self._sink = None
        self._regulate()
        when_flushed(self._bottom, self._flushed)
        return waiting

    # What Twisted calls.

    def connectionMade(self) -> None:
        self._bottom = bottom_of(self.transport, self)
        tune(self._bottom)
        watch_room(self._bottom, self._writable)
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(self)
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        if self.end is not None:
            return
        if self._tls is not None:
            self._tls.receive(data)
        elif self._sink is not None and not self._paused:
            self._sink.leg_received(data)  # the inbox is empty: this is all that there is
            return
        else:
            self._inbox += data
        self._pump()

    def readConnectionLost(self) -> None:
        self._peer_finished = True
        if self._closing:
            self.transport.loseConnection()
        else:
            self._finish(End.CLOSED, "")

    def writeConnectionLost(self) -> None:
        """Everything was sent and our half is closed; the peer's end is what we wait for."""
        if self._answer_seconds and self._abort_timer is not None and self._abort_timer.active():
            self._abort_timer.reset(self._answer_seconds)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._abort_timer is not None and self._abort_timer.active():
            self._abort_timer.cancel()
        if not reason.check(ConnectionClosed):
            self._tls = None  # the sink or the verifier has raised an exception, and is asked no more
        self._finish(End.CLOSED if reason.check(ConnectionDone) else End.LOST, reason.getErrorMessage())
        self._tls = self._abort_timer = None
        waiting, self._detaching = self._detaching, None
        if waiting is not None:
            waiting.callback(None)
        _fire(self._when_gone, None)

    # Reading.

    def _claim(self) -> None:
        if self._reader is not None or self._sink is not None:
            raise RuntimeError("a leg has one reader at a time")

    def _forget_reader(self, _: Deferred[bytes]) -> None:
        self._reader = None

    def _pump(self) -> None:
        """Hand on what has arrived, and then the end, as far as there is someone to take it; and see to the transport."""
        if self._pumping:
            return  # called by a sink that was just handed something: the loop below goes on when it is done
        self._pumping = True
        try:
            while self._step():
                pass
        finally:
            self._pumping = False
        if self._tls is not None:
            self._send(self._tls.outgoing())
        self._regulate()
        if self._reader is not None and (self._inbox or self.end is not None):
            reader, self._reader = self._reader, None
            reader.callback(self._take())

    def _step(self) -> bool:
        """Do one thing that can be done now; whether there was one."""
        end_before = self.end
        if self._sink is None:
            data = self._decrypt()
            self._inbox += data
        elif self._paused:
            return False
        elif data := self._take() or self._decrypt():
            self._sink.leg_received(data)
        if data:
            return True
        if self.end is None and self._over is not None:
            self._conclude(*self._over)
        if self.end is not end_before:
            return True  # whoever has heard of it may have become the sink, and the inbox comes first
        if self.end is not None and self._sink is not None:
            sink, self._sink = self._sink, None
            sink.leg_ended()
        return False

    def _take(self) -> bytes:
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def _decrypt(self) -> bytes:
        """The next bytes that TLS makes of what has arrived."""
        tls = self._tls
        if tls is None or self.end is not None:
            return b""
        data = b""
        try:
            data = tls.decrypt()
        except BrokenTlsError as broken:
            self._conclude(End.BROKEN, str(broken))
        except UntrustedPeerError as untrusted:
            self._conclude(End.UNTRUSTED, str(untrusted))
        if tls.closed:
            self._conclude(End.CLOSED, "")
        elif tls.secure:
            _fire(self._when_secure, True)
        return data

    def _is_secure(self) -> bool:
        return self._tls is None or self._tls.secure

    def _regulate(self) -> None:
        """Have the transport read when, and only when, there is room for what it reads."""
        if self._closing or self._gone:
            return
        stuck = self._paused or len(self._inbox) >= READ_AHEAD or self._detaching is not None
        reading = not stuck and self._over is None and self.end is None
        if reading and not self._reading:
            self.transport.resumeProducing()
        elif self._reading and not reading:
            self.transport.pauseProducing()
        self._reading = reading

    # Ending.

    def _finish(self, end: End, detail: str) -> None:
        """The transport gives nothing more: what it gave is handed over, paused or not, and then ``end``."""
        if self._over is None:
            self._over = end, detail
        self._paused = False
        self._pump()

    def _conclude(self, end: End, detail: str) -> None:
        """Nothing more can come of what has arrived."""
        if self.end is None:
            self.end, self.end_detail = end, detail
            _fire(self._when_secure, False)
            _fire(self._when_ended, None)

    def _drop(self) -> None:
        """The end, by our own will: nothing that is unread is wanted any more."""
        self._inbox.clear()
        self._paused = False
        self._conclude(End.OURS, "")
        self._pump()

    def _expired(self) -> None:
        self.transport.abortConnection()

    # Writing.

    def _send(self, pieces: list[bytes]) -> None:
        if pieces and not self._gone:
            self.transport.writeSequence(pieces)

    def _writable(self, writable: bool) -> None:
        self._full = not writable
        if self._sink is not None and not self._closing:
            if writable:
                self._sink.leg_drained()
            else:
                self._sink.leg_full()

    # Giving the connection away.

    def _give_up_detaching(self, _: "Deferred[Detached | None]") -> None:
        self._detaching = None
        self.abort()

    def _flushed(self) -> None:
        waiting, self._detaching = self._detaching, None
        assert waiting is not None
        tls, self._tls = self._tls, None
        unread = self._take()
        self._over = self._over or (End.OURS, "")
        fd = take_socket(self._bottom)
        if tls is None:
            waiting.callback(Detached(fd, None, unread, b""))
        else:
            waiting.callback(Detached(fd, tls.connection, unread, tls.unread))


def _wait(waiting: list[Deferred[T]]) -> Deferred[T]:
    deferred: Deferred[T] = Deferred(waiting.remove)
    waiting.append(deferred)
    return deferred


def _fire(waiting: list[Deferred[T]], result: T) -> None:
    while waiting:
        waiting.pop(0).callback(result)
