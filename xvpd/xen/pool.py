"""`Pool`: one pool's VMs and their consoles."""

import re
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.coordinator import Coordinator
from xvpd.xen.hypervisor import IPool, Location
from xvpd.xen.records import RecordError, Vm, console_protocol, host_record, reference, references, vm_record
from xvpd.xen.settings import Deadlines, PoolSettings, Timed, untimed
from xvpd.xen.syntax import NULL_REF, is_uuid
from xvpd.xen.trust import Plain
from xvpd.xen.tunnel import Dialler, NotDialled
from xvpd.xen.xapi import ApiError

T = TypeVar("T")

_HANDLE_INVALID: Final = "HANDLE_INVALID"
_UNAUTHORISED: Final = 401
_LOOKS: Final = 3
"""How often a VM's record is read while what it names keeps going away."""
_CANDIDATES: Final = 10
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@implementer(IPool)
class Pool:
    """One pool of XenServer or XCP-ng hosts."""

    _log = Logger()

    def __init__(
        self, reactor: Any, settings: PoolSettings, deadlines: Deadlines | None = None, timed: Timed = untimed
    ) -> None:
        """``timed`` is told of every call to the pool's API."""
        self.name = settings.name
        self._reactor = reactor
        self._settings = settings
        self._deadlines = deadlines or Deadlines()
        self._coordinator = Coordinator(reactor, settings, self._deadlines, timed=timed)
        self._dialler = Dialler(reactor, settings.trust, settings.port, self._deadlines.connect)
        self._members: dict[str, str] = {}
        self._dialling: set[Deferred[Leg | Refusal]] = set()
        self._stopped = False

    # What IPool promises.

    def start(self) -> Deferred[None]:
        if isinstance(self._settings.trust, Plain):
            self._log.warn(
                "pool {pool}: insecure_plain: password and consoles cross the network in clear text, to whoever answers",
                pool=self.name,
            )
        self._coordinator.start()
        return Deferred.fromCoroutine(self._try())

    def stop(self) -> Deferred[None]:
        self._stopped = True
        for each in list(self._dialling):
            each.cancel()
        return self._coordinator.stop()

    def find(self, vm: str) -> Deferred[Location | Refusal]:
        uuid = vm.lower()
        finding = self._find_uuid(uuid) if is_uuid(uuid) else self._find_name(vm)
        return self._within(self._deadlines.find, f"the VM was not found within {self._deadlines.find:g} seconds", finding)

    def locate(self, vm_uuid: str) -> Deferred[Location | Refusal]:
        if not is_uuid(vm_uuid.lower()):
            return succeed(Refusal(Reason.VM_NOT_FOUND, "not a uuid"))
        return self.find(vm_uuid)

    def dial(self, location: Location, request_id: str) -> Deferred[Leg | Refusal]:
        self._log.debug("{request_id}: dials {host}", request_id=request_id, host=location.host_address)
        seconds = self._deadlines.dial
        late = f"{location.host_address}: no console within {seconds:g} seconds"
        dialling = self._within(seconds, late, self._dial(location))
        self._dialling.add(dialling)
        return dialling.addBoth(self._dialled, dialling)

    # What else there is to know.

    def ready(self) -> Refusal | None:
        """Whether xvpd is logged in at the coordinator, as far as is known; why not, otherwise."""
        return self._coordinator.ready()

    # How.

    async def _try(self) -> None:
        with suppress(ApiError):
            await self._coordinator.logged_in()

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

    async def _find_uuid(self, uuid: str) -> Location | Refusal:
        try:
            ref = reference(await self._coordinator.call("VM.get_by_uuid", uuid))
        except ApiError as error:
            if error.code != "UUID_INVALID":
                raise
            return Refusal(Reason.VM_NOT_FOUND, f"pool {self.name}: no VM has this uuid")
        return await self._location(ref)

    async def _find_name(self, name: str) -> Location | Refusal:
        found: list[Vm] = []
        if _can_be_said(name):
            for ref in references(await self._coordinator.call("VM.get_by_name_label", name)):
                vm = await self._vm(ref)
                if vm is not None and vm.is_vm:
                    found.append(vm)
        match found:
            case []:
                return Refusal(Reason.VM_NOT_FOUND, f"pool {self.name}: no VM has this name")
            case [vm]:
                return await self._location(vm.ref)
            case _:
                uuids = ", ".join(vm.uuid for vm in found[:_CANDIDATES])
                return Refusal(Reason.VM_AMBIGUOUS, f"pool {self.name}: {len(found)} VMs have this name: {uuids}")

    async def _location(self, ref: str) -> Location | Refusal:
        for _ in range(_LOOKS):
            vm = await self._vm(ref)
            if vm is None or not vm.is_vm:
                return Refusal(Reason.VM_NOT_FOUND, f"pool {self.name}: a template or snapshot, or destroyed just now")
            if vm.is_control_domain:
                return Refusal(Reason.NO_CONSOLE, f"VM {vm.uuid} is a control domain; consoles of hosts are not offered")
            if vm.power_state != "Running" or vm.resident_on == NULL_REF:
                return Refusal(Reason.VM_NOT_RUNNING, f"VM {vm.uuid} is {vm.power_state}")
            if vm.without_console:
                return Refusal(Reason.NO_CONSOLE, f"VM {vm.uuid} has other_config:disable_pv_vnc")
            try:
                return await self._screen(vm)
            except ApiError as error:
                if error.code != _HANDLE_INVALID:
                    raise  # otherwise it has moved, and what its record named is gone
        return Refusal(Reason.HYPERVISOR_REFUSED, f"pool {self.name}: the VM is moving: its record does not hold still")

    async def _screen(self, vm: Vm) -> Location | Refusal:
        """Where the running VM's screen is. Fails with HANDLE_INVALID when ``vm`` is out of date."""
        for console in vm.consoles:
            if console_protocol(await self._coordinator.call("console.get_record", console)) == "rfb":
                break
        else:
            return Refusal(Reason.NO_CONSOLE, f"VM {vm.uuid} has no console with the protocol rfb")
        host = host_record(vm.resident_on, await self._coordinator.call("host.get_record", vm.resident_on))
        if not host.address:
            return Refusal(Reason.HYPERVISOR_UNREACHABLE, f"host {host.uuid} has no address")
        self._members[host.uuid] = host.address
        return Location(
            pool=self.name,
            vm_uuid=vm.uuid,
            vm_ref=vm.ref,
            vm_name=vm.name,
            host_uuid=host.uuid,
            host_address=host.address,
        )

    async def _vm(self, ref: str) -> Vm | None:
        try:
            return vm_record(ref, await self._coordinator.call("VM.get_record", ref))
        except ApiError as error:
            if error.code != _HANDLE_INVALID:
                raise
            return None

    async def _dial(self, location: Location) -> Leg | Refusal:
        if location.pool != self.name or self._members.get(location.host_uuid) != location.host_address:
            return Refusal(Reason.HYPERVISOR_UNTRUSTED, f"{location.host_address}: not the address of a member of {self.name}")
        logged_in = await self._coordinator.logged_in()
        outcome = await self._dialler.dial(location.host_address, location.vm_ref, logged_in.session)
        if isinstance(outcome, NotDialled) and outcome.status == _UNAUTHORISED:
            self._coordinator.forget(logged_in)
            logged_in = await self._coordinator.logged_in()
            outcome = await self._dialler.dial(location.host_address, location.vm_ref, logged_in.session)
        return outcome.refusal if isinstance(outcome, NotDialled) else outcome

    def _dialled(self, outcome: T, dialling: Deferred[Leg | Refusal]) -> T:
        self._dialling.discard(dialling)
        return outcome


def _can_be_said(name: str) -> bool:
    """Whether XML can carry this name (XML 1.0 section 2.2): no VM has another."""
    return _NOT_IN_XML.search(name) is None
