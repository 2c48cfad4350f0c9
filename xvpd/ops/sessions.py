"""This process's live console sessions: counted, listed, cut, drained."""

from dataclasses import replace
from typing import Final, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

from xvpd.grants.grant import Grant
from xvpd.grants.store import Activity, ILease, ITokenStore, Selector, Session
from xvpd.reason import Reason, Refusal
from xvpd.relay.relay import IRelaying

T = TypeVar("T")

_RENEWALS_PER_LEASE: Final = 3


class LiveSession:
    """A console session from its redeemed token to its last byte.

    It is registered before anything is dialled for it, so that a revocation stops a dial as it stops a relay.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.lease: ILease | None = None
        self.deadline: IDelayedCall | None = None
        self._cut_by: Reason | None = None
        self._work: Deferred[object] | None = None
        self._relaying: IRelaying | None = None

    @property
    def grant(self) -> Grant:
        """What the client's token stood for."""
        return self.session.grant

    def at_host(self, host: str, pool: str) -> None:
        """Note which host (by uuid) of which pool (by name) the session's console is on."""
        self.session = replace(self.session, host=host, pool=pool)

    def relayed_by(self, relaying: IRelaying) -> None:
        """Note what moves the session's bytes; stops it at once if the session was cut meanwhile."""
        self._relaying = relaying
        if self._cut_by is not None:
            relaying.stop(self._cut_by)

    def cut(self, reason: Reason) -> None:
        """End the session, whatever it is doing. The first reason given is the one that counts."""
        if self._cut_by is not None:
            return
        self._cut_by = reason
        if self._relaying is not None:
            self._relaying.stop(reason)
        elif self._work is not None:
            self._work.cancel()

    async def unless_cut(self, work: "Deferred[T | Refusal]") -> T | Refusal:
        """The outcome of ``work``, which is cancelled if the session is cut before; then the refusal says why."""
        self._work = work  # type: ignore[assignment] # it is only ever cancelled
        if self._cut_by is not None:
            work.cancel()
        try:
            outcome = await work
        except CancelledError:
            if self._cut_by is None:
                raise
            return Refusal(self._cut_by)
        finally:
            self._work = None
        return outcome

    def activity(self) -> Activity:
        """How the session is doing."""
        if self._relaying is None:
            return Activity()
        totals = self._relaying.totals()
        return Activity(totals.bytes_to_client, totals.bytes_to_hypervisor, self._relaying.last_input())


class Sessions(Service):
    """The live sessions of this process.

    Keeps their leases in the store renewed, and cuts those that the store's watch names.
    """

    def __init__(self, clock: IReactorTime, store: ITokenStore) -> None:
        self._clock = clock
        self._store = store
        self._live: dict[str, LiveSession] = {}
        self._when_empty: list[Deferred[None]] = []
        self._renewals = LoopingCall(self._renew)
        self._renewals.clock = clock

    def startService(self) -> None:
        super().startService()
        self._store.watch(self.cut)
        self._store.reconcile(self.sessions)
        self._renewals.start(self._store.lease_seconds / _RENEWALS_PER_LEASE, now=False)

    def stopService(self) -> None:
        super().stopService()
        self._renewals.stop()

    def __len__(self) -> int:
        return len(self._live)

    def sessions(self) -> list[Session]:
        """The live sessions, oldest first."""
        return [live.session for live in self._live.values()]

    def register(self, session: Session) -> LiveSession:
        """A new session, which the caller promises to `close`."""
        live = LiveSession(session)
        self._live[session.id] = live
        return live

    def leased(self, live: LiveSession, lease: ILease) -> None:
        """Keep a session's lease renewed from here on, and cut the session when its grant's max_duration is over."""
        live.lease = lease
        if lease.seconds_left is not None:
            live.deadline = self._clock.callLater(lease.seconds_left, live.cut, Reason.MAX_DURATION)

    def close(self, live: LiveSession) -> None:
        """Strike a session off the list, and release its lease."""
        del self._live[live.session.id]
        if live.deadline is not None and live.deadline.active():
            live.deadline.cancel()
        if live.lease is not None:
            live.lease.release()
        if not self._live:
            waiting, self._when_empty = self._when_empty, []
            for each in waiting:
                each.callback(None)

    def cut(self, selector: Selector, reason: Reason) -> None:
        """End every session that ``selector`` means."""
        for live in [live for live in self._live.values() if selector.matches(live.session)]:
            live.cut(reason)

    def cut_all(self, reason: Reason) -> None:
        """End every session."""
        for live in list(self._live.values()):
            live.cut(reason)

    def empty(self) -> Deferred[None]:
        """Fires when no session is left."""
        waiting: Deferred[None] = Deferred(self._when_empty.remove)
        if self._live:
            self._when_empty.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def _renew(self) -> None:
        for live in self._live.values():
            if live.lease is not None:
                live.lease.renew(live.activity())
