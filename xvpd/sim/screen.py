"""What a simulated VM shows: its name in big letters, a light that runs to and fro, and a prompt with the keys typed."""

from typing import Final

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from xvpd.sim import font
from xvpd.sim.canvas import LETTER_STEP, Canvas, Colour
from xvpd.sim.vnc import VNCTERM, Kind, VncServer, VncViewer

WIDTH: Final = 640
HEIGHT: Final = 400

_SHADES: Final = 32
"""The palette begins with so many shades from the sky's colour at the top to that at the bottom."""
_TOP: Final = (18, 28, 58)
_BOTTOM: Final = (8, 11, 22)
_WHITE, _DIM, _ACCENT, _SHADOW, _PANEL, _EDGE, _TRACK = range(_SHADES, _SHADES + 7)
_NAMED: Final[list[Colour]] = [
    (244, 247, 255),
    (132, 146, 180),
    (92, 200, 160),
    (6, 9, 18),
    (13, 17, 30),
    (44, 56, 92),
    (30, 40, 70),
]
_TAIL: Final = 16
"""The light's tail has so many shades, from the track's colour to the light's."""
_BAYER: Final = (0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5)
"""Thresholds of ordered dithering, four by four, in sixteenths."""

_FRAME_SECONDS: Final = 0.1
_LIGHT_Y: Final = 196
_LIGHT_STEP: Final = 10
_LIGHT_LENGTH: Final = 96
_MARGIN: Final = 40
_PANEL_TOP: Final = 228
_LINES: Final = 5
_LINE_STEP: Final = 22
_COLUMNS: Final = (WIDTH - 2 * _MARGIN - 32) // (2 * LETTER_STEP)

_RETURN: Final = 0xFF0D
_BACKSPACE: Final = 0xFF08
_KEY_NAMES: Final = {
    0xFF09: "<Tab>",
    0xFF1B: "<Esc>",
    0xFFFF: "<Del>",
    0xFF51: "<Left>",
    0xFF52: "<Up>",
    0xFF53: "<Right>",
    0xFF54: "<Down>",
    **{0xFFBE + number: f"<F{number + 1}>" for number in range(12)},
}


class Screen:
    """One VM's screen and the VNC server that shows it: `buildProtocol` makes one viewer's connection.

    The light moves only while somebody looks.
    """

    def __init__(self, name: str, kind: Kind, clock: IReactorTime) -> None:
        self._name = name
        self._kind = kind
        self._clock = clock
        self._canvas = Canvas(WIDTH, HEIGHT, _palette())
        self._server = VncServer(kind, name, self._canvas, clock)
        self._server.key = self._key
        self._server.watched = self._watched
        self._tick: IDelayedCall | None = None
        self._light = 0
        self._caption = ""
        self._prompt = f"{name} login: "
        self._typed = [self._prompt]
        self._draw()

    @property
    def canvas(self) -> Canvas:
        """The picture as it is now."""
        return self._canvas

    @property
    def typed(self) -> str:
        """The keys that were typed since the VM was started, as they stand on the screen, without the prompts."""
        return "\n".join(line.removeprefix(self._prompt) for line in self._typed)

    def buildProtocol(self, addr: IAddress | None) -> VncViewer | None:
        """One viewer's connection; None when there are enough already."""
        return self._server.buildProtocol(addr)

    def caption(self, text: str) -> None:
        """Say where the VM is, in a line below its name."""
        if text != self._caption:
            self._caption = text
            self._draw()

    def greet_with(self, messages: bytes) -> None:
        """Send RFB messages to every viewer to come, right behind ServerInit."""
        self._server.greeting = messages

    def hang_up(self) -> None:
        """The VNC server ends, and with it every viewer's connection."""
        self._server.hang_up()

    def restart(self) -> None:
        """The VM starts anew: nothing has been typed yet."""
        self._typed = [self._prompt]
        self._draw()

    def _watched(self, viewers: int) -> None:
        if viewers and self._tick is None:
            self._tick = self._clock.callLater(_FRAME_SECONDS, self._move)
        elif not viewers and self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _move(self) -> None:
        self._tick = self._clock.callLater(_FRAME_SECONDS, self._move)
        self._light += 1
        self._draw_light()

    def _key(self, keysym: int) -> None:
        if keysym == _RETURN:
            self._typed.append(self._prompt)
        elif keysym == _BACKSPACE:
            if self._typed[-1] != self._prompt:
                self._typed[-1] = self._typed[-1][:-1]
        elif 0x20 <= keysym < 0x7F:
            self._typed[-1] += chr(keysym)
        else:
            self._typed[-1] += _KEY_NAMES.get(keysym, "")
        self._typed = self._typed[-_LINES:]
        self._draw_prompt()

    # Drawing.

    def _draw(self) -> None:
        canvas = self._canvas
        for y in range(HEIGHT):
            canvas.put(0, y, WIDTH, _sky(y))
        canvas.text(_MARGIN, 26, "SIMULATED XENSERVER", 2, _DIM)
        kind = "PV  RFB 3.3" if self._kind is VNCTERM else "HVM  RFB 3.8"
        canvas.text(WIDTH - _MARGIN - len(kind) * LETTER_STEP * 2, 26, kind, 2, _ACCENT)
        scale = next(
            (size for size in (12, 8, 6, 4, 2) if len(self._name) * LETTER_STEP * size <= WIDTH - 2 * _MARGIN),
            2,
        )
        y = 66 + (84 - font.HEIGHT * scale) // 2
        canvas.text(_MARGIN + scale // 4 + 1, y + scale // 4 + 1, self._name, scale, _SHADOW)
        canvas.text(_MARGIN, y, self._name, scale, _WHITE)
        canvas.text(_MARGIN, 166, self._caption, 2, _DIM)
        self._draw_light()
        canvas.fill(_MARGIN - 1, _PANEL_TOP - 1, WIDTH - 2 * _MARGIN + 2, HEIGHT - _PANEL_TOP - 22, _EDGE)
        self._draw_prompt()

    def _draw_light(self) -> None:
        """The light and its tail, on a track as wide as the text."""
        way = WIDTH - 2 * _MARGIN
        span = way - _LIGHT_STEP
        turns, along = divmod(self._light * _LIGHT_STEP, span)
        head = along if turns % 2 == 0 else span - along
        row = bytearray([_TRACK]) * way
        for distance in range(_LIGHT_LENGTH):
            x = head - distance if turns % 2 == 0 else head + distance
            if 0 <= x < way:
                row[x] = _TRACK + 1 + (_TAIL - 1) * (_LIGHT_LENGTH - distance - 1) // _LIGHT_LENGTH
        left = max(0, head - _LIGHT_LENGTH - _LIGHT_STEP)
        right = min(way, head + _LIGHT_LENGTH + _LIGHT_STEP)
        if self._light == 0 or head <= _LIGHT_STEP or head >= span - _LIGHT_STEP:
            left, right = 0, way
        self._canvas.put(_MARGIN + left, _LIGHT_Y, right - left, bytes(row[left:right]) * 4)

    def _draw_prompt(self) -> None:
        canvas = self._canvas
        canvas.fill(_MARGIN, _PANEL_TOP, WIDTH - 2 * _MARGIN, HEIGHT - _PANEL_TOP - 24, _PANEL)
        x, y = _MARGIN + 16, _PANEL_TOP + 18
        for index, line in enumerate(self._typed):
            last = index == len(self._typed) - 1
            shown = line[-(_COLUMNS - 1) :]
            canvas.text(x, y, shown, 2, _WHITE if last else _DIM)
            if last:
                canvas.fill(x + len(shown) * LETTER_STEP * 2, y - 1, 2 * font.WIDTH, 2 * font.HEIGHT + 2, _ACCENT)
            y += _LINE_STEP


def _palette() -> list[Colour]:
    shades = [_between(_TOP, _BOTTOM, index / (_SHADES - 1)) for index in range(_SHADES)]
    track, light = _NAMED[_TRACK - _SHADES], _NAMED[_ACCENT - _SHADES]
    tail = [_between(track, light, (index / (_TAIL - 1)) ** 2) for index in range(_TAIL)]
    return [*shades, *_NAMED, *tail]


def _between(start: Colour, end: Colour, part: float) -> Colour:
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _sky(y: int) -> bytes:
    """One row of the background."""
    shade, rest = divmod(y * (_SHADES - 1) * 16 // HEIGHT, 16)
    pattern = [shade + (rest > _BAYER[4 * (y % 4) + x]) for x in range(4)]
    return bytes(pattern) * (WIDTH // 4)
