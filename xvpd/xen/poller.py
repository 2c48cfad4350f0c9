"""`Poller`: keeps a pool's `Table` at what the pool's events say."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from xvpd.reason import Reason
from xvpd.xen.coordinator import Coordinator, LoggedIn
from xvpd.xen.events import CLASSES, Batch, batch_of, event_parser
from xvpd.xen.hypervisor import Change
from xvpd.xen.sdk import Reading
from xvpd.xen.settings import Deadlines, PoolSettings
from xvpd.xen.table import Table
from xvpd.xen.workers import Workers
from xvpd.xen.xapi import ApiError, Xapi

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts that failed: doubled each time, and varied, so that the daemons of many nodes do not all ask for
every object of a pool at once."""
SEED_CAP: Final = 512 * 1024 * 1024
"""Bytes of one answer. A VM's record has some 10 KB, of which its `records.Vm` is left once it has been read."""
_PIECE: Final = 200
"""Events that are taken in before the reactor gets its turn."""


class Poller:
    """One long poll after the other, in a thread of its own.

    The first has all objects of the pool, and each later one what changed since. When one fails, all begins anew after a
    pause, and what changed meanwhile is found by comparing. ``told`` hears of every change, after ``table`` knows of it, and
    ``looked`` is called when the hosts may be others than before.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        deadlines: Deadlines,
        coordinator: Coordinator,
        *,
        told: Callable[[Change], None],
        looked: Callable[[], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.table = Table(settings.name)
        self._reactor = reactor
        self._settings = settings
        self._deadlines = deadlines
        self._coordinator = coordinator
        self._told = told
        self._looked = looked
        self._chance = chance
        self._workers = Workers(reactor, f"events-{settings.name}", 1)
        self._answered_at: float | None = None
        self._pause = FIRST_PAUSE
        self._seeded_before = False
        self._first: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> Deferred[None]:
        """Begin. Fires when the first attempt has succeeded or failed."""
        first: Deferred[None] = Deferred()
        self._first.append(first)
        self._workers.start()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._running.addErrback(lambda failure: self._log.failure("pool {pool}: no more events", failure, pool=self._name))
        return first

    def fresh(self) -> bool:
        """Whether ``table`` is what the pool was an instant ago."""
        return self._answered_at is not None and self._reactor.seconds() - self._answered_at < self._deadlines.stale

    def stop(self) -> Deferred[None]:
        """End the poll that is under way, and let the thread go. Nothing is told any more."""
        self._stopped = True
        self._answered_at = None
        if self._running is not None:
            self._running.cancel()
        self._attempted()
        return self._workers.stop(self._deadlines.stop)

    # How.

    @property
    def _name(self) -> str:
        return self._settings.name

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except ApiError as error:
                self._failed(error)
            if self._stopped:  # by somebody who was told of something, when there was nothing to cancel
                return
            await deferLater(self._reactor, self._pause * (0.5 + self._chance() / 2))
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def _follow(self) -> None:
        """Seed the table, and follow the pool's events until that fails."""
        logged_in = await self._coordinator.logged_in()
        seeding, polling = (self._api(logged_in, seconds) for seconds in (self._deadlines.seed, self._patience))
        try:
            token = await self._seeded(logged_in, seeding)
            seeding.close()
            while True:
                batch = await self._poll(logged_in, polling, token, batch_of)
                token = batch.token
                await self._take(batch)
                self._answered()
                self._pause = FIRST_PAUSE
        except ApiError as error:
            if not self._coordinator.failed(logged_in, error) and error.reason is Reason.HYPERVISOR_SLOW:
                self._coordinator.lose(logged_in)
            raise
        finally:
            seeding.close()
            polling.close()

    @property
    def _patience(self) -> float:
        return self._deadlines.poll + self._deadlines.poll_late

    def _api(self, logged_in: LoggedIn, seconds: float) -> Xapi:
        deadlines = replace(self._deadlines, call=seconds)
        reading = Reading(event_parser, SEED_CAP)
        return Xapi(self._reactor, self._workers, logged_in.api.address, self._settings, deadlines, reading=reading)

    def _poll(self, logged_in: LoggedIn, api: Xapi, token: str, reader: Callable[[Any], Any]) -> Deferred[Any]:
        # The timeout has to be a double, or xapi refuses the call.
        parameters = (list(CLASSES), token, float(self._deadlines.poll))
        return api.read(logged_in.session, "event.from", parameters, reader)

    async def _seeded(self, logged_in: LoggedIn, api: Xapi) -> str:
        """Have a new table filled, and compared with the old one, in the thread: nobody else writes to either meanwhile."""
        before = self.table if self._seeded_before else None

        def fill(value: object) -> tuple[str, Table, list[Change], list[str]]:
            batch = batch_of(value)
            table = Table(self._name)
            table.apply(batch.events)
            return batch.token, table, table.since(before) if before is not None else [], _problems(batch)

        token, table, changes, problems = await self._poll(logged_in, api, "", fill)
        self.table = table
        self._answered()
        self._seeded_before = True
        self._warn(problems)
        self._log.info("pool {pool}: follows the events of {count} VMs", pool=self._name, count=len(table))
        self._looked()
        self._tell(changes)
        self._attempted()
        return str(token)

    async def _take(self, batch: Batch) -> None:
        self._warn(_problems(batch))
        for start in range(0, len(batch.events), _PIECE):
            if start and not self._stopped:
                await deferLater(self._reactor, 0)
            self._tell(self.table.apply(batch.events[start : start + _PIECE]))
        if any(event.kind == "host" for event in batch.events):
            self._looked()

    def _answered(self) -> None:
        if not self._stopped:
            self._answered_at = self._reactor.seconds()

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            if not self._stopped:
                self._told(change)

    def _failed(self, error: ApiError) -> None:
        if self._answered_at is not None:
            self._log.warn("pool {pool}: events do not come: {problem}", pool=self._name, problem=error.detail)
        self._answered_at = None
        self._attempted()

    def _warn(self, problems: list[str]) -> None:
        for problem in problems:
            self._log.warn("pool {pool}: a record is left out: {problem}", pool=self._name, problem=problem)

    def _attempted(self) -> None:
        waiting, self._first = self._first, []
        for each in waiting:
            each.callback(None)


def _problems(batch: Batch) -> list[str]:
    """What is wrong with records, each kind of fault once."""
    return sorted({event.problem for event in batch.events if event.problem})
