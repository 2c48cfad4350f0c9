"""The table of the API's calls: method, path, who may, and what answers."""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from xvpd.api.auth import Caller, Role
from xvpd.api.reply import Problem, Reply
from xvpd.reason import Reason, Refusal

_NO_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as its handler sees it."""

    request_id: str
    caller: Caller | None
    """None on an open route alone."""
    variables: Mapping[str, str]
    """What stood in the place of the path's ``{names}``."""
    query: str
    """As it was sent, without the question mark; see `xvpd.api.query`."""
    content_type: str
    body: bytes

    @property
    def who(self) -> Caller:
        """The caller of a route that is not open."""
        assert self.caller is not None, "an open route"
        return self.caller


Answer = Reply | Problem | Refusal
Handler = Callable[[Call], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call. A handler for GET serves HEAD as well."""

    method: str
    path: str
    """``/v1/consoles/{id}``: a name in braces stands for one segment, which is not empty."""
    handler: Handler
    roles: frozenset[Role] = frozenset()
    """Who may, besides operators."""
    open: bool = False
    """Whether anyone may, without a key."""
    routine: bool = False
    """Whether success is not worth a line in the log: probes and scrapes."""

    def allows(self, caller: Caller) -> bool:
        """Whether ``caller`` may."""
        return caller.role is Role.OPERATOR or caller.role in self.roles


@dataclass(frozen=True, slots=True)
class Match:
    """A route, and the variables of the path that led to it."""

    route: Route
    variables: Mapping[str, str]


class Table:
    """All routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(route, _pattern(route.path)) for route in routes]

    def find(self, method: str, path: str) -> Match | Problem:
        """The route for a request, or why there is none. ``path`` is as it was sent: percent-encoded, without query."""
        allowed: list[str] = []
        for route, pattern in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
            if method not in methods:
                allowed += methods
                continue
            variables = _variables(match)
            return Match(route, variables) if variables is not None else _problem(Reason.NOT_FOUND)
        return _problem(Reason.METHOD_NOT_ALLOWED, ("Allow", ", ".join(allowed))) if allowed else _problem(Reason.NOT_FOUND)


def unescape(text: str) -> str | None:
    """``text`` percent-decoded (RFC 3986 section 2.1); None if it has a percent sign that is no part of an escape, or is not
    UTF-8."""
    if _NO_ESCAPE.search(text):
        return None
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None


def _variables(match: re.Match[str]) -> dict[str, str] | None:
    variables: dict[str, str] = {}
    for name, segment in match.groupdict().items():
        value = unescape(segment)
        if value is None:
            return None
        variables[name] = value
    return variables


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _problem(reason: Reason, *headers: tuple[str, str]) -> Problem:
    return Problem(reason, reason.sentence, headers)
