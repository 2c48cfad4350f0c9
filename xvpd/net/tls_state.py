"""`TlsState`: one connection's TLS as bytes in and bytes out. It knows no transport.

An `OpenSSL.SSL.Connection` over memory BIOs, and what everyone who drives one has to get right: a memory BIO grows to the
largest piece that it was ever given and never shrinks, so bytes go through it in pieces of about one record; and a write may
take less than it was given, since a peer can ask for smaller records (RFC 6066 section 4).
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from OpenSSL import SSL

from xvpd.net.tls import explain

_RECORD: Final = 16384
"""The most that one TLS record carries (RFC 8446 section 5.1)."""
_OUTPUT: Final = 2 * _RECORD
"""More than what one write of a record leaves in the outgoing BIO, so that one read empties it."""


class BrokenTlsError(Exception):
    """The peer broke the protocol, or gave us up with an alert. What OpenSSL has to say to it waits in `TlsState.outgoing`."""


class UntrustedPeerError(Exception):
    """The peer did not prove its identity. Nothing is said to it."""


class TlsState:
    """The TLS state of one connection.

    ``connection`` was made for memory BIOs (without a socket), is in connect or accept state, and comes from a context that
    refuses renegotiation: a write in the middle of one cannot be done. ``verify`` is asked once the handshake is complete and
    before a single byte of ours is encrypted: it returns what is wrong with the peer, or None.
    """

    def __init__(self, connection: SSL.Connection, verify: Callable[[SSL.Connection], str | None] | None = None) -> None:
        self.connection = connection
        self.secure = False
        """Whether the handshake is complete and the peer verified."""
        self.closed = False
        """Whether the peer has said goodbye (close_notify) and all before it was decrypted."""
        self._verify = verify
        self._received = b""
        self._given = 0  # how much of it OpenSSL has
        self._hungry = False  # OpenSSL has used up all that it was given
        self._early = bytearray()  # to be encrypted when the handshake is complete
        self._encrypted: list[bytes] = []

    @property
    def unread(self) -> bytes:
        """What was received and not given to ``connection`` yet."""
        return self._received[self._given :]

    def receive(self, ciphertext: bytes) -> None:
        """Take what has arrived. Costs nothing until it is asked for."""
        self._received = self.unread + ciphertext if self._received else ciphertext
        self._given = 0

    def decrypt(self) -> bytes:
        """The next plain bytes, of one record, after the handshake; ``b""`` when more has to be received first, or never comes
        (`closed`). Raises `BrokenTlsError` and `UntrustedPeerError`."""
        while not self.closed:
            if self._hungry and not self._feed():
                break
            try:
                if self.secure:
                    return self.connection.recv(_RECORD)
                self.connection.do_handshake()
                self._shaken()
            except SSL.WantReadError:
                self._hungry = True
            except SSL.ZeroReturnError:
                self.closed = True
            except SSL.Error as error:
                raise BrokenTlsError(explain(error)) from None
        return b""

    def encrypt(self, data: bytes) -> list[bytes]:
        """What is to be sent for ``data``, and what had to be sent before. Until the handshake is complete ``data`` is kept.
        Raises `BrokenTlsError`."""
        if not self.secure:
            self._early += data
            return []
        view = memoryview(data)
        written = 0
        pieces = []
        try:
            while written < len(view):
                written += self.connection.send(view[written : written + _RECORD])
                pieces += self.outgoing()
        except SSL.Error as error:
            raise BrokenTlsError(explain(error)) from None
        return pieces

    def goodbye(self) -> None:
        """Say close_notify, unless the state is past speaking."""
        with suppress(SSL.Error):
            self.connection.shutdown()

    def outgoing(self) -> list[bytes]:
        """What has to be sent now: handshake messages, tickets, key updates, alerts."""
        pieces, self._encrypted = self._encrypted, []
        try:
            while True:
                pieces.append(self.connection.bio_read(_OUTPUT))
                if len(pieces[-1]) < _OUTPUT:
                    return pieces
        except SSL.WantReadError:
            return pieces

    def _shaken(self) -> None:
        problem = self._verify(self.connection) if self._verify is not None else None
        if problem is not None:
            self.outgoing()
            raise UntrustedPeerError(problem)
        self.secure = True
        early, self._early = bytes(self._early), bytearray()
        self._encrypted = self.encrypt(early)

    def _feed(self) -> bool:
        """Give one piece of what was received to OpenSSL; whether there was any."""
        if not self._received:
            return False
        piece = memoryview(self._received)[self._given : self._given + _RECORD]
        self._given += self.connection.bio_write(piece)
        if self._given == len(self._received):
            self._received, self._given = b"", 0
        self._hungry = False
        return True
