"""`Issuer`: from "this VM, please" to a console URL."""

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from xvpd.api.auth import Caller
from xvpd.grants.grant import Grant, digest, mint_id, mint_token
from xvpd.grants.store import ITokenStore
from xvpd.ops.metrics import Metrics
from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import IHypervisor, Location


@dataclass(frozen=True, slots=True)
class Terms:
    """What every console URL comes with, unless its order says otherwise. Seconds."""

    ttl: float
    """Also the longest that an order may ask for."""
    uses: int
    resume: float
    max_duration: float = 0.0
    """Also the longest that an order may ask for; 0 is no limit."""


@dataclass(frozen=True, slots=True)
class Order:
    """A console URL that is asked for. None: as the terms say."""

    vm: str
    """uuid, or unique name."""
    console_type: str
    user: str = ""
    ttl: float | None = None
    uses: int | None = None
    client: str = ""
    """The network, as `xvpd.grants.network.network` spells it, that the client must come from; empty: any."""
    max_duration: float | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A console URL, and what it stands for. The clear token is in the URL and nowhere else."""

    grant: Grant
    url: str = field(repr=False)


class Issuer:
    """Issues console URLs, for VMs whose console it has located: a URL that cannot work is not handed out."""

    def __init__(
        self,
        clock: IReactorTime,
        hypervisor: IHypervisor,
        store: ITokenStore,
        *,
        metrics: Metrics,
        random_bytes: Callable[[int], bytes],
        base_url: str,
        terms: Terms,
        locate_seconds: float,
        draining: Callable[[], bool],
    ) -> None:
        """``base_url`` is scheme, host and port, which XVP's viewer wants to see written out. ``locate_seconds`` is how long a
        VM's console may take to be found. Nothing is issued while ``draining`` says that nothing will be opened."""
        self.terms = terms
        self._clock = clock
        self._hypervisor = hypervisor
        self._store = store
        self._metrics = metrics
        self._random_bytes = random_bytes
        self._base_url = base_url
        self._locate_seconds = locate_seconds
        self._draining = draining

    def issue(self, caller: Caller, order: Order) -> Deferred[Issued | Refusal]:
        """Carry out ``order`` for ``caller``. Refusals: DRAINING, those of `IHypervisor.find` and of `ITokenStore.issue`."""
        return Deferred.fromCoroutine(self._issue(caller, order))

    async def _issue(self, caller: Caller, order: Order) -> Issued | Refusal:
        outcome = await self._try(caller, order)
        result = outcome.reason.word if isinstance(outcome, Refusal) else "issued"
        self._metrics.grants_issued_total.labels(type=order.console_type, result=result).inc()
        return outcome

    async def _try(self, caller: Caller, order: Order) -> Issued | Refusal:
        if self._draining():
            return Refusal(Reason.DRAINING)
        location = await self._find(order.vm)
        if isinstance(location, Refusal):
            return location
        token = mint_token(self._random_bytes)
        now = self._clock.seconds()
        grant = Grant(
            id=mint_id(self._random_bytes),
            digest=digest(token),
            vm_uuid=location.vm_uuid,
            vm_name=location.vm_name,
            console_type=order.console_type,
            issuer=caller.name,
            user=order.user,
            issued_at=now,
            expires_at=now + (self.terms.ttl if order.ttl is None else min(order.ttl, self.terms.ttl)),
            uses=self.terms.uses if order.uses is None else order.uses,
            resume=self.terms.resume,
            client=order.client,
            max_duration=self._max_duration(order),
        )
        refusal = await self._store.issue(grant)
        if refusal is not None:
            return refusal
        return Issued(grant, f"{self._base_url}/console?token={token}")

    def _max_duration(self, order: Order) -> float:
        longest = self.terms.max_duration
        if order.max_duration is None:
            return longest
        return min(order.max_duration, longest) if longest else order.max_duration

    def _find(self, vm: str) -> Deferred[Location | Refusal]:
        def slow(failure: Failure) -> Refusal:
            failure.trap(Late)
            return Refusal(Reason.HYPERVISOR_SLOW, f"no answer within {self._locate_seconds} s")

        return self._hypervisor.find(vm).addTimeout(self._locate_seconds, self._clock).addErrback(slow)
