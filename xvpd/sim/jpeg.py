"""Pictures of palette colours as JPEG (ITU-T T.81, baseline, 4:4:4), for screenshots.

A simulated screen repeats itself: what was once computed for a block of eight by eight palette indices is kept. The Huffman
tables are the simplest that T.81 allows: all symbols have codes of one length, but for the end of a block, which is common.
"""

import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from xvpd.sim.canvas import Colour

_BLOCK: Final = 8
_ZIGZAG: Final = sorted(
    ((row, column) for row in range(_BLOCK) for column in range(_BLOCK)),
    key=lambda at: (at[0] + at[1], at[0] if (at[0] + at[1]) % 2 else at[1]),
)
_STEPS: Final = [5 + 2 * (row + column) for row, column in _ZIGZAG]
"""Quantisation, the same for brightness and colour."""
_COSINES: Final = [
    [math.cos((2 * x + 1) * u * math.pi / 16) / 2 * (math.sqrt(0.5) if u == 0 else 1) for x in range(_BLOCK)]
    for u in range(_BLOCK)
]
_DC_SYMBOLS: Final = bytes(range(12))
_DC_BITS: Final = 4
_END_OF_BLOCK: Final = 0x00
_SIXTEEN_ZEROS: Final = 0xF0
_AC_SYMBOLS: Final = bytes([run << 4 | size for run in range(16) for size in range(1, 11)] + [_SIXTEEN_ZEROS])
_END_BITS: Final = 2
_AC_BITS: Final = 8
_AC_CODES: Final = {symbol: (1 << _AC_BITS - _END_BITS) + index for index, symbol in enumerate(_AC_SYMBOLS)}

_Planes = tuple[tuple[tuple[int, ...], int, int], ...]
"""For each of Y, Cb and Cr: its quantised coefficients up to the last that is not 0, then the bits that stand for all of them
but the first, and how many bits these are."""


def encode(width: int, height: int, palette: list[Colour], indices: bytes) -> bytes:
    """A picture whose width and height are multiples of 8."""
    colours = tuple(palette)
    tables = b"".join(
        (
            _segment(0xDB, b"\0" + bytes(_STEPS)),
            _segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"),
            _segment(0xC4, b"\x00" + _lengths({_DC_BITS: len(_DC_SYMBOLS)}) + _DC_SYMBOLS),
            _segment(
                0xC4,
                b"\x10" + _lengths({_END_BITS: 1, _AC_BITS: len(_AC_SYMBOLS)}) + bytes([_END_OF_BLOCK]) + _AC_SYMBOLS,
            ),
            _segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0"),
        )
    )
    start = _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    return b"\xff\xd8" + start + tables + _scan(_blocks(width, height, indices), colours) + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _lengths(codes: dict[int, int]) -> bytes:
    """How many codes there are of each length from 1 to 16 bits."""
    return bytes(codes.get(length, 0) for length in range(1, 17))


def _blocks(width: int, height: int, indices: bytes) -> Iterator[bytes]:
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            starts = range(top * width + left, (top + _BLOCK) * width + left, width)
            yield b"".join(indices[start : start + _BLOCK] for start in starts)


def _scan(blocks: Iterator[bytes], palette: tuple[Colour, ...]) -> bytes:
    data = bytearray()
    bits, count = 0, 0
    before = [0, 0, 0]
    for block in blocks:
        for plane, (dc, rest, rest_bits) in enumerate(_planes(block, palette)):
            size, value = _magnitude(dc[0] - before[plane])
            before[plane] = dc[0]
            bits = ((bits << _DC_BITS | size) << size | value) << rest_bits | rest
            count += _DC_BITS + size + rest_bits
        whole, left = divmod(count, 8)
        data += (bits >> left).to_bytes(whole, "big").replace(b"\xff", b"\xff\0")
        bits, count = bits & (1 << left) - 1, left
    padding = -count % 8
    last = (bits << padding | (1 << padding) - 1).to_bytes((count + padding) // 8, "big")
    return bytes(data + last.replace(b"\xff", b"\xff\0"))


def _magnitude(value: int) -> tuple[int, int]:
    """T.81 F.1.2.1: the category of a value, and the bits that single it out there."""
    size = abs(value).bit_length()
    return size, value if value >= 0 else value + (1 << size) - 1


@lru_cache(maxsize=4096)
def _planes(block: bytes, palette: tuple[Colour, ...]) -> _Planes:
    colours = [palette[index] for index in block]
    samples = (
        [0.299 * r + 0.587 * g + 0.114 * b - 128 for r, g, b in colours],
        [-0.1687 * r - 0.3313 * g + 0.5 * b for r, g, b in colours],
        [0.5 * r - 0.4187 * g - 0.0813 * b for r, g, b in colours],
    )
    return tuple(_coded(_transformed(plane)) for plane in samples)


def _transformed(samples: list[float]) -> list[int]:
    """The quantised coefficients of a block's samples, in zigzag order."""
    lines = [samples[start : start + _BLOCK] for start in range(0, _BLOCK * _BLOCK, _BLOCK)]
    half = [[sum(map(float.__mul__, line, cosine)) for cosine in _COSINES] for line in lines]
    columns = [list(column) for column in zip(*half, strict=True)]
    full = [[sum(map(float.__mul__, column, cosine)) for cosine in _COSINES] for column in columns]
    return [round(full[column][row] / step) for (row, column), step in zip(_ZIGZAG, _STEPS, strict=True)]


def _coded(coefficients: list[int]) -> tuple[tuple[int, ...], int, int]:
    last = max((index for index, value in enumerate(coefficients) if value), default=0)
    bits, count, zeros = 0, 0, 0
    for value in coefficients[1 : last + 1]:
        if value == 0:
            zeros += 1
            continue
        for _ in range(zeros // 16):
            bits, count = bits << _AC_BITS | _AC_CODES[_SIXTEEN_ZEROS], count + _AC_BITS
        size, magnitude = _magnitude(value)
        bits = (bits << _AC_BITS | _AC_CODES[zeros % 16 << 4 | size]) << size | magnitude
        count += _AC_BITS + size
        zeros = 0
    if last < len(coefficients) - 1:
        bits, count = bits << _END_BITS, count + _END_BITS
    return tuple(coefficients[: last + 1]), bits, count
