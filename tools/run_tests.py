"""Runs all tests under coverage, and closes with a line that anyone can read: ``N passed, N failed``.

    run_tests.py [TRIAL'S ARGUMENTS]

Exit status 0 only if tests were run, all of them passed, none was skipped, and the modules that are to be pure (those of the
import linter's contract in pyproject.toml) had all their branches covered.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer

PURE = "Pure rooms"
"""How the name of that contract begins."""
CLOSING = re.compile(r"(PASSED|FAILED)(?: \((.*)\))?")
ALL_SECONDS = 1800
EXIT_SECONDS = 10


def main(arguments: list[str]) -> int:
    coverage("erase")
    status, output = run_trial(arguments or ["-j2", "tests"])
    passed, failed, skipped = counts(output)
    complaints = []
    coverage("combine", "--quiet")
    coverage("report", "--skip-covered", "--skip-empty")
    patterns, missing = pure_files()
    complaints += [f"there is no module {module}" for module in missing]
    if coverage("report", "--show-missing", "--fail-under=100", f"--include={','.join(patterns)}"):
        complaints.append("the pure rooms are not covered entirely")
    if status < 0 or (status and not failed):
        complaints.append(f"trial ended with {status}")
    if skipped:
        complaints.append("tests were skipped: what a test needs is to be installed")
    if not passed:
        complaints.append("no test passed")
    for complaint in complaints:
        print(f"run_tests: {complaint}", file=sys.stderr, flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed or complaints else 0


def run_trial(arguments: list[str]) -> tuple[int, list[str]]:
    """Trial's exit status, and its output, a line each, which is shown as it comes."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "twisted.trial", *arguments]
    lines = []
    with ExitStack() as stack:
        trial = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace"))
        stack.enter_context(killed_after(ALL_SECONDS, trial))
        assert trial.stdout is not None
        for line in trial.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
            if CLOSING.fullmatch(lines[-1]):
                # With workers, and without a single test to give them, trial would wait for ever.
                stack.enter_context(killed_after(EXIT_SECONDS, trial))
    return trial.returncode, lines


@contextmanager
def killed_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill ``process`` when it has run ``seconds`` from here on."""
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def counts(output: list[str]) -> tuple[int, int, int]:
    """Passed, failed and skipped, from trial's own closing line, such as ``FAILED (failures=1, errors=2, successes=3)``.

    A test that passed against expectation has failed. Without a closing line trial itself has failed.
    """
    closing = next((match for match in map(CLOSING.fullmatch, reversed(output)) if match), None)
    if closing is None:
        return 0, 1, 0
    number = {word: int(count) for word, count in re.findall(r"(\w+)=(\d+)", closing[2] or "")}
    failed = sum(number.get(word, 0) for word in ("failures", "errors", "unexpectedSuccesses"))
    if closing[1] == "FAILED" and not failed:
        failed = 1
    return number.get("successes", 0) + number.get("expectedFailures", 0), failed, number.get("skips", 0)


def pure_files() -> tuple[list[str], list[str]]:
    """The pure rooms as patterns for coverage's ``--include``, and the names of those that do not exist."""
    contracts = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    modules = next(contract["source_modules"] for contract in contracts if contract["name"].startswith(PURE))
    patterns, missing = [], []
    for module in modules:
        path = Path(*module.split("."))
        if path.is_dir():
            patterns.append(f"{path}/*")
        elif path.with_suffix(".py").exists():
            patterns.append(f"{path}.py")
        else:
            missing.append(module)
    return patterns, missing


def coverage(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
