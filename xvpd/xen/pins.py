"""What is kept of the members' certificates between two starts: their fingerprints, one JSON file for each pool.

So a restart after a coordinator failover finds its way, though the operator has written down the fingerprint of the old
coordinator alone. The file is believed as the operator's own word is, and is not when anybody else may write to it.
"""

import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from xvpd.xen.syntax import is_address

_CAP: Final = 1024 * 1024
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


class PinFileError(Exception):
    """The file cannot be used, or not be written. The text is one line, for an operator."""


class PinFile:
    """The file of the pool ``pool`` in the state directory: SHA-256 fingerprints, 64 hex digits each, by address."""

    def __init__(self, directory: str, pool: str) -> None:
        self._directory = Path(directory)
        self._path = self._directory / f"pins-{pool}.json"

    def load(self) -> dict[str, str]:
        """What was saved last; nothing when there is no file. Raises `PinFileError`."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise PinFileError(f"{self._path}: others may write to this file, so it is not believed")
                content = file.read(_CAP + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PinFileError(f"{self._path}: {error.strerror}") from None
        return self._understood(content)

    def save(self, fingerprints: Mapping[str, str]) -> None:
        """Replace the file by another: whoever reads it has all of the old or all of the new. Blocks until it is on the disk.
        Raises `PinFileError`."""
        text = json.dumps({"fingerprints_sha256": dict(sorted(fingerprints.items()))}, indent=1) + "\n"
        try:
            handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=f".{self._path.name}-")  # of mode 0600
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self._path)
            except BaseException:
                with suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as error:
            raise PinFileError(f"{self._path}: {error.strerror}") from None

    def _understood(self, content: bytes) -> dict[str, str]:
        try:
            pins = json.loads(content)["fingerprints_sha256"] if len(content) <= _CAP else None
        except (ValueError, LookupError, TypeError, RecursionError):
            pins = None
        if not isinstance(pins, dict) or not all(map(_is_pin, pins.items())):
            raise PinFileError(f"{self._path}: this is not what xvpd has written; it is written anew when the pool is there")
        return pins


def _is_pin(item: tuple[str, object]) -> bool:
    address, fingerprint = item
    return is_address(address) and isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint) is not None
