"""Who is calling: the keys file, and the keys that callers show."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from xvpd.api.auth import Caller, IAuthClient, Key, KeysFile, KeysFileError, Role, digest_of, parse_keys, read_keys
from xvpd.reason import Reason, Refusal

DIGEST = "ab" * 32


class Parsing(SynchronousTestCase):
    def fault(self, *lines: str) -> str:
        """What is wrong with these lines of a file called ``keys``."""
        with self.assertRaises(KeysFileError) as caught:
            parse_keys("\n".join(lines), "keys")
        return str(caught.exception)

    def test_a_key_a_line_with_comments_and_blank_lines(self) -> None:
        keys = parse_keys(
            f"# keys\n\nportal issuer {DIGEST} # the portal's\n  ops\toperator  {'CD' * 32}\nm metrics {'0' * 64}", "keys"
        )
        self.assertEqual(
            keys,
            [
                Key("portal", Role.ISSUER, DIGEST),
                Key("ops", Role.OPERATOR, "cd" * 32),
                Key("m", Role.METRICS, "0" * 64),
            ],
        )

    def test_a_key_is_written_as_it_is_read(self) -> None:
        key = Key("portal", Role.ISSUER, DIGEST)
        self.assertEqual(parse_keys(str(key), "keys"), [key])

    def test_a_fault_is_one_line_with_file_line_and_reason(self) -> None:
        self.assertEqual(
            self.fault("# x", f"portal admin {DIGEST}"), "keys: line 2: the role must be one of issuer, operator, metrics"
        )

    def test_every_fault(self) -> None:
        digest = "the third word must be the SHA-256 of the key, 64 hex digits"
        name = "the name must be 1 to 64 letters, digits, dots, dashes and underscores"
        for line, reason in {
            "portal issuer": digest,
            "portal": "the role must be one of issuer, operator, metrics",
            f"portal issuer {DIGEST[1:]}": digest,
            f"portal issuer {DIGEST}0": digest,
            f"portal issuer {'x' * 64}": digest,
            f"p/q issuer {DIGEST}": name,
            f"-p issuer {DIGEST}": name,
            f"{'p' * 65} issuer {DIGEST}": name,
            f"portal issuer {DIGEST} more": "there is more than name, role and digest",
        }.items():
            self.assertEqual(self.fault(line), f"keys: line 1: {reason}")

    def test_a_restriction_that_is_not_enforced_is_refused(self) -> None:
        self.assertEqual(
            self.fault(f"portal issuer {DIGEST} vms=tag:T"),
            "keys: line 1: vms= is not enforced yet, so a key that has it is refused",
        )

    def test_a_name_or_a_key_that_comes_twice(self) -> None:
        self.assertEqual(
            self.fault(f"a issuer {DIGEST}", f"a issuer {'c' * 64}"), "keys: line 2: there is a key named a above"
        )
        self.assertEqual(
            self.fault(f"a issuer {DIGEST}", f"b operator {DIGEST.upper()}"),
            "keys: line 2: the same key stands above under another name",
        )

    def test_a_fault_never_quotes_a_digest(self) -> None:
        self.assertNotIn("abab", self.fault(f"a issuer {DIGEST}0"))

    def test_a_file_that_cannot_be_read(self) -> None:
        missing = self.mktemp()
        with self.assertRaises(KeysFileError) as caught:
            read_keys(missing)
        self.assertEqual(str(caught.exception), f"{missing}: No such file or directory")

    def test_a_file_that_is_not_text(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"\xff\xfe")
        with self.assertRaises(KeysFileError) as caught:
            read_keys(path)
        self.assertEqual(str(caught.exception), f"{path}: is not text")


class Authenticating(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.write(f"portal issuer {digest_of('good-key')}\nops operator {digest_of('other')}\n")
        self.keys = KeysFile(self.path)

    def write(self, text: str) -> None:
        """Replace the file, as an editor or ``xvpd key`` does."""
        new = self.path + ".new"
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, self.path)

    def outcome(self, key: str) -> Caller | Reason:
        """What becomes of a caller with this key."""
        outcome = self.successResultOf(self.keys.authenticate(key))
        return outcome.reason if isinstance(outcome, Refusal) else outcome

    def test_it_provides_the_seam(self) -> None:
        verifyObject(IAuthClient, self.keys)

    def test_a_key_tells_its_caller(self) -> None:
        self.assertEqual(self.outcome("good-key"), Caller("portal", Role.ISSUER))
        self.assertEqual(self.outcome("other"), Caller("ops", Role.OPERATOR))

    def test_any_other_key_is_refused(self) -> None:
        for key in ("", "good-ke", "good-key0", "Good-key", digest_of("good-key"), "good key", "k\xe9y", "x" * 257):
            self.assertEqual(self.outcome(key), Reason.UNAUTHORIZED)

    def test_a_key_that_is_added_or_removed_counts_at_once(self) -> None:
        self.write(f"new issuer {digest_of('new-key')}\n")
        self.assertEqual(self.outcome("new-key"), Caller("new", Role.ISSUER))
        self.assertEqual(self.outcome("good-key"), Reason.UNAUTHORIZED)

    def test_a_file_that_has_become_unusable_lets_nobody_in_until_it_is_mended(self) -> None:
        good = Path(self.path).read_text("utf-8")
        self.write("nonsense\n")
        self.assertEqual(self.outcome("good-key"), Reason.INTERNAL)
        self.assertEqual(self.outcome("good-key"), Reason.INTERNAL)
        os.remove(self.path)
        self.assertEqual(self.outcome("good-key"), Reason.INTERNAL)
        self.write(good)
        self.assertEqual(self.outcome("good-key"), Caller("portal", Role.ISSUER))

    def test_an_unusable_file_is_refused_from_the_start(self) -> None:
        with self.assertRaises(KeysFileError):
            KeysFile(self.mktemp())
