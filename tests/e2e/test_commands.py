"""The commands as a person runs them: real processes, their exit status, and what they say."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

import xvpd

_TREE: Final = Path(__file__).resolve().parents[2]
_BIN: Final = Path(sys.executable).parent
_TWISTD: Final = (_BIN / "twistd", "--nodaemon", "--pidfile=", "xvpd")
_SECONDS: Final = 60
_CONFIG: Final = """
[console]
listen = ["unix:{directory}/console"]
base_url = "https://console.example.org:6081"

[api]
listen = ["unix:{directory}/api"]
keys_file = "{directory}/keys"

[[pool]]
name = "lab"
hosts = ["127.0.0.1"]
port = {port}
username = "xvpd"
password_file = "{directory}/password"
fingerprint_sha256 = ["00000000000000000000000000000000000000000000000000000000000000aa"]

[state]
dir = "{directory}/state"
"""


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)

    def write_config(self, more: str = "") -> Path:
        """A configuration that can be used, though its pool refuses every connection; ``more`` is put in front."""
        refusing = socket.socket()
        self.addCleanup(refusing.close)
        refusing.bind(("127.0.0.1", 0))
        (self.directory / "keys").touch()
        (self.directory / "password").write_text("not the right one\n")
        path = self.directory / "xvpd.toml"
        # Relative, because the name of a unix socket may have 107 bytes.
        path.write_text(more + _CONFIG.format(directory=".", port=refusing.getsockname()[1]))
        return path

    def free_port(self) -> int:
        """A port of the loopback interface that nobody has at the moment."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        assert isinstance(port, int)
        return port

    def occupied_port(self) -> int:
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert isinstance(port, int)
        return port


class AnswersTests(_Case):
    """Commands that end by themselves."""

    def run_command(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def refusal(self, *arguments: str | Path) -> str:
        """The one line with which ``twistd xvpd`` turns ``arguments`` down."""
        done = self.run_command(*_TWISTD, *arguments)
        self.assertEqual(done.returncode, 1, done)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done.stderr

    def test_help(self) -> None:
        done = self.run_command(*_TWISTD, "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for option in ("--config", "--simulate"):
            self.assertIn(option, done.stdout)

    def test_version(self) -> None:
        done = self.run_command(*_TWISTD, "--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(xvpd.__version__, done.stdout)

    def test_python_m_twisted_knows_it(self) -> None:
        done = self.run_command(sys.executable, "-m", "twisted", "xvpd", "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--config", done.stdout)

    def test_no_option_at_all(self) -> None:
        self.assertIn("--config", self.refusal())

    def test_unknown_option(self) -> None:
        self.assertIn("--nonsense", self.refusal("--nonsense"))

    def test_missing_file(self) -> None:
        self.assertRegex(self.refusal("--config", "no-such.toml"), "no-such.toml: .*No such file")

    def test_directory_in_the_place_of_a_file(self) -> None:
        self.assertIn("directory", self.refusal("--config", "."))

    def test_file_that_is_no_toml(self) -> None:
        path = self.write_config("[console\n")
        self.assertIn(f"{path}: ", self.refusal("--config", path))

    def test_unknown_key(self) -> None:
        path = self.write_config("[grants]\nttll = 5\n")
        self.assertRegex(self.refusal("--config", path), rf"{path}: \[grants\] ttll: no such key")

    def test_bad_value(self) -> None:
        path = self.write_config("[grants]\nttl = 'a minute'\n")
        self.assertRegex(self.refusal("--config", path), rf"{path}: \[grants\] ttl: ")

    def test_each_fault_has_a_line(self) -> None:
        path = self.write_config("[grants]\nttl = -1\nno_such_key = 1\n")
        done = self.run_command(*_TWISTD, "--config", path)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 2), done)

    def test_missing_keys_file(self) -> None:
        path = self.write_config()
        (self.directory / "keys").unlink()
        self.assertIn("keys", self.refusal("--config", path))

    def test_missing_password_file(self) -> None:
        path = self.write_config()
        (self.directory / "password").unlink()
        self.assertIn("password", self.refusal("--config", path))

    def test_missing_certificate(self) -> None:
        path = self.write_config()
        nowhere = ("--set", 'console.certificate="no-cert.pem"', "--set", 'console.private_key="no-key.pem"')
        self.assertRegex(self.refusal("--config", path, *nowhere), "no-(cert|key).pem")

    def test_occupied_port(self) -> None:
        """By then twistd has taken stderr for its log, which a foreground process writes to stdout."""
        for section in ("console", "api"):
            endpoint = f"tcp:{self.occupied_port()}:interface=127.0.0.1"
            done = self.run_command(*_TWISTD, "--simulate", "--set", f'{section}.listen=["{endpoint}"]')
            self.assertEqual(done.returncode, 1, done)
            self.assertNotIn("Traceback", done.stdout + done.stderr)
            (line,) = (line for line in (done.stdout + done.stderr).splitlines() if "xvpd: " in line)
            self.assertIn(f"cannot listen on {endpoint}: Address already in use", line)


class DaemonTests(_Case):
    """Commands that go on until they are told to stop."""

    def start(self, *command: str | Path, **environ: str) -> None:
        self.output = self.directory / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(self.process.wait, _SECONDS)
        self.addCleanup(self.process.kill)
        self.wait_until_it_says("xvpd is ready")

    def wait_until_it_says(self, words: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while words not in self.said():
            self.assertIsNone(self.process.poll(), self.said())
            self.assertLess(time.monotonic(), deadline, self.said())
            time.sleep(0.05)

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def assert_ends_with(self, number: signal.Signals) -> None:
        """A signal ends it in good order. (twistd ends by the signal that it was sent, once all is closed.)"""
        self.process.send_signal(number)
        self.assertIn(self.process.wait(_SECONDS), (0, -number), self.said())
        self.assertIn("Main loop terminated", self.said())
        self.assertNotIn("Traceback", self.said())

    def test_twistd_with_a_configuration(self) -> None:
        self.start(*_TWISTD, "--config", self.write_config())
        self.assertTrue((self.directory / "console").is_socket())
        self.assertTrue((self.directory / "api").is_socket())
        self.assert_ends_with(signal.SIGTERM)

    def test_twistd_with_the_application_file(self) -> None:
        config = self.write_config()
        twistd = (_BIN / "twistd", "--nodaemon", "--pidfile=", "--no_save")
        self.start(*twistd, "--python", _TREE / "xvpd.tac", XVPD_CONFIG=str(config))
        self.assertTrue((self.directory / "console").is_socket())
        self.assert_ends_with(signal.SIGTERM)

    def test_python_m_twisted(self) -> None:
        self.start(sys.executable, "-m", "twisted", "xvpd", "--config", self.write_config())
        self.assertTrue((self.directory / "console").is_socket())
        self.assert_ends_with(signal.SIGTERM)

    def test_simulation_and_what_it_says_to_type(self) -> None:
        """What `make run` starts: the command that it prints takes a picture through the console that it opened."""
        api = f'api.listen=["tcp:{self.free_port()}:interface=127.0.0.1"]'
        port = self.free_port()
        console = f'console.listen=["tcp:{port}:interface=127.0.0.1"]'
        base_url = f'console.base_url="https://127.0.0.1:{port}"'
        self.start(*_TWISTD, "--simulate", "--set", api, "--set", console, "--set", base_url)
        self.wait_until_it_says("Ctrl-C ends it.")
        (command,) = (line.strip() for line in self.said().splitlines() if "-m xvpd.sim.viewer" in line)
        done = subprocess.run(
            shlex.split(command),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done)
        picture = self.directory / shlex.split(command)[-1]
        self.assertTrue(picture.read_bytes().startswith(b"\x89PNG\r\n"))
        self.assert_ends_with(signal.SIGINT)

    def test_simulation_that_is_ended_at_once(self) -> None:
        api = f'api.listen=["tcp:{self.free_port()}:interface=127.0.0.1"]'
        console = 'console.listen=["tcp:0:interface=127.0.0.1"]'
        self.start(*_TWISTD, "--simulate", "--set", api, "--set", console)
        self.assert_ends_with(signal.SIGINT)
