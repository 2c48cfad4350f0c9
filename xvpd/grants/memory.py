"""`MemoryStore`: grants for as long as the process lives."""

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from xvpd.grants.grant import Grant
from xvpd.grants.ledger import Ledger
from xvpd.grants.store import (
    LEASE_SECONDS,
    RESUMABLE,
    Activity,
    Caps,
    ILease,
    ITokenStore,
    Revoked,
    Selector,
    Session,
)
from xvpd.reason import Reason, Refusal

Cut = Callable[[Selector, Reason], None]


@dataclass
class Shared:
    """What the memory stores of several nodes in one process have in common, as real nodes have a server."""

    ledger: Ledger = field(default_factory=Ledger)
    watchers: list[Cut] = field(default_factory=list)


@implementer(ITokenStore)
class MemoryStore:
    """A store in this process's memory: exact, always there, and gone with the process.

    ``clock.seconds()`` is wall time. Stores given the same ``shared`` are nodes of one cluster.
    """

    lease_seconds: float = LEASE_SECONDS

    def __init__(self, clock: IReactorTime, shared: Shared | None = None) -> None:
        self._clock = clock
        self._shared = shared if shared is not None else Shared()
        self._ledger = self._shared.ledger
        self._mine: list[Cut] = []

    def issue(self, grant: Grant) -> Deferred[Refusal | None]:
        kept = self._ledger.issue(self._now(), grant)
        return succeed(None if kept else Refusal(Reason.INTERNAL, f"grant {grant.id} or its digest exists already"))

    def redeem(self, digest: str, session_id: str, client: str) -> Deferred[Grant | Refusal]:
        return succeed(self._ledger.redeem(self._now(), digest, session_id, client))

    def give_back(self, grant: Grant, session_id: str) -> Deferred[None]:
        self._ledger.give_back(self._now(), grant.digest, session_id)
        return succeed(None)

    def ended(self, grant: Grant, session_id: str, reason: Reason) -> Deferred[None]:
        self._ledger.ended(self._now(), grant.digest, session_id, reason in RESUMABLE)
        return succeed(None)

    def revoke(self, selector: Selector) -> Deferred[Revoked | Refusal]:
        ended = self._ledger.revoke(self._now(), selector)
        for cut in list(self._shared.watchers):
            cut(selector, selector.cuts_with)
        return succeed(Revoked(ended))

    def grants(self, issuer: str | None) -> Deferred[list[Grant] | Refusal]:
        return succeed(sorted(self._ledger.grants(self._now(), issuer), key=lambda grant: grant.issued_at))

    def sessions(self) -> Deferred[list[tuple[Session, Activity]] | Refusal]:
        return succeed(sorted(self._ledger.sessions(self._now()), key=lambda entry: entry[0].since))

    def lease(self, session: Session, caps: Caps) -> Deferred[ILease | Refusal]:
        now = self._now()
        refusal = self._ledger.lease(now, session, caps)
        if refusal is not None:
            return succeed(refusal)
        return succeed(_Lease(self._clock, self._ledger, session, self._cut, self._ledger.seconds_left(now, session)))

    def watch(self, cut: Cut) -> None:
        self._mine.append(cut)
        self._shared.watchers.append(cut)

    def reconcile(self, live: Callable[[], list[Session]]) -> None:
        """Nothing can be missed here, so nothing is ever asked."""

    def ready(self) -> Refusal | None:
        return None

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        for cut in self._mine:
            self._shared.watchers.remove(cut)
        self._mine.clear()
        return succeed(None)

    def _now(self) -> float:
        return self._clock.seconds()

    def _cut(self, selector: Selector, reason: Reason) -> None:
        for cut in list(self._mine):
            cut(selector, reason)


@implementer(ILease)
class _Lease:
    def __init__(self, clock: IReactorTime, ledger: Ledger, session: Session, cut: Cut, seconds_left: float | None) -> None:
        self.seconds_left = seconds_left
        self._clock = clock
        self._ledger = ledger
        self._session = session
        self._cut = cut
        self._released = False

    def renew(self, activity: Activity) -> Deferred[None]:
        if self._released:
            return succeed(None)
        now = self._clock.seconds()
        against = self._ledger.against(now, self._session)
        if against is None:
            self._ledger.renew(now, self._session, activity)
        else:
            self._cut(Selector("session", self._session.id), against)
        return succeed(None)

    def release(self) -> Deferred[None]:
        if not self._released:
            self._released = True
            self._ledger.release(self._clock.seconds(), self._session.id)
        return succeed(None)
