"""The tracker: whether what a server has sent ends with a complete message, so that another may be put behind it.

It follows the messages whose lengths are plain, and gives up for good at the first that is not: a framebuffer update can only
be measured by decoding its rectangles. That is enough for its purpose, the time before the client's first SetEncodings is
passed on: no server sends an update unasked before, but QEMU as patched for XenServer may send the guest's clipboard.

Sources: rfbproto.rst, Server to Client Messages; EndOfContinuousUpdates, ServerFence.
"""

from typing import Final

_HEADS: Final = {1: 6, 2: 1, 3: 8, 150: 1, 248: 9, 250: 4}
"""Colour map, bell, cut text, end of continuous updates, fence, xvp: the bytes from which their lengths are known."""


class Tracker:
    """Follows one server's stream, from ServerInit's end on; in pieces of any size, of which it keeps a few bytes at most."""

    def __init__(self) -> None:
        self.lost = False
        """Whether it has given up; then there is no need to tell it any more."""
        self._head = bytearray()
        self._left = 0

    @property
    def at_boundary(self) -> bool:
        """Whether a message may be put behind what was received so far."""
        return not (self.lost or self._head or self._left)

    def receive(self, data: bytes) -> None:
        """Take the next piece of what is handed to the client."""
        at = 0
        while at < len(data) and not self.lost:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            self._head.append(data[at])
            at += 1
            length = _HEADS.get(self._head[0])
            if length is None:
                self.lost = True
            elif len(self._head) == length:
                self._body()
                self._head.clear()

    def _body(self) -> None:
        """Find out what follows the complete header."""
        match self._head[0]:
            case 1:
                self._left = 6 * int.from_bytes(self._head[4:6])
            case 3:
                self._left = int.from_bytes(self._head[4:8])
                # Negative where the extended clipboard is in force, and two gigabytes where it is not: nothing to go by.
                self.lost = self._left >= 1 << 31
            case 248:
                self._left = self._head[8]
