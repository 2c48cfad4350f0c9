"""`event.from`: what happened to a pool's objects since a token, waiting for something to happen if nothing has.

Source: xapi's ocaml/xapi/xapi_event.ml. Changes of one object are merged; after the first change the answer waits a moment for
more; the first call, with an empty token, replays everything as ``add``.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from xvpd.sim.database import Change
from xvpd.sim.model import PoolState, XapiError

_BATCH_SECONDS: Final = 0.05
_TOKEN: Final = re.compile(r"\d{20},\d{20}")
_SUBSCRIPTION: Final = re.compile(r"\*|[A-Za-z_]+(/(\*|OpaqueRef:[0-9A-Za-z-]+))?")


def event_from(
    state: PoolState, clock: IReactorTime, session: str, *, classes: list[str], token: str, timeout: float
) -> Deferred[dict[str, Any]]:
    """The batch after ``token``, at the latest when ``timeout`` seconds have passed; the batch may be empty then.

    Fails with `XapiError`: EVENT_FROM_TOKEN_PARSE_FAILURE, EVENT_SUBSCRIPTION_PARSE_FAILURE, and SESSION_INVALID when the
    session ends meanwhile.
    """
    if token and _TOKEN.fullmatch(token) is None:
        raise XapiError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    for subscription in classes:
        if _SUBSCRIPTION.fullmatch(subscription) is None:
            raise XapiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", subscription)
    since = int(token.partition(",")[0]) if token else 0
    poll = _Poll(state, clock, session, _wanted(classes), since)
    if poll.changes() or timeout <= 0:
        return succeed(poll.batch())
    return poll.wait(timeout)


class _Poll:
    """One call that may have to wait."""

    def __init__(
        self, state: PoolState, clock: IReactorTime, session: str, wanted: Callable[[str, str], bool], since: int
    ) -> None:
        self._state = state
        self._clock = clock
        self._session = session
        self._wanted = wanted
        self._since = since

    def changes(self) -> list[Change]:
        return self._state.database.changes(self._since, self._wanted)

    def batch(self) -> dict[str, Any]:
        database = self._state.database
        return {
            "events": [_event(change) for change in self.changes()],
            "valid_ref_counts": {table.lower(): count for table, count in database.counts().items()},
            "token": f"{database.generation:020d},{0:020d}",
        }

    def wait(self, timeout: float) -> Deferred[dict[str, Any]]:
        self._end_watch = self._state.database.watch(self._changed)
        self._state.session_ended.append(self._session_over)
        self._timer = self._clock.callLater(timeout, self._answer)
        self._deadline = self._timer.getTime()
        self._done: Deferred[dict[str, Any]] = Deferred(lambda _: self._stop())
        return self._done

    def _changed(self) -> None:
        if self.changes():
            self._end_watch()
            self._end_watch = _nothing
            left = self._deadline - self._clock.seconds()
            self._timer.reset(max(0.0, min(_BATCH_SECONDS, left)))

    def _session_over(self, session: str) -> None:
        if session == self._session:
            self._stop()
            self._done.errback(XapiError("SESSION_INVALID", session))

    def _answer(self) -> None:
        self._stop()
        self._done.callback(self.batch())

    def _stop(self) -> None:
        self._end_watch()
        self._state.session_ended.remove(self._session_over)
        if self._timer.active():
            self._timer.cancel()


def _wanted(classes: list[str]) -> Callable[[str, str], bool]:
    """Whether an object of a table is subscribed to. Class names are compared without regard to case."""
    tables, objects = set(), set()
    for subscription in classes:
        table, _, ref = subscription.partition("/")
        if ref in ("", "*"):
            tables.add(table.lower())
        else:
            objects.add((table.lower(), ref))
    everything = "*" in tables
    return lambda table, ref: everything or table.lower() in tables or (table.lower(), ref) in objects


def _event(change: Change) -> dict[str, Any]:
    event = {
        "id": str(change.generation),
        "timestamp": "0.0",
        "class": change.table.lower(),
        "operation": change.operation,
        "ref": change.ref,
    }
    return event if change.record is None else {**event, "snapshot": change.record}


def _nothing() -> None:
    """There is no watch to end any more."""
