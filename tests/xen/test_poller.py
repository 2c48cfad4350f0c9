"""`xvpd.xen.poller`: the pool's events are followed, whatever happens to the poll."""

from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock

from tests.sim.pools import certificates
from tests.xen.lab import LabCase
from xvpd.reason import Reason
from xvpd.sim.faults import EVERYWHERE, ApiFault
from xvpd.sim.pool import SimulatedPool, SimulatedVm
from xvpd.xen.coordinator import Coordinator
from xvpd.xen.hypervisor import Change, ChangeKind
from xvpd.xen.poller import FIRST_PAUSE, LONGEST_PAUSE, Poller
from xvpd.xen.settings import Deadlines

POLL = "event.from"


class _Reactor:
    """The reactor, with pauses that a test ends."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pauses: list[float] = []

    def seconds(self) -> float:
        return self.clock.seconds()

    def callLater(self, delay: float, what: Any, *arguments: Any, **keywords: Any) -> Any:
        if getattr(what, "__qualname__", "") == "Deferred.callback" and delay:  # what deferLater calls
            self.pauses.append(delay)
            return self.clock.callLater(delay, what, *arguments, **keywords)
        return reactor.callLater(delay, what, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class PollerCase(LabCase):
    async def following(self, lab: SimulatedPool, deadlines: Deadlines | None = None, **settings: Any) -> Poller:
        self.reactor = _Reactor()
        self.changes: list[Change] = []
        self.looked: list[int] = []
        deadlines = deadlines or Deadlines()
        self.coordinator = Coordinator(self.reactor, self.settings(lab, **settings), deadlines, lambda: 1.0)
        poller = Poller(
            self.reactor,
            self.settings(lab, **settings),
            deadlines,
            self.coordinator,
            told=self.changes.append,
            looked=lambda: self.looked.append(len(poller.table.hosts)),
            chance=lambda: 1.0,
        )
        self.addCleanup(self.coordinator.stop)
        self.addCleanup(poller.stop)
        self.addCleanup(lab.faults.lift)
        self.coordinator.start()
        await poller.start()
        return poller

    async def again(self, poller: Poller) -> None:
        """Wait for the pause that follows a failure, end it, and wait for the events."""
        await self.until(lambda: not poller.fresh())
        while not poller.fresh():
            self.reactor.clock.advance(1.0)
            await self.until(lambda: poller.fresh() or self.reactor.clock.getDelayedCalls())


class FollowingTests(PollerCase):
    async def test_the_first_poll_has_everything(self) -> None:
        poller = await self.following(self.pool())
        self.assertTrue(poller.fresh())
        self.assertEqual({vm.name for vm in poller.table.vms()}, {"web-1", "web-2", "db-1", "legacy-pv", "build-agent"})
        self.assertEqual(self.looked, [2])
        self.assertEqual(self.changes, [])

    async def test_later_polls_have_what_changed(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        lab.add_vm(SimulatedVm("newcomer"))
        lab.state.database.destroy(lab.state.vm_named("build-agent"))
        await self.until(lambda: self.changes)
        self.assertEqual([change.kind for change in self.changes], [ChangeKind.DESTROYED])
        self.assertIn("newcomer", {vm.name for vm in poller.table.vms()})

    async def test_many_changes_at_once(self) -> None:
        lab = self.pool(vms=[SimulatedVm(f"vm-{number}") for number in range(450)])
        await self.following(lab)
        for number in range(450):
            lab.state.do(lab.state.vm_named(f"vm-{number}"), "hard_shutdown")
        await self.until(lambda: len(self.changes) == 450)

    async def test_a_host_that_joins_or_leaves_is_looked_at(self) -> None:
        lab = self.pool()
        await self.following(lab)
        host = lab.state.add_host("host-3", "127.0.0.3")
        await self.until(lambda: self.looked[-1] == 3)
        lab.state.database.destroy(host)
        await self.until(lambda: self.looked[-1] == 2)

    async def test_a_poll_in_which_nothing_happens_is_followed_by_another(self) -> None:
        lab = self.pool()
        poller = await self.following(lab, Deadlines(poll=0.05))
        self.reactor.clock.advance(59)
        self.assertTrue(poller.fresh())
        before = poller._answered_at
        await self.until(lambda: poller._answered_at != before)
        self.reactor.clock.advance(2)
        self.assertTrue(poller.fresh())

    async def test_an_old_answer_says_nothing(self) -> None:
        poller = await self.following(self.pool())
        self.reactor.clock.advance(60)
        self.assertFalse(poller.fresh())

    async def test_a_record_that_cannot_be_read_is_left_out(self) -> None:
        lab = self.pool()
        lab.state.database.modify(lab.state.vm_named("web-1"), power_state="Dancing")
        poller = await self.following(lab)
        self.assertNotIn("web-1", {vm.name for vm in poller.table.vms()})
        lab.state.database.modify(lab.state.vm_named("web-1"), power_state="Running")
        await self.until(lambda: "web-1" in {vm.name for vm in poller.table.vms()})
        self.assertEqual(self.changes, [])


class FailingTests(PollerCase):
    """Whatever happens to a poll, the next begins anew and finds what changed meanwhile."""

    def has_paused(self, count: int) -> bool:
        return len(self.reactor.pauses) == count

    async def recovers(self, poller: Poller, lab: SimulatedPool) -> None:
        lab.state.do(lab.state.vm_named("web-2"), "suspend")
        await self.again(poller)
        self.assertEqual([change.kind for change in self.changes], [ChangeKind.SUSPENDED])
        lab.state.do(lab.state.vm_named("web-1"), "suspend")
        await self.until(lambda: len(self.changes) == 2)

    async def test_an_xapi_session_that_ends_during_the_poll(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        lab.state.expire_sessions()
        await self.recovers(poller, lab)
        self.assertEqual(len(lab.state.xapi_sessions), 1)

    async def test_a_token_that_is_not_understood(self) -> None:
        lab = self.pool()
        fault = ApiFault(POLL, failure=("EVENT_FROM_TOKEN_PARSE_FAILURE", "x"), times=1)
        poller = await self.following(lab)
        lab.faults.order_api(EVERYWHERE, fault)
        lab.state.add_vm("an event, that the poll may end")
        await self.recovers(poller, lab)

    async def test_another_coordinator(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        await self.recovers(poller, lab)
        self.assertEqual((await self.coordinator.logged_in()).api.address, lab.addresses[1])

    async def test_a_coordinator_that_is_lost(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        await lab.lose_host(lab.addresses[0])
        await self.recovers(poller, lab)

    async def test_a_coordinator_that_hangs(self) -> None:
        lab = self.pool()
        poller = await self.following(lab, Deadlines(poll=0.05, poll_late=0.2, login=0.5))
        lab.faults.order_api(lab.addresses[0], ApiFault(hang=True))
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        await self.recovers(poller, lab)
        self.assertEqual((await self.coordinator.logged_in()).api.address, lab.addresses[1])

    async def test_answers_that_are_none(self) -> None:
        lab = self.pool()
        lab.state.database.modify(lab.state.vm_named("web-1"), power_state="Running")
        poller = await self.following(lab)
        lab.faults.order_api(EVERYWHERE, ApiFault(POLL, failure=("RBAC_PERMISSION_DENIED", "x"), times=2))
        lab.state.add_vm("an event, that the poll may end")
        await self.recovers(poller, lab)

    async def test_pauses_grow_and_shrink_again(self) -> None:
        lab = self.pool()
        lab.faults.order_api(EVERYWHERE, ApiFault(POLL, failure=("INTERNAL_ERROR", "x")))
        poller = await self.following(lab)
        for count in range(1, 9):
            await self.until(partial(self.has_paused, count))
            self.assertEqual(self.reactor.pauses[-1], min(FIRST_PAUSE * 2 ** (count - 1), LONGEST_PAUSE))
            self.reactor.clock.advance(LONGEST_PAUSE)
        lab.faults.lift()
        await self.until(poller.fresh)
        lab.state.add_vm("an event")
        await self.until(lambda: "an event" in {vm.name for vm in poller.table.vms()})
        so_far = len(self.reactor.pauses)
        lab.state.expire_sessions()
        await self.until(lambda: len(self.reactor.pauses) > so_far)
        self.assertEqual(self.reactor.pauses[-1], FIRST_PAUSE)

    async def test_starts_though_nobody_answers(self) -> None:
        lab = self.pool()
        await lab.stop()
        poller = await self.following(lab)
        self.assertFalse(poller.fresh())

    async def test_a_host_that_is_not_trusted_is_not_polled(self) -> None:
        lab = self.pool()
        for address in lab.addresses:
            lab.present(address, certificates()[2])
        self.assertFalse((await self.following(lab)).fresh())
        refusal = self.coordinator.ready()
        assert refusal is not None
        self.assertEqual(refusal.reason, Reason.HYPERVISOR_UNTRUSTED)


class StoppingTests(PollerCase):
    async def test_a_poll_is_ended(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        await poller.stop()
        self.assertFalse(poller.fresh())
        await self.coordinator.stop()
        await self.until(lambda: not any(map(lab.connections, lab.addresses)))

    async def test_a_seed_that_is_under_way_is_ended(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        await self.until(lambda: lab.state.session_ended)  # a poll waits for that
        lab.faults.order_api(EVERYWHERE, ApiFault(POLL, hang=True))
        lab.state.expire_sessions()
        await self.until(lambda: self.reactor.pauses)
        self.reactor.clock.advance(FIRST_PAUSE)
        await poller.stop()
        self.assertFalse(poller.fresh())

    async def test_whoever_is_told_may_stop_it(self) -> None:
        lab = self.pool()
        poller = await self.following(lab)
        stopped: list[Any] = []
        poller._told = lambda change: stopped.append(poller.stop())
        lab.state.do(lab.state.vm_named("web-1"), "suspend")
        lab.state.do(lab.state.vm_named("web-2"), "suspend")
        await self.until(lambda: stopped)
        await stopped[0]
        self.assertEqual(len(stopped), 1)
