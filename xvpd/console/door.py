"""The door for clients: a connection comes in, and leaves as a console session or with a reason.

The way of a client, in the order of the methods below: its request's head within a deadline; the token redeemed; the session
registered, so that it can be cut from here on; the VM located anew and its present host dialled; the RFB opening with the
hypervisor; only then the 200; the opening with the client; the relay. Whatever happens, the connection leaves one `Record`.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from OpenSSL import SSL
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from xvpd.console.head import Head, HeadReader
from xvpd.console.opening import open_client, open_hypervisor
from xvpd.console.reply import OK, healthz, refusal
from xvpd.console.request import ConsoleRequest, Health, route
from xvpd.grants.grant import Grant, digest, mint_id
from xvpd.grants.store import Caps, ITokenStore, Session
from xvpd.net.leg import End, Leg
from xvpd.ops.metrics import Metrics
from xvpd.ops.record import Record, Recorder
from xvpd.ops.sessions import LiveSession, Sessions
from xvpd.reason import Reason, Refusal
from xvpd.relay.relay import IRelay, Plan
from xvpd.rfb.opening import HypervisorOpening
from xvpd.xen.hypervisor import IHypervisor, Location

T = TypeVar("T")

CLOSE_SECONDS: Final = 5.0
"""How long a client may take to read its reply and close."""
OPENING_SECONDS: Final = 15.0
"""How long either side may take for the RFB opening."""
_LEFT: Final[dict[End | None, Reason]] = {End.BROKEN: Reason.BAD_REQUEST, End.OURS: Reason.STOPPED}
"""Why there is no head, by how the leg ended; otherwise it is the client that left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process lets in. 0 is no limit."""

    handshake_seconds: float = 10.0
    """From accept to a complete request head, TLS included."""
    sessions: int = 0
    """Console sessions of this process."""
    pending_per_client: int = 0
    """Connections from one address that have not redeemed a token yet."""
    caps: Caps = field(default_factory=Caps)


class Door(Factory):
    """Accepts clients, and sees each of them through to its end."""

    noisy = False

    def __init__(
        self,
        *,
        clock: IReactorTime,
        hypervisor: IHypervisor,
        store: ITokenStore,
        relays: list[IRelay],
        sessions: Sessions,
        metrics: Metrics,
        recorders: list[Recorder],
        random_bytes: Callable[[int], bytes],
        node: str,
        limits: Limits,
        server_tls: Callable[[], SSL.Connection] | None,
    ) -> None:
        self.draining = False
        self._clock = clock
        self._hypervisor = hypervisor
        self._store = store
        self._relays = relays
        self._sessions = sessions
        self._metrics = metrics
        self._recorders = recorders
        self._random_bytes = random_bytes
        self._node = node
        self._limits = limits
        self._server_tls = server_tls
        self._pending: dict[str, int] = {}
        self._visits: dict[Leg, Deferred[None]] = {}
        self._log = Logger()

    def buildProtocol(self, addr: IAddress | None) -> Leg:
        tls = self._server_tls() if self._server_tls is not None else None
        return Leg(self._clock, tls=tls, connected=self._accepted)

    def _accepted(self, leg: Leg) -> None:
        visit = Visit(mint_id(self._random_bytes), self._clock.seconds(), _client_of(leg))
        if not self._admit(visit.client):
            self._record(visit, Refusal(Reason.TOO_MANY, "too many connections from this address without a token"))
            leg.abort()
            return
        visiting = Deferred.fromCoroutine(self._serve(leg, visit)).addErrback(self._failed, leg, visit)
        self._visits[leg] = visiting
        visiting.addCallback(self._left, leg)

    async def stop(self) -> None:
        """End every connection that is left, whatever it is doing. Console sessions should have been cut before."""
        visits = list(self._visits.items())
        for leg, _ in visits:
            leg.abort()
        for _, visiting in visits:
            await visiting

    # From the accept to the token.

    async def _serve(self, leg: Leg, visit: "Visit") -> None:
        try:
            request = await self._request(leg, visit)
        finally:
            self._release(visit.client)
        visit.client = _client_of(leg)
        match request:
            case Health():
                self._answer(leg, healthz(self.draining))
            case Refusal():
                self._refuse(leg, visit, request)
            case ConsoleRequest():
                outcome = await self._console(leg, visit, request)
                if isinstance(outcome, Refusal) and not visit.opened:
                    self._refuse(leg, visit, outcome)
                else:
                    leg.close(CLOSE_SECONDS)
                    self._record(visit, outcome)
        await leg.gone()

    async def _request(self, leg: Leg, visit: "Visit") -> ConsoleRequest | Health | Refusal:
        reading = Deferred.fromCoroutine(self._head(leg))
        reading.addTimeout(self._limits.handshake_seconds, self._clock)
        try:
            head = await reading
        except TimeoutError:
            return Refusal(Reason.HEAD_SLOW)
        if isinstance(head, Refusal):
            return head
        self._metrics.handshake_seconds.observe(self._clock.seconds() - visit.started_at)
        visit.head = head
        return route(head)

    async def _head(self, leg: Leg) -> Head | Refusal:
        reader = HeadReader()
        while True:
            data = await leg.read()
            if not data:
                return Refusal(_LEFT.get(leg.end, Reason.CLIENT_LEFT), leg.end_detail)
            head = reader.receive(data)
            if head is not None:
                return head

    # From the token to the console.

    async def _console(self, leg: Leg, visit: "Visit", request: ConsoleRequest) -> Refusal:
        if self.draining:
            return Refusal(Reason.DRAINING)
        if self._limits.sessions and len(self._sessions) >= self._limits.sessions:
            return Refusal(Reason.TOO_MANY, "max_sessions of this process")
        grant = await self._redeem(visit, request.token)
        if isinstance(grant, Refusal):
            return grant
        visit.grant = grant
        session = Session(visit.request_id, grant, self._node, "", visit.client, visit.started_at)
        live = self._sessions.register(session)
        leg.unread(request.trailing)
        outcome = Refusal(Reason.INTERNAL)
        try:
            outcome = await self._open(leg, visit, live)
        finally:
            self._sessions.close(live)
            if visit.opened:
                await self._store.ended(grant, live.session.id, outcome.reason)
            else:
                await self._store.give_back(grant, live.session.id)
        return outcome

    async def _redeem(self, visit: "Visit", token: str) -> Grant | Refusal:
        redeemed = await self._store.redeem(digest(token), visit.request_id, visit.client)
        result = redeemed.reason.word if isinstance(redeemed, Refusal) else "granted"
        self._metrics.redeem_total.labels(result=result).inc()
        return redeemed

    async def _open(self, leg: Leg, visit: "Visit", live: LiveSession) -> Refusal:
        leaving = leg.ended()
        leaving.addCallbacks(lambda _: live.cut(Reason.CLIENT_LEFT), lambda failure: failure.trap(CancelledError))
        try:
            tunnel = await self._dial(visit, live)
            if isinstance(tunnel, Refusal):
                return tunnel
            try:
                hypervisor = await live.unless_cut(self._within(open_hypervisor(tunnel), Reason.HYPERVISOR_SLOW))
                if isinstance(hypervisor, Refusal):
                    return hypervisor
                leaving.cancel()  # from here on whoever reads the leg sees its end, behind the bytes that came before it
                return await self._through(leg, tunnel, hypervisor, visit, live)
            finally:
                tunnel.close(CLOSE_SECONDS)
        finally:
            leaving.cancel()

    async def _dial(self, visit: "Visit", live: LiveSession) -> Leg | Refusal:
        location = await live.unless_cut(self._hypervisor.locate(live.grant.vm_uuid))
        if isinstance(location, Refusal):
            return location
        visit.location = location
        live.at_host(location.host_uuid, location.pool)
        lease = await self._store.lease(live.session, self._limits.caps)
        if isinstance(lease, Refusal):
            return lease
        self._sessions.leased(live, lease)
        dialled_at = self._clock.seconds()
        tunnel = await live.unless_cut(self._hypervisor.dial(location, visit.request_id))
        self._metrics.dial_seconds.observe(self._clock.seconds() - dialled_at)
        return tunnel

    # Through the console.

    async def _through(
        self, leg: Leg, tunnel: Leg, hypervisor: HypervisorOpening, visit: "Visit", live: LiveSession
    ) -> Refusal:
        leg.write(OK)
        visit.opened = True
        failure = await live.unless_cut(self._within(open_client(leg, tunnel, hypervisor, shared=True), Reason.CLIENT_SLOW))
        if failure is not None:
            return failure
        plan = Plan()
        relay = next(relay for relay in self._relays if relay.accepts(plan))
        relaying = relay.start(leg, tunnel, plan)
        live.relayed_by(relaying)
        self._metrics.sessions.inc()
        try:
            relayed = await relaying.done
        finally:
            self._metrics.sessions.dec()
        visit.bytes_to_client = relayed.totals.bytes_to_client
        visit.bytes_to_hypervisor = relayed.totals.bytes_to_hypervisor
        return Refusal(relayed.reason)

    def _within(self, opening: Coroutine[Any, Any, T | Refusal], reason: Reason) -> "Deferred[T | Refusal]":
        """``opening``, or a refusal for ``reason`` when it takes longer than an opening may."""

        def slow(failure: Failure) -> Refusal:
            failure.trap(TimeoutError)
            return Refusal(reason, "RFB opening")

        return Deferred.fromCoroutine(opening).addTimeout(OPENING_SECONDS, self._clock).addErrback(slow)

    # The ends.

    def _refuse(self, leg: Leg, visit: "Visit", outcome: Refusal) -> None:
        if leg.end is None:
            self._answer(leg, refusal(outcome.reason, visit.request_id, visit.head))
        else:
            leg.close(CLOSE_SECONDS)
        self._record(visit, outcome)

    def _answer(self, leg: Leg, reply: bytes) -> None:
        leg.write(reply)
        leg.close(CLOSE_SECONDS)

    def _failed(self, failure: Failure, leg: Leg, visit: "Visit") -> None:
        self._log.failure("{request_id}: xvpd failed", failure, request_id=visit.request_id)
        outcome = Refusal(Reason.INTERNAL)
        if visit.opened:
            leg.abort()
            self._record(visit, outcome)
        else:
            self._refuse(leg, visit, outcome)

    def _left(self, _: None, leg: Leg) -> None:
        del self._visits[leg]

    def _record(self, visit: "Visit", outcome: Refusal) -> None:
        record = visit.record(outcome, self._clock.seconds())
        for recorder in self._recorders:
            recorder(record)

    # Clients that have shown no token yet.

    def _admit(self, client: str) -> bool:
        waiting = self._pending.get(client, 0)
        if self._limits.pending_per_client and waiting >= self._limits.pending_per_client:
            return False
        self._pending[client] = waiting + 1
        return True

    def _release(self, client: str) -> None:
        waiting = self._pending[client] - 1
        if waiting:
            self._pending[client] = waiting
        else:
            del self._pending[client]


@dataclass
class Visit:
    """What is known of one connection so far; in the end, its `Record`."""

    request_id: str
    started_at: float
    client: str
    head: Head | None = None
    opened: bool = False
    grant: Grant | None = None
    location: Location | None = None
    bytes_to_client: int = 0
    bytes_to_hypervisor: int = 0

    def record(self, outcome: Refusal, now: float) -> Record:
        """The record of this connection, which ended at ``now`` with ``outcome``."""
        record = Record(
            request_id=self.request_id,
            outcome=outcome.reason,
            detail=outcome.detail,
            client=self.client,
            started_at=self.started_at,
            seconds=now - self.started_at,
            opened=self.opened,
            bytes_to_client=self.bytes_to_client,
            bytes_to_hypervisor=self.bytes_to_hypervisor,
        )
        if self.grant is not None:
            record = replace(
                record,
                grant=self.grant.id,
                issuer=self.grant.issuer,
                user=self.grant.user,
                console_type=self.grant.console_type,
                vm_uuid=self.grant.vm_uuid,
                vm_name=self.grant.vm_name,
            )
        if self.location is not None:
            record = replace(record, pool=self.location.pool, host=self.location.host_uuid)
        return record


def _client_of(leg: Leg) -> str:
    """The client's address, without port; a unix socket's clients are all one."""
    peer = leg.peer
    return "unix" if isinstance(peer, UNIXAddress) else str(getattr(peer, "host", "unknown"))
