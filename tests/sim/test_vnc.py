"""The RFB server, byte by byte, without a network."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim.canvas import Canvas, PixelFormat
from xvpd.sim.vnc import QEMU, VNCTERM, Kind, VncServer, VncViewer, server_cut_text

_INIT_38 = b"RFB 003.008\n\1\1"
_INIT_33 = b"RFB 003.003\n\1"


class Transport(StringTransport):
    """Counts how often it was told to end."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class VncCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.canvas = Canvas(64, 48, [(0, 0, 0), (255, 255, 255)])
        self.server = VncServer(QEMU, "vm", self.canvas, self.clock)

    def join(self, server: VncServer | None = None) -> tuple[VncViewer, Transport]:
        viewer = (server or self.server).buildProtocol(None)
        assert viewer is not None
        transport = Transport()
        viewer.makeConnection(transport)
        return viewer, transport

    def opened(self) -> tuple[VncViewer, Transport]:
        viewer, transport = self.join()
        viewer.dataReceived(_INIT_38)
        transport.clear()
        return viewer, transport

    def request(self, incremental: bool, x: int = 0, y: int = 0, width: int = 64, height: int = 48) -> bytes:
        return struct.pack(">BBHHHH", 3, incremental, x, y, width, height)

    def rectangles(self, data: bytes, size: int = 4) -> dict[tuple[int, int, int, int], bytes]:
        """The rectangles of one update of raw pixels."""
        kind, count = struct.unpack_from(">BxH", data)
        self.assertEqual(kind, 0)
        found, at = {}, 4
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack_from(">HHHHi", data, at)
            self.assertEqual(encoding, 0)
            at += 12
            found[x, y, width, height] = data[at : at + width * height * size]
            at += width * height * size
        self.assertEqual(at, len(data))
        return found


class Openings(VncCase):
    def init(self) -> bytes:
        return struct.pack(">HH", 64, 48) + PixelFormat().pack() + b"\0\0\0\2vm"

    def test_3_8(self) -> None:
        viewer, transport = self.join()
        self.assertEqual(transport.value(), b"RFB 003.008\n")
        for sent, answer in ((b"RFB 003.008\n", b"\1\1"), (b"\1", b"\0\0\0\0"), (b"\1", self.init())):
            transport.clear()
            for byte in sent:
                viewer.dataReceived(bytes([byte]))
            self.assertEqual(transport.value(), answer)

    def test_3_7_has_no_result(self) -> None:
        viewer, transport = self.join()
        transport.clear()
        viewer.dataReceived(b"RFB 003.007\n\1\1")
        self.assertEqual(transport.value(), b"\1\1" + self.init())

    def test_3_3(self) -> None:
        for kind, versions in ((QEMU, (b"003", b"004", b"005")), (VNCTERM, (b"003", b"004"))):
            for version in versions:
                server = VncServer(kind, "vm", self.canvas, self.clock)
                viewer, transport = self.join(server)
                self.assertEqual(transport.value(), kind.banner)
                transport.clear()
                viewer.dataReceived(b"RFB 003." + version + b"\n\1")
                self.assertEqual(transport.value(), b"\0\0\0\1" + self.init())

    def test_a_version_or_a_security_type_that_is_not_served(self) -> None:
        cases: list[tuple[Kind, bytes]] = [
            (QEMU, b"RFB 003.006\n"),
            (QEMU, b"RFB 004.000\n"),
            (QEMU, b"GET / HTTP/1"),
            (VNCTERM, b"RFB 003.008\n"),
            (QEMU, b"RFB 003.008\n\2"),
        ]
        for kind, sent in cases:
            viewer, transport = self.join(VncServer(kind, "vm", self.canvas, self.clock))
            viewer.dataReceived(sent)
            self.assertTrue(transport.disconnecting, sent)

    def test_a_viewer_that_does_not_answer_the_close_is_aborted(self) -> None:
        viewer, transport = self.join()
        viewer.dataReceived(b"x" * 12)
        self.assertFalse(transport.aborted)
        self.clock.advance(5)
        self.assertTrue(transport.aborted)

    def test_messages_right_behind_the_init(self) -> None:
        self.server.greeting = server_cut_text("copied")
        viewer, transport = self.join()
        viewer.dataReceived(_INIT_38)
        self.assertTrue(transport.value().endswith(self.init() + b"\3\0\0\0\0\0\0\6copied"))


class Sharing(VncCase):
    def test_an_exclusive_viewer_of_qemu_makes_the_others_leave(self) -> None:
        _, first = self.opened()
        _, second = self.opened()
        viewer, third = self.join()
        viewer.dataReceived(_INIT_38[:-1] + b"\0")
        self.assertEqual((first.disconnecting, second.disconnecting, third.disconnecting), (True, True, False))

    def test_vncterm_is_always_shared_and_takes_eight(self) -> None:
        server = VncServer(VNCTERM, "vm", self.canvas, self.clock)
        joined = [self.join(server) for _ in range(8)]
        for viewer, _ in joined:
            viewer.dataReceived(_INIT_33[:-1] + b"\0")
        self.assertFalse(any(transport.disconnecting for _, transport in joined))
        self.assertIsNone(server.buildProtocol(None))
        joined[0][0].connectionLost()
        self.assertIsNotNone(server.buildProtocol(None))

    def test_the_end_of_the_server_is_the_end_of_all(self) -> None:
        _, first = self.opened()
        _, second = self.opened()
        self.server.hang_up()
        self.assertTrue(first.disconnecting)
        self.assertTrue(second.disconnecting)


class Updates(VncCase):
    def test_a_whole_screen(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(self.request(incremental=False))
        self.assertEqual(self.rectangles(transport.value()), {(0, 0, 64, 48): b"\0\0\0\0" * 64 * 48})

    def test_an_incremental_request_waits_for_a_change_and_gets_only_that(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(self.request(incremental=True))
        self.assertEqual(transport.value(), b"")
        self.canvas.fill(20, 20, 4, 4, 1)
        (rectangle,) = self.rectangles(transport.value())
        self.assertEqual(rectangle, (16, 16, 16, 16))

    def test_one_update_for_each_request(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(self.request(incremental=True))
        self.canvas.fill(0, 0, 1, 1, 1)
        transport.clear()
        self.canvas.fill(0, 0, 1, 1, 0)
        self.canvas.fill(40, 40, 1, 1, 1)
        self.assertEqual(transport.value(), b"")
        viewer.dataReceived(self.request(incremental=True))
        self.assertEqual(set(self.rectangles(transport.value())), {(0, 0, 16, 16), (32, 32, 16, 16)})
        transport.clear()
        viewer.dataReceived(self.request(incremental=True))
        self.assertEqual(transport.value(), b"")

    def test_a_part_of_the_screen_is_sent_as_that_and_the_rest_is_not_forgotten(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(self.request(False, 60, 40, 100, 100))
        self.assertEqual(set(self.rectangles(transport.value())), {(60, 40, 4, 8)})
        transport.clear()
        self.canvas.fill(0, 0, 32, 16, 1)
        viewer.dataReceived(self.request(True, 0, 0, 24, 16))
        self.assertEqual(set(self.rectangles(transport.value())), {(0, 0, 24, 16)})
        transport.clear()
        viewer.dataReceived(self.request(True))
        self.assertIn((16, 0, 16, 16), self.rectangles(transport.value()))

    def test_a_request_off_the_screen_is_never_answered(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(self.request(False, 64, 0, 10, 10) + self.request(False, 0, 0, 0, 10))
        self.assertEqual((transport.value(), transport.disconnecting), (b"", False))

    def test_pixels_come_as_the_viewer_wants_them(self) -> None:
        viewer, transport = self.opened()
        self.canvas.fill(0, 0, 64, 48, 1)
        wanted = PixelFormat(16, True, (31, 63, 31), (11, 5, 0))
        viewer.dataReceived(b"\0\0\0\0" + wanted.pack() + self.request(incremental=False))
        (pixels,) = self.rectangles(transport.value(), size=2).values()
        self.assertEqual(pixels, b"\xff\xff" * 64 * 48)

    def test_a_slow_viewer_gets_nothing_more_until_it_has_taken_what_was_sent(self) -> None:
        viewer, transport = self.opened()
        viewer.pauseProducing()
        viewer.dataReceived(self.request(incremental=False))
        self.assertEqual(transport.value(), b"")
        viewer.resumeProducing()
        self.assertEqual(set(self.rectangles(transport.value())), {(0, 0, 64, 48)})

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 47), st.integers(1, 64), st.integers(1, 48), st.booleans())))
    def test_a_viewer_that_asks_for_all_has_the_picture_in_the_end(self, drawn: list[tuple[int, int, int, int, bool]]) -> None:
        self.setUp()
        viewer, transport = self.opened()
        seen = bytearray(64 * 48 * 4)
        for step, (x, y, width, height, asks) in enumerate([*drawn, (0, 0, 1, 1, True)]):
            self.canvas.fill(x, y, width, height, step % 2)
            if not asks:
                continue
            viewer.dataReceived(self.request(incremental=True))
            for (left, top, across, down), pixels in self.rectangles(transport.value()).items():
                for line in range(down):
                    start = 4 * ((top + line) * 64 + left)
                    seen[start : start + 4 * across] = pixels[4 * across * line : 4 * across * (line + 1)]
            transport.clear()
        expected = self.canvas.encode(0, 0, 64, 48, PixelFormat().tables(self.canvas.palette))
        self.assertEqual(bytes(seen), expected)


class Messages(VncCase):
    def setUp(self) -> None:
        super().setUp()
        self.keys: list[int] = []
        self.pointer: list[tuple[int, ...]] = []
        self.server.key = self.keys.append
        self.server.pointer = lambda *event: self.pointer.append(event)

    def test_keys_and_pointer(self) -> None:
        viewer, _ = self.opened()
        viewer.dataReceived(b"\4\1\0\0\0\0\0a" + b"\4\0\0\0\0\0\0a" + b"\5\1\0\7\0\x08")
        self.assertEqual((self.keys, self.pointer), ([ord("a")], [(1, 7, 8)]))

    def test_scan_codes_of_qemu(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(struct.pack(">BxHii", 2, 2, 0, -258))
        self.assertEqual(transport.value(), struct.pack(">BxHHHHHi", 0, 1, 0, 0, 64, 48, -258))
        viewer.dataReceived(struct.pack(">BBHII", 255, 0, 1, ord("b"), 30))
        viewer.dataReceived(b"\xff\1\0\0" + b"\xff\1\0\2\3\2\0\0\xac\x44" + b"\4\1\0\0\0\0\0c")
        self.assertEqual(self.keys, [ord("b"), ord("c")])

    def test_cut_text_is_read_over(self) -> None:
        viewer, _ = self.opened()
        viewer.dataReceived(b"\6\0\0\0\0\0\0\5hello" + b"\6\0\0\0\0\0\0\0" + b"\4\1\0\0\0\0\0d")
        self.assertEqual(self.keys, [ord("d")])

    def test_what_is_not_known_ends_the_connection(self) -> None:
        for kind, message in ((QEMU, b"\xfa"), (VNCTERM, b"\xfa"), (VNCTERM, b"\xff"), (QEMU, b"\xfe"), (QEMU, b"\xff\x09")):
            server = VncServer(kind, "vm", self.canvas, self.clock)
            viewer, transport = self.join(server)
            viewer.dataReceived(_INIT_38 if kind is QEMU else _INIT_33)
            self.assertFalse(transport.disconnecting)
            viewer.dataReceived(message)
            self.assertTrue(transport.disconnecting, message)

    def test_vncterm_knows_scan_codes_of_its_own(self) -> None:
        server = VncServer(VNCTERM, "vm", self.canvas, self.clock)
        server.key = self.keys.append
        viewer, transport = self.join(server)
        viewer.dataReceived(_INIT_33 + b"\xfe\1\0\0\0\0\0\x1e" + b"\4\1\0\0\0\0\0e")
        self.assertEqual((self.keys, transport.disconnecting), ([ord("e")], False))

    def test_a_huge_cut_text_ends_the_connection(self) -> None:
        viewer, transport = self.opened()
        viewer.dataReceived(b"\6\0\0\0\xff\xff\xff\xff")
        self.assertTrue(transport.disconnecting)

    @settings(deadline=None)
    @given(st.binary(max_size=400))
    def test_no_message_raises(self, data: bytes) -> None:
        self.setUp()
        viewer, _ = self.opened()
        viewer.dataReceived(data)
