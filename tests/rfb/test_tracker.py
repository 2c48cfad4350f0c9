import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.rfb.tracker import Tracker
from xvpd.rfb.xvp import FAIL, INIT


def colour_map(count: int) -> bytes:
    return struct.pack(">BxHH", 1, 0, count) + bytes(6 * count)


def cut_text(text: bytes) -> bytes:
    return struct.pack(">BxxxI", 3, len(text)) + text


def fence(payload: bytes) -> bytes:
    return struct.pack(">BxxxIB", 248, 0x80000001, len(payload)) + payload


BELL = b"\2"
END_OF_CONTINUOUS_UPDATES = b"\x96"
UPDATE = bytes.fromhex("00 00 0001 0000 0000 0001 0001 00000000 00000000")
MESSAGES = [
    colour_map(0),
    colour_map(256),
    BELL,
    cut_text(b""),
    cut_text(b"the guest's clipboard"),
    END_OF_CONTINUOUS_UPDATES,
    fence(b""),
    fence(bytes(64)),
    INIT,
    FAIL,
]


class TestTracker(SynchronousTestCase):
    def test_it_starts_at_a_boundary(self) -> None:
        tracker = Tracker()
        self.assertTrue(tracker.at_boundary)
        tracker.receive(b"")
        self.assertTrue(tracker.at_boundary)

    def test_each_message_is_over_at_its_last_byte_and_not_before(self) -> None:
        for message in MESSAGES:
            for at in range(1, len(message)):
                tracker = Tracker()
                tracker.receive(message[:at])
                self.assertFalse(tracker.at_boundary, message[:at])
                tracker.receive(message[at:])
                self.assertTrue(tracker.at_boundary, message)
                self.assertFalse(tracker.lost)

    @settings(max_examples=200)
    @given(st.lists(st.sampled_from(MESSAGES), max_size=8), st.integers(1, 40))
    def test_boundaries_are_where_messages_meet(self, messages: list[bytes], step: int) -> None:
        tracker, stream, ends = Tracker(), b"".join(messages), {0}
        for message in messages:
            ends.add(max(ends) + len(message))
        for at in range(0, len(stream), step):
            tracker.receive(stream[at : at + step])
            self.assertEqual(tracker.at_boundary, min(at + step, len(stream)) in ends)
        self.assertFalse(tracker.lost)

    def test_it_gives_up_for_good_at_the_first_update(self) -> None:
        tracker = Tracker()
        tracker.receive(BELL + UPDATE[:1])
        self.assertTrue(tracker.lost)
        self.assertFalse(tracker.at_boundary)
        tracker.receive(UPDATE[1:] + BELL)
        self.assertTrue(tracker.lost)
        self.assertFalse(tracker.at_boundary)

    def test_it_gives_up_at_every_other_type(self) -> None:
        for number in set(range(256)) - {message[0] for message in MESSAGES}:
            tracker = Tracker()
            tracker.receive(bytes([number]))
            self.assertTrue(tracker.lost, number)

    def test_it_gives_up_at_a_length_that_may_be_negative(self) -> None:
        for length, lost in ((0x7FFFFFFF, False), (0x80000000, True), (0xFFFFFFFC, True)):
            tracker = Tracker()
            tracker.receive(struct.pack(">BxxxI", 3, length))
            self.assertEqual(tracker.lost, lost)
            self.assertFalse(tracker.at_boundary)
