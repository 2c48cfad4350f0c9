from twisted.trial.unittest import SynchronousTestCase

from xvpd.rfb.messages import Version, from_u32, string, u32, version_numbers


class TestMessages(SynchronousTestCase):
    def test_a_version_message_names_two_numbers(self) -> None:
        self.assertEqual(version_numbers(b"RFB 003.889\n"), (3, 889))

    def test_what_is_not_quite_a_version_message_is_none(self) -> None:
        for message in (
            b"",
            b"RFB 003.008",
            b"RFB 003.008\r",
            b"RFB 3.8\n    ",
            b"rfb 003.008\n",
            b"RFB 003.008\nX",
            b"RFB 0x3.008\n",
            "RFB 003.٣٣٣\n".encode(),
        ):
            self.assertIsNone(version_numbers(message), message)

    def test_every_published_version_is_its_own_message(self) -> None:
        self.assertEqual([version_numbers(version.value) for version in Version], [(3, 3), (3, 7), (3, 8)])

    def test_integers_are_big_endian(self) -> None:
        self.assertEqual(u32(258), b"\0\0\1\2")
        self.assertEqual(from_u32(b"\0\0\1\2"), 258)

    def test_a_string_is_preceded_by_its_length_in_bytes(self) -> None:
        self.assertEqual(string("né"), b"\0\0\0\3n\xc3\xa9")
