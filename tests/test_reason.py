"""The closed list of reasons: what clients and scripts rely on."""

from http import HTTPStatus
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from xvpd.reason import Reason, Refusal, as_markdown

_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reasons.md"


class ReasonTests(SynchronousTestCase):
    def test_no_number_has_two_meanings(self) -> None:
        """Python makes an alias of an enum's member with another's value; it would not be among the members."""
        self.assertEqual(len(Reason), len(Reason.__members__))
        self.assertEqual(len({reason.number for reason in Reason}), len(Reason))

    def test_close_codes_are_those_left_to_applications(self) -> None:
        self.assertEqual(Reason.TOKEN_EXPIRED.close_code, 4441)
        for reason in Reason:
            self.assertTrue(4400 <= reason.close_code <= 4999, reason)

    def test_a_close_frame_has_room_for_the_sentence_and_a_request_id(self) -> None:
        """RFC 6455 section 5.5: 125 bytes, two of them the code."""
        for reason in Reason:
            self.assertLessEqual(len(f"{reason.sentence} (request {'x' * 16})".encode()), 123, reason)

    def test_statuses_are_errors_that_http_knows(self) -> None:
        for reason in Reason:
            if reason.status is not None:
                self.assertIn(HTTPStatus(reason.status), range(400, 600), reason)

    def test_a_token_that_was_good_once_reads_like_one_that_never_was(self) -> None:
        tokens = [reason for reason in Reason if reason.name.startswith("TOKEN_")]
        self.assertEqual(len(tokens), 5)
        self.assertEqual(len({(reason.status, reason.sentence) for reason in tokens}), 1)

    def test_a_refusal_as_text(self) -> None:
        self.assertEqual(str(Refusal(Reason.VM_NOT_FOUND)), "vm_not_found")
        self.assertEqual(str(Refusal(Reason.VM_NOT_FOUND, "in pool lab")), "vm_not_found: in pool lab")

    def test_the_document_is_up_to_date(self) -> None:
        self.assertEqual(_DOCUMENT.read_text(), as_markdown(), "run `make docs`")
