"""The walker: where each message of a client begins and ends, from the first one after ClientInit on.

Sans-io: bytes go into `walk` in pieces of any size, and come out as `Span`s that tell what they are. Put together, the spans
are the stream. Nothing is looked at twice, and nothing is held back but the message, of a few kilobytes at most, that is not
complete yet; what can be long (cut text, gii) is not held at all, but handed on piece by piece behind its header.

Sources: rfbproto.rst, Client to Server Messages; for types 254 and 255 the servers that XenServer runs, vncterm's and QEMU's
``protocol_client_msg``. Both hang up on a type that they do not know.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from xvpd.reason import Reason, Refusal
from xvpd.rfb.messages import EXTENDED_CLIPBOARD

ENCODINGS_LIMIT: Final = 1024
"""The most encodings that a client may list; viewers list some thirty."""
CUT_TEXT_LIMIT: Final = 1 << 20
"""The longest cut text, in bytes; QEMU's own limit. vncterm has none, and would take the memory for whatever is announced."""
FENCE_LIMIT: Final = 64
"""The longest payload of a fence, in bytes (ClientFence)."""

_BUTTON_8: Final = 0x80
"""In a pointer event's mask; the mark of the longer form where ExtendedMouseButtons is in force."""


class Kind(IntEnum):
    """What a client can send. The value is the message's type, or type and submessage."""

    SET_PIXEL_FORMAT = 0
    SET_ENCODINGS = 2
    UPDATE_REQUEST = 3
    KEY = 4
    POINTER = 5
    CUT_TEXT = 6
    CONTINUOUS_UPDATES = 150
    FENCE = 248
    XVP = 250
    SET_DESKTOP_SIZE = 251
    GII = 253
    SCAN_CODE = 254
    """vncterm's own; no other server of XenServer's takes it."""
    QEMU_KEY = 0xFF00
    QEMU_AUDIO = 0xFF01
    UNKNOWN = -1
    """From a message of a type that is not among these on, for ever: where the next one begins is not known."""


INPUT: Final = frozenset({Kind.KEY, Kind.POINTER, Kind.CUT_TEXT, Kind.SCAN_CODE, Kind.QEMU_KEY})
"""What a person's hands cause. Update requests are not among it: viewers send them all the time."""


class Span(NamedTuple):
    """Bytes of the stream that belong to one message. Unless it is CUT_TEXT, GII or UNKNOWN, they are the whole of it."""

    kind: Kind
    data: bytes
    begins: bool
    """Whether the message begins here; then its header is whole."""
    ends: bool
    """Whether the message ends here."""

    @property
    def encodings(self) -> tuple[int, ...]:
        """Of SET_ENCODINGS: what the client listed, in its order."""
        return struct.unpack_from(f">{(len(self.data) - 4) // 4}i", self.data, 4)

    @property
    def keysym(self) -> int:
        """Of KEY or QEMU_KEY: the X keysym, 0 when it is not known."""
        return int.from_bytes(self.data[4:8])

    @property
    def mask(self) -> int:
        """Of POINTER: the buttons that are down, the first in bit 0."""
        mask = self.data[1]
        return mask & ~_BUTTON_8 | self.data[6] << 7 if len(self.data) == 7 else mask


class _Extent(NamedTuple):
    """How long a message is: so many bytes to be handed out whole, then those that may come in pieces."""

    kind: Kind
    whole: int
    flows: int = 0


_Measured: TypeAlias = _Extent | Refusal | None


class Walker:
    """Walks one client's stream.

    ``extended_mouse`` says that both sides have agreed on ExtendedMouseButtons. It cannot be learnt here: that a client lists
    the encoding does not say that the server, which answers inside a framebuffer update, has taken it up, and until then bit 7
    of a pointer event's mask is an eighth button. A caller that does not know keeps the encoding from the server.
    """

    def __init__(self, extended_mouse: bool = False) -> None:
        self.unknown: int | None = None
        """The type after which the stream is opaque: everything behind it is one `Span` of UNKNOWN for each piece."""
        self.refusal: Refusal | None = None
        """Why the walk ended: a message announced a length beyond its limit. What follows is dropped."""
        self._forms = _EXTENDED_MOUSE_FORMS if extended_mouse else _FORMS
        self._signed_cut_text = False
        self._held = bytearray()
        self._wanted = 0  # bytes in `_held` with which the walk can go on
        self._flowing = Kind.UNKNOWN
        self._left = 0  # bytes of `_flowing` still to come

    def walk(self, data: bytes) -> list[Span]:
        """Take the next piece of the stream. The spans in it may begin with what earlier pieces left incomplete."""
        if self.refusal is not None or not data:
            return []
        if self.unknown is not None:
            return [Span(Kind.UNKNOWN, data, False, False)]
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data = bytes(self._held)
            self._held.clear()
        return self._spans(data)

    def _spans(self, data: bytes) -> list[Span]:
        spans: list[Span] = []
        forms = self._forms
        at, end = 0, len(data)
        while at < end:
            if self._left:
                stop = min(at + self._left, end)
                self._left -= stop - at
                spans.append(Span(self._flowing, data[at:stop], False, not self._left))
            else:
                kind, head, measure = forms[data[at]]
                stop = at + head
                if stop > end:
                    self._hold(data[at:], head)
                elif measure is None:
                    spans.append(Span(kind, data[at:stop], True, True))
                else:
                    stop = self._add(measure(self, data[at:stop]), data, at, spans)
            at = stop
        return spans

    def _add(self, extent: _Measured, data: bytes, at: int, spans: list[Span]) -> int:
        """Add the span of a message whose length had to be found out; the answer is where the next begins."""
        end = len(data)
        if isinstance(extent, Refusal):
            self.refusal = extent
            return end
        if extent is None:
            self.unknown = data[at]
            spans.append(Span(Kind.UNKNOWN, data[at:], True, False))
            return end
        stop = at + extent.whole
        if stop > end:
            self._hold(data[at:], extent.whole)
            return end
        span = Span(extent.kind, data[at:stop], True, not extent.flows)
        spans.append(span)
        self._flowing, self._left = extent.kind, extent.flows
        if span.kind is Kind.SET_ENCODINGS and EXTENDED_CLIPBOARD in span.encodings:
            self._signed_cut_text = True
        return stop

    def _hold(self, start: bytes, wanted: int) -> None:
        self._held += start
        self._wanted = wanted

    # The lengths that are not fixed, each found out from as many bytes as `_FORMS` says.

    def _encodings(self, head: bytes) -> _Measured:
        count = int.from_bytes(head[2:4])
        if count > ENCODINGS_LIMIT:
            return _too_long(f"{count} encodings")
        return _Extent(Kind.SET_ENCODINGS, 4 + 4 * count)

    def _extended_pointer(self, head: bytes) -> _Measured:
        return _Extent(Kind.POINTER, 7 if head[1] & _BUTTON_8 else 6)

    def _cut_text(self, head: bytes) -> _Measured:
        length = int.from_bytes(head[4:8], signed=self._signed_cut_text)
        if abs(length) > CUT_TEXT_LIMIT:
            return _too_long(f"a cut text of {abs(length)} bytes")
        return _Extent(Kind.CUT_TEXT, 8, abs(length))

    def _fence(self, head: bytes) -> _Measured:
        if head[8] > FENCE_LIMIT:
            return _too_long(f"a fence of {head[8]} bytes")
        return _Extent(Kind.FENCE, 9 + head[8])

    def _desktop_size(self, head: bytes) -> _Measured:
        return _Extent(Kind.SET_DESKTOP_SIZE, 8 + 16 * head[6])

    def _gii(self, head: bytes) -> _Measured:
        # The sub-type's highest bit says which end of the length comes first (gii Client Message).
        return _Extent(Kind.GII, 4, int.from_bytes(head[2:4], "big" if head[1] & 0x80 else "little"))

    def _qemu(self, head: bytes) -> _Measured:
        if head[1] == 0:
            return _Extent(Kind.QEMU_KEY, 12)
        length = _QEMU_AUDIO_LENGTHS.get(head[1:])
        return _Extent(Kind.QEMU_AUDIO, length) if length else None

    def _unknown(self, _: bytes) -> _Measured:
        return None


def _too_long(what: str) -> Refusal:
    return Refusal(Reason.CLIENT_PROTOCOL, f"announces {what}")


_QEMU_AUDIO_LENGTHS: Final = {b"\1\0\0": 4, b"\1\0\1": 4, b"\1\0\2": 10}
"""Enable, disable, set the format (QEMU Audio Client Message), by submessage and operation."""


class _Form(NamedTuple):
    """How the messages of a type are read: ``head`` is their length, or what ``measure`` needs in order to find it out."""

    kind: Kind
    head: int
    measure: Callable[[Walker, bytes], _Measured] | None = None


_KNOWN: Final = {
    0: _Form(Kind.SET_PIXEL_FORMAT, 20),
    2: _Form(Kind.SET_ENCODINGS, 4, Walker._encodings),
    3: _Form(Kind.UPDATE_REQUEST, 10),
    4: _Form(Kind.KEY, 8),
    5: _Form(Kind.POINTER, 6),
    6: _Form(Kind.CUT_TEXT, 8, Walker._cut_text),
    150: _Form(Kind.CONTINUOUS_UPDATES, 10),
    248: _Form(Kind.FENCE, 9, Walker._fence),
    250: _Form(Kind.XVP, 4),
    251: _Form(Kind.SET_DESKTOP_SIZE, 8, Walker._desktop_size),
    253: _Form(Kind.GII, 4, Walker._gii),
    254: _Form(Kind.SCAN_CODE, 8),
    255: _Form(Kind.UNKNOWN, 4, Walker._qemu),
}
_FORMS: Final = [_KNOWN.get(number, _Form(Kind.UNKNOWN, 1, Walker._unknown)) for number in range(256)]
_EXTENDED_MOUSE_FORMS: Final = [*_FORMS[:5], _Form(Kind.POINTER, 6, Walker._extended_pointer), *_FORMS[6:]]
