"""`Pools`: several pools as one `IHypervisor`."""

from collections.abc import Sequence
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, FailureGroup, FirstError, gatherResults, race, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import IHypervisor, IPool, Location
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
        return _all([pool.find(vm) for pool in self._pools.values()]).addCallback(_unique)

    def locate(self, vm_uuid: str) -> Deferred[Location | Refusal]:
        """The first pool in which the VM runs. The others are not waited for: one that hangs must not delay what runs
        elsewhere."""
        asking = [pool.locate(vm_uuid).addCallback(_winning) for pool in self._pools.values()]
        return race(asking).addCallbacks(lambda won: won[1], _most_telling)

    def dial(self, location: Location, request_id: str) -> Deferred[Leg | Refusal]:
        pool = self._pools.get(location.pool)
        if pool is None:
            return succeed(Refusal(Reason.HYPERVISOR_UNTRUSTED, f"there is no pool {location.pool}"))
        return pool.dial(location, request_id)


def _all(waiting: list[Deferred[T]]) -> Deferred[list[T]]:
    """All results. When it is cancelled, it fails as its parts do."""

    def first(failure: Failure) -> Failure:
        failure.trap(FirstError)
        assert isinstance(failure.value, FirstError)
        return failure.value.subFailure

    return gatherResults(waiting, consumeErrors=True).addErrback(first)


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
        return Refusal(Reason.VM_AMBIGUOUS, f"{len(having)} pools have VMs of this name")
    for answer in answers:
        if isinstance(answer, Refusal) and answer.reason not in (*_KNOWN, Reason.VM_NOT_FOUND):
            return Refusal(answer.reason, f"perhaps here, too, is a VM of this name (the uuid would do): {answer.detail}")
    return having[0] if having else answers[0]
