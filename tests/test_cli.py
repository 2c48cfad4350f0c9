"""``xvpd key``: what is printed, what is kept, and what is refused."""

import contextlib
import io
import os
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from xvpd.api.auth import Caller, KeysFile, Role, digest_of
from xvpd.cli import main


class Keys(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "api-keys"

    def run_xvpd(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of ``xvpd``."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()

    def key(self, *arguments: str) -> str:
        """The stdout of ``xvpd key ...`` on the test's file, which succeeds."""
        status, out, err = self.run_xvpd("key", *arguments, "--keys-file", str(self.path))
        self.assertEqual((status, err), (0, ""))
        return out

    def refused(self, *arguments: str) -> str:
        """The one line that ``xvpd key ...`` says when it cannot."""
        status, out, err = self.run_xvpd("key", *arguments, "--keys-file", str(self.path))
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        return err.removeprefix(f"xvpd: {self.path}: ").rstrip()

    def test_a_key_is_printed_alone_and_lets_its_holder_in(self) -> None:
        out = self.key("add", "portal", "--role", "issuer")
        self.assertRegex(out, r"\A[A-Za-z0-9_-]{43}\n\Z")
        caller = self.successResultOf(KeysFile(str(self.path)).authenticate(out.strip()))
        self.assertEqual(caller, Caller("portal", Role.ISSUER))

    def test_the_file_holds_the_digest_and_not_the_key(self) -> None:
        key = self.key("add", "portal", "--role", "issuer").strip()
        self.assertEqual(self.path.read_text(), f"portal issuer {digest_of(key)}\n")

    def test_no_two_keys_are_the_same(self) -> None:
        self.assertNotEqual(self.key("add", "a", "--role", "issuer"), self.key("add", "b", "--role", "issuer"))

    def test_a_new_file_is_its_owners_alone(self) -> None:
        self.key("add", "portal", "--role", "issuer")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_a_file_keeps_its_mode_owner_and_all_its_lines(self) -> None:
        self.path.write_text("# keys\n\nops operator " + "0" * 64 + "  # no line end")
        self.path.chmod(0o640)
        if os.getuid() == 0:
            os.chown(self.path, 1, 2)
        before = self.path.stat()
        key = self.key("add", "portal", "--role", "issuer").strip()
        self.assertEqual(
            self.path.read_text(), f"# keys\n\nops operator {'0' * 64}  # no line end\nportal issuer {digest_of(key)}\n"
        )
        after = self.path.stat()
        self.assertEqual((after.st_mode, after.st_uid, after.st_gid), (before.st_mode, before.st_uid, before.st_gid))
        self.assertEqual([each.name for each in self.directory.iterdir()], ["api-keys"])

    def test_a_link_stays_a_link(self) -> None:
        real = self.directory / "real"
        real.write_text("")
        self.path.symlink_to("real")
        self.key("add", "portal", "--role", "issuer")
        self.assertTrue(self.path.is_symlink())
        self.assertIn("portal issuer ", real.read_text())

    def test_list_shows_names_and_roles_and_no_digest(self) -> None:
        self.key("add", "portal", "--role", "issuer")
        self.key("add", "ops", "--role", "operator")
        self.key("add", "prometheus", "--role", "metrics")
        self.assertEqual(self.key("list"), "portal issuer\nops operator\nprometheus metrics\n")

    def test_remove_takes_away_one_key_and_nothing_else(self) -> None:
        self.path.write_text(f"# portal's\nportal issuer {'0' * 64}\nportal2 issuer {'1' * 64}\n")
        self.assertEqual(self.key("remove", "portal"), "")
        self.assertEqual(self.path.read_text(), f"# portal's\nportal2 issuer {'1' * 64}\n")

    def test_a_name_that_is_taken(self) -> None:
        self.key("add", "portal", "--role", "issuer")
        before = self.path.read_text()
        self.assertEqual(self.refused("add", "portal", "--role", "operator"), "there is a key named portal already")
        self.assertEqual(self.path.read_text(), before)

    def test_a_name_that_could_not_be_read_again(self) -> None:
        for name in ("a b", "#a", "", "a\nb", "é"):
            self.assertIn("the name must be 1 to 64 letters", self.refused("add", name, "--role", "issuer"))
        self.assertFalse(self.path.exists())

    def test_a_name_that_is_not_there(self) -> None:
        self.path.write_text("")
        self.assertEqual(self.refused("remove", "portal"), "there is no key named portal")

    def test_a_file_or_directory_that_is_not_there(self) -> None:
        for command in (("list",), ("remove", "portal")):
            self.assertEqual(self.refused(*command), "No such file or directory")
        self.path = self.directory / "nowhere" / "api-keys"
        self.assertEqual(self.refused("add", "portal", "--role", "issuer"), "No such file or directory")

    def test_a_file_that_is_faulty_is_not_touched(self) -> None:
        self.path.write_text("nonsense\n")
        for command in (("list",), ("remove", "nonsense"), ("add", "portal", "--role", "issuer")):
            self.assertEqual(self.refused(*command), "line 1: the role must be one of issuer, operator, metrics")
        self.assertEqual(self.path.read_text(), "nonsense\n")

    def test_nothing_is_left_behind_when_it_cannot_be_written(self) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        self.path.write_text("")
        self.patch(os, "fsync", full)
        self.assertEqual(self.refused("add", "portal", "--role", "issuer"), "No space left on device")
        self.assertEqual([each.name for each in self.directory.iterdir()], ["api-keys"])
        self.assertEqual(self.path.read_text(), "")

    def test_writers_at_the_same_time_lose_no_key(self) -> None:
        names = [f"key-{number}" for number in range(20)]
        arguments = ["--role", "issuer", "--keys-file", str(self.path)]
        with contextlib.redirect_stdout(io.StringIO()):
            threads = [threading.Thread(target=main, args=(["key", "add", name, *arguments],)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(sorted(self.key("list").split()[::2]), sorted(names))

    def test_a_wrong_command_line_is_explained_with_status_2(self) -> None:
        for arguments in (
            (),
            ("key",),
            ("key", "add"),
            ("key", "add", "portal"),
            ("key", "add", "portal", "--role", "admin"),
            ("key", "add", "portal", "--role", "issuer", "--vms", "tag:T"),
            ("nonsense",),
        ):
            status, out, err = self.run_xvpd(*arguments)
            self.assertEqual((status, out), (2, ""))
            self.assertTrue(err.startswith("usage: xvpd"), err)
