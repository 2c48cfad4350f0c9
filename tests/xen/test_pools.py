"""`xvpd.xen.pools`: which of several pools has a VM, and what is said when one of them does not answer."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.xen.lab import UNKNOWN_UUID
from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import Change, ChangeKind, IPool, ListedVm, Location
from xvpd.xen.pools import Pools
from xvpd.xen.records import Policy

REF = f"OpaqueRef:{UNKNOWN_UUID}"
NOT_FOUND = Refusal(Reason.VM_NOT_FOUND, "nowhere")
AWAY = Refusal(Reason.HYPERVISOR_UNREACHABLE, "away")
HALTED = Refusal(Reason.VM_NOT_RUNNING, "halted")

Answer = Location | Refusal | Deferred[Any]


def at(pool: str) -> Location:
    return Location(pool, UNKNOWN_UUID, REF, "web-1", UNKNOWN_UUID, "10.0.0.11")


@implementer(IPool)
class _Pool:
    """A pool that answers whatever is asked with one answer, and knows another, or nothing, without being asked."""

    def __init__(self, name: str, answer: Answer, known: Location | Refusal | None = None) -> None:
        self.name = name
        self._known = known
        self.did: list[str] = []
        self._answer = answer

    def find(self, vm: str) -> Deferred[Location | Refusal]:
        self.did.append("find")
        return self._answer if isinstance(self._answer, Deferred) else succeed(self._answer)

    def locate(self, vm_uuid: str) -> Deferred[Location | Refusal]:
        self.did.append("locate")
        return self._answer if isinstance(self._answer, Deferred) else succeed(self._answer)

    def known(self, vm: str) -> Location | Refusal | None:
        return self._known

    def dial(
        self, location: Location, request_id: str, moved: Callable[[Location], None] | None = None
    ) -> Deferred[Leg | Refusal]:
        self.did.append(f"dial {location.host_address} {request_id}")
        return succeed(AWAY)

    def changes(self, callback: Callable[[Change], None]) -> None:
        callback(Change(self.name, UNKNOWN_UUID, ChangeKind.HALTED))

    def policy(self, location: Location) -> Deferred[Policy | Refusal]:
        return succeed(Policy(idle_seconds=ord(self.name)))

    def vms(self) -> list[ListedVm]:
        names = {"a": ("web-2",), "b": ("web-1", "web-3")}.get(self.name, ())
        return [ListedVm(self.name, UNKNOWN_UUID, name, "Running", (), "", "", False) for name in names]

    def start(self) -> Deferred[None]:
        self.did.append("start")
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.did.append("stop")
        return succeed(None)


class PoolsTests(SynchronousTestCase):
    def pools(self, *answers: Answer) -> Pools:
        """Pools named a, b, c, … with these answers."""
        self.each = [_Pool(name, answer) for name, answer in zip("abc", answers, strict=False)]
        return Pools(list(self.each))

    def located(self, *answers: Answer) -> Location | Refusal:
        return self.successResultOf(self.pools(*answers).locate(UNKNOWN_UUID))

    def found(self, *answers: Answer) -> Location | Refusal:
        return self.successResultOf(self.pools(*answers).find("web-1"))

    def test_all_are_started_and_stopped(self) -> None:
        pools = self.pools(NOT_FOUND, NOT_FOUND)
        self.assertIsNone(self.successResultOf(pools.start()))
        self.assertIsNone(self.successResultOf(pools.stop()))
        self.assertEqual([each.did for each in self.each], [["start", "stop"]] * 2)

    # By uuid.

    def test_a_uuid_is_found_in_whichever_pool_has_it(self) -> None:
        self.assertEqual(self.located(NOT_FOUND, at("b")), at("b"))
        self.assertEqual(self.located(AWAY, at("b"), HALTED), at("b"))

    def test_find_knows_a_uuid_in_either_case(self) -> None:
        for uuid in (UNKNOWN_UUID, UNKNOWN_UUID.upper()):
            self.assertEqual(self.successResultOf(self.pools(AWAY, at("b")).find(uuid)), at("b"))

    def test_a_pool_that_hangs_does_not_delay_the_others(self) -> None:
        cancelled: list[object] = []
        hanging: Deferred[Any] = Deferred(cancelled.append)
        self.assertEqual(self.located(hanging, at("b")), at("b"))
        self.assertEqual(cancelled, [hanging])

    def test_a_pool_that_knows_the_vm_speaks_for_it(self) -> None:
        for answers in ((NOT_FOUND, HALTED), (HALTED, AWAY), (AWAY, HALTED, NOT_FOUND)):
            self.assertEqual(self.located(*answers), HALTED)

    def test_a_vm_does_not_exist_only_if_every_pool_says_so(self) -> None:
        self.assertEqual(self.located(NOT_FOUND, NOT_FOUND), NOT_FOUND)
        self.assertEqual(self.located(NOT_FOUND, AWAY), AWAY)
        self.assertEqual(self.located(AWAY, NOT_FOUND), AWAY)

    # By name.

    def test_a_name_that_one_pool_has(self) -> None:
        self.assertEqual(self.found(NOT_FOUND, at("b")), at("b"))
        self.assertEqual(self.found(HALTED, NOT_FOUND), HALTED)
        self.assertEqual(self.found(NOT_FOUND, NOT_FOUND), NOT_FOUND)

    def test_a_name_that_two_pools_have_is_ambiguous_running_or_not(self) -> None:
        for answers in ((at("a"), at("b")), (at("a"), HALTED), (HALTED, AWAY, at("c"))):
            answer = self.found(*answers)
            assert isinstance(answer, Refusal)
            self.assertEqual(answer.reason, Reason.VM_AMBIGUOUS)

    def test_no_name_is_unique_while_a_pool_is_away(self) -> None:
        for answers in ((at("a"), AWAY), (AWAY, NOT_FOUND), (AWAY, HALTED)):
            answer = self.found(*answers)
            assert isinstance(answer, Refusal)
            self.assertEqual(answer.reason, AWAY.reason)
            self.assertIn(AWAY.detail, answer.detail)

    def test_an_ambiguous_name_lists_the_candidates(self) -> None:
        answer = self.found(at("a"), HALTED, NOT_FOUND)
        assert isinstance(answer, Refusal)
        self.assertIn(f"pool a: {UNKNOWN_UUID}", answer.detail)
        self.assertIn(HALTED.detail, answer.detail)

    # Without asking.

    def knowing(self, *known: Location | Refusal | None) -> Pools:
        """Pools that know this, and would say something else if they were asked."""
        self.each = [_Pool(name, at(f"asked-{name}"), knows) for name, knows in zip("abc", known, strict=False)]
        return Pools(list(self.each))

    def test_a_uuid_that_one_pool_knows_is_not_asked_for(self) -> None:
        for known in ((NOT_FOUND, at("b")), (None, at("b")), (HALTED, at("b"))):
            self.assertEqual(self.successResultOf(self.knowing(*known).locate(UNKNOWN_UUID)), at("b"))
            self.assertEqual([each.did for each in self.each], [[], []])

    def test_a_name_that_one_pool_knows_and_no_other_can_have_is_not_asked_for(self) -> None:
        self.assertEqual(self.successResultOf(self.knowing(NOT_FOUND, at("b"), NOT_FOUND).find("web-1")), at("b"))
        self.assertEqual([each.did for each in self.each], [[], [], []])

    def test_what_is_not_known_for_sure_is_asked_for(self) -> None:
        for known in ((None, at("b")), (HALTED, at("b")), (at("a"), at("b")), (NOT_FOUND, NOT_FOUND), (NOT_FOUND, HALTED)):
            self.successResultOf(self.knowing(*known).find("web-1"))
            self.assertEqual([each.did for each in self.each], [["find"], ["find"]])
        self.successResultOf(self.knowing(NOT_FOUND, HALTED).locate(UNKNOWN_UUID))
        self.assertIn("locate", self.each[0].did)

    def test_a_name_is_no_uuid(self) -> None:
        self.assertEqual(self.successResultOf(self.knowing(at("a")).locate("web-1")), at("asked-a"))

    # All of them.

    def test_the_changes_of_all_pools_are_told(self) -> None:
        told: list[Change] = []
        self.pools(NOT_FOUND, NOT_FOUND).changes(told.append)
        self.assertEqual([change.pool for change in told], ["a", "b"])

    def test_the_policy_is_that_of_the_location_s_pool(self) -> None:
        pools = self.pools(NOT_FOUND, NOT_FOUND)
        self.assertEqual(self.successResultOf(pools.policy(at("b"))), Policy(idle_seconds=ord("b")))
        answer = self.successResultOf(pools.policy(at("z")))
        assert isinstance(answer, Refusal)
        self.assertEqual(answer.reason, Reason.HYPERVISOR_UNTRUSTED)

    def test_the_vms_of_all_pools_are_listed_by_name(self) -> None:
        self.assertEqual([vm.name for vm in self.pools(NOT_FOUND, NOT_FOUND).vms()], ["web-1", "web-2", "web-3"])

    # Dialling and giving up.

    def test_dials_in_the_pool_of_the_location(self) -> None:
        pools = self.pools(NOT_FOUND, NOT_FOUND)
        self.assertEqual(self.successResultOf(pools.dial(at("b"), "request")), AWAY)
        self.assertEqual([each.did for each in self.each], [[], ["dial 10.0.0.11 request"]])

    def test_a_pool_that_there_is_not_is_not_dialled(self) -> None:
        answer = self.successResultOf(self.pools(NOT_FOUND).dial(at("z"), "request"))
        assert isinstance(answer, Refusal)
        self.assertEqual(answer.reason, Reason.HYPERVISOR_UNTRUSTED)

    def test_cancelling_cancels_every_pool(self) -> None:
        for ask in ("find", "locate"):
            cancelled: list[object] = []
            hanging: list[Deferred[Any]] = [Deferred(cancelled.append), Deferred(cancelled.append)]
            asking = getattr(self.pools(*hanging), ask)(UNKNOWN_UUID if ask == "locate" else "web-1")
            asking.cancel()
            self.failureResultOf(asking, CancelledError)
            self.assertEqual(cancelled, hanging)

    def test_a_bug_in_a_pool_is_not_taken_for_an_answer(self) -> None:
        for ask, vm in (("find", "web-1"), ("locate", UNKNOWN_UUID)):
            broken: Deferred[Any] = Deferred()
            asking = getattr(self.pools(NOT_FOUND, broken), ask)(vm)
            broken.errback(ZeroDivisionError())
            self.failureResultOf(asking, ZeroDivisionError)
