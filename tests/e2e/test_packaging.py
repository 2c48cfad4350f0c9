"""What is built from this tree can be installed, is found by `twistd`, and goes without a trace.

Everything happens in a copy of the tree and in new virtual environments, so that neither the checkout nor the environment that
runs the tests can help.
"""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

import xvpd

_TREE: Final = Path(__file__).resolve().parents[2]
_NOT_SOURCE: Final = shutil.ignore_patterns(
    ".*", "build", "dist", "node_modules", "_trial_temp*", "*.egg-info", "__pycache__", "dropin.cache"
)
_SECONDS: Final = 300


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty directory, with nothing in its environment that leads to the checkout."""
    nowhere = Path("nowhere").resolve()
    nowhere.mkdir(exist_ok=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        command,
        cwd=nowhere,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _succeed(*command: str | Path) -> str:
    done = _run(*command)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@cache
def _built() -> tuple[Path, Path]:
    """The source distribution, and the wheel that was built from it; made once for all tests."""
    source = Path("source").resolve()
    out = Path("built").resolve()
    shutil.copytree(_TREE, source, ignore=_NOT_SOURCE)
    _succeed(sys.executable, "-m", "build", "--outdir", out, source)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


class _Environment:
    """A new virtual environment."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        venv.create(directory, with_pip=True)

    def pip(self, *arguments: str | Path) -> str:
        return _succeed(self.bin / "python", "-m", "pip", "--disable-pip-version-check", *arguments)

    def twistd_lists_xvpd(self) -> bool:
        """Whether ``twistd --help`` lists it; fails if there is no ``twistd`` that works."""
        listed = _succeed(self.bin / "twistd", "--help")
        assert "\nCommands:\n" in listed, listed
        return any(line.split()[:1] == ["xvpd"] for line in listed.splitlines())


class InstallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.environment = _Environment(Path(self.mktemp()).resolve())

    def test_wheel(self) -> None:
        _, wheel = _built()
        self.environment.pip("install", wheel)
        self.assert_works()
        self.assert_uninstalls()

    def test_editable(self) -> None:
        tree = Path(self.mktemp()).resolve()
        shutil.copytree(_TREE, tree, ignore=_NOT_SOURCE)
        self.environment.pip("install", "--editable", tree)
        self.assert_works()
        where = _succeed(self.environment.bin / "python", "-c", "import xvpd; print(xvpd.__file__)")
        self.assertEqual(Path(where.strip()), tree / "xvpd" / "__init__.py")
        self.assert_uninstalls()

    def assert_works(self) -> None:
        self.assertTrue(self.environment.twistd_lists_xvpd())
        self.assertIn("--config", _succeed(self.environment.bin / "twistd", "xvpd", "--help"))
        self.assertIn("xvpd", _succeed(self.environment.bin / "xvpd", "--help"))
        self.environment.pip("check")

    def assert_uninstalls(self) -> None:
        self.environment.pip("uninstall", "--yes", "xvpd")
        self.assertFalse(self.environment.twistd_lists_xvpd())
        self.assertFalse((self.environment.bin / "xvpd").exists())
        self.assertNotEqual(_run(self.environment.bin / "python", "-c", "import xvpd").returncode, 0)


class DistributionTests(SynchronousTestCase):
    def test_wheel_holds_the_program_and_nothing_else(self) -> None:
        with zipfile.ZipFile(_built()[1]) as wheel:
            names = wheel.namelist()
        expected = {
            path.relative_to(_TREE).as_posix()
            for top in ("xvpd", "twisted/plugins")
            for path in (_TREE / top).rglob("*")
            if path.suffix == ".py" or path.name == "py.typed"
        }
        self.assertEqual({name for name in names if ".dist-info/" not in name}, expected)

    def test_wheel_describes_itself(self) -> None:
        with zipfile.ZipFile(_built()[1]) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = email.message_from_bytes(wheel.read(name))
        self.assertEqual(metadata["Name"], "xvpd")
        self.assertEqual(metadata["Version"], xvpd.__version__)
        self.assertEqual(metadata["Requires-Python"], ">=3.11")
        self.assertEqual(metadata["License-Expression"] or metadata["License"], "MIT")
        self.assertIn("console proxy daemon", metadata["Summary"])
        self.assertIn("# xvpd", str(metadata.get_payload()))
        required = {
            line.split(">")[0].split("[")[0].lower() for line in metadata.get_all("Requires-Dist", []) if "extra" not in line
        }
        self.assertLessEqual({"twisted", "txredisapi", "xenapi", "service-identity", "pyopenssl"}, required)

    def test_source_distribution_can_be_tested(self) -> None:
        """Whoever packages xvpd for a system gets the tests and the tools with the source."""
        with tarfile.open(_built()[0]) as sdist:
            names = {name.partition("/")[2] for name in sdist.getnames()}
        for name in (
            "setup.py",
            "pyproject.toml",
            "LICENSE",
            "README.md",
            "xvpd.tac",
            "Makefile",
            "tests/qemu.py",
            "tools/need.sh",
        ):
            self.assertIn(name, names)
