"""Keys added to the keys file, and taken out of it.

The file is replaced whole, so that whoever reads it meanwhile finds the old or the new one, and keeps its owner and mode, so
that whoever could read it still can. Writers wait for each other.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from xvpd.api.auth import KeysFileError, digest_of, key_of, parse_keys, read_text, words_of


def add_key(path: str, name: str, role: str, key: str) -> None:
    """Let in whoever shows ``key``, as ``name``. A file that is missing is made, for its owner alone.

    Raises `KeysFileError`.
    """
    line = key_of([name, role, digest_of(key)])
    if isinstance(line, str):
        raise KeysFileError(line)
    with _sole_writer(path):
        text = read_text(path) if os.path.exists(path) else ""
        if any(name == other.name for other in parse_keys(text, path)):
            raise KeysFileError(f"{path}: there is a key named {name} already")
        end = "" if not text or text.endswith("\n") else "\n"
        _replace(path, f"{text}{end}{line}\n")


def remove_key(path: str, name: str) -> None:
    """Let in the holder of the key named ``name`` no more. Raises `KeysFileError`."""
    with _sole_writer(path):
        text = read_text(path)
        if all(name != key.name for key in parse_keys(text, path)):
            raise KeysFileError(f"{path}: there is no key named {name}")
        _replace(path, "".join(line for line in text.splitlines(keepends=True) if words_of(line)[:1] != [name]))


@contextmanager
def _sole_writer(path: str) -> Iterator[None]:
    """Nobody else changes the file meanwhile. The lock is its directory's, because the file itself is replaced."""
    try:
        directory = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)
    except OSError as error:
        raise KeysFileError(f"{path}: {error.strerror}") from None


def _replace(path: str, text: str) -> None:
    target = os.path.realpath(path)
    handle, new = tempfile.mkstemp(prefix=".api-keys-", dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if os.path.exists(target):
                old = os.stat(target)
                os.fchown(handle, old.st_uid, old.st_gid)
                os.fchmod(handle, old.st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.replace(new, target)
    except BaseException:
        os.unlink(new)
        raise
