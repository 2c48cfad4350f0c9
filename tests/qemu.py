"""A real virtual machine with a real VNC server: QEMU, showing its firmware's screen.

No disk and no kernel are needed: the firmware looks for something to boot, finds nothing and says so. As soon as it has, the
machine is paused. A running one has a blinking cursor, a paused one shows the same picture for ever, so that what came through
a console can be compared with the machine's own `screendump`, pixel by pixel.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

_BINARY: Final = "qemu-system-x86_64"
_OPTIONS: Final = "-machine pc -accel tcg -m 16 -nodefaults -no-user-config -display none -vga std"
_SECONDS: Final = 60.0
"""How long anything here may take; it takes two seconds on an idle machine."""
_VGA_TEXT: Final = (0xB8000, 80 * 25 * 2)
"""The text screen in memory: a character and an attribute for each cell."""
_SAID_BY_FIRMWARE: Final = b"No bootable device."


class MissingPartError(AssertionError):
    """A program that a test needs is not installed: the test fails, it is not skipped."""


class Picture(NamedTuple):
    """A screen: width, height, and three bytes (red, green, blue) for each pixel, row by row."""

    width: int
    height: int
    rgb: bytes


class Qemu:
    """One virtual machine. `start` it, and have `stop` called at the test's end, whether or not `start` succeeded."""

    name: Final = "QEMU"
    """What its VNC server calls the desktop."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: _Monitor | None = None
        # Not trial's mktemp(): the name of a unix socket may have 107 bytes, and a checkout may lie deeper than that.
        self._directory = Path(tempfile.mkdtemp(prefix="qemu-"))
        self.vnc_path = self._directory / "vnc"
        """The unix socket of the VNC server: RFB 3.8, security type None."""

    def start(self) -> Deferred[None]:
        """Fires when the firmware's screen (720x400) is complete and the machine is paused."""
        return deferToThread(self._start)

    def screendump(self) -> Deferred[Picture]:
        """The screen, as the machine itself has it."""
        return deferToThread(self._screendump)

    def stop(self) -> Deferred[None]:
        """Fires when the process has ended and its files are removed."""
        return deferToThread(self._stop)

    def _start(self) -> None:
        if shutil.which(_BINARY) is None:
            raise MissingPartError(f"{_BINARY} is not installed: `make test` installs it or names its package")
        monitor_path = self._directory / "monitor"
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    _BINARY,
                    *_OPTIONS.split(),
                    "-vnc",
                    f"unix:{self.vnc_path}",
                    "-qmp",
                    f"unix:{monitor_path},server=on,wait=off",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
            )
        deadline = time.monotonic() + _SECONDS
        while self._monitor is None:
            self._check(deadline, log)
            try:
                self._monitor = _Monitor(monitor_path)
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)
        while _SAID_BY_FIRMWARE not in self._text():
            self._check(deadline, log)
            time.sleep(0.05)
        self._monitor.execute("stop")

    def _check(self, deadline: float, log: Path) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{_BINARY} ended with {self._process.returncode}: {log.read_text(errors='replace')}")
        if time.monotonic() > deadline:
            raise AssertionError(f"{_BINARY} did not show the firmware's screen within {_SECONDS:.0f} seconds")

    def _text(self) -> bytes:
        assert self._monitor is not None
        address, size = _VGA_TEXT
        path = self._directory / "text"
        self._monitor.execute("pmemsave", val=address, size=size, filename=str(path))
        return path.read_bytes()[::2]

    def _screendump(self) -> Picture:
        assert self._monitor is not None
        path = self._directory / "screen.ppm"
        self._monitor.execute("screendump", filename=str(path))
        return parse_ppm(path.read_bytes())

    def _stop(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)


class _Monitor:
    """QEMU's machine protocol (QMP): JSON, a line for each command and for each reply."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")
        self._replies.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> None:
        """Returns when the command has been carried out."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while line := self._replies.readline():
            reply = json.loads(line)
            if "return" in reply:
                return
            if "error" in reply:
                raise AssertionError(f"QEMU refused {command}: {reply['error']['desc']}")
        raise AssertionError(f"QEMU went away during {command}")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


def parse_ppm(data: bytes) -> Picture:
    """A binary PPM as QEMU writes it: ``P6``, width and height, 255, then the pixels."""
    magic, size, depth, rgb = data.split(b"\n", 3)
    width, height = map(int, size.split())
    if magic != b"P6" or depth != b"255" or len(rgb) != width * height * 3:
        raise AssertionError(f"no PPM of 8 bits and {width}x{height}: {data[:20]!r}, {len(data)} bytes")
    return Picture(width, height, rgb)
