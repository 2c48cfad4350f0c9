"""`Table`: a pool as its events told it. Pure.

It is fed with what `event.from` says, and tells what of that console sessions and grants have to know. It answers where a VM's
console is, and None where it cannot be sure.
"""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from xvpd.reason import Reason, Refusal
from xvpd.xen.events import Event
from xvpd.xen.hypervisor import Change, ChangeKind, ListedVm, Location
from xvpd.xen.place import ambiguous, obstacle, place, without_screen
from xvpd.xen.records import Host, Policy, Vm
from xvpd.xen.syntax import NULL_REF, is_uuid

T = TypeVar("T")

_DOMAIN: Final = ("Running", "Paused")
"""Power states in which a VM has a domain, and may have a console session."""


class Table:
    """VMs, consoles, hosts and policy of the pool ``pool``. Templates and snapshots are left out."""

    def __init__(self, pool: str) -> None:
        self.policy: Policy | None = None
        self.hosts: dict[str, Host] = {}
        self._pool = pool
        self._vms: dict[str, Vm] = {}
        self._by_uuid: dict[str, str] = {}
        self._by_name: dict[str, tuple[str, ...]] = {}
        self._consoles: dict[str, str] = {}
        self._unreadable: dict[str, Vm | None] = {}
        """VMs whose records cannot be read, as they were when they could."""

    def __len__(self) -> int:
        return len(self._vms)

    # Feeding.

    def apply(self, events: Iterable[Event]) -> list[Change]:
        """Take events in, in their order."""
        return [change for event in events for change in self._take(event)]

    def since(self, before: "Table") -> list[Change]:
        """What has changed since the pool was as in ``before``, which a pool that was not looked at meanwhile is not told by
        events."""
        changes = []
        for old in [*before._vms.values(), *filter(None, before._unreadable.values())]:
            new = self._vms.get(old.ref)
            if new is None and old.ref in self._unreadable:
                self._unreadable[old.ref] = old
            else:
                changes += self._changes(old, new)
        if before.policy is not None and self.policy is not None and before.policy != self.policy:
            changes.append(self._policy_changed())
        return changes

    # Asking.

    def find(self, vm: str) -> Location | Refusal | None:
        """What `IPool.known` promises."""
        uuid = vm.lower()
        if is_uuid(uuid):
            ref = self._by_uuid.get(uuid)
            return self._place(ref) if ref is not None else self._nobody("uuid")
        if self._unreadable:
            return None
        match self._by_name.get(vm, ()):
            case ():
                return self._nobody("name")
            case (ref,):
                return self._place(ref)
            case refs:
                return ambiguous(self._pool, [self._vms[each] for each in refs])

    def vms(self) -> Iterator[ListedVm]:
        """Every VM but the control domains, in no order."""
        for vm in self._vms.values():
            if not vm.is_control_domain:
                yield ListedVm(
                    pool=self._pool,
                    uuid=vm.uuid,
                    name=vm.name,
                    power_state=vm.power_state,
                    tags=vm.tags,
                    nova_uuid=vm.nova_uuid,
                    host_uuid=self._host_uuid(vm),
                    without_console=vm.without_console,
                )

    # How.

    def _place(self, ref: str) -> Location | Refusal | None:
        vm = self._vms[ref]
        refusal = obstacle(self._pool, vm)
        if refusal is not None:
            return refusal
        host = self.hosts.get(vm.resident_on)
        protocols = [self._consoles.get(each) for each in vm.consoles]
        if host is None or ("rfb" not in protocols and None in protocols):
            return None
        return place(self._pool, vm, host) if "rfb" in protocols else without_screen(self._pool, vm)

    def _take(self, event: Event) -> list[Change]:
        record, ref = event.record, event.ref
        match event.kind:
            case "vm":
                return self._take_vm(ref, record if isinstance(record, Vm) else None, unreadable=bool(event.problem))
            case "console":
                _put(self._consoles, ref, record if isinstance(record, str) else None)
            case "host":
                _put(self.hosts, ref, record if isinstance(record, Host) else None)
            case _ if isinstance(record, Policy):
                old, self.policy = self.policy, record
                return [self._policy_changed()] if old not in (None, record) else []
        return []

    def _take_vm(self, ref: str, new: Vm | None, *, unreadable: bool) -> list[Change]:
        if new is not None and not new.is_vm:
            new = None
        old = self._vms.get(ref)
        if old is not None:
            self._forget(old)
        else:
            old = self._unreadable.pop(ref, None)
        if unreadable:
            self._unreadable[ref] = old
            return []
        if new is not None:
            self._vms[ref] = new
            self._by_uuid[new.uuid] = ref
            self._by_name[new.name] = (*self._by_name.get(new.name, ()), ref)
        return self._changes(old, new) if old is not None else []

    def _forget(self, vm: Vm) -> None:
        del self._vms[vm.ref]
        if self._by_uuid.get(vm.uuid) == vm.ref:
            del self._by_uuid[vm.uuid]
        left = tuple(ref for ref in self._by_name[vm.name] if ref != vm.ref)
        if left:
            self._by_name[vm.name] = left
        else:
            del self._by_name[vm.name]

    def _changes(self, old: Vm, new: Vm | None) -> list[Change]:
        kind = change_of(old, new)
        if kind is None:
            return []
        return [Change(self._pool, old.uuid, kind, self._host_uuid(new) if new is not None else "")]

    def _nobody(self, key: str) -> Refusal:
        return Refusal(Reason.VM_NOT_FOUND, f"pool {self._pool}: no VM has this {key}")

    def _policy_changed(self) -> Change:
        return Change(self._pool, "", ChangeKind.POLICY)

    def _host_uuid(self, vm: Vm) -> str:
        host = self.hosts.get(vm.resident_on)
        return host.uuid if host is not None else ""


def change_of(old: Vm, new: Vm | None) -> ChangeKind | None:
    """What it is for console sessions and grants that the VM ``old`` is ``new`` now; None when it is nothing."""
    if new is None:
        return ChangeKind.DESTROYED
    if old.power_state not in _DOMAIN:
        return None
    if new.power_state == "Halted":
        return ChangeKind.HALTED
    if new.power_state == "Suspended":
        return ChangeKind.SUSPENDED
    if new.without_console and not old.without_console:
        return ChangeKind.CONSOLE_DISABLED
    if new.resident_on != old.resident_on and NULL_REF not in (new.resident_on, old.resident_on):
        return ChangeKind.MOVED
    if new.domid != old.domid and -1 not in (new.domid, old.domid):
        return ChangeKind.REBOOTED
    return None


def _put(into: dict[str, T], ref: str, record: T | None) -> None:
    if record is None:
        into.pop(ref, None)
    else:
        into[ref] = record
