"""`tools/need.sh` installs what is missing, or says what is; it never goes on without it."""

import os
import subprocess
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

_SCRIPT: Final = Path(__file__).resolve().parents[2] / "tools" / "need.sh"


class NeedTests(SynchronousTestCase):
    """The machine is a directory with the few commands that are there."""

    def setUp(self) -> None:
        self.bin = Path(self.mktemp()).resolve()
        self.bin.mkdir(parents=True)
        self.calls = self.bin / "calls"
        self.calls.touch()

    def command(self, name: str, line: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def machine(self, *, root: bool, debian: bool = True) -> None:
        self.command("id", f"echo {0 if root else 1000}")
        if debian:
            self.command("apt-get", f'echo "$DEBIAN_FRONTEND apt-get $*" >>{self.calls}')

    def need(self, *pairs: str) -> tuple[int, str]:
        """Exit status, and what it says to a person."""
        done = subprocess.run(
            ["/bin/sh", _SCRIPT, *pairs],
            env={**os.environ, "PATH": str(self.bin)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stderr

    def test_nothing_missing(self) -> None:
        self.machine(root=True)
        self.command("qemu", "exit 0")
        self.assertEqual(self.need("qemu=qemu-system"), (0, ""))
        self.assertEqual(self.calls.read_text(), "")

    def test_root_gets_the_packages_of_what_is_missing(self) -> None:
        self.machine(root=True)
        self.command("qemu", "exit 0")
        self.assertEqual(self.need("qemu=qemu-system", "redis=redis-server", "chrome=chromium"), (0, ""))
        update, install = self.calls.read_text().splitlines()
        self.assertRegex(update, "^noninteractive apt-get update")
        self.assertRegex(install, "^noninteractive apt-get install .*--yes --no-install-recommends redis-server chromium$")

    def test_others_are_told_what_is_missing(self) -> None:
        self.machine(root=False)
        status, said = self.need("redis=redis-server", "chrome=chromium")
        self.assertEqual(status, 1)
        self.assertIn("Not installed: redis chrome.", said)
        self.assertIn("apt-get install redis-server chromium", said)
        self.assertEqual(self.calls.read_text(), "")

    def test_root_without_apt_is_told_as_well(self) -> None:
        self.machine(root=True, debian=False)
        status, said = self.need("redis=redis-server")
        self.assertEqual(status, 1)
        self.assertIn("Not installed: redis.", said)

    def test_an_install_that_fails_is_a_failure(self) -> None:
        self.machine(root=True)
        self.command("apt-get", "exit 100")
        status, _ = self.need("redis=redis-server")
        self.assertNotEqual(status, 0)
