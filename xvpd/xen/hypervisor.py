"""`IHypervisor`: the seam between the proxy and the pools that its VMs run in.

`tests/contract/test_hypervisor.py` holds every implementation to what is written here.
"""

from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from xvpd.net.leg import Leg
from xvpd.reason import Refusal


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


class IHypervisor(Interface):
    """Finds VMs and opens their consoles.

    Expected failures are `Refusal`s; Deferreds do not fail for what a network, a pool or a caller can cause. Every
    Deferred has a deadline of the implementation's own, and may be cancelled.
    """

    def find(vm: str) -> Deferred[Location | Refusal]:
        """The running VM with this uuid, or with this unique name, and where its console is.

        Refusals: VM_NOT_FOUND, VM_AMBIGUOUS, VM_NOT_RUNNING, NO_CONSOLE and the HYPERVISOR reasons.
        """

    def locate(vm_uuid: str) -> Deferred[Location | Refusal]:
        """`find`, for a uuid alone."""

    def dial(location: Location, request_id: str) -> Deferred[Leg | Refusal]:
        """Open the console at ``location``, which `find` or `locate` gave: a connected `Leg` on which the host has proved its
        identity and answered 200, and the VM's VNC server has begun to speak; its first bytes are still to be read. The leg is
        the caller's: it must end it.

        Refusals: the HYPERVISOR reasons, CONSOLE_BUSY. Cancelling leaves no connection behind. ``request_id`` is for the log.
        """

    def start() -> Deferred[None]:
        """Begin work. Fires when every pool was tried once, whether or not it could be reached."""

    def stop() -> Deferred[None]:
        """Refuse whatever is under way or comes, log out, and let go of every connection and thread. Legs that were handed out
        are not ended."""


class IPool(IHypervisor):
    """One pool by itself."""

    name: str = Attribute("The pool's name in the configuration, which its locations have.")
