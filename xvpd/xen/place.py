"""Whether a VM's console can be opened, and where it is: the same words whoever looked at the records. Pure."""

from collections.abc import Sequence
from typing import Final

from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import Location
from xvpd.xen.records import Host, Vm
from xvpd.xen.syntax import NULL_REF

_CANDIDATES: Final = 10
"""How many VMs of one name are listed."""


def obstacle(pool: str, vm: Vm) -> Refusal | None:
    """Why the VM's record alone says that there is no console to open."""
    if not vm.is_vm:
        return Refusal(Reason.VM_NOT_FOUND, f"pool {pool}: a template or a snapshot")
    if vm.is_control_domain:
        return Refusal(Reason.NO_CONSOLE, f"pool {pool}: VM {vm.uuid} is a control domain; consoles of hosts are not offered")
    if vm.power_state != "Running" or vm.resident_on == NULL_REF:
        return Refusal(Reason.VM_NOT_RUNNING, f"pool {pool}: VM {vm.uuid} is {vm.power_state}")
    if vm.without_console:
        return Refusal(Reason.NO_CONSOLE, f"pool {pool}: VM {vm.uuid} has other_config:disable_pv_vnc")
    return None


def without_screen(pool: str, vm: Vm) -> Refusal:
    """None of the VM's consoles is a screen: text consoles (vt100) are not offered."""
    return Refusal(Reason.NO_CONSOLE, f"pool {pool}: VM {vm.uuid} has no console with the protocol rfb")


def place(pool: str, vm: Vm, host: Host) -> Location | Refusal:
    """The running VM's console on its host."""
    if not host.address:
        return Refusal(Reason.HYPERVISOR_UNREACHABLE, f"host {host.uuid} has no address")
    return Location(pool=pool, vm_uuid=vm.uuid, vm_ref=vm.ref, vm_name=vm.name, host_uuid=host.uuid, host_address=host.address)


def ambiguous(pool: str, vms: Sequence[Vm]) -> Refusal:
    """Several VMs have the name that was asked for."""
    uuids = ", ".join(vm.uuid for vm in vms[:_CANDIDATES])
    more = f" and {len(vms) - _CANDIDATES} more" if len(vms) > _CANDIDATES else ""
    return Refusal(Reason.VM_AMBIGUOUS, f"pool {pool}: {len(vms)} VMs have this name: {uuids}{more}")
