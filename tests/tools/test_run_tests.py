"""`tools/run_tests.py` says what happened: its exit status and its closing line are all that others look at."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

_SCRIPT: Final = Path(__file__).resolve().parents[2] / "tools" / "run_tests.py"
_PROJECT: Final = """
    [tool.coverage.run]
    branch = true
    parallel = true
    patch = ["subprocess"]
    source = ["thing"]

    [[tool.importlinter.contracts]]
    name = "Pure rooms of a small project"
    source_modules = ["thing.pure", "thing.room"]
"""
_PURE: Final = """
    def sign(number):
        if number < 0:
            return "-"
        return "+"
"""
_COVERS: Final = """
    from unittest import TestCase
    from thing.pure import sign
    import thing.room.inner
    class Signs(TestCase):
        def test_minus(self):
            self.assertEqual(sign(-1), "-")
        def test_plus(self):
            self.assertEqual(sign(1), "+")
"""


class RunTestsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        self.write("pyproject.toml", _PROJECT)
        self.write("thing/__init__.py", "")
        self.write("thing/impure.py", "never_imported = True\n")
        self.write("thing/pure.py", _PURE)
        self.write("thing/room/__init__.py", "")
        self.write("thing/room/inner.py", "answer = 42\n")
        self.write("tests/__init__.py", "")
        self.write("tests/test_signs.py", _COVERS)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(dedent(text))

    def write_test(self, body: str) -> None:
        """One more test, beside those that cover everything."""
        self.write(
            "tests/test_more.py",
            f"from twisted.trial.unittest import TestCase\nclass More(TestCase):\n    def test_more(self):\n        {body}\n",
        )

    def run_tests(self) -> tuple[int, str, str]:
        """Exit status, last line, and everything that was written."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTHON"))}
        done = subprocess.run(
            [sys.executable, _SCRIPT],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout.splitlines()[-1], done.stdout

    def test_all_pass(self) -> None:
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (0, "2 passed, 0 failed"), output)
        self.assertIn("PASSED (successes=2)", output)

    def test_a_failure(self) -> None:
        self.write_test("self.assertEqual(1, 2)")
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (1, "2 passed, 1 failed"), output)

    def test_an_error(self) -> None:
        self.write_test("raise RuntimeError('no')")
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (1, "2 passed, 1 failed"), output)

    def test_a_module_that_cannot_be_imported(self) -> None:
        self.write("tests/test_more.py", "import no_such_module\n")
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (1, "2 passed, 1 failed"), output)

    def test_a_skip_is_no_success(self) -> None:
        self.write_test("self.skipTest('no QEMU here')")
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (1, "2 passed, 0 failed, 1 skipped"), output)

    def test_no_tests_at_all(self) -> None:
        (self.root / "tests" / "test_signs.py").unlink()
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (1, "0 passed, 0 failed"), output)

    def test_a_process_that_dies(self) -> None:
        self.write_test("import os; os._exit(0)")
        status, last, output = self.run_tests()
        self.assertEqual(status, 1, output)
        self.assertNotIn(" 0 failed", last)

    def test_a_branch_of_a_pure_module_that_no_test_takes(self) -> None:
        self.write("tests/test_signs.py", _COVERS.replace("sign(-1)", "'-'"))
        status, last, output = self.run_tests()
        self.assertEqual((status, last), (1, "2 passed, 0 failed"), output)
        self.assertIn("run_tests: the pure rooms are not covered entirely", output)

    def test_a_pure_module_that_no_test_imports(self) -> None:
        self.write("tests/test_signs.py", _COVERS.replace("import thing.room.inner", ""))
        status, _, output = self.run_tests()
        self.assertEqual(status, 1, output)
        self.assertIn("run_tests: the pure rooms are not covered entirely", output)

    def test_a_pure_module_that_does_not_exist(self) -> None:
        self.write("pyproject.toml", _PROJECT.replace("thing.room", "thing.gone"))
        status, _, output = self.run_tests()
        self.assertEqual(status, 1, output)
        self.assertIn("run_tests: there is no module thing.gone", output)
