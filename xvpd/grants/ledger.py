"""`Ledger`: the rules of grants and leases, over plain dictionaries.

It knows no clock and no network: every method is told what time it is, and whatever is over by then is forgotten on the way,
so that nothing grows for ever and no timer is needed. The memory store is this and a clock; every other store is held to it.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xvpd.grants.grant import Grant
from xvpd.grants.network import address_bits, network_bits
from xvpd.grants.store import LEASE_SECONDS, TOMBSTONE_SECONDS, Activity, Caps, Selector, Session
from xvpd.reason import Reason, Refusal

Place = tuple[str, str]
"""One of the things that sessions are counted by: ``("host", uuid)``."""


class Ledger:
    """All grants and all live sessions. Times are seconds, ever growing, of whatever clock its owner has."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._digests: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        self._record_ends = _Ends()
        self._leases: dict[str, tuple[Session, Activity]] = {}
        self._places: dict[Place, set[str]] = defaultdict(set)
        self._lease_ends = _Ends()
        self._killed_ends = _Ends()

    # Grants.

    def issue(self, now: float, grant: Grant) -> bool:
        """Keep a grant; False, and nothing done, when its digest or its id is known."""
        self._forget(now)
        if grant.digest in self._records or ("grant", grant.id) in self._digests:
            return False
        record = _Record(grant, now + grant.expires_at - grant.issued_at)
        self._records[grant.digest] = record
        for key in _index_keys(grant):
            self._digests[key][grant.digest] = None
        self._keep(record, record.expires + TOMBSTONE_SECONDS)
        return True

    def redeem(self, now: float, digest: str, session_id: str, client: str) -> Grant | Refusal:
        """Take a right to resume or a use for a session of the client at this address."""
        self._forget(now)
        record = self._records.get(digest)
        if record is None:
            return Refusal(Reason.TOKEN_UNKNOWN)
        if record.revoked:
            return Refusal(Reason.TOKEN_REVOKED)
        if not address_bits(client).startswith(network_bits(record.grant.client)):
            return Refusal(Reason.TOKEN_ELSEWHERE)
        if session_id in record.open:
            return Refusal(Reason.TOKEN_USED)
        if now >= record.over:
            return Refusal(Reason.TOKEN_EXPIRED)
        right = record.soonest_right(now) if record.is_counted or now >= record.expires else None
        if right is not None:
            record.rights.remove(right)
        elif record.is_used_up:
            return Refusal(Reason.TOKEN_USED)
        elif now >= record.expires:
            return Refusal(Reason.TOKEN_EXPIRED)
        else:
            record.used += 1
        record.open[session_id] = right
        if record.began is None:
            record.began = now
        return record.grant

    def give_back(self, now: float, digest: str, session_id: str) -> None:
        """Undo a session's redeem."""
        self._forget(now)
        record = self._records.get(digest)
        if record is None or session_id not in record.open:
            return
        right = record.open.pop(session_id)
        if right is None:
            record.used -= 1
            if not record.used:
                record.began = None
        else:
            record.rights.append(right)

    def ended(self, now: float, digest: str, session_id: str, resumable: bool) -> None:
        """Close a session's redeem; if it is resumable, leave a right to resume."""
        self._forget(now)
        record = self._records.get(digest)
        if record is None or session_id not in record.open:
            return
        del record.open[session_id]
        if resumable and not record.revoked:
            until = min(now + record.grant.resume, record.over)
            record.rights = [right for right in record.rights if right > now] + [until]
            self._keep(record, until + TOMBSTONE_SECONDS)

    def revoke(self, now: float, selector: Selector) -> int:
        """End what a selector means; how many grants that were."""
        self._forget(now)
        if selector.kind == "session":
            self._killed_ends.put_off(selector.value, now + TOMBSTONE_SECONDS)
            return 0
        ended = 0
        for digest in self._digests.get((selector.kind, selector.value), ()):
            record = self._records[digest]
            if selector.matches_grant(record.grant) and record.is_alive(now):
                record.revoked = True
                self._keep(record, now + TOMBSTONE_SECONDS)
                ended += 1
        return ended

    def grants(self, now: float, issuer: str | None) -> list[Grant]:
        """The grants that can be redeemed."""
        self._forget(now)
        redeemable = [record.grant for record in self._records.values() if record.is_redeemable(now)]
        return [grant for grant in redeemable if issuer in {None, grant.issuer}]

    # Leases.

    def lease(self, now: float, session: Session, caps: Caps) -> Refusal | None:
        """Count a session, unless it may not go on or a cap is reached."""
        against = self.against(now, session)
        if against is not None:
            return Refusal(Reason.TOKEN_REVOKED if against is Reason.REVOKED else against)
        for (name, value), cap in zip(_places(session), (caps.per_vm, caps.per_host, caps.per_user), strict=False):
            if cap and len(self._places.get((name, value), set()) - {session.id}) >= cap:
                return Refusal(Reason.TOO_MANY, f"the cap per {name} is reached")
        self.renew(now, session, Activity())
        return None

    def renew(self, now: float, session: Session, activity: Activity) -> None:
        """Count a session, or go on counting it."""
        self._forget(now)
        self._leases[session.id] = (session, activity)
        for place in _places(session):
            self._places[place].add(session.id)
        self._lease_ends.put_off(session.id, now + LEASE_SECONDS)
        record = self._records.get(session.grant.digest)
        if record is not None:
            self._keep(record, now + LEASE_SECONDS + TOMBSTONE_SECONDS)

    def release(self, now: float, session_id: str) -> None:
        """Count a session no more."""
        self._forget(now)
        if session_id in self._leases:
            self._lease_ends.forget(session_id)
            self._drop_lease(session_id)

    def seconds_left(self, now: float, session: Session) -> float | None:
        """How long a session may go on until its grant's max_duration is over; None if it has none."""
        record = self._records.get(session.grant.digest)
        if record is None or record.began is None:
            return session.grant.max_duration or None
        return max(0.0, record.over - now) if record.grant.max_duration else None

    def against(self, now: float, session: Session) -> Reason | None:
        """Why a session may not go on: REVOKED, KILLED, or nothing."""
        self._forget(now)
        record = self._records.get(session.grant.digest)
        if record is not None and record.revoked:
            return Reason.REVOKED
        return Reason.KILLED if session.id in self._killed_ends else None

    def sessions(self, now: float) -> list[tuple[Session, Activity]]:
        """The sessions that are counted."""
        self._forget(now)
        return list(self._leases.values())

    def size(self) -> int:
        """How many entries of any kind there are."""
        indexes = (*self._digests.values(), *self._places.values())
        ends = (self._record_ends, self._lease_ends, self._killed_ends)
        return len(self._records) + len(self._leases) + sum(map(len, indexes)) + sum(map(len, ends))

    # Forgetting.

    def _keep(self, record: "_Record", until: float) -> None:
        self._record_ends.put_off(record.grant.digest, until)

    def _forget(self, now: float) -> None:
        for digest in self._record_ends.over(now):
            grant = self._records.pop(digest).grant
            for key in _index_keys(grant):
                _discard(self._digests, key, digest)
        for session_id in self._lease_ends.over(now):
            self._drop_lease(session_id)
        for _ in self._killed_ends.over(now):
            pass

    def _drop_lease(self, session_id: str) -> None:
        session, _ = self._leases.pop(session_id)
        for place in _places(session):
            self._places[place].discard(session_id)
            if not self._places[place]:
                del self._places[place]


@dataclass(slots=True)
class _Record:
    """A grant, and what has become of it."""

    grant: Grant
    expires: float
    used: int = 0
    revoked: bool = False
    open: dict[str, float | None] = field(default_factory=dict)
    """What each session that has redeemed took: a use (None), or a right to resume (until when it was good)."""
    rights: list[float] = field(default_factory=list)
    """Until when each right to resume is good."""
    began: float | None = None
    """When the first of the sessions that were not given back redeemed."""

    @property
    def over(self) -> float:
        """When its max_duration is over."""
        if self.began is None or not self.grant.max_duration:
            return math.inf
        return self.began + self.grant.max_duration

    @property
    def is_counted(self) -> bool:
        return self.grant.uses > 0

    @property
    def is_used_up(self) -> bool:
        return self.is_counted and self.used >= self.grant.uses

    def soonest_right(self, now: float) -> float | None:
        return min((right for right in self.rights if right > now), default=None)

    def is_alive(self, now: float) -> bool:
        """Whether there is anything to revoke."""
        return not self.revoked and (bool(self.open) or self.is_redeemable(now))

    def is_redeemable(self, now: float) -> bool:
        if self.revoked or now >= self.over:
            return False
        return self.soonest_right(now) is not None or (now < self.expires and not self.is_used_up)


class _Ends:
    """When each of many things is over. An end may be put off, never brought forward."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        """The ends as they were last set, with some that no longer hold: those drop out when their time comes."""

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._heap)

    def put_off(self, key: str, until: float) -> None:
        if until > self._at.get(key, float("-inf")):
            self._at[key] = until
            heapq.heappush(self._heap, (until, key))

    def forget(self, key: str) -> None:
        del self._at[key]

    def over(self, now: float) -> Iterator[str]:
        """What is over by now, each once."""
        while self._heap and self._heap[0][0] <= now:
            until, key = heapq.heappop(self._heap)
            if self._at.get(key) == until:
                del self._at[key]
                yield key


def _index_keys(grant: Grant) -> Iterable[tuple[str, str]]:
    """Under which kind and value of `Selector` a grant is found."""
    return ("grant", grant.id), ("digest", grant.digest), ("vm", grant.vm_uuid), ("user", grant.user)


def _places(session: Session) -> list[Place]:
    """What a session is counted by: its VM, its host and, if it has one, its user."""
    grant = session.grant
    places = [("vm", grant.vm_uuid), ("host", session.host)]
    return [*places, ("user", f"{grant.issuer}\n{grant.user}")] if grant.user else places


def _discard(index: dict[tuple[str, str], dict[str, None]], key: tuple[str, str], digest: str) -> None:
    del index[key][digest]
    if not index[key]:
        del index[key]
