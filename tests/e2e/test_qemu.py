"""The virtual machine of the other tests is a real one, and what it says of its screen is true."""

import os
import socket
import struct

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.qemu import MissingPartError, Picture, Qemu


class QemuTests(TestCase):
    def setUp(self) -> None:
        self.qemu = Qemu()
        self.addCleanup(self.qemu.stop)

    async def test_its_vnc_server_shows_what_screendump_says(self) -> None:
        await self.qemu.start()
        dump = await self.qemu.screendump()
        seen = await deferToThread(_read_screen, os.fspath(self.qemu.vnc_path))
        self.assertEqual((dump.width, dump.height), (720, 400))
        self.assertEqual(seen[:2], dump[:2])
        self.assertTrue(seen.rgb == dump.rgb, "the pixels differ")

    async def test_its_screen_shows_text_and_stands_still(self) -> None:
        await self.qemu.start()
        dump = await self.qemu.screendump()
        lit = sum(1 for red in dump.rgb[::3] if red)
        self.assertGreater(lit, 1000, "an empty screen proves nothing")
        self.assertTrue(await self.qemu.screendump() == dump, "the picture changes")

    async def test_stop_leaves_no_process_and_no_file(self) -> None:
        await self.qemu.start()
        path = self.qemu.vnc_path
        self.assertTrue(path.is_socket())
        await self.qemu.stop()
        self.assertFalse(path.parent.exists())

    async def test_a_missing_program_is_a_failure_that_names_it(self) -> None:
        self.patch(os, "environ", {**os.environ, "PATH": self.mktemp()})
        with self.assertRaisesRegex(MissingPartError, "qemu-system-x86_64 is not installed"):
            await self.qemu.start()


def _read_screen(path: str) -> Picture:
    """The screen behind the VNC server at ``path``, by nothing but RFC 6143: version, security, init, one update in Raw."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        stream = connection.makefile("rb")
        assert stream.read(12) == b"RFB 003.008\n"
        connection.sendall(b"RFB 003.008\n")
        assert 1 in stream.read(stream.read(1)[0]), "no security type None"
        connection.sendall(b"\x01")
        assert stream.read(4) == bytes(4), "SecurityResult is not OK"
        connection.sendall(b"\x01")
        width, height = struct.unpack(">HH", stream.read(4))
        pixel_format = struct.unpack(">BBBBHHHBBB3x", stream.read(16))
        assert pixel_format == (32, 24, 0, 1, 255, 255, 255, 16, 8, 0), pixel_format
        assert stream.read(*struct.unpack(">I", stream.read(4))).startswith(Qemu.name.encode())
        connection.sendall(struct.pack(">BxHi", 2, 1, 0) + struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        pixels = bytearray(width * height * 4)
        covered = 0
        while covered < width * height:
            assert stream.read(2) == b"\x00\x00", "no FramebufferUpdate"
            for _ in range(*struct.unpack(">H", stream.read(2))):
                x, y, columns, rows, encoding = struct.unpack(">HHHHi", stream.read(12))
                assert encoding == 0
                for row in range(y, y + rows):
                    start = (row * width + x) * 4
                    pixels[start : start + columns * 4] = stream.read(columns * 4)
                covered += columns * rows
    rgb = bytearray(width * height * 3)
    rgb[0::3], rgb[1::3], rgb[2::3] = pixels[2::4], pixels[1::4], pixels[0::4]
    return Picture(width, height, bytes(rgb))
