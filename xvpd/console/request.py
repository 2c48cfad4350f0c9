"""What a request head asks of the door: paths, methods and tokens, pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from xvpd.console.head import Head
from xvpd.grants.grant import is_token
from xvpd.reason import Reason, Refusal

CONSOLE: Final = "/console"
HEALTH: Final = "/healthz"

METHODS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({CONSOLE: ("CONNECT", "GET"), HEALTH: ("GET",)})
"""What may be done at each path there is."""


@dataclass(frozen=True, slots=True)
class ConsoleRequest:
    """A console is asked for, with what could be a token."""

    token: str = field(repr=False)
    trailing: bytes = field(repr=False)
    """What the client sent ahead of our answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the door accepts clients is asked for."""


def route(head: Head) -> ConsoleRequest | Health | Refusal:
    """What ``head`` asks for.

    Refusals: NOT_FOUND, METHOD_NOT_ALLOWED; at the console NO_TOKEN, TOKEN_UNKNOWN (it is no token: no store needs to be
    asked), FOR_VIEWERS (a browser or a preview of a link came, and its token is not to be touched), BAD_REQUEST.
    """
    if head.path not in METHODS:
        return Refusal(Reason.NOT_FOUND)
    if head.method not in METHODS[head.path]:
        return Refusal(Reason.METHOD_NOT_ALLOWED, f"at {head.path}")
    return Health() if head.path == HEALTH else _console(head)


def _console(head: Head) -> ConsoleRequest | Refusal:
    if head.method == "GET":
        if "websocket" in head.header("upgrade").lower():
            return Refusal(Reason.BAD_REQUEST, "WebSocket is not served")
        if head.header("sec-fetch-mode") or "text/html" in head.header("accept").lower():
            return Refusal(Reason.FOR_VIEWERS)
    tokens = [value for name, value in head.query if name == "token"]
    if len(tokens) > 1:
        return Refusal(Reason.BAD_REQUEST, "more than one token")
    if not tokens or not tokens[0]:
        return Refusal(Reason.NO_TOKEN)
    if not is_token(tokens[0]):
        return Refusal(Reason.TOKEN_UNKNOWN, "not a token by its form")
    return ConsoleRequest(tokens[0], head.trailing)
