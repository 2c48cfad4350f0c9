"""A picture of palette colours that remembers where it was drawn on."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xvpd.sim import font

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
LETTER_STEP: Final = font.WIDTH + 1
"""From one letter to the next, in dots of the font."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How a client wants its pixels (RFC 6143 section 7.4)."""

    bits: int = 32
    big_endian: bool = False
    maxima: Colour = (255, 255, 255)
    shifts: Colour = (16, 8, 0)

    DEPTH = 24

    def pack(self) -> bytes:
        """The 16 bytes of PIXEL_FORMAT."""
        return struct.pack(">BBBBHHHBBBxxx", self.bits, self.DEPTH, self.big_endian, True, *self.maxima, *self.shifts)

    @classmethod
    def unpack(cls, data: bytes) -> "PixelFormat | None":
        """The format in 16 bytes; None when it is not one of true colour in 8, 16 or 32 bits."""
        bits, _, big_endian, true_colour, *rest = struct.unpack(">BBBBHHHBBBxxx", data)
        maxima, shifts = tuple(rest[:3]), tuple(rest[3:])
        if not true_colour or bits not in (8, 16, 32) or any(shift >= bits for shift in shifts):
            return None
        return cls(bits, bool(big_endian), maxima, shifts)

    def tables(self, palette: list[Colour]) -> list[bytes]:
        """For each byte of a pixel, what `bytes.translate` makes of a palette index."""
        size = self.bits // 8
        planes = [bytearray(256) for _ in range(size)]
        for index, colour in enumerate(palette):
            value = 0
            for component, maximum, shift in zip(colour, self.maxima, self.shifts, strict=True):
                value |= (component * maximum + 127) // 255 << shift
            pixel = (value & (1 << self.bits) - 1).to_bytes(size, "big" if self.big_endian else "little")
            for plane, byte in zip(planes, pixel, strict=True):
                plane[index] = byte
        return [bytes(plane) for plane in planes]


class Canvas:
    """``width`` by ``height`` pixels, each an index into ``palette``. ``damaged`` is called with every rectangle (x, y, width,
    height) that was drawn on."""

    def __init__(self, width: int, height: int, palette: list[Colour]) -> None:
        self.width = width
        self.height = height
        self.palette = palette
        self.damaged: list[Callable[[int, int, int, int], None]] = []
        self._pixels = bytearray(width * height)

    def fill(self, x: int, y: int, width: int, height: int, colour: int) -> None:
        """Fill a rectangle, as far as it is on the picture."""
        left, right = max(0, x), min(self.width, x + width)
        top, bottom = max(0, y), min(self.height, y + height)
        if right <= left or bottom <= top:
            return
        row = bytes([colour]) * (right - left)
        for line in range(top, bottom):
            self._pixels[line * self.width + left : line * self.width + right] = row
        self._damage(left, top, right - left, bottom - top)

    def put(self, x: int, y: int, width: int, pixels: bytes) -> None:
        """Put a rectangle of ready pixels, which must be on the picture."""
        height = len(pixels) // width
        for line in range(height):
            start = (y + line) * self.width + x
            self._pixels[start : start + width] = pixels[line * width : (line + 1) * width]
        self._damage(x, y, width, height)

    def text(self, x: int, y: int, text: str, scale: int, colour: int) -> None:
        """Write a line of text with its upper left corner at (x, y)."""
        for index, character in enumerate(text):
            left = x + index * LETTER_STEP * scale
            if left + font.WIDTH * scale > self.width or y + font.HEIGHT * scale > self.height:
                break
            for line, start, end in font.spans(character, scale):
                offset = (y + line) * self.width + left
                self._pixels[offset + start : offset + end] = bytes([colour]) * (end - start)
        self._damage(x, y, min(self.width - x, len(text) * LETTER_STEP * scale), font.HEIGHT * scale)

    def pixels(self, x: int, y: int, width: int, height: int) -> bytes:
        """The palette indices of a rectangle on the picture, row by row."""
        if width == self.width:
            return bytes(self._pixels[y * width : (y + height) * width])
        starts = range(y * self.width + x, (y + height) * self.width + x, self.width)
        return b"".join(self._pixels[start : start + width] for start in starts)

    def encode(self, x: int, y: int, width: int, height: int, tables: list[bytes]) -> bytes:
        """A rectangle as raw pixels, by the tables of a `PixelFormat`."""
        indices = self.pixels(x, y, width, height)
        if len(tables) == 1:
            return indices.translate(tables[0])
        encoded = bytearray(len(indices) * len(tables))
        for plane, table in enumerate(tables):
            encoded[plane :: len(tables)] = indices.translate(table)
        return bytes(encoded)

    def _damage(self, x: int, y: int, width: int, height: int) -> None:
        for callback in self.damaged:
            callback(x, y, width, height)
