"""Drawing, and pixels in every client's format."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim import font
from xvpd.sim.canvas import Canvas, PixelFormat

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Formats(SynchronousTestCase):
    def one_pixel(self, wanted: PixelFormat, colour: tuple[int, int, int]) -> bytes:
        canvas = Canvas(1, 1, [colour])
        return canvas.encode(0, 0, 1, 1, wanted.tables(canvas.palette))

    def test_32_bits(self) -> None:
        self.assertEqual(self.one_pixel(PixelFormat(), (1, 2, 3)), b"\3\2\1\0")
        self.assertEqual(self.one_pixel(PixelFormat(big_endian=True), (1, 2, 3)), b"\0\1\2\3")
        self.assertEqual(self.one_pixel(PixelFormat(shifts=(0, 8, 16)), (1, 2, 3)), b"\1\2\3\0")

    def test_16_bits(self) -> None:
        wanted = PixelFormat(16, False, (31, 63, 31), (11, 5, 0))
        self.assertEqual(self.one_pixel(wanted, RED), struct.pack("<H", 31 << 11))
        self.assertEqual(self.one_pixel(wanted, GREEN), struct.pack("<H", 63 << 5))
        self.assertEqual(self.one_pixel(PixelFormat(16, True, (31, 63, 31), (11, 5, 0)), BLUE), b"\0\x1f")

    def test_8_bits(self) -> None:
        wanted = PixelFormat(8, False, (7, 7, 3), (0, 3, 6))
        self.assertEqual([self.one_pixel(wanted, colour) for colour in (RED, GREEN, BLUE)], [b"\x07", b"\x38", b"\xc0"])

    def test_a_format_survives_the_wire(self) -> None:
        for wanted in (
            PixelFormat(),
            PixelFormat(16, True, (31, 63, 31), (11, 5, 0)),
            PixelFormat(8, False, (7, 7, 3), (0, 3, 6)),
        ):
            self.assertEqual(PixelFormat.unpack(wanted.pack()), wanted)

    def test_a_format_that_is_not_served(self) -> None:
        colour_map = struct.pack(">BBBBHHHBBBxxx", 8, 8, 0, 0, 7, 7, 3, 0, 3, 6)
        odd = struct.pack(">BBBBHHHBBBxxx", 24, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        shifted = struct.pack(">BBBBHHHBBBxxx", 8, 8, 0, 1, 7, 7, 3, 0, 3, 200)
        for data in (colour_map, odd, shifted):
            self.assertIsNone(PixelFormat.unpack(data))

    @settings(deadline=None)
    @given(st.binary(min_size=16, max_size=16), st.tuples(*[st.integers(0, 255)] * 3))
    def test_whatever_a_client_wants_is_refused_or_has_pixels_of_that_size(
        self, data: bytes, colour: tuple[int, int, int]
    ) -> None:
        wanted = PixelFormat.unpack(data)
        if wanted is not None:
            self.assertEqual(len(self.one_pixel(wanted, colour)), data[0] // 8)


class Drawing(SynchronousTestCase):
    def setUp(self) -> None:
        self.canvas = Canvas(16, 8, [RED, GREEN, BLUE])
        self.damage: list[tuple[int, ...]] = []
        self.canvas.damaged.append(lambda *rectangle: self.damage.append(rectangle))

    def test_a_filled_rectangle(self) -> None:
        self.canvas.fill(2, 1, 3, 2, 1)
        self.assertEqual(self.canvas.pixels(1, 0, 5, 4), b"\0\0\0\0\0" + b"\0\1\1\1\0" * 2 + b"\0\0\0\0\0")
        self.assertEqual(self.damage, [(2, 1, 3, 2)])

    def test_what_is_off_the_picture_is_not_drawn(self) -> None:
        self.canvas.fill(-5, -5, 6, 6, 1)
        self.canvas.fill(15, 7, 100, 100, 2)
        self.canvas.fill(40, 0, 5, 5, 2)
        self.canvas.text(12, 0, "too long", 1, 1)
        self.canvas.text(0, 4, "too low", 1, 1)
        pixels = self.canvas.pixels(0, 0, 16, 8)
        self.assertEqual((pixels.count(1), pixels.count(2), len(pixels)), (1, 1, 128))
        self.assertEqual(self.damage[:2], [(0, 0, 1, 1), (15, 7, 1, 1)])

    def test_text(self) -> None:
        self.canvas.text(0, 0, "L", 1, 1)
        rows = [self.canvas.pixels(0, y, 6, 1) for y in range(8)]
        self.assertEqual(rows, [b"\1\0\0\0\0\0"] * 6 + [b"\1\1\1\1\1\0", b"\0\0\0\0\0\0"])
        self.assertEqual(self.damage, [(0, 0, 6, 7)])

    def test_ready_pixels(self) -> None:
        self.canvas.put(3, 2, 2, b"\1\2\2\1")
        self.assertEqual(self.canvas.pixels(2, 2, 4, 2), b"\0\1\2\0\0\2\1\0")


class Letters(SynchronousTestCase):
    def test_every_printable_character_has_a_glyph_of_its_own(self) -> None:
        glyphs = {str(font.glyph(chr(code))) for code in range(0x20, 0x7F)}
        self.assertEqual(len(glyphs), 95)
        self.assertEqual(font.glyph("é"), font.glyph("?"))

    def test_a_scaled_letter_covers_the_scaled_size(self) -> None:
        for scale in (1, 2, 3, 4, 6, 8, 12):
            spans = font.spans("H", scale)
            self.assertEqual(min(start for _, start, _ in spans), 0)
            self.assertEqual(max(end for _, _, end in spans), font.WIDTH * scale)
            self.assertEqual(max(line for line, _, _ in spans), font.HEIGHT * scale - 1)
