"""Listening where an endpoint string says: with room for a storm of clients, or else with one clear line and exit status 1."""

import re
from typing import Any, Final

from twisted.application import strports
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory

BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted: Twisted's 50 are too few when all viewers come back at once."""
_UNNAMED_BEFORE_BACKLOG: Final = {"tcp": 2, "tcp6": 1, "unix": 2}
"""How many arguments without a name an endpoint may have before one of them is its backlog (`twisted.internet.endpoints`)."""


class CannotListen(SystemExit, Exception):  # noqa: N818 -- its name is never seen, its text is
    """A listener that cannot be started, which ends the process with status 1 and the line ``xvpd: cannot listen on …``.

    In the foreground Python prints a `SystemExit`'s ``code``. The parent of a daemon prints what twistd makes of an
    `Exception`: the name of its class, and its text.
    """

    def __init__(self, description: str, why: str) -> None:
        super().__init__(f"cannot listen on {description}: {why}")
        self.code = f"xvpd: {self}"


CannotListen.__module__, CannotListen.__qualname__ = "builtins", "xvpd"


def listening(reactor: Any, description: str, factory: IProtocolFactory) -> IService:
    """A service that has ``factory`` accept connections on the endpoint ``description``.

    Raises `CannotListen`: here for what is no endpoint, and when it is started for one that cannot be bound.
    """
    try:
        return _Listening(description, strports.service(with_backlog(description), factory, reactor))
    except Exception as error:  # parsers of endpoints are plugins, and raise what they like
        raise CannotListen(description, f"this is no endpoint ({error})") from None


def with_backlog(description: str) -> str:
    """``description`` with `BACKLOG`, unless it says one itself or cannot have one (``systemd:``)."""
    kind, _, rest = description.partition(":")
    if kind == "haproxy":
        return f"haproxy:{with_backlog(rest)}"
    fields = re.sub(r"\\.", "", rest).split(":")  # a backslash takes the meaning of a colon or an equals sign away
    unnamed = sum("=" not in field for field in fields)
    named = any(field.startswith("backlog=") for field in fields)
    if named or unnamed > _UNNAMED_BEFORE_BACKLOG.get(kind, -1):
        return description
    return f"{description}:backlog={BACKLOG}"


class _Listening(Service):
    """`strports.service`, with `CannotListen` for the many ways in which it fails."""

    def __init__(self, description: str, service: IService) -> None:
        self._description = description
        self._service = service
        self._bound = False

    def privilegedStartService(self) -> None:
        self._bind(self._service.privilegedStartService)

    def startService(self) -> None:
        super().startService()
        self._bind(self._service.startService)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if not self._bound:
            return None
        stopped: Deferred[None] = self._service.stopService()
        return stopped

    def _bind(self, start: Any) -> None:
        try:
            start()
        except CannotListenError as error:
            raise CannotListen(self._description, _words(error.socketError)) from None
        except OSError as error:
            raise CannotListen(self._description, _words(error)) from None
        self._bound = True


def _words(error: object) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
