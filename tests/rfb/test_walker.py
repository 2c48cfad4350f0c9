from collections.abc import Iterable
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rfb.clients import (
    AUDIO_ON,
    CLIPBOARD,
    EVERY_KIND,
    NOVNC,
    VIEWERS,
    Messages,
    a_message,
    cut_text,
    desktop_size,
    encodings,
    extended_cut_text,
    fence,
    gii,
    key,
    pieces_of,
    pointer,
    qemu_key,
    stream_of,
    update_request,
)
from xvpd.reason import Reason
from xvpd.rfb.walker import CUT_TEXT_LIMIT, ENCODINGS_LIMIT, FENCE_LIMIT, INPUT, Kind, Span, Walker

HELD_LIMIT: Final = len(encodings(*[0] * ENCODINGS_LIMIT))
"""The longest message that is handed out whole."""


def walked(pieces: Iterable[bytes], walker: Walker | None = None) -> list[Span]:
    walker = walker or Walker()
    return [span for piece in pieces for span in walker.walk(piece)]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def put_together(spans: list[Span]) -> Messages:
    """The messages that spans are parts of; each must begin, and go on with its own kind, and end."""
    messages: Messages = []
    complete = True
    for span in spans:
        assert span.begins == complete, span
        if span.begins:
            messages.append((span.kind, span.data))
        else:
            kind, data = messages[-1]
            assert kind is span.kind
            messages[-1] = kind, data + span.data
        complete = span.ends
    assert complete
    return messages


class TestMessages(SynchronousTestCase):
    def test_each_kind_is_told_from_the_others_and_ends_where_it_ends(self) -> None:
        for kind, message in EVERY_KIND:
            self.assertEqual(put_together(walked([message + update_request()]))[0], (kind, message))
        self.assertEqual({kind for kind, _ in EVERY_KIND} | {Kind.UNKNOWN}, set(Kind))

    def test_small_messages_come_whole_however_they_arrive(self) -> None:
        for kind, message in EVERY_KIND:
            if kind not in {Kind.CUT_TEXT, Kind.GII}:
                for at in range(len(message)):
                    self.assertEqual(walked([message[:at], message[at:]]), [Span(kind, message, True, True)])

    def test_viewers_sessions_are_walked_wherever_they_are_cut(self) -> None:
        for messages in VIEWERS.values():
            stream = stream_of(messages)
            for at in range(len(stream) + 1):
                self.assertEqual(put_together(walked([stream[:at], stream[at:]])), messages)
            self.assertEqual(put_together(walked(bytewise(stream))), messages)

    @settings(max_examples=200)
    @given(st.data(), st.lists(a_message, max_size=30))
    def test_spans_put_together_are_the_stream(self, data: st.DataObject, messages: Messages) -> None:
        stream = stream_of(messages)
        spans = walked(data.draw(pieces_of(stream)))
        self.assertEqual(b"".join(span.data for span in spans), stream)
        self.assertEqual(put_together(spans), messages)

    def test_every_type_is_known_or_unknown(self) -> None:
        known = set()
        for number in range(256):
            walker = Walker()
            walker.walk(bytes([number]) + bytes(30))
            if walker.unknown is None:
                known.add(number)
            else:
                self.assertEqual(walker.unknown, number)
        self.assertEqual(known, {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 253, 254, 255})

    def test_input_is_what_hands_cause(self) -> None:
        self.assertEqual(INPUT, {Kind.KEY, Kind.POINTER, Kind.CUT_TEXT, Kind.SCAN_CODE, Kind.QEMU_KEY})


class TestFields(SynchronousTestCase):
    def test_encodings_are_signed_and_in_order(self) -> None:
        (span,) = walked([encodings(16, -309, CLIPBOARD, 0)])
        self.assertEqual(span.encodings, (16, -309, CLIPBOARD, 0))
        self.assertEqual(walked([encodings()])[0].encodings, ())

    def test_both_kinds_of_key_have_a_keysym(self) -> None:
        for message in (key(0xFFE3), qemu_key(0xFFE3, 0x1D)):
            self.assertEqual(walked([message])[0].keysym, 0xFFE3)

    def test_a_mask_has_eight_buttons_or_fifteen(self) -> None:
        self.assertEqual(walked([pointer(mask=0x85)])[0].mask, 0x85)
        (span,) = walked([pointer(mask=0x85) + b"\2"], Walker(extended_mouse=True))
        self.assertEqual(span.mask, 0b1_0000_0101)


class TestLongMessages(SynchronousTestCase):
    def test_a_cut_text_is_handed_on_as_it_comes(self) -> None:
        walker = Walker()
        message = cut_text(bytes(CUT_TEXT_LIMIT))
        self.assertEqual(walker.walk(message[:7]), [])
        self.assertEqual(walker.walk(message[7:8]), [Span(Kind.CUT_TEXT, message[:8], True, False)])
        self.assertEqual(walker.walk(message[8:5000]), [Span(Kind.CUT_TEXT, message[8:5000], False, False)])
        self.assertEqual(
            walker.walk(message[5000:] + AUDIO_ON),
            [Span(Kind.CUT_TEXT, message[5000:], False, True), Span(Kind.QEMU_AUDIO, AUDIO_ON, True, True)],
        )

    def test_gii_is_handed_on_as_it_comes_whichever_its_byte_order(self) -> None:
        for order in "<>":
            message = gii(bytes(0xFFFF), order)
            spans = walked([message[:10], message[10:], key(1)])
            self.assertEqual([len(span.data) for span in spans], [4, 6, 0xFFFF - 6, 8])

    @settings(max_examples=200)
    @given(st.lists(a_message.map(lambda message: message[1]) | st.binary(max_size=20), max_size=20), st.integers(1, 600))
    def test_never_more_is_held_than_a_small_message(self, parts: list[bytes], step: int) -> None:
        """Whatever is sent, and the walk goes the same way however it arrives."""
        stream = b"".join(parts)
        walker, again = Walker(), Walker()
        given_out = 0
        for at in range(0, len(stream), step):
            given_out += sum(len(span.data) for span in walker.walk(stream[at : at + step]))
            if walker.refusal is None:
                self.assertLess(len(stream[: at + step]) - given_out, HELD_LIMIT)
        whole = b"".join(span.data for span in again.walk(stream))
        self.assertEqual(stream[: len(whole)], whole)
        self.assertEqual((given_out, walker.unknown, walker.refusal), (len(whole), again.unknown, again.refusal))


class TestAgreements(SynchronousTestCase):
    def test_a_pointer_event_has_six_bytes_though_its_client_knows_of_seven(self) -> None:
        messages = [(Kind.SET_ENCODINGS, encodings(-316)), (Kind.POINTER, pointer(1, 1, 0x80)), (Kind.KEY, key(1))]
        self.assertEqual(put_together(walked([stream_of(messages)])), messages)

    def test_once_agreed_a_marked_pointer_event_has_seven(self) -> None:
        messages = [
            (Kind.POINTER, pointer(1, 1, 0x7F)),
            (Kind.POINTER, pointer(1, 1, 0x80) + b"\1"),
            (Kind.POINTER, pointer(1, 2, 0xFF) + b"\3"),
            (Kind.KEY, key(1)),
        ]
        for pieces in ([stream_of(messages)], bytewise(stream_of(messages))):
            self.assertEqual(put_together(walked(pieces, Walker(extended_mouse=True))), messages)

    def test_a_negative_length_is_one_where_the_client_knows_the_extended_clipboard(self) -> None:
        text = (Kind.CUT_TEXT, extended_cut_text(b"\2\0\0\1"))
        self.assertIn(text, NOVNC)
        longest = (Kind.CUT_TEXT, extended_cut_text(bytes(CUT_TEXT_LIMIT)))
        messages = [(Kind.SET_ENCODINGS, encodings(0, CLIPBOARD)), text, (Kind.CUT_TEXT, cut_text(b"plain")), longest]
        self.assertEqual(put_together(walked([stream_of(messages)])), messages)

    def test_to_know_it_once_is_enough(self) -> None:
        messages = [
            (Kind.SET_ENCODINGS, encodings(CLIPBOARD)),
            (Kind.SET_ENCODINGS, encodings(0)),
            (Kind.CUT_TEXT, extended_cut_text(b"\2\0\0\1")),
        ]
        self.assertEqual(put_together(walked([stream_of(messages)])), messages)


HOSTILE: Final = {
    "a long cut text": (cut_text(bytes(CUT_TEXT_LIMIT + 1))[:8], "announces a cut text of 1048577 bytes"),
    "the longest cut text": (bytes.fromhex("06 000000 7fffffff"), "announces a cut text of 2147483647 bytes"),
    "a negative cut text": (extended_cut_text(b"\2\0\0\1"), "announces a cut text of 4294967292 bytes"),
    "a long extended cut text": (
        encodings(CLIPBOARD) + bytes.fromhex("06 000000 ffefffff"),
        "announces a cut text of 1048577 bytes",
    ),
    "the longest extended cut text": (
        encodings(CLIPBOARD) + bytes.fromhex("06 000000 80000000"),
        "announces a cut text of 2147483648 bytes",
    ),
    "many encodings": (encodings(*[0] * (ENCODINGS_LIMIT + 1))[:4], "announces 1025 encodings"),
    "the most encodings": (b"\2\0\xff\xff", "announces 65535 encodings"),
    "a long fence": (fence(bytes(FENCE_LIMIT + 1))[:9], "announces a fence of 65 bytes"),
}


class TestHostileLengths(SynchronousTestCase):
    def test_they_end_the_walk_as_soon_as_they_are_announced(self) -> None:
        for name, (stream, detail) in HOSTILE.items():
            for pieces in ([key(1) + stream], bytewise(key(1) + stream), [key(1), stream + key(2)]):
                walker = Walker()
                spans = walked(pieces, walker)
                assert walker.refusal is not None, name
                self.assertIs(walker.refusal.reason, Reason.CLIENT_PROTOCOL)
                self.assertEqual(walker.refusal.detail, detail)
                self.assertEqual(spans[0], Span(Kind.KEY, key(1), True, True))
                self.assertNotIn(key(2), [span.data for span in spans])
                self.assertEqual(walker.walk(key(3)), [])

    def test_what_is_just_within_is_walked(self) -> None:
        for message in (
            cut_text(bytes(CUT_TEXT_LIMIT)),
            encodings(*range(ENCODINGS_LIMIT)),
            fence(bytes(FENCE_LIMIT)),
            desktop_size(255),
        ):
            walker = Walker()
            self.assertEqual(put_together(walked([message, key(1)], walker))[0][1], message)
            self.assertIsNone(walker.refusal)


class TestUnknown(SynchronousTestCase):
    def test_from_an_unknown_type_on_the_stream_is_opaque(self) -> None:
        walker = Walker()
        self.assertEqual(
            walker.walk(key(1) + b"\x08abc" + key(2)),
            [Span(Kind.KEY, key(1), True, True), Span(Kind.UNKNOWN, b"\x08abc" + key(2), True, False)],
        )
        self.assertEqual(walker.unknown, 8)
        self.assertEqual(walker.walk(key(3)), [Span(Kind.UNKNOWN, key(3), False, False)])
        self.assertEqual(walker.walk(b""), [])

    def test_an_unknown_submessage_of_qemus_is_unknown(self) -> None:
        for message in (bytes.fromhex("ff 02 0000 00000000"), bytes.fromhex("ff 01 0003 00000000")):
            for pieces in ([message], bytewise(message)):
                walker = Walker()
                spans = walked(pieces, walker)
                self.assertEqual(walker.unknown, 255)
                self.assertEqual({span.kind for span in spans}, {Kind.UNKNOWN})
                self.assertEqual(b"".join(span.data for span in spans), message)
                self.assertEqual([span.begins for span in spans].count(True), 1)
