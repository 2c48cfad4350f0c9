"""`Pools`: several pools as one `IHypervisor`."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, FailureGroup, FirstError, gatherResults, race, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import Change, IHypervisor, IPool, ListedVm, Location
from xvpd.xen.records import Policy
from xvpd.xen.syntax import is_uuid

T = TypeVar("T")

_KNOWN: Final = (Reason.VM_AMBIGUOUS, Reason.VM_NOT_RUNNING, Reason.NO_CONSOLE)
"""Reasons of a pool that does have the VM."""


@implementer(IHypervisor)
class Pools:
    """All pools of the configuration, at least one. A VM's uuid is looked for in each; a name must be unique over all."""

    def __init__(self, pools: Sequence[IPool]) -> None:
        self._pools = {pool.name: pool for pool in pools}

    def start(self) -> Deferred[None]:
        return _all([pool.start() for pool in self._pools.values()]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        return _all([pool.stop() for pool in self._pools.values()]).addCallback(lambda _: None)

    def find(self, vm: str) -> Deferred[Location | Refusal]:
        if is_uuid(vm.lower()):
            return self.locate(vm)
        known = [pool.known(vm) for pool in self._pools.values()]
        having = [answer for answer in known if not _is_without(answer)]
        if len(having) == 1 and isinstance(having[0], Location):
            return succeed(having[0])
        return _all([pool.find(vm) for pool in self._pools.values()]).addCallback(_unique)

    def locate(self, vm_uuid: str) -> Deferred[Location | Refusal]:
        """The first pool in which the VM runs. The others are not waited for: one that hangs must not delay what runs
        elsewhere."""
        if is_uuid(vm_uuid.lower()):
            for pool in self._pools.values():
                known = pool.known(vm_uuid)
                if isinstance(known, Location):
                    return succeed(known)
        asking = [pool.locate(vm_uuid).addCallback(_winning) for pool in self._pools.values()]
        return race(asking).addCallbacks(lambda won: won[1], _most_telling)

    def dial(
        self, location: Location, request_id: str, moved: Callable[[Location], None] | None = None
    ) -> Deferred[Leg | Refusal]:
        pool = self._pools.get(location.pool)
        return pool.dial(location, request_id, moved) if pool is not None else succeed(_no_pool(location))

    def changes(self, callback: Callable[[Change], None]) -> None:
        for pool in self._pools.values():
            pool.changes(callback)

    def policy(self, location: Location) -> Deferred[Policy | Refusal]:
        pool = self._pools.get(location.pool)
        return pool.policy(location) if pool is not None else succeed(_no_pool(location))

    def vms(self) -> list[ListedVm]:
        return sorted((vm for pool in self._pools.values() for vm in pool.vms()), key=lambda vm: (vm.name, vm.uuid))


def _all(waiting: list[Deferred[T]]) -> Deferred[list[T]]:
    """All results. When it is cancelled, it fails as its parts do."""

    def first(failure: Failure) -> Failure:
        failure.trap(FirstError)
        assert isinstance(failure.value, FirstError)
        return failure.value.subFailure

    return gatherResults(waiting, consumeErrors=True).addErrback(first)


def _no_pool(location: Location) -> Refusal:
    return Refusal(Reason.HYPERVISOR_UNTRUSTED, f"there is no pool {location.pool}")


def _is_without(answer: Location | Refusal | None) -> bool:
    """Whether a pool is known not to have the VM."""
    return isinstance(answer, Refusal) and answer.reason is Reason.VM_NOT_FOUND


class _RefusedError(Exception):
    """A pool cannot say where the VM is."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason.word)
        self.refusal = refusal


def _winning(answer: Location | Refusal) -> Location:
    if isinstance(answer, Refusal):
        raise _RefusedError(answer)
    return answer


def _most_telling(failure: Failure) -> Refusal:
    """When no pool has the VM running: what the pool says that knows it; else what one says that did not look, as it may have
    it; else that it does not exist."""
    failure.trap(FailureGroup)
    assert isinstance(failure.value, FailureGroup)
    refusals = []
    for each in failure.value.failures:
        each.trap(_RefusedError)
        assert isinstance(each.value, _RefusedError)
        refusals.append(each.value.refusal)
    return min(refusals, key=lambda refusal: (refusal.reason is Reason.VM_NOT_FOUND, refusal.reason not in _KNOWN))


def _unique(answers: list[Location | Refusal]) -> Location | Refusal:
    """The VM of a name that one pool has and all others say that they have not.

    While a pool does not answer no name is unique: to open the wrong VM's console would be worse than to open none.
    """
    having = [answer for answer in answers if isinstance(answer, Location) or answer.reason in _KNOWN]
    if len(having) > 1:
        candidates = "; ".join(_candidate(answer) for answer in having)
        return Refusal(Reason.VM_AMBIGUOUS, f"{len(having)} pools have VMs of this name: {candidates}")
    for answer in answers:
        if isinstance(answer, Refusal) and answer.reason not in (*_KNOWN, Reason.VM_NOT_FOUND):
            return Refusal(answer.reason, f"perhaps here, too, is a VM of this name (the uuid would do): {answer.detail}")
    return having[0] if having else answers[0]


def _candidate(answer: Location | Refusal) -> str:
    return f"pool {answer.pool}: {answer.vm_uuid}" if isinstance(answer, Location) else answer.detail
