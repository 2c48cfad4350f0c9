"""Screenshots, read back by a decoder for what the encoder may write."""

import math
import struct
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim import jpeg
from xvpd.sim.canvas import Colour

PALETTE: list[Colour] = [(0, 0, 0), (255, 255, 255), (200, 30, 40), (20, 60, 220)]
_ZIGZAG = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda at: (sum(at), at[sum(at) % 2 - 1]))


Codes = dict[int, dict[tuple[int, int], int]]
"""By table, the symbol for each length and code."""


def decode(data: bytes) -> tuple[int, int, list[Colour]]:
    """Width, height and pixels of a baseline JPEG without subsampling."""
    width, height, steps, codes, scan = _parts(data)
    bits = iter("".join(f"{byte:08b}" for byte in scan))
    rows: list[list[Colour]] = [[(0, 0, 0)] * width for _ in range(height)]
    before = [0, 0, 0]
    for top in range(0, height, 8):
        for left in range(0, width, 8):
            planes = []
            for plane in range(3):
                coefficients = _coefficients(bits, codes)
                before[plane] += coefficients[0]
                coefficients[0] = before[plane]
                planes.append(_samples([value * step for value, step in zip(coefficients, steps, strict=True)]))
            for y, x in _ZIGZAG:
                rows[top + y][left + x] = _colour(*(plane[y][x] for plane in planes))
    return width, height, [colour for row in rows for colour in row]


def _parts(data: bytes) -> tuple[int, int, bytes, Codes, bytes]:
    """Width, height, quantisation, codes, and the scan without its escapes."""
    assert data[:2] + data[-2:] == b"\xff\xd8\xff\xd9"
    segments: dict[int, list[bytes]] = {}
    at = 2
    while 0xDA not in segments:
        _, marker, length = struct.unpack_from(">BBH", data, at)
        segments.setdefault(marker, []).append(data[at + 4 : at + 2 + length])
        at += 2 + length
    height, width = struct.unpack_from(">HH", segments[0xC0][0], 1)
    codes = {table[0]: _codes(table[1:17], table[17:]) for table in segments[0xC4]}
    return width, height, segments[0xDB][0][1:], codes, data[at:-2].replace(b"\xff\0", b"\xff")


def _colour(light: float, blue: float, red: float) -> Colour:
    light += 128
    return _byte(light + 1.402 * red), _byte(light - 0.344 * blue - 0.714 * red), _byte(light + 1.772 * blue)


def _codes(counts: bytes, symbols: bytes) -> dict[tuple[int, int], int]:
    found, code, index = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            found[length, code] = symbols[index]
            code, index = code + 1, index + 1
        code <<= 1
    return found


def _coefficients(bits: Iterator[str], codes: Codes) -> list[int]:
    def symbol(table: int) -> int:
        length = code = 0
        while (length, code) not in codes[table]:
            length, code = length + 1, code << 1 | int(next(bits))
        return codes[table][length, code]

    def value(size: int) -> int:
        number = int("0" + "".join(next(bits) for _ in range(size)), 2)
        return number if not size or number >> size - 1 else number - (1 << size) + 1

    found = [value(symbol(0x00))]
    while len(found) < 64:
        run_and_size = symbol(0x10)
        if run_and_size == 0:
            found += [0] * (64 - len(found))
        elif run_and_size == 0xF0:
            found += [0] * 16
        else:
            found += [0] * (run_and_size >> 4) + [value(run_and_size & 15)]
    return found


def _samples(zigzag: list[int]) -> list[list[float]]:
    block = [[0.0] * 8 for _ in range(8)]
    for (y, x), value in zip(_ZIGZAG, zigzag, strict=True):
        block[y][x] = value
    cosine = [[math.cos((2 * x + 1) * u * math.pi / 16) / (2 if u else math.sqrt(8)) for u in range(8)] for x in range(8)]
    half = [[sum(row[u] * cosine[x][u] for u in range(8)) for x in range(8)] for row in block]
    return [[sum(half[v][x] * cosine[y][v] for v in range(8)) for x in range(8)] for y in range(8)]


def _byte(value: float) -> int:
    return min(255, max(0, round(value)))


class JpegTests(SynchronousTestCase):
    def assert_alike(self, width: int, height: int, indices: bytes, tolerance: int) -> None:
        picture = jpeg.encode(width, height, PALETTE, indices)
        self.assertEqual(decode(picture)[:2], (width, height))
        for seen, index in zip(decode(picture)[2], indices, strict=True):
            for got, wanted in zip(seen, PALETTE[index], strict=True):
                self.assertLessEqual(abs(got - wanted), tolerance)

    def test_flat_colours(self) -> None:
        for index in range(len(PALETTE)):
            self.assert_alike(16, 8, bytes([index]) * 128, 4)

    def test_blocks_side_by_side(self) -> None:
        row = b"".join(bytes([index]) * 8 for index in (0, 1, 2, 3, 1, 0))
        self.assert_alike(48, 16, row * 16, 4)

    def test_fine_structure_keeps_its_shape(self) -> None:
        stripes = bytes(x // 2 % 2 for x in range(16)) * 8
        self.assert_alike(16, 8, stripes, 60)
        dots = bytes((x * y * 7 + x) % 2 for y in range(8) for x in range(8))
        self.assert_alike(8, 8, dots, 100)

    def test_a_marker_in_the_data_is_escaped(self) -> None:
        picture = jpeg.encode(64, 64, PALETTE, bytes((x * 31 + y * 17) // 5 % 4 for y in range(64) for x in range(64)))
        scan = picture[picture.index(b"\xff\xda") + 14 : -2]
        self.assertEqual(scan.count(b"\xff"), scan.count(b"\xff\0"))
