"""Dialogues with a guard: what a client says, and all that is to be done about it."""

import struct
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rfb.clients import (
    CLIPBOARD,
    EVERY_KIND,
    NOVNC,
    PIXEL_FORMAT,
    VIEWERS,
    Messages,
    a_message,
    cut_text,
    encodings,
    extended_cut_text,
    fence,
    key,
    pieces_of,
    pointer,
    qemu_key,
    scan_code,
    stream_of,
    update_request,
    xvp,
)
from xvpd.console.guard import VIEWING, Guard, Verdict
from xvpd.reason import Reason, Refusal
from xvpd.rfb.tracker import Tracker
from xvpd.rfb.walker import Kind
from xvpd.rfb.xvp import FAIL, INIT, PowerRequest

XVP, EXTENDED_MOUSE = -309, -316
UNKNOWN = b"\x08 what is this?"


def all_of(guard: Guard, pieces: list[bytes], *, server_at_boundary: bool = False) -> Verdict:
    """What is done about several pieces, put together."""
    verdicts = [guard.receive(piece, server_at_boundary=server_at_boundary) for piece in pieces]
    return Verdict(
        b"".join(verdict.forward for verdict in verdicts),
        b"".join(verdict.to_client for verdict in verdicts),
        tuple(request for verdict in verdicts for request in verdict.power),
        any(verdict.input_seen for verdict in verdicts),
        verdicts[-1].violation if verdicts else None,
    )


def as_a_server_reads(stream: bytes) -> Iterator[bytes]:
    """The messages in a stream as a server measures them that knows neither of long pointer events nor of what was dropped.

    The lengths are written down here once more, on purpose. Like QEMU it hangs up on what it does not know.
    """
    fixed = {0: 20, 3: 10, 4: 8, 5: 6, 150: 10, 250: 4, 254: 8}
    at = 0
    while at < len(stream):
        kind = stream[at]
        if kind in fixed:
            length = fixed[kind]
        elif kind == 2:
            length = 4 + 4 * struct.unpack_from(">H", stream, at + 2)[0]
        elif kind == 6:
            length = 8 + abs(struct.unpack_from(">i", stream, at + 4)[0])
        elif kind == 248:
            length = 9 + stream[at + 8]
        elif kind == 251:
            length = 8 + 16 * stream[at + 6]
        elif kind == 253:
            length = 4 + struct.unpack_from(">H" if stream[at + 1] & 0x80 else "<H", stream, at + 2)[0]
        elif stream[at : at + 2] == b"\xff\0":
            length = 12
        elif stream[at : at + 3] == b"\xff\1\0" and stream[at + 3] < 3:
            length = 10 if stream[at + 3] == 2 else 4
        else:
            return
        yield stream[at : at + length]
        at += length


class TestFullConsole(SynchronousTestCase):
    def test_what_it_need_not_change_it_passes_on_as_it_came(self) -> None:
        for kind, message in EVERY_KIND:
            if kind is not Kind.XVP:
                verdict = Guard(view_only=False, power=True).receive(message, server_at_boundary=True)
                self.assertEqual(verdict.forward, message)
                self.assertEqual((verdict.to_client, verdict.power, verdict.violation), (b"", (), None))

    @settings(max_examples=200)
    @given(st.data(), st.lists(a_message, max_size=30))
    def test_streams_pass_whole_but_for_what_is_withheld(self, data: st.DataObject, messages: Messages) -> None:
        verdict = all_of(Guard(view_only=False, power=False), data.draw(pieces_of(stream_of(messages))))
        expected = []
        for kind, message in messages:
            if kind is Kind.SET_ENCODINGS:
                numbers = struct.unpack(f">{(len(message) - 4) // 4}i", message[4:])
                expected.append(encodings(*[number for number in numbers if number not in {XVP, EXTENDED_MOUSE}]))
            elif kind is not Kind.XVP:
                expected.append(message)
        self.assertEqual(verdict, Verdict(b"".join(expected), input_seen=verdict.input_seen))

    def test_viewers_are_guarded_alike_wherever_their_streams_are_cut(self) -> None:
        for messages in VIEWERS.values():
            stream = stream_of(messages)
            whole = Guard(view_only=False, power=True).receive(stream, server_at_boundary=True)
            for at in range(len(stream) + 1):
                guard = Guard(view_only=False, power=True)
                self.assertEqual(all_of(guard, [stream[:at], stream[at:]], server_at_boundary=True), whole)

    def test_novnc_has_its_encodings_but_for_the_withheld(self) -> None:
        verdict = Guard(view_only=False, power=False).receive(stream_of(NOVNC), server_at_boundary=True)
        listed = NOVNC[1][1]
        kept = listed.replace(bytes.fromhex("fffffecb"), b"").replace(bytes.fromhex("fffffec4"), b"")
        kept = kept.replace(b"\2\0\0\x19", b"\2\0\0\x17")
        self.assertEqual(verdict, Verdict(stream_of(NOVNC).replace(listed, kept), input_seen=True))

    @settings(max_examples=200)
    @given(st.lists(st.sampled_from([encodings(EXTENDED_MOUSE), pointer(0, 0, 0xFF), xvp(2), xvp(4), b"\xfa", key(250)])))
    def test_no_server_ever_reads_a_power_request(self, parts: list[bytes]) -> None:
        """Even from a client that plays with the lengths of pointer events."""
        verdict = all_of(Guard(view_only=False, power=False), parts)
        for message in as_a_server_reads(verdict.forward):
            self.assertNotEqual(message[0], 250)


class TestViewOnly(SynchronousTestCase):
    def test_a_viewer_may_say_what_it_takes_to_see_and_no_more(self) -> None:
        self.assertEqual({int(kind) for kind in VIEWING}, {0, 2, 3, 150, 248})
        for kind, message in EVERY_KIND:
            verdict = Guard(view_only=True, power=False).receive(message + update_request(), server_at_boundary=False)
            self.assertEqual(verdict.forward, message * (kind in VIEWING) + update_request())
            self.assertIsNone(verdict.violation)

    def test_a_whole_session_is_left_with_its_pictures(self) -> None:
        for messages in VIEWERS.values():
            stream = stream_of(messages)
            expected = [message[0] for kind, message in messages if kind in VIEWING]
            for at in range(len(stream) + 1):
                verdict = all_of(Guard(view_only=True, power=False), [stream[:at], stream[at:]])
                self.assertEqual([message[0] for message in as_a_server_reads(verdict.forward)], expected)

    @settings(max_examples=200)
    @given(
        st.data(),
        st.lists(
            a_message.map(lambda message: message[1])
            | st.binary(max_size=12)
            | st.sampled_from([encodings(EXTENDED_MOUSE, CLIPBOARD), extended_cut_text(key(1)), pointer(0, 0, 0xFF)]),
            max_size=30,
        ),
    )
    def test_no_server_ever_reads_input(self, data: st.DataObject, parts: list[bytes]) -> None:
        """Whatever is sent, and however it arrives."""
        verdict = all_of(Guard(view_only=True, power=False), data.draw(pieces_of(b"".join(parts))))
        self.assertLessEqual({message[0] for message in as_a_server_reads(verdict.forward)}, {0, 2, 3, 150, 248})

    def test_half_a_message_is_not_passed_on(self) -> None:
        guard = Guard(view_only=True, power=False)
        self.assertEqual(guard.receive(fence(b"abcd")[:-1], server_at_boundary=False), Verdict())
        self.assertEqual(guard.receive(fence(b"abcd")[-1:], server_at_boundary=False), Verdict(fence(b"abcd")))

    def test_an_unknown_message_ends_the_session(self) -> None:
        guard = Guard(view_only=True, power=False)
        refusal = Refusal(Reason.CLIENT_PROTOCOL, "sent a message of type 8 that xvpd does not know")
        verdict = guard.receive(update_request() + UNKNOWN, server_at_boundary=False)
        self.assertEqual(verdict, Verdict(update_request(), input_seen=True, violation=refusal))
        for more in (update_request(), b""):
            verdict = guard.receive(more, server_at_boundary=True)
            self.assertEqual((verdict.forward, verdict.violation), (b"", refusal))

    def test_the_right_to_power_is_another(self) -> None:
        guard = Guard(view_only=True, power=True)
        guard.receive(encodings(XVP), server_at_boundary=True)
        verdict = guard.receive(xvp(3) + key(1), server_at_boundary=False)
        self.assertEqual(verdict, Verdict(power=(PowerRequest.REBOOT,), input_seen=True))


class TestPower(SynchronousTestCase):
    def test_it_is_offered_before_the_encodings_are_passed_on(self) -> None:
        guard = Guard(view_only=False, power=True)
        verdict = guard.receive(PIXEL_FORMAT + encodings(5, XVP, 0), server_at_boundary=True)
        self.assertEqual(verdict, Verdict(PIXEL_FORMAT + encodings(5, 0), INIT))

    def test_what_is_asked_for_is_reported_and_goes_no_further(self) -> None:
        guard = Guard(view_only=False, power=True)
        guard.receive(encodings(XVP), server_at_boundary=True)
        for code, request in ((2, PowerRequest.SHUTDOWN), (3, PowerRequest.REBOOT), (4, PowerRequest.RESET)):
            for server_at_boundary in (True, False):
                verdict = guard.receive(xvp(code), server_at_boundary=server_at_boundary)
                self.assertEqual(verdict, Verdict(power=(request,)))

    def test_all_of_it_may_come_at_once(self) -> None:
        guard = Guard(view_only=False, power=True)
        verdict = guard.receive(encodings(XVP) + xvp(2) + xvp(9) + xvp(4), server_at_boundary=True)
        expected = Verdict(encodings(), INIT + FAIL, (PowerRequest.SHUTDOWN, PowerRequest.RESET))
        self.assertEqual(verdict, expected)

    def test_it_is_offered_once(self) -> None:
        guard = Guard(view_only=False, power=True)
        guard.receive(encodings(XVP), server_at_boundary=True)
        self.assertEqual(guard.receive(encodings(1, XVP), server_at_boundary=True), Verdict(encodings(1)))

    def test_every_mention_of_the_withheld_is_taken_away(self) -> None:
        for power in (True, False):
            guard = Guard(view_only=False, power=power)
            verdict = guard.receive(encodings(XVP, 7, XVP, EXTENDED_MOUSE, 0, XVP), server_at_boundary=False)
            self.assertEqual(verdict, Verdict(encodings(7, 0)))

    def test_a_client_that_does_not_list_it_is_not_offered_it(self) -> None:
        guard = Guard(view_only=False, power=True)
        self.assertEqual(guard.receive(encodings(5, 0), server_at_boundary=True), Verdict(encodings(5, 0)))

    def test_a_client_without_the_right_is_not_offered_it_and_is_told_that_it_failed(self) -> None:
        guard = Guard(view_only=False, power=False)
        self.assertEqual(guard.receive(encodings(XVP), server_at_boundary=True), Verdict(encodings()))
        self.assertEqual(guard.receive(xvp(4), server_at_boundary=True), Verdict(b"", FAIL))

    def test_a_request_that_was_not_invited_fails(self) -> None:
        guard = Guard(view_only=False, power=True)
        self.assertEqual(guard.receive(xvp(4), server_at_boundary=True), Verdict(b"", FAIL))

    def test_other_codes_and_versions_fail(self) -> None:
        guard = Guard(view_only=False, power=True)
        guard.receive(encodings(XVP), server_at_boundary=True)
        for message in (xvp(0), xvp(1), xvp(5), xvp(2, version=2)):
            self.assertEqual(guard.receive(message, server_at_boundary=True), Verdict(b"", FAIL))

    def test_nothing_is_said_into_the_middle_of_a_servers_message(self) -> None:
        guard = Guard(view_only=False, power=True)
        self.assertEqual(guard.receive(encodings(XVP), server_at_boundary=False), Verdict(encodings()))
        self.assertEqual(guard.receive(xvp(4), server_at_boundary=False), Verdict())

    def test_a_clipboard_before_the_encodings_does_not_hinder_it(self) -> None:
        """The server of this dialogue is QEMU as patched for XenServer."""
        guard, tracker = Guard(view_only=False, power=True), Tracker()
        tracker.receive(bytes.fromhex("03 000000 00000005 6775"))
        verdict = guard.receive(encodings(XVP), server_at_boundary=tracker.at_boundary)
        self.assertEqual(verdict, Verdict(encodings()))
        tracker.receive(b"est")
        verdict = guard.receive(encodings(XVP), server_at_boundary=tracker.at_boundary)
        self.assertEqual(verdict, Verdict(encodings(), INIT))
        tracker.receive(b"\0\0\0\1")
        verdict = guard.receive(xvp(7) + xvp(2), server_at_boundary=tracker.at_boundary)
        self.assertEqual(verdict, Verdict(power=(PowerRequest.SHUTDOWN,)))


class TestActivity(SynchronousTestCase):
    def seen(self, guard: Guard, data: bytes) -> bool:
        return guard.receive(data, server_at_boundary=False).input_seen

    def test_hands_are_seen_and_programs_are_not(self) -> None:
        hands = {Kind.KEY, Kind.POINTER, Kind.CUT_TEXT, Kind.SCAN_CODE, Kind.QEMU_KEY}
        for kind, message in EVERY_KIND:
            for view_only in (True, False):
                self.assertEqual(self.seen(Guard(view_only=view_only, power=True), message), kind in hands, kind)

    def test_a_pointer_that_rests_is_no_input(self) -> None:
        guard = Guard(view_only=False, power=False)
        for message, seen in (
            (pointer(10, 10), True),
            (pointer(10, 10), False),
            (pointer(10, 10) * 100, False),
            (pointer(10, 11), True),
            (pointer(10, 11, 1), True),
            (pointer(10, 11, 1) + update_request(), False),
            (pointer(10, 11), True),
            (pointer(10, 10), True),
        ):
            self.assertEqual(self.seen(guard, message), seen, message)

    def test_where_the_pointer_rests_is_known_though_other_input_was_seen_before(self) -> None:
        for other in (key(1), scan_code(1), qemu_key(1, 1), cut_text(b"a"), pointer(1, 1)):
            guard = Guard(view_only=False, power=False)
            self.assertTrue(self.seen(guard, other + pointer(2, 2)))
            self.assertFalse(self.seen(guard, pointer(2, 2)))

    def test_each_piece_of_a_long_text_is_seen(self) -> None:
        guard, text = Guard(view_only=True, power=False), cut_text(bytes(1000))
        self.assertFalse(self.seen(guard, text[:4]))
        self.assertTrue(self.seen(guard, text[4:500]))
        self.assertTrue(self.seen(guard, text[500:]))
        self.assertFalse(self.seen(guard, update_request()))


class TestViolations(SynchronousTestCase):
    def test_what_came_before_a_violation_is_done_and_nothing_after_it(self) -> None:
        for view_only in (True, False):
            guard = Guard(view_only=view_only, power=False)
            verdict = guard.receive(update_request() + cut_text(bytes(1 << 20) + b"1")[:20], server_at_boundary=False)
            refusal = Refusal(Reason.CLIENT_PROTOCOL, "announces a cut text of 1048577 bytes")
            self.assertEqual(verdict, Verdict(update_request(), violation=refusal))
            verdict = guard.receive(key(1) + update_request(), server_at_boundary=True)
            self.assertEqual(verdict, Verdict(violation=refusal))


class TestUnknown(SynchronousTestCase):
    def test_a_full_console_goes_on_unread_and_counts_as_active(self) -> None:
        guard = Guard(view_only=False, power=False)
        verdict = guard.receive(update_request() + UNKNOWN, server_at_boundary=False)
        self.assertEqual(verdict, Verdict(update_request() + UNKNOWN, input_seen=True))
        verdict = guard.receive(update_request(), server_at_boundary=False)
        self.assertEqual(verdict, Verdict(update_request(), input_seen=True))

    def test_it_ends_where_it_is_not_to_go_on_unread(self) -> None:
        guard = Guard(view_only=False, power=False, unknown_ends=True)
        verdict = guard.receive(key(1) + UNKNOWN, server_at_boundary=False)
        self.assertEqual(verdict.forward, key(1))
        assert verdict.violation is not None
        self.assertIs(verdict.violation.reason, Reason.CLIENT_PROTOCOL)
