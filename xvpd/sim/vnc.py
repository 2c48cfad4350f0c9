"""An RFB server for a canvas, in the two kinds that dom0 has: QEMU's (3.8, may be exclusive) and vncterm's (3.3, always
shared, eight clients). Both offer security None, send Raw rectangles alone, and hang up on a message that they do not know.

Sources: RFC 6143; rfbproto.rst; qemu's ui/vnc.c; vncterm's vnc.c.
"""

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xvpd.sim.canvas import Canvas, PixelFormat
from xvpd.sim.closing import Closing

_TILE: Final = 16
"""Changes are remembered by squares of this size."""
_MAX_CUT_TEXT: Final = 1 << 20
_EXTENDED_KEY_EVENT: Final = -258
"""Pseudo-encoding by which QEMU's clients learn that they may send scan codes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a VNC server behaves. ``versions`` are the client's minor versions that it takes; ``messages`` the types."""

    banner: bytes
    versions: frozenset[int]
    messages: frozenset[int]
    max_clients: int
    exclusive: bool
    """Whether a ClientInit of 0 makes the others leave."""


QEMU: Final = Kind(b"RFB 003.008\n", frozenset({3, 4, 5, 7, 8}), frozenset({0, 2, 3, 4, 5, 6, 255}), 32, True)
VNCTERM: Final = Kind(b"RFB 003.003\n", frozenset({3, 4}), frozenset({0, 2, 3, 4, 5, 6, 254}), 8, False)


class VncServer(Factory):
    """Serves ``canvas`` to any number of viewers. ``key`` is called with each key pressed (a keysym), ``pointer`` with each
    event (button mask, x, y), ``watched`` with the number of viewers whenever it changes."""

    noisy = False

    def __init__(self, kind: Kind, name: str, canvas: Canvas, clock: IReactorTime) -> None:
        self.kind = kind
        self.name = name
        self.canvas = canvas
        self.clock = clock
        self.key: Callable[[int], None] = _ignore
        self.pointer: Callable[[int, int, int], None] = _ignore
        self.watched: Callable[[int], None] = _ignore
        self.greeting = b""
        """Messages that every viewer gets right behind ServerInit, before it has said anything more."""
        self.viewers: list[VncViewer] = []
        canvas.damaged.append(self._damaged)

    def buildProtocol(self, addr: IAddress | None) -> "VncViewer | None":
        """One viewer's connection; None when there are enough already."""
        return VncViewer(self) if len(self.viewers) < self.kind.max_clients else None

    def hang_up(self) -> None:
        """End every connection, as the end of the process that serves them does."""
        for viewer in list(self.viewers):
            viewer.close()

    def joined(self, viewer: "VncViewer") -> None:
        """A viewer is connected."""
        self.viewers.append(viewer)
        self.watched(len(self.viewers))

    def left(self, viewer: "VncViewer") -> None:
        """A viewer is gone."""
        self.viewers.remove(viewer)
        self.watched(len(self.viewers))

    def take_over(self, viewer: "VncViewer") -> None:
        """A viewer wants the screen for itself."""
        for other in list(self.viewers):
            if other is not viewer:
                other.close()

    def _damaged(self, x: int, y: int, width: int, height: int) -> None:
        for viewer in self.viewers:
            viewer.damaged(x, y, width, height)


def server_cut_text(text: str) -> bytes:
    """ServerCutText: what has been copied in the guest. XenServer's QEMU sends it to every viewer, at any time."""
    data = text.encode("latin-1")
    return struct.pack(">BxxxI", 3, len(data)) + data


@implementer(IPushProducer)
class VncViewer(Closing):
    """One viewer's connection, from the server's banner on."""

    def __init__(self, server: VncServer) -> None:
        super().__init__(server.clock)
        self._server = server
        self._buffer = bytearray()
        self._talk = self._conversation()
        self._need = next(self._talk)
        self._tables = PixelFormat().tables(server.canvas.palette)
        self._dirty: set[tuple[int, int]] = set()
        self._wanted: tuple[int, int, int, int] | None = None
        self._paused = False

    def connectionMade(self) -> None:
        """The server speaks first."""
        self._server.joined(self)
        self.transport.registerProducer(self, True)
        self.transport.write(self._server.kind.banner)

    def dataReceived(self, data: bytes) -> None:
        """Give the conversation each piece that it asked for."""
        if self.closing:
            return
        self._buffer += data
        while not self.closing and len(self._buffer) >= self._need:
            piece = bytes(self._buffer[: self._need])
            del self._buffer[: self._need]
            try:
                self._need = self._talk.send(piece)
            except StopIteration:
                self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The viewer is gone."""
        super().connectionLost(reason)
        self._server.left(self)

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._update()

    def stopProducing(self) -> None:
        """The connection is lost, of which the protocol hears by itself."""

    def damaged(self, x: int, y: int, width: int, height: int) -> None:
        """Something was drawn: the viewer will want to know."""
        self._dirty.update(_tiles(x, y, width, height))
        self._update()

    # What is said. Each piece that the conversation yields for has the size that it yields; when it returns, it is over.

    def _conversation(self) -> Generator[int, bytes, None]:
        kind, canvas = self._server.kind, self._server.canvas
        version = yield 12
        minor = int(version[8:11]) if version[:8] == b"RFB 003." and version[8:11].isdigit() else -1
        if minor not in kind.versions:
            return
        if minor < 7:
            self.transport.write(b"\0\0\0\1")
        else:
            self.transport.write(b"\1\1")
            if (yield 1) != b"\1":
                return
            if minor == 8:
                self.transport.write(b"\0\0\0\0")
        shared = yield 1
        if kind.exclusive and shared == b"\0":
            self._server.take_over(self)
        name = self._server.name.encode("utf-8")
        size = struct.pack(">HH", canvas.width, canvas.height)
        self.transport.write(size + PixelFormat().pack() + struct.pack(">I", len(name)) + name + self._server.greeting)
        while (yield from self._message()):
            pass

    def _message(self) -> Generator[int, bytes, bool]:
        """One message of the viewer's; False when it must go."""
        (number,) = yield 1
        if number not in self._server.kind.messages:
            return False
        handlers = {
            0: self._set_pixel_format,
            2: self._set_encodings,
            3: self._update_request,
            4: self._key_event,
            5: self._pointer_event,
            6: self._cut_text,
            254: self._scan_code,
            255: self._qemu_message,
        }
        return (yield from handlers[number]())

    def _set_pixel_format(self) -> Generator[int, bytes, bool]:
        wanted = PixelFormat.unpack((yield 19)[3:])
        if wanted is not None:
            self._tables = wanted.tables(self._server.canvas.palette)
        return wanted is not None

    def _set_encodings(self) -> Generator[int, bytes, bool]:
        (count,) = struct.unpack(">xH", (yield 3))
        encodings = struct.unpack(f">{count}i", (yield 4 * count))
        if 255 in self._server.kind.messages and _EXTENDED_KEY_EVENT in encodings:
            self._acknowledge(_EXTENDED_KEY_EVENT)
        return True

    def _update_request(self) -> Generator[int, bytes, bool]:
        incremental, x, y, width, height = struct.unpack(">BHHHH", (yield 9))
        self._asked(bool(incremental), x, y, width, height)
        return True

    def _key_event(self) -> Generator[int, bytes, bool]:
        down, keysym = struct.unpack(">BxxI", (yield 7))
        if down:
            self._server.key(keysym)
        return True

    def _pointer_event(self) -> Generator[int, bytes, bool]:
        self._server.pointer(*struct.unpack(">BHH", (yield 5)))
        return True

    def _cut_text(self) -> Generator[int, bytes, bool]:
        (length,) = struct.unpack(">xxxI", (yield 7))
        if length > _MAX_CUT_TEXT:
            return False
        yield length
        return True

    def _scan_code(self) -> Generator[int, bytes, bool]:
        yield 7
        return True

    def _qemu_message(self) -> Generator[int, bytes, bool]:
        (sub_type,) = yield 1
        if sub_type == 0:
            down, keysym, _ = struct.unpack(">HII", (yield 10))
            if down:
                self._server.key(keysym)
            return True
        if sub_type == 1:
            (operation,) = struct.unpack(">H", (yield 2))
            yield 6 if operation == 2 else 0
            return True
        return False

    def _acknowledge(self, encoding: int) -> None:
        """A pseudo-rectangle of nothing, which tells that we know an encoding."""
        canvas = self._server.canvas
        self.transport.write(struct.pack(">BxHHHHHi", 0, 1, 0, 0, canvas.width, canvas.height, encoding))

    def _asked(self, incremental: bool, x: int, y: int, width: int, height: int) -> None:
        canvas = self._server.canvas
        width, height = min(width, canvas.width - x), min(height, canvas.height - y)
        if width <= 0 or height <= 0:
            return
        self._wanted = (x, y, width, height)
        if not incremental:
            self._dirty.update(_tiles(x, y, width, height))
        self._update()

    def _update(self) -> None:
        """Send what has changed of what was asked for, once for each request, and only as fast as it is taken."""
        if self._wanted is None or self._paused or self.closing or not self._dirty:
            return
        rectangles = _rectangles(self._dirty, self._wanted)
        if not rectangles:
            return
        # A tile that the request covers in part is sent in part, and stays to be sent.
        left, top, width, height = self._wanted
        self._dirty = {
            (column, row)
            for column, row in self._dirty
            if not (
                left <= column * _TILE
                and min((column + 1) * _TILE, self._server.canvas.width) <= left + width
                and top <= row * _TILE
                and min((row + 1) * _TILE, self._server.canvas.height) <= top + height
            )
        }
        self._wanted = None
        self.transport.write(struct.pack(">BxH", 0, len(rectangles)))
        for rectangle in rectangles:
            self.transport.write(struct.pack(">HHHHi", *rectangle, 0) + self._server.canvas.encode(*rectangle, self._tables))


def _tiles(x: int, y: int, width: int, height: int) -> set[tuple[int, int]]:
    columns = range(x // _TILE, (x + width - 1) // _TILE + 1)
    return {(column, row) for row in range(y // _TILE, (y + height - 1) // _TILE + 1) for column in columns}


def _rectangles(tiles: set[tuple[int, int]], within: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """The part of ``tiles`` that lies ``within`` a rectangle: runs of tiles in a row, joined with equal runs below."""
    left, top, width, height = within
    inside = _tiles(*within) & tiles
    runs: list[list[int]] = []  # first column, last column, first row, last row
    for column, row in sorted(inside, key=lambda tile: (tile[1], tile[0])):
        if runs and runs[-1][3] == row and runs[-1][1] == column - 1:
            runs[-1][1] = column
        else:
            runs.append([column, column, row, row])
    merged: list[list[int]] = []
    for run in runs:
        above = next((other for other in merged if other[:2] == run[:2] and other[3] == run[2] - 1), None)
        if above is None:
            merged.append(run)
        else:
            above[3] = run[3]
    found = []
    for first_column, last_column, first_row, last_row in merged:
        x, y = max(left, first_column * _TILE), max(top, first_row * _TILE)
        right = min(left + width, (last_column + 1) * _TILE)
        bottom = min(top + height, (last_row + 1) * _TILE)
        found.append((x, y, right - x, bottom - y))
    return found


def _ignore(*_: int) -> None:
    """Nobody listens."""
