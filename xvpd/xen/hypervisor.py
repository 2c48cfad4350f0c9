"""`IHypervisor`: the seam between the proxy and the pools that its VMs run in.

`tests/contract/test_hypervisor.py` holds every implementation to what is written here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from xvpd.net.leg import Leg
from xvpd.reason import Refusal
from xvpd.xen.records import Policy


@dataclass(frozen=True, slots=True)
class Location:
    """Where a VM's console is at this moment. Good for one dial: never stored, never taken from a client."""

    pool: str
    """The pool's name in the configuration."""
    vm_uuid: str
    vm_ref: str
    """The VM's OpaqueRef: stable, unlike its consoles', which change when it moves."""
    vm_name: str
    host_uuid: str
    host_address: str
    """``host.address`` of the pool's member that the VM is resident on: an IP address, or a name."""


class ChangeKind(Enum):
    """What has become of a VM, or of a pool."""

    DESTROYED = "destroyed"
    """The VM is no more, or has become a template. Whatever was granted for it is void."""
    HALTED = "halted"
    SUSPENDED = "suspended"
    MOVED = "moved"
    """It runs on another host than before."""
    REBOOTED = "rebooted"
    """It runs on the same host, in a new domain."""
    CONSOLE_DISABLED = "console_disabled"
    """Its owner wants it to have no console any more."""
    POLICY = "policy"
    """What `IHypervisor.policy` says of the pool is another now."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened that console sessions and grants may have to end for."""

    pool: str
    """The pool's name in the configuration."""
    vm_uuid: str
    """Empty for POLICY, which is for all VMs of the pool."""
    kind: ChangeKind
    host_uuid: str = ""
    """Where the VM runs now; empty when it runs nowhere. A tunnel to that very host was dialled after a move."""


@dataclass(frozen=True, slots=True)
class ListedVm:
    """A VM as a list has it, running or not."""

    pool: str
    uuid: str
    name: str
    power_state: str
    """``Halted``, ``Paused``, ``Running`` or ``Suspended``."""
    tags: tuple[str, ...]
    nova_uuid: str
    """``other_config:nova_uuid``, empty if it has none."""
    host_uuid: str
    """Empty when it runs nowhere."""
    without_console: bool
    """Its owner wants no console for it."""


class IHypervisor(Interface):
    """Finds VMs, opens their consoles, and says what happens to them.

    Expected failures are `Refusal`s; Deferreds do not fail for what a network, a pool or a caller can cause. Every
    Deferred has a deadline of the implementation's own, and may be cancelled.

    While a pool sends its events, what is said of it comes from what they told, without a call, and is behind the pool by no
    more than an event's way, well below a second. VMs are not refused on that ground alone: before it says that one is not
    there, or not running, the pool is asked.
    """

    def find(vm: str) -> Deferred[Location | Refusal]:
        """The running VM with this uuid, or with this unique name, and where its console is.

        Refusals: VM_NOT_FOUND, VM_AMBIGUOUS (its detail lists the candidates), VM_NOT_RUNNING, NO_CONSOLE and the HYPERVISOR
        reasons.
        """

    def locate(vm_uuid: str) -> Deferred[Location | Refusal]:
        """`find`, for a uuid alone."""

    def dial(location: Location, request_id: str, moved: Callable[[Location], None] | None = None) -> Deferred[Leg | Refusal]:
        """Open the console at ``location``, which `find` or `locate` gave: a connected `Leg` on which the host has proved its
        identity and answered 200, and the VM's VNC server has begun to speak; its first bytes are still to be read. The leg is
        the caller's: it must end it.

        A VM that has left its host meanwhile is dialled where it is now, of which ``moved`` is told before; one whose VNC
        server is away, as while it reboots, is tried again for a moment. Refusals: the HYPERVISOR reasons, CONSOLE_BUSY, and
        those of `locate` when the VM has changed. Cancelling leaves no connection behind. ``request_id`` is for the log.
        """

    def changes(callback: Callable[[Change], None]) -> None:
        """Have every later change told, in the order in which it is learnt.

        Between two states that the pool has shown, one change of a VM is told at most. What happened while a pool's events did
        not come is told when they come again, but never what was so before `start`. DESTROYED is told of every VM, all else
        only of one that had a domain. `find` and `locate` already know of a change when it is told. A tunnel that was opened
        in the moment in between may be the new domain's.
        """

    def policy(location: Location) -> Deferred[Policy | Refusal]:
        """What the pool's administrator wants of consoles at ``location``. Refusals: the HYPERVISOR reasons."""

    def vms() -> list[ListedVm]:
        """All VMs of the pools whose events come, by name; without templates, snapshots and control domains."""

    def start() -> Deferred[None]:
        """Begin work. Fires when every pool was tried once, whether or not it could be reached."""

    def stop() -> Deferred[None]:
        """Refuse whatever is under way or comes, log out, and let go of every connection and thread. Legs that were handed out
        are not ended. No change is told any more."""


class IPool(IHypervisor):
    """One pool by itself."""

    name: str = Attribute("The pool's name in the configuration, which its locations have.")

    def known(vm: str) -> Location | Refusal | None:
        """What `find` would say without a call, refusals included; None when the pool would have to be asked."""
