"""`Pool`: one pool's VMs and their consoles."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.certificates import Certificates, Expires, unheeded
from xvpd.xen.coordinator import Coordinator
from xvpd.xen.dialling import Dialling
from xvpd.xen.hypervisor import Change, IPool, ListedVm, Location
from xvpd.xen.lookup import Lookup
from xvpd.xen.poller import Poller
from xvpd.xen.records import Host, Policy, RecordError
from xvpd.xen.settings import Deadlines, PoolSettings, Timed, untimed
from xvpd.xen.syntax import is_uuid
from xvpd.xen.trust import Plain
from xvpd.xen.tunnel import Dialler
from xvpd.xen.xapi import ApiError

T = TypeVar("T")


@implementer(IPool)
class Pool:
    """One pool of XenServer or XCP-ng hosts."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        deadlines: Deadlines | None = None,
        *,
        timed: Timed = untimed,
        expires: Expires = unheeded,
    ) -> None:
        """``timed`` is told of every call to the pool's API, ``expires`` of the members' certificates."""
        self.name = settings.name
        self._reactor = reactor
        self._settings = settings
        self._deadlines = deadlines or Deadlines()
        self._coordinator = Coordinator(reactor, settings, self._deadlines, timed=timed, members=self._known_members)
        self._lookup = Lookup(settings.name, self._coordinator)
        self._poller = Poller(reactor, settings, self._deadlines, self._coordinator, told=self._changed, looked=self._looked)
        self._certificates = Certificates(reactor, settings, self._coordinator, self._hosts, expires)
        dialler = Dialler(reactor, settings.trust, settings.port, self._deadlines.connect)
        self._consoles = Dialling(reactor, self._coordinator, dialler, self._asked, self._deadlines.dial)
        self._members: dict[str, str] = {}
        """The pool's hosts as last heard: addresses, by uuid. No other address is dialled."""
        self._callbacks: list[Callable[[Change], None]] = []
        self._dialling: set[Deferred[Leg | Refusal]] = set()
        self._stopped = False

    # What IPool promises.

    def start(self) -> Deferred[None]:
        if isinstance(self._settings.trust, Plain):
            self._log.warn(
                "pool {pool}: insecure_plain: password and consoles cross the network in clear text, to whoever answers",
                pool=self.name,
            )
        self._certificates.start()
        self._coordinator.start()
        return self._poller.start()

    def stop(self) -> Deferred[None]:
        self._stopped = True
        self._callbacks.clear()
        for each in list(self._dialling):
            each.cancel()
        return Deferred.fromCoroutine(self._stop())

    def known(self, vm: str) -> Location | Refusal | None:
        if self._stopped or not self._poller.fresh():
            return None
        return self._poller.table.find(vm)

    def find(self, vm: str) -> Deferred[Location | Refusal]:
        known = self.known(vm)
        if isinstance(known, Location):
            return succeed(known)
        return self._within(
            self._deadlines.find, f"the VM was not found within {self._deadlines.find:g} seconds", self._asked(vm)
        )

    def locate(self, vm_uuid: str) -> Deferred[Location | Refusal]:
        if not is_uuid(vm_uuid.lower()):
            return succeed(Refusal(Reason.VM_NOT_FOUND, "not a uuid"))
        return self.find(vm_uuid)

    def dial(
        self, location: Location, request_id: str, moved: Callable[[Location], None] | None = None
    ) -> Deferred[Leg | Refusal]:
        self._log.debug("{request_id}: dials {host}", request_id=request_id, host=location.host_address)
        seconds = self._deadlines.dial
        late = f"{location.host_address}: no console within {seconds:g} seconds"
        dialling = self._within(seconds, late, self._dial(location, request_id, moved))
        self._dialling.add(dialling)
        return dialling.addBoth(self._dialled, dialling)

    def changes(self, callback: Callable[[Change], None]) -> None:
        self._callbacks.append(callback)

    def policy(self, location: Location) -> Deferred[Policy | Refusal]:
        policy = self._poller.table.policy
        if self._poller.fresh() and policy is not None:
            return succeed(policy)
        return self._within(self._deadlines.find, "no word about the pool's policy", self._lookup.policy())

    def vms(self) -> list[ListedVm]:
        return sorted(self._poller.table.vms(), key=lambda vm: (vm.name, vm.uuid)) if self._poller.fresh() else []

    # What else there is to know.

    def ready(self) -> Refusal | None:
        """Whether xvpd is logged in at the coordinator, as far as is known; why not, otherwise."""
        return self._coordinator.ready()

    # How.

    async def _stop(self) -> None:
        self._certificates.stop()
        await self._poller.stop()
        await self._coordinator.stop()

    def _within(
        self, seconds: float, late: str, coroutine: Coroutine[Deferred[Any], Any, T | Refusal]
    ) -> Deferred[T | Refusal]:
        """What the coroutine returns, or a refusal: for what the pool does wrong, or for being late."""

        def timed_out(_: object, __: float) -> Refusal:
            return Refusal(Reason.HYPERVISOR_SLOW, f"pool {self.name}: {late}")

        return Deferred.fromCoroutine(self._guarded(coroutine)).addTimeout(seconds, self._reactor, timed_out)

    async def _guarded(self, coroutine: Coroutine[Deferred[Any], Any, T | Refusal]) -> T | Refusal:
        try:
            return await coroutine
        except CancelledError:
            if not self._stopped:
                raise
            return Refusal(Reason.HYPERVISOR_UNREACHABLE, f"pool {self.name}: xvpd is stopping")
        except ApiError as error:
            return error.refusal
        except RecordError as error:
            return Refusal(Reason.HYPERVISOR_PROTOCOL, f"pool {self.name}: {error}")

    async def _asked(self, vm: str) -> Location | Refusal:
        answer = await self._lookup.find(vm)
        if isinstance(answer, Location):
            self._members[answer.host_uuid] = answer.host_address
        return answer

    def _changed(self, change: Change) -> None:
        for callback in list(self._callbacks):
            try:
                callback(change)
            except Exception:
                self._log.failure("pool {pool}: whoever was told of a change failed", pool=self.name)

    def _looked(self) -> None:
        """The hosts may be others."""
        self._members = {host.uuid: host.address for host in self._hosts() if host.address}
        self._certificates.look()

    def _known_members(self) -> Iterable[str]:
        return self._certificates.addresses()

    def _hosts(self) -> list[Host]:
        return list(self._poller.table.hosts.values())

    async def _dial(self, location: Location, request_id: str, moved: Callable[[Location], None] | None) -> Leg | Refusal:
        if location.pool != self.name or self._members.get(location.host_uuid) != location.host_address:
            return Refusal(Reason.HYPERVISOR_UNTRUSTED, f"{location.host_address}: not the address of a member of {self.name}")
        outcome = await self._consoles.open(location, request_id, moved)
        if isinstance(outcome, Refusal) and outcome.reason is Reason.HYPERVISOR_UNTRUSTED:
            self._certificates.doubted()
        return outcome

    def _dialled(self, outcome: T, dialling: Deferred[Leg | Refusal]) -> T:
        self._dialling.discard(dialling)
        return outcome
