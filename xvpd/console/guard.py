"""The guard: what becomes of each message that a client sends.

Pure: the guard decides, the relay does. It passes on what the grant allows, keeps what only xvpd may answer (power requests of
the xvp extension), and notices a person's input, by which idle consoles are known.
"""

import struct
from dataclasses import dataclass
from typing import Final

from xvpd.reason import Reason, Refusal
from xvpd.rfb.messages import EXTENDED_MOUSE_BUTTONS, XVP
from xvpd.rfb.walker import INPUT, Kind, Span, Walker
from xvpd.rfb.xvp import FAIL, INIT, PowerRequest, request_in

VIEWING: Final = frozenset(
    {Kind.SET_PIXEL_FORMAT, Kind.SET_ENCODINGS, Kind.UPDATE_REQUEST, Kind.CONTINUOUS_UPDATES, Kind.FENCE}
)
"""What a client has to say in order to see. Every server measures these as the walker does: what is dropped cannot hide inside
them."""

_WITHHELD: Final = frozenset({XVP, EXTENDED_MOUSE_BUTTONS})
"""Encodings that no hypervisor is told of. A server that knows xvp would answer in xvpd's place. One that agrees to
ExtendedMouseButtons says so inside a framebuffer update, where nobody here reads it, and the lengths of pointer events are a
guess from there on: a client could hide messages behind them. No server that XenServer runs knows it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about what a client has sent."""

    forward: bytes = b""
    """For the hypervisor."""
    to_client: bytes = b""
    """For the client: whole messages, never more bytes than it has sent. To be written before ``forward`` is, since the
    hypervisor's answer must come behind."""
    power: tuple[PowerRequest, ...] = ()
    """What the client, who has the right, asks for. Nothing has been said to it; `FAIL` is for what did not work out."""
    input_seen: bool = False
    """Whether a person is at the viewer: a key, the pointer moved or a button changed, text pasted; dropped or not."""
    violation: Refusal | None = None
    """Why the session has to end, once the rest of the verdict is done. Given again with every later one."""


class Guard:
    """Guards one client's stream, from its first message after ClientInit on.

    - ``view_only``: nothing reaches the hypervisor but what is `VIEWING`.
    - ``power``: the client may ask for shutdown, reboot and reset. It is told so when it lists the xvp encoding and the server
      is at a boundary; the requests of a client that was not told are refused.
    - ``unknown_ends``: a message of an unknown type ends the session, as it always does when ``view_only``. Otherwise all
      from there on is passed on unread, and counts as input: who has to enforce an idle timeout wants ``unknown_ends``. The
      servers that XenServer runs hang up on such a message themselves.

    Power requests, and the encodings that no hypervisor is told of, are withheld whatever the grant, as long as the stream is
    read.
    """

    def __init__(self, *, view_only: bool, power: bool, unknown_ends: bool = False) -> None:
        self._walker = Walker()
        self._view_only = view_only
        self._power = power
        self._unknown_ends = unknown_ends or view_only
        self._offered = False
        self._pointer = b""

    def receive(self, data: bytes, *, server_at_boundary: bool) -> Verdict:
        """Decide about the next piece of the stream.

        ``server_at_boundary`` says whether what was handed to the client so far ends with a whole message (`Tracker`), so that
        ``to_client`` can go behind it; otherwise that is empty.
        """
        forward: list[bytes] = []
        to_client: list[bytes] = []
        power: list[PowerRequest] = []
        input_seen = False
        for span in self._walker.walk(data):
            kind = span.kind
            input_seen |= self._is_input(span)
            if kind is Kind.SET_ENCODINGS:
                if server_at_boundary and self._may_offer(span):
                    self._offered = True
                    to_client.append(INIT)
                forward.append(_without_withheld(span))
            elif kind is Kind.XVP:
                request = request_in(span.data) if self._offered else None
                if request is not None:
                    power.append(request)
                elif server_at_boundary:
                    to_client.append(FAIL)
            elif self._passes(kind):
                forward.append(span.data)
        return Verdict(b"".join(forward), b"".join(to_client), tuple(power), input_seen, self._violation())

    def _passes(self, kind: Kind) -> bool:
        if kind is Kind.UNKNOWN:
            return not self._unknown_ends
        return not self._view_only or kind in VIEWING

    def _is_input(self, span: Span) -> bool:
        if span.kind is Kind.POINTER:
            before, self._pointer = self._pointer, span.data
            return span.data != before
        return span.kind in INPUT or span.kind is Kind.UNKNOWN

    def _may_offer(self, span: Span) -> bool:
        return self._power and not self._offered and XVP in span.encodings

    def _violation(self) -> Refusal | None:
        if self._unknown_ends and self._walker.unknown is not None:
            return Refusal(Reason.CLIENT_PROTOCOL, f"sent a message of type {self._walker.unknown} that xvpd does not know")
        return self._walker.refusal


def _without_withheld(span: Span) -> bytes:
    kept = [encoding for encoding in span.encodings if encoding not in _WITHHELD]
    return span.data[:2] + struct.pack(f">H{len(kept)}i", len(kept), *kept)
