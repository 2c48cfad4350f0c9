"""`xvpd.xen.pins`: a file that is all there or not, and is not believed blindly."""

import json
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.xen.pins import PinFile, PinFileError

PINS = {"10.0.0.11": "ab" * 32, "fd00::12": "cd" * 32, "xen-3.example.org": "ef" * 32}


class PinFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = PinFile(str(self.directory), "lab")

    def written(self, content: bytes) -> Path:
        self.file.save({})
        (path,) = self.directory.iterdir()
        path.write_bytes(content)
        return path

    def complaint(self) -> str:
        text = str(self.assertRaises(PinFileError, self.file.load))
        self.assertEqual(len(text.splitlines()), 1)
        self.assertIn("pins-lab.json", text)
        return text

    def test_there_is_nothing_at_first(self) -> None:
        self.assertEqual(self.file.load(), {})

    def test_what_was_saved_is_loaded(self) -> None:
        for pins in (PINS, {}, {"10.0.0.11": "01" * 32}):
            self.file.save(pins)
            self.assertEqual(PinFile(str(self.directory), "lab").load(), pins)
        self.assertEqual(PinFile(str(self.directory), "other").load(), {})

    def test_nobody_else_reads_or_writes_it_and_nothing_else_is_left(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.file.save(PINS)
        (path,) = self.directory.iterdir()
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_a_file_that_others_may_write_is_not_believed(self) -> None:
        self.file.save(PINS)
        (path,) = self.directory.iterdir()
        for mode in (0o620, 0o602):
            path.chmod(mode)
            self.assertIn("others may write", self.complaint())

    def test_what_was_not_written_by_xvpd_is_a_complaint(self) -> None:
        for content in (
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"fingerprints_sha256": []}',
            b"\xff\xfe",
            b"[" * 100_000,
            b" " * 2_000_000,
        ):
            self.written(content)
            self.assertIn("not what xvpd has written", self.complaint())
        for pins in ({"10.0.0.11:443": "ab" * 32}, {"10.0.0.11": "ab"}, {"10.0.0.11": "AB" * 32}, {"10.0.0.11": 7}):
            self.written(json.dumps({"fingerprints_sha256": pins}).encode())
            self.complaint()

    @given(st.binary(max_size=200))
    def test_no_content_is_more_than_a_complaint(self, content: bytes) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = PinFile(str(self.directory), "lab")
        self.written(content)
        self.complaint()

    def test_a_directory_that_is_missing(self) -> None:
        self.directory.rmdir()
        self.assertEqual(self.file.load(), {})
        self.assertIn("No such file", str(self.assertRaises(PinFileError, self.file.save, PINS)))

    def test_a_save_that_fails_leaves_what_was(self) -> None:
        self.file.save(PINS)
        self.patch(os, "fsync", _full)
        self.assertIn("No space left", str(self.assertRaises(PinFileError, self.file.save, {})))
        self.assertEqual(self.file.load(), PINS)
        self.assertEqual(len(list(self.directory.iterdir())), 1)


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")
