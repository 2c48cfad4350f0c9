"""Child processes: everything that is measured, and whatever it needs, runs in one of its own."""

import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_TREE: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class BenchmarkError(Exception):
    """A figure could not be measured. The text says why."""


@contextmanager
def running(command: Sequence[str | Path], output: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child from the moment at which it has said ``ready``; ended afterwards. ``output`` is where it writes."""
    with output.open("wb") as writing:
        process = subprocess.Popen(command, cwd=_TREE, stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.STDOUT)
    try:
        _await(process, output, ready)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """The CPU time that a child has used up to now, in all its threads, those included that have ended.

    Its clock is that of clock_getcpuclockid(3), which is exact; /proc/PID/stat counts in hundredths of a second.
    """
    clock = ctypes.c_int()
    error = _LIBC.clock_getcpuclockid(process.pid, ctypes.byref(clock))
    if error:
        raise BenchmarkError(f"the CPU time of process {process.pid} cannot be read: {os.strerror(error)}")
    return time.clock_gettime(clock.value)


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await(process: subprocess.Popen[bytes], output: Path, ready: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while ready not in (said := output.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"{process.args!r} did not start:\n{said}")
        time.sleep(0.02)
