from twisted.trial.unittest import SynchronousTestCase

from xvpd.api.model import is_id, rfc3339
from xvpd.grants.grant import mint_id


class Words(SynchronousTestCase):
    def test_every_id_that_is_minted_is_one(self) -> None:
        for byte in range(256):
            self.assertTrue(is_id(mint_id(lambda length, byte=byte: bytes([byte]) * length)))  # type: ignore[misc]

    def test_what_could_make_a_mess_is_none(self) -> None:
        for text in ("", "a\n", "a b", "a/b", "é", "x" * 65):
            self.assertFalse(is_id(text))

    def test_moments_are_told_in_utc(self) -> None:
        self.assertEqual(rfc3339(1_700_000_000.9), "2023-11-14T22:13:20Z")
