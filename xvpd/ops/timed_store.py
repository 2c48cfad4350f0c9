"""`TimedStore`: any store, with a clock beside it."""

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from xvpd.grants.grant import Grant
from xvpd.grants.store import Activity, Caps, ILease, ITokenStore, Revoked, Selector, Session
from xvpd.reason import Reason, Refusal

T = TypeVar("T")


class _Watch:
    """Tells how long each operation took, whatever came of it."""

    def __init__(self, clock: IReactorTime, timed: Callable[[str, float], None]) -> None:
        self._clock = clock
        self._timed = timed

    def time(self, op: str, start: Callable[..., Deferred[T]], *arguments: Any) -> Deferred[T]:
        began = self._clock.seconds()

        def over(outcome: T) -> T:
            self._timed(op, self._clock.seconds() - began)
            return outcome

        return start(*arguments).addBoth(over)


@implementer(ITokenStore)
class TimedStore:
    """``store``, all of whose operations ``timed`` is told of: the name, and the seconds until the answer."""

    def __init__(self, clock: IReactorTime, store: ITokenStore, timed: Callable[[str, float], None]) -> None:
        self._store = store
        self._watch = _Watch(clock, timed)
        self.lease_seconds = store.lease_seconds

    def issue(self, grant: Grant) -> Deferred[Refusal | None]:
        return self._watch.time("issue", self._store.issue, grant)

    def redeem(self, digest: str, session_id: str, client: str) -> Deferred[Grant | Refusal]:
        return self._watch.time("redeem", self._store.redeem, digest, session_id, client)

    def give_back(self, grant: Grant, session_id: str) -> Deferred[None]:
        return self._watch.time("give_back", self._store.give_back, grant, session_id)

    def ended(self, grant: Grant, session_id: str, reason: Reason) -> Deferred[None]:
        return self._watch.time("ended", self._store.ended, grant, session_id, reason)

    def revoke(self, selector: Selector) -> Deferred[Revoked | Refusal]:
        return self._watch.time("revoke", self._store.revoke, selector)

    def grants(self, issuer: str | None) -> Deferred[list[Grant] | Refusal]:
        return self._watch.time("grants", self._store.grants, issuer)

    def sessions(self) -> Deferred[list[tuple[Session, Activity]] | Refusal]:
        return self._watch.time("sessions", self._store.sessions)

    def lease(self, session: Session, caps: Caps) -> Deferred[ILease | Refusal]:
        leasing: Deferred[ILease | Refusal] = self._watch.time("lease", self._store.lease, session, caps)
        return leasing.addCallback(lambda lease: lease if isinstance(lease, Refusal) else _TimedLease(lease, self._watch))

    def watch(self, cut: Callable[[Selector, Reason], None]) -> None:
        self._store.watch(cut)

    def reconcile(self, live: Callable[[], list[Session]]) -> None:
        self._store.reconcile(live)

    def ready(self) -> Refusal | None:
        return self._store.ready()

    def start(self) -> Deferred[None]:
        return self._store.start()

    def stop(self) -> Deferred[None]:
        return self._store.stop()


@implementer(ILease)
class _TimedLease:
    def __init__(self, lease: ILease, watch: _Watch) -> None:
        self.seconds_left = lease.seconds_left
        self._lease = lease
        self._watch = watch

    def renew(self, activity: Activity) -> Deferred[None]:
        return self._watch.time("renew", self._lease.renew, activity)

    def release(self) -> Deferred[None]:
        return self._watch.time("release", self._lease.release)
