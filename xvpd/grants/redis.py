"""`RedisStore`: grants that many nodes share, in one Redis or in one that Sentinel looks after.

The rules are `ledger`'s; `redis_scripts` writes them for Redis, where each operation is one script and one round trip. Where
the server has replicas, what must not be forgotten (a grant, a use that was counted, a revocation) is answered only once a
replica has it. A failover loses at most what no replica had confirmed, and of that nothing had been promised; but give-backs,
ends of sessions and uncounted uses are not waited for, and may be lost. Nothing lost lets anyone in.

Redis must not evict (``maxmemory-policy noeviction``), or it would lose grants that it had kept.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from xvpd.grants.grant import Grant
from xvpd.grants.network import address_bits, network_bits
from xvpd.grants.records import grant_from_json, grant_to_json, session_from_json, session_to_json
from xvpd.grants.redis_link import Link
from xvpd.grants.redis_orders import Cut, Orders
from xvpd.grants.redis_scripts import (
    ENDED,
    GIVE_BACK,
    ISSUE,
    LEASE,
    LIST,
    READ_GRANTS,
    READ_SESSIONS,
    REDEEM,
    RELEASE,
)
from xvpd.grants.redis_url import RedisSettings
from xvpd.grants.redis_wire import AwayError, dial
from xvpd.grants.store import (
    LEASE_SECONDS,
    RESUMABLE,
    TOMBSTONE_SECONDS,
    Activity,
    Caps,
    ILease,
    ITokenStore,
    Revoked,
    Selector,
    Session,
)
from xvpd.reason import Reason, Refusal

T = TypeVar("T")

_LEASE: Final = round(LEASE_SECONDS * 1000)
_TOMBSTONE: Final = round(TOMBSTONE_SECONDS * 1000)
_AT_ONCE: Final = 500
"""How many records one script reads: Redis does nothing else meanwhile."""
_PUT_OFF: Final = 10_000
"""How many orders to give something back wait at most for Redis to return."""
_POLICY: Final = re.compile(rb"^maxmemory_policy:([\w-]+)", re.MULTILINE)
_REFUSALS: Final = {reason.word.encode(): Refusal(reason) for reason in Reason if reason.name.startswith("TOKEN_")}


@implementer(ITokenStore)
class RedisStore:
    """A store for many nodes. ``node`` is this one's name, which no other has."""

    lease_seconds: float = LEASE_SECONDS

    def __init__(self, reactor: Any, settings: RedisSettings, node: str, random_bytes: Callable[[int], bytes]) -> None:
        self._commands = Link(reactor, settings, lambda: dial(reactor, settings), random_bytes, "commands")
        self._orders = Orders(reactor, settings, node, random_bytes, self._commands)
        self._orders.caught_up = self._catch_up
        self._commands.came = self._came
        self._put_off: deque[tuple[str | bytes, ...]] = deque(maxlen=_PUT_OFF)
        self._catching_up = False
        self._log = Logger()

    def issue(self, grant: Grant) -> Deferred[Refusal | None]:
        return _deferred(self._issue(grant))

    def redeem(self, digest: str, session_id: str, client: str) -> Deferred[Grant | Refusal]:
        return _deferred(self._redeem(digest, session_id, client))

    def give_back(self, grant: Grant, session_id: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._sooner_or_later(GIVE_BACK, grant.digest, session_id))

    def ended(self, grant: Grant, session_id: str, reason: Reason) -> Deferred[None]:
        resumable = "1" if reason in RESUMABLE else "0"
        return Deferred.fromCoroutine(self._sooner_or_later(ENDED, grant.digest, session_id, resumable, str(_TOMBSTONE)))

    def revoke(self, selector: Selector) -> Deferred[Revoked | Refusal]:
        return _deferred(self._orders.revoke(selector))

    def grants(self, issuer: str | None) -> Deferred[list[Grant] | Refusal]:
        return _deferred(self._grants(issuer))

    def sessions(self) -> Deferred[list[tuple[Session, Activity]] | Refusal]:
        return _deferred(self._sessions())

    def lease(self, session: Session, caps: Caps) -> Deferred[ILease | Refusal]:
        return _deferred(self._lease(session, caps))

    def watch(self, cut: Cut) -> None:
        self._orders.watchers.append(cut)

    def reconcile(self, live: Callable[[], list[Session]]) -> None:
        self._orders.live = live

    def ready(self) -> Refusal | None:
        if self._commands.wire is None:
            return Refusal(Reason.STORE_AWAY, self._commands.why)
        return self._orders.ready()

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    # Grants.

    async def _issue(self, grant: Grant) -> Refusal | None:
        life = max(0, round((grant.expires_at - grant.issued_at) * 1000))
        names = (grant.digest, grant.id, grant.vm_uuid, grant.user, grant.issuer)
        rest = (grant.uses, life, round(grant.resume * 1000), grant_to_json(grant), _TOMBSTONE)
        limits = (network_bits(grant.client), math.ceil(grant.max_duration * 1000))
        answer = await self._commands.run(ISSUE, *names, *rest, *limits, confirm=lambda _: True)
        if answer == b"known":
            return Refusal(Reason.INTERNAL, f"grant {grant.id} or its digest exists already")
        return None

    async def _redeem(self, digest: str, session_id: str, client: str) -> Grant | Refusal:
        if self._commands.wire is None:
            return Refusal(Reason.STORE_AWAY, self._commands.why)
        try:
            order = (digest, session_id, address_bits(client))
            answer = await self._commands.run(REDEEM, *order, confirm=lambda answer: answer[:1] == b"!")
        except (AwayError, CancelledError):
            # It may have been done, or may yet be: refused all the same, so what it took goes back.
            self._put_off.append((GIVE_BACK, digest, session_id))
            raise
        if answer in _REFUSALS:
            return _REFUSALS[answer]
        grant = grant_from_json(answer[1:]) if answer[:1] in {b"!", b"="} else None
        if grant is None:
            self._put_off.append((GIVE_BACK, digest, session_id))
            return Refusal(Reason.UNSUPPORTED, "the grant is not of a kind that this version of xvpd knows")
        return grant

    async def _grants(self, issuer: str | None) -> list[Grant]:
        digests = (await self._commands.run(LIST, "xvpd:grants")).split()
        whose = ("1", "") if issuer is None else ("0", issuer)
        lines: list[bytes] = []
        for start in range(0, len(digests), _AT_ONCE):
            lines += (await self._commands.run(READ_GRANTS, *whose, *digests[start : start + _AT_ONCE])).splitlines()
        grants = [grant for grant in map(grant_from_json, lines) if grant is not None]
        return sorted(grants, key=lambda grant: grant.issued_at)

    # Sessions.

    async def _sessions(self) -> list[tuple[Session, Activity]]:
        ids = (await self._commands.run(LIST, "xvpd:sessions")).splitlines()
        lines: list[bytes] = []
        for start in range(0, len(ids), _AT_ONCE):
            lines += (await self._commands.run(READ_SESSIONS, *ids[start : start + _AT_ONCE])).splitlines()
        sessions = [entry for entry in map(session_from_json, lines) if entry is not None]
        return sorted(sessions, key=lambda entry: entry[0].since)

    async def _lease(self, session: Session, caps: Caps) -> ILease | Refusal:
        answer = await self._place(session, Activity(), caps)
        match answer.split():
            case [b"leased"]:
                return _Lease(self, session, session.grant.max_duration or None)
            case [b"leased", left]:
                return _Lease(self, session, float(left) / 1000)
            case [b"revoked"]:
                return Refusal(Reason.TOKEN_REVOKED)
            case [b"killed"]:
                return Refusal(Reason.KILLED)
        return Refusal(Reason.TOO_MANY, f"the cap per {answer.decode()} is reached")

    async def _place(self, session: Session, activity: Activity, caps: Caps) -> bytes:
        limits = (caps.per_vm, caps.per_host, caps.per_user)
        places = [word for place, cap in zip(_places(session), limits, strict=False) for word in (*place, cap)]
        record = session_to_json(session, activity)
        return await self._commands.run(LEASE, session.id, session.grant.digest, record, _LEASE, _TOMBSTONE, *places)

    async def renew(self, session: Session, activity: Activity) -> None:
        """What a lease does to be kept."""
        try:
            answer = await self._place(session, activity, Caps())
        except AwayError:
            return
        against = {b"revoked": Reason.REVOKED, b"killed": Reason.KILLED}.get(answer)
        if against is not None:
            self._orders.cut(Selector("session", session.id), against)

    async def release(self, session: Session) -> None:
        """What a lease does to be given up."""
        places = [word for place in _places(session) for word in place]
        with suppress(AwayError):  # then it lapses
            await self._commands.run(RELEASE, session.id, *places)

    # What is done even if Redis is away, once it is back.

    async def _sooner_or_later(self, *order: str | bytes) -> None:
        try:
            await self._commands.run(*order)  # type: ignore[arg-type] # a script, and its arguments
        except (AwayError, CancelledError):
            self._put_off.append(order)

    def _catch_up(self) -> None:
        if self._put_off and not self._catching_up:
            self._catching_up = True
            Deferred.fromCoroutine(self._do_what_was_put_off()).addErrback(self._broke)

    async def _do_what_was_put_off(self) -> None:
        for _ in range(len(self._put_off)):
            await self._sooner_or_later(*self._put_off.popleft())
        self._catching_up = False

    # Beginning and end.

    def _came(self) -> None:
        self._orders.beat()
        Deferred.fromCoroutine(self._warn_of_eviction()).addErrback(self._broke)

    async def _warn_of_eviction(self) -> None:
        with suppress(AwayError):
            told = await self._commands.call("INFO", "memory")
            policy = _POLICY.search(told) if isinstance(told, bytes) else None
            if policy is not None and policy[1] != b"noeviction":
                self._log.warn(
                    "Redis evicts keys when its memory is full (maxmemory-policy {policy}), grants too: set noeviction",
                    policy=policy[1].decode("ascii", "replace"),
                )

    def _broke(self, failure: Failure) -> None:
        self._log.failure("Redis: xvpd failed", failure)

    async def _start(self) -> None:
        await self._commands.start()
        await self._orders.start()

    async def _stop(self) -> None:
        await self._orders.stop()
        await self._commands.stop()


@implementer(ILease)
class _Lease:
    def __init__(self, store: RedisStore, session: Session, seconds_left: float | None) -> None:
        self.seconds_left = seconds_left
        self._store = store
        self._session = session
        self._released = False

    def renew(self, activity: Activity) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renew(activity))

    async def _renew(self, activity: Activity) -> None:
        if not self._released:
            await self._store.renew(self._session, activity)

    def release(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._release())

    async def _release(self) -> None:
        if not self._released:
            self._released = True
            await self._store.release(self._session)


def _deferred(work: Coroutine[Any, Any, T]) -> "Deferred[Any]":
    """``work``, with a Redis that is away as the refusal that it is."""

    async def answered() -> T | Refusal:
        try:
            return await work
        except AwayError as away:
            return Refusal(Reason.STORE_AWAY, str(away))

    return Deferred.fromCoroutine(answered())


def _places(session: Session) -> list[tuple[str, str]]:
    """What a session is counted by: its VM, its host and, if it has one, its user."""
    grant = session.grant
    places = [("vm", grant.vm_uuid), ("host", session.host)]
    return [*places, ("user", f"{grant.issuer}\n{grant.user}")] if grant.user else places
