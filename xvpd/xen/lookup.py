"""`Lookup`: a VM and its console found by asking the pool, for when its events do not say."""

import re
from typing import Final

from xvpd.reason import Reason, Refusal
from xvpd.xen.coordinator import Coordinator
from xvpd.xen.hypervisor import Location
from xvpd.xen.place import ambiguous, obstacle, place, without_screen
from xvpd.xen.records import (
    Policy,
    RecordError,
    Vm,
    console_protocol,
    host_record,
    pool_policy,
    reference,
    references,
    vm_record,
)
from xvpd.xen.syntax import is_uuid
from xvpd.xen.xapi import ApiError

HANDLE_INVALID: Final = "HANDLE_INVALID"
_LOOKS: Final = 3
"""How often a VM's record is read while what it names keeps going away."""
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Lookup:
    """Asks the pool named ``pool``. Raises `ApiError` and `RecordError`."""

    def __init__(self, pool: str, coordinator: Coordinator) -> None:
        self._pool = pool
        self._coordinator = coordinator

    async def find(self, vm: str) -> Location | Refusal:
        """The running VM of this uuid or name, and where its console is."""
        uuid = vm.lower()
        return await (self._find_uuid(uuid) if is_uuid(uuid) else self._find_name(vm))

    async def policy(self) -> Policy:
        """The pool's policy."""
        records = await self._coordinator.call("pool.get_all_records")
        if not isinstance(records, dict) or len(records) != 1:
            raise RecordError("the pool's record is none")
        return pool_policy(*records.values())

    async def vm_of(self, uuid: str) -> str | Refusal:
        """Reference of the VM, template or snapshot with this uuid."""
        try:
            return reference(await self._coordinator.call("VM.get_by_uuid", uuid))
        except ApiError as error:
            if error.code != "UUID_INVALID":
                raise
            return Refusal(Reason.VM_NOT_FOUND, f"pool {self._pool}: no VM has this uuid")

    async def _find_uuid(self, uuid: str) -> Location | Refusal:
        ref = await self.vm_of(uuid)
        return ref if isinstance(ref, Refusal) else await self._location(ref)

    async def _find_name(self, name: str) -> Location | Refusal:
        found: list[Vm] = []
        if _can_be_said(name):
            for ref in references(await self._coordinator.call("VM.get_by_name_label", name)):
                vm = await self._vm(ref)
                if vm is not None and vm.is_vm:
                    found.append(vm)
        match found:
            case []:
                return Refusal(Reason.VM_NOT_FOUND, f"pool {self._pool}: no VM has this name")
            case [vm]:
                return await self._location(vm.ref)
            case _:
                return ambiguous(self._pool, found)

    async def _location(self, ref: str) -> Location | Refusal:
        for _ in range(_LOOKS):
            vm = await self._vm(ref)
            if vm is None:
                return Refusal(Reason.VM_NOT_FOUND, f"pool {self._pool}: destroyed just now")
            refusal = obstacle(self._pool, vm)
            if refusal is not None:
                return refusal
            try:
                return await self._screen(vm)
            except ApiError as error:
                if error.code != HANDLE_INVALID:
                    raise  # otherwise it has moved, and what its record named is gone
        return Refusal(Reason.HYPERVISOR_REFUSED, f"pool {self._pool}: the VM is moving: its record does not hold still")

    async def _screen(self, vm: Vm) -> Location | Refusal:
        """Where the running VM's screen is. Fails with HANDLE_INVALID when ``vm`` is out of date."""
        for console in vm.consoles:
            if console_protocol(await self._coordinator.call("console.get_record", console)) == "rfb":
                break
        else:
            return without_screen(self._pool, vm)
        return place(
            self._pool, vm, host_record(vm.resident_on, await self._coordinator.call("host.get_record", vm.resident_on))
        )

    async def _vm(self, ref: str) -> Vm | None:
        try:
            return vm_record(ref, await self._coordinator.call("VM.get_record", ref))
        except ApiError as error:
            if error.code != HANDLE_INVALID:
                raise
            return None


def _can_be_said(name: str) -> bool:
    """Whether XML can carry this name (XML 1.0 section 2.2): no VM has another."""
    return _NOT_IN_XML.search(name) is None
