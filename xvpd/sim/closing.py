"""Connections that end, whatever their peers do, and a roster of those that have not ended yet."""

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

_PATIENCE: Final = 5.0
"""Seconds that a peer has to answer our close: one that reads nothing never would."""


class Closing(Protocol):
    """`close` says goodbye and aborts when it is not answered."""

    transport: Any  # TCP, or TLS over it: no interface has both abortConnection and registerProducer

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.lost = False
        """Whether the connection is gone."""
        self._abort: IDelayedCall | None = None

    def close(self) -> None:
        """Send what was written, then end the connection."""
        if self._abort is None and self.transport is not None and not self.lost:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._abort = self.clock.callLater(_PATIENCE, self.transport.abortConnection)

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._abort is not None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """No longer anything to wait for."""
        self.lost = True
        if self._abort is not None and self._abort.active():
            self._abort.cancel()


_Each = TypeVar("_Each", bound=Closing)


class Roster(Generic[_Each]):
    """The connections that there are, oldest first."""

    def __init__(self) -> None:
        self._all: list[_Each] = []
        self._when_empty: list[Deferred[None]] = []

    def add(self, connection: _Each) -> None:
        """A connection is there."""
        self._all.append(connection)

    def remove(self, connection: _Each) -> None:
        """It is gone."""
        self._all.remove(connection)
        if not self._all:
            waiting, self._when_empty = self._when_empty, []
            for each in waiting:
                each.callback(None)

    def empty(self) -> Deferred[None]:
        """Fires when none is left."""
        if not self._all:
            return succeed(None)
        self._when_empty.append(Deferred())
        return self._when_empty[-1]

    def __iter__(self) -> Iterator[_Each]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)
