"""What a simulated VM shows."""

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim.screen import HEIGHT, WIDTH, Screen
from xvpd.sim.vnc import QEMU, VNCTERM, VncViewer

ALL = (0, 0, WIDTH, HEIGHT)
LIGHT = (0, 190, WIDTH, 16)
PROMPT = (0, 220, WIDTH, 180)


class ScreenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.screen = Screen("web-1", QEMU, self.clock)

    def watch(self) -> VncViewer:
        viewer = self.screen.buildProtocol(None)
        assert viewer is not None
        viewer.makeConnection(StringTransport())
        viewer.dataReceived(b"RFB 003.008\n\1\1")
        return viewer

    def type(self, viewer: VncViewer, text: str) -> None:
        for character in text:
            keysym = {"\n": 0xFF0D, "\b": 0xFF08}.get(character, ord(character))
            viewer.dataReceived(b"\4\1\0\0" + keysym.to_bytes(4, "big") + b"\4\0\0\0" + keysym.to_bytes(4, "big"))

    def look(self, part: tuple[int, int, int, int]) -> bytes:
        return self.screen.canvas.pixels(*part)

    def test_two_vms_do_not_look_alike(self) -> None:
        self.assertNotEqual(self.look(ALL), Screen("web-2", QEMU, self.clock).canvas.pixels(*ALL))
        self.assertNotEqual(self.look(ALL), Screen("web-1", VNCTERM, self.clock).canvas.pixels(*ALL))
        self.assertEqual(self.look(ALL), Screen("web-1", QEMU, self.clock).canvas.pixels(*ALL))

    def test_a_long_name_fits(self) -> None:
        for length in (20, 60, 200):
            Screen("x" * length, QEMU, self.clock)

    def test_the_light_moves_while_somebody_looks(self) -> None:
        still = self.look(LIGHT)
        viewer = self.watch()
        seen = {still}
        for _ in range(8):
            self.clock.advance(0.1)
            seen.add(self.look(LIGHT))
        self.assertEqual(len(seen), 9)
        viewer.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_light_comes_back_and_leaves_no_trace(self) -> None:
        start = self.look(LIGHT)
        self.watch()
        pictures = []
        for _ in range(400):
            self.clock.advance(0.1)
            pictures.append(self.look(LIGHT))
        self.assertIn(start, pictures)
        self.assertLess(len(set(pictures)), 120)

    def test_keys_are_shown(self) -> None:
        viewer = self.watch()
        before = self.look(PROMPT)
        self.type(viewer, "rooot\b\bt\nls {~}")
        self.assertEqual(self.screen.typed, "root\nls {~}")
        self.assertNotEqual(self.look(PROMPT), before)

    def test_backspace_stops_at_the_prompt(self) -> None:
        viewer = self.watch()
        before = self.look(PROMPT)
        self.type(viewer, "a\b\b\b")
        self.assertEqual((self.screen.typed, self.look(PROMPT)), ("", before))

    def test_keys_without_a_character_have_names_or_are_passed_over(self) -> None:
        viewer = self.watch()
        for keysym in (0xFFBE, 0xFF1B, 0xFFE1, 0x01001234):
            viewer.dataReceived(b"\4\1\0\0" + keysym.to_bytes(4, "big"))
        self.assertEqual(self.screen.typed, "<F1><Esc>")

    def test_much_text_stays_in_its_place(self) -> None:
        viewer = self.watch()
        above = self.look((0, 0, WIDTH, 180))
        self.type(viewer, "x" * 500 + "\n" * 20 + "y" * 100)
        self.assertEqual(self.look((0, 0, WIDTH, 180)), above)
        self.assertEqual(len(self.screen.typed.splitlines()), 5)

    def test_a_restart_clears_the_screen(self) -> None:
        before = self.look(ALL)
        self.type(self.watch(), "something")
        self.screen.restart()
        self.assertEqual((self.look(ALL), self.screen.typed), (before, ""))

    def test_the_caption_says_where_the_vm_is(self) -> None:
        before = self.look(ALL)
        self.screen.caption("host-1  127.0.0.1  domain 1")
        first = self.look(ALL)
        self.screen.caption("host-2  127.0.0.2  domain 1")
        self.assertEqual(len({before, first, self.look(ALL)}), 3)
