"""Who is calling the API: keys, roles, and the file that names them.

A key is what a caller shows; the file holds its SHA-256 digest alone, so that a copy of the file lets nobody in. Keys are
made by ``xvpd key add``, of 256 random bits, and need neither salt nor stretching.
"""

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from xvpd.reason import Reason, Refusal

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,256}=*")
"""RFC 6750 section 2.1, b64token."""


class Role(Enum):
    """What a caller may do; `Route` says which roles each call is for. An operator may do everything."""

    ISSUER = "issuer"
    OPERATOR = "operator"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling."""

    name: str
    role: Role

    @property
    def domain(self) -> str | None:
        """Whose grants and sessions the caller may see and end: this issuer's; an operator everyone's, which is None."""
        return None if self.role is Role.OPERATOR else self.name


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the keys file."""

    name: str
    role: Role
    digest: str = ""
    """SHA-256 of the key, in lower-case hex."""

    def __str__(self) -> str:
        return f"{self.name} {self.role.value} {self.digest}"


class KeysFileError(Exception):
    """The keys file cannot be used. The text is one line, and names file, line and reason."""


class IAuthClient(Interface):
    """Tells who is calling the API."""

    def authenticate(key: str) -> Deferred[Caller | Refusal]:
        """The caller who shows ``key``, or a refusal: UNAUTHORIZED when nobody has that key, another reason when that cannot
        be told now. Has a deadline of its own, may be cancelled, and takes as long for a nearly right key as for a wrong one.
        """


@implementer(IAuthClient)
class KeysFile:
    """The callers that a file names. A file that has changed counts from the next call on; one that has become unusable lets
    nobody in."""

    def __init__(self, path: str) -> None:
        """Raises `KeysFileError`."""
        self._path = path
        self._version = _version(path)
        self._keys = read_keys(path)

    def authenticate(self, key: str) -> Deferred[Caller | Refusal]:
        try:
            self._refresh()
        except KeysFileError as error:
            return succeed(Refusal(Reason.INTERNAL, str(error)))
        if not _KEY.fullmatch(key):
            return succeed(Refusal(Reason.UNAUTHORIZED, "malformed key"))
        shown = digest_of(key)
        found = [each for each in self._keys if hmac.compare_digest(each.digest, shown)]
        if not found:
            return succeed(Refusal(Reason.UNAUTHORIZED, "unknown key"))
        return succeed(Caller(found[0].name, found[0].role))

    def _refresh(self) -> None:
        version = _version(self._path)
        if version != self._version:
            # Noted only when it could be read: an unusable file is read, and refused, again at every call.
            self._keys = read_keys(self._path)
            self._version = version


def digest_of(key: str) -> str:
    """The form in which a key is kept."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def read_keys(path: str) -> list[Key]:
    """The keys that the file at ``path`` holds. Raises `KeysFileError`."""
    return parse_keys(read_text(path), path)


def read_text(path: str) -> str:
    """What the file at ``path`` holds. Raises `KeysFileError`."""
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise KeysFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysFileError(f"{path}: is not text") from None


def parse_keys(text: str, path: str) -> list[Key]:
    """The keys in the ``text`` of a keys file: ``NAME ROLE SHA256-HEX`` a line, ``#`` begins a comment.

    Raises `KeysFileError` for the first line that is anything else, a name that comes twice, or a key that does.
    """
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = words_of(line)
        if not words:
            continue
        key = key_of(words)
        if isinstance(key, Key):
            if any(key.name == other.name for other in keys):
                key = f"there is a key named {key.name} above"
            elif any(key.digest == other.digest for other in keys):
                key = "the same key stands above under another name"
        if isinstance(key, str):
            raise KeysFileError(f"{path}: line {number}: {key}")
        keys.append(key)
    return keys


def words_of(line: str) -> list[str]:
    """The words of a line, without its comment."""
    return line.partition("#")[0].split()


def key_of(words: list[str]) -> Key | str:
    """A key from the words of its line, or what is wrong with them."""
    name, role, digest, *rest = [*words, "", ""][: max(3, len(words))]
    if not _NAME.fullmatch(name):
        return "the name must be 1 to 64 letters, digits, dots, dashes and underscores"
    if role not in {each.value for each in Role}:
        return f"the role must be one of {', '.join(each.value for each in Role)}"
    if not _DIGEST.fullmatch(digest):
        return "the third word must be the SHA-256 of the key, 64 hex digits"
    if rest and rest[0].startswith("vms="):
        return "vms= is not enforced yet, so a key that has it is refused"
    if rest:
        return "there is more than name, role and digest"
    return Key(name, Role(role), digest.lower())


def _version(path: str) -> tuple[int, int, int]:
    """What changes whenever the file does."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise KeysFileError(f"{path}: {error.strerror}") from None
    return status.st_mtime_ns, status.st_size, status.st_ino
