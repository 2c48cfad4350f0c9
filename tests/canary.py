"""Canaries: secrets that a test plants, and looks for afterwards in everything that was said or kept.

canary = Canary()
canary.watch_log(self)
... the test, with canary.keep("reply", body) for what only the test can see ...
canary.assert_no_secret(token, session_ref, password)
"""

import base64
import html
import json
from collections.abc import Iterator
from traceback import format_exception
from typing import Final
from urllib.parse import quote, quote_plus

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

_SHORTEST: Final = 8
"""A shorter word would be found by chance."""
_CONTEXT: Final = 60


@implementer(ILogObserver)
class Canary:
    """Collects texts, each with a word for where it was found, and searches them for secrets in whatever disguise."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str]] = []

    def watch_log(self, case: SynchronousTestCase) -> None:
        """Keep everything that is logged until the end of ``case``."""
        globalLogPublisher.addObserver(self)
        case.addCleanup(globalLogPublisher.removeObserver, self)

    def keep(self, where: str, what: object) -> None:
        """Keep a reply, a stored record, a child's output: bytes and text as they are, all else by its repr."""
        if isinstance(what, bytes):
            what = what.decode("latin-1")
        self._kept.append((where, what if isinstance(what, str) else repr(what)))

    def assert_no_secret(self, *secrets: str) -> None:
        """Fail if any of ``secrets`` stands in anything that was kept: in clear, as part of a URL, of JSON, of HTML or of a
        repr, in hex, or within something longer in base64. Fail as well if nothing was kept: that would prove nothing."""
        if not self._kept:
            raise AssertionError("nothing was kept, so nothing was searched")
        for secret in secrets:
            if len(secret) < _SHORTEST:
                raise ValueError(f"a secret of fewer than {_SHORTEST} characters is found by chance")
            for how, form in _forms(secret):
                for where, text in self._kept:
                    at = text.find(form)
                    if at >= 0:
                        around = text[max(0, at - _CONTEXT) : at + len(form) + _CONTEXT]
                        raise AssertionError(f"a secret stands in {where}, {how}: {around!r}")

    def __call__(self, event: LogEvent) -> None:
        """The event's text, its traceback, and every value in it: observers that write JSON write them all."""
        self.keep("the log", formatEvent(event))
        for key, value in event.items():
            where = f"the log event's {key}"
            self.keep(where, repr(value))
            self.keep(where, str(value))
            if isinstance(value, Failure):
                self.keep(where, value.getTraceback())
            elif isinstance(value, BaseException):
                self.keep(where, "".join(format_exception(value)))


def _forms(secret: str) -> Iterator[tuple[str, str]]:
    """How ``secret`` may be disguised, each with a word for it."""
    yield "in clear", secret
    yield "in clear", secret.encode().decode("latin-1")
    yield "as part of a URL", quote(secret)
    yield "as part of a URL", quote(secret, safe="")
    yield "as part of a URL", quote_plus(secret)
    yield "as part of JSON", json.dumps(secret)[1:-1]
    yield "as part of JSON", json.dumps(secret, ensure_ascii=False)[1:-1]
    yield "as part of HTML", html.escape(secret)
    yield "as part of a repr", repr(secret)[1:-1]
    raw = secret.encode()
    yield "in hex", raw.hex()
    yield "in hex", raw.hex().upper()
    for before in range(3):
        # Base64 writes three bytes as four characters. Whatever stands before and behind the secret changes only the
        # characters that hold bits of both: those are left out.
        clear = 8 * before
        encoded = base64.b64encode(bytes(before) + raw)
        form = encoded[-(-clear // 6) : (clear + 8 * len(raw)) // 6].decode()
        yield "in base64", form
        yield "in base64", form.translate(str.maketrans("+/", "-_"))
