"""`xvpd.grants.grant`: names, tokens and their digests."""

import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.grants.grant import TOKEN_BYTES, digest, is_token, mint_id, mint_token

URL_SAFE = set(string.ascii_letters + string.digits + "-_")


class TokenTests(SynchronousTestCase):
    """Tokens are random, whole, and fit to stand in an address."""

    @given(st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES))
    def test_a_minted_token_is_one_and_needs_no_escaping(self, raw: bytes) -> None:
        token = mint_token(lambda count: raw[:count])
        self.assertTrue(is_token(token))
        self.assertLessEqual(set(token), URL_SAFE)

    def test_a_token_carries_all_its_random_bytes(self) -> None:
        asked: list[int] = []

        def random_bytes(count: int) -> bytes:
            asked.append(count)
            return b"\xff" * count

        self.assertEqual(mint_token(random_bytes), "_" * 42 + "8")
        self.assertEqual(asked, [32])

    def test_an_id_is_shorter_than_a_token_and_says_nothing_of_it(self) -> None:
        self.assertEqual(mint_id(lambda count: bytes(range(count))), "AAECAwQFBgcICQoL")

    def test_knows_what_cannot_be_a_token(self) -> None:
        for text in ("", "a" * 129, "with space", "per%20cent", "line\n", "line\r\nSET x", "käse", "a/b", "a=b", "a\0b"):
            self.assertFalse(is_token(text), text)
        for text in ("a", "a" * 128, "6d7c1a9e-0d2b-4c8f-9c59-31f3b9a4a0b1"):
            self.assertTrue(is_token(text), text)

    def test_a_digest_is_sha_256_in_hex(self) -> None:
        self.assertEqual(digest("token"), hashlib.sha256(b"token").hexdigest())
