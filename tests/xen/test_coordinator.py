"""`xvpd.xen.coordinator`: one xapi session, with whoever is the pool's coordinator."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.sim.pools import certificates
from tests.xen.lab import LabCase
from xvpd.reason import Reason, Refusal
from xvpd.sim.faults import EVERYWHERE, ApiFault
from xvpd.sim.pool import SimulatedPool
from xvpd.xen.coordinator import FIRST_PAUSE, LONGEST_PAUSE, Coordinator
from xvpd.xen.settings import Deadlines
from xvpd.xen.trust import Pins
from xvpd.xen.xapi import ApiError, Xapi

LOGIN = "session.login_with_password"


class _Reactor:
    """The reactor, with a clock that stands still for those who only ask for the time."""

    def __init__(self) -> None:
        self.clock = Clock()

    def seconds(self) -> float:
        return self.clock.seconds()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class CoordinatorCase(LabCase):
    def coordinator(self, pool: SimulatedPool, deadlines: Deadlines | None = None, **settings: Any) -> Coordinator:
        self.reactor = _Reactor()
        coordinator = Coordinator(self.reactor, self.settings(pool, **settings), deadlines or Deadlines(), lambda: 1.0)
        coordinator.start()
        self.addCleanup(coordinator.stop)
        return coordinator

    async def failure(self, asking: Deferred[Any], reason: Reason, *words: str) -> ApiError:
        with self.assertRaises(ApiError) as raised:
            await asking
        error: ApiError = raised.exception
        self.assertEqual(error.reason, reason, error.detail)
        for word in words:
            self.assertIn(word, error.detail)
        return error


class LoginTests(CoordinatorCase):
    async def test_logs_in_once_for_all_who_ask(self) -> None:
        pool = self.pool()
        logins = self.logins(pool)
        coordinator = self.coordinator(pool)
        asking = [coordinator.logged_in() for _ in range(5)]
        sessions = {(await each).session.ref for each in asking}
        sessions.add((await coordinator.logged_in()).session.ref)
        self.assertEqual(sessions, set(pool.state.xapi_sessions))
        self.assertEqual(logins, ["xvpd"])

    async def test_one_who_gives_up_does_not_end_the_attempt(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        first, second = coordinator.logged_in(), coordinator.logged_in()
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.assertIn((await second).session.ref, pool.state.xapi_sessions)

    async def test_a_member_leads_to_the_coordinator(self) -> None:
        pool = self.pool(hosts=3)
        pool.state.fail_over(pool.state.host_at(pool.addresses[2]))
        logged_in = await self.coordinator(pool).logged_in()
        self.assertEqual(logged_in.api.address, pool.addresses[2])

    async def test_a_coordinator_that_is_not_configured_is_not_followed(self) -> None:
        pool = self.pool()
        pool.state.fail_over(pool.state.host_at(pool.addresses[1]))
        coordinator = self.coordinator(pool, hosts=pool.addresses[:1])
        await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_UNREACHABLE, pool.addresses[1])
        self.assertEqual(pool.connections(pool.addresses[1]), 0)

    async def test_a_host_that_is_away_is_passed_over(self) -> None:
        pool = self.pool()
        await pool.lose_host(pool.addresses[0])
        pool.state.fail_over(pool.state.host_at(pool.addresses[1]))
        logged_in = await self.coordinator(pool).logged_in()
        self.assertEqual(logged_in.api.address, pool.addresses[1])

    async def test_a_host_that_is_not_trusted_is_passed_over(self) -> None:
        pool = self.pool()
        pool.state.fail_over(pool.state.host_at(pool.addresses[1]))
        pool.present(pool.addresses[0], certificates()[2])
        logged_in = await self.coordinator(pool).logged_in()
        self.assertEqual(logged_in.api.address, pool.addresses[1])

    async def test_every_host_says_why_it_was_none(self) -> None:
        pool = self.pool()
        await pool.lose_host(pool.addresses[0])
        coordinator = self.coordinator(pool, trust=Pins(frozenset({"ab" * 32})))
        await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_UNTRUSTED, *pool.addresses, "refused", "AB:AB")

    async def test_a_wrong_password_is_tried_once_and_on_one_host(self) -> None:
        pool = self.pool()
        logins = self.logins(pool)
        coordinator = self.coordinator(pool, password="a-canary-of-a-password")
        error = await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_REFUSED, "SESSION_AUTHENTICATION_FAILED", "lab")
        self.assertNotIn("canary", error.detail)
        await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_REFUSED, "SESSION_AUTHENTICATION_FAILED")
        self.assertEqual(len(logins), 1)

    async def test_failed_attempts_come_at_ever_longer_intervals(self) -> None:
        pool = self.pool()
        logins = self.logins(pool)
        coordinator = self.coordinator(pool, password="wrong")
        pause = FIRST_PAUSE
        for attempt in range(1, 9):
            await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_REFUSED)
            self.assertEqual(len(logins), attempt)
            self.reactor.clock.advance(pause * 0.99)
            await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_REFUSED)
            self.assertEqual(len(logins), attempt)
            self.reactor.clock.advance(pause * 0.02)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def test_a_success_makes_the_next_pause_short_again(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        for _ in range(3):
            pool.faults.order_api(EVERYWHERE, ApiFault(LOGIN, failure=("INTERNAL_ERROR", "x"), times=1))
            await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_REFUSED)
            self.reactor.clock.advance(FIRST_PAUSE)
            coordinator.forget(await coordinator.logged_in())

    async def test_a_silent_host_is_left_for_the_next(self) -> None:
        pool = self.pool()
        pool.state.fail_over(pool.state.host_at(pool.addresses[1]))
        pool.faults.order_api(pool.addresses[0], ApiFault(hang=True))
        logged_in = await self.coordinator(pool, Deadlines(login=1.0)).logged_in()
        self.assertEqual(logged_in.api.address, pool.addresses[1])


class ReadyTests(CoordinatorCase):
    async def test_is_ready_while_somebody_is_logged_in(self) -> None:
        coordinator = self.coordinator(self.pool())
        await coordinator.logged_in()
        self.assertIsNone(coordinator.ready())

    async def test_asking_has_a_login_tried(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        self.assert_refused(coordinator.ready(), Reason.HYPERVISOR_UNREACHABLE, "lab", "not tried yet")
        await self.until(lambda: coordinator.ready() is None)
        self.assertEqual(len(pool.state.xapi_sessions), 1)

    async def test_says_why_nobody_could_log_in_and_has_it_tried_again_in_due_time(self) -> None:
        pool = self.pool()
        logins = self.logins(pool)
        pool.faults.order_api(EVERYWHERE, ApiFault(LOGIN, failure=("INTERNAL_ERROR", "x"), times=1))
        coordinator = self.coordinator(pool)
        await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_REFUSED)
        for _ in range(3):
            self.assert_refused(coordinator.ready(), Reason.HYPERVISOR_REFUSED, "INTERNAL_ERROR")
        self.assertEqual(logins, [])
        self.reactor.clock.advance(FIRST_PAUSE)
        await self.until(lambda: coordinator.ready() is None)
        self.assertEqual(len(logins), 1)

    async def test_is_not_ready_once_the_xapi_session_is_gone(self) -> None:
        coordinator = self.coordinator(self.pool())
        coordinator.forget(await coordinator.logged_in())
        self.assert_refused(coordinator.ready(), Reason.HYPERVISOR_UNREACHABLE)
        await self.until(lambda: coordinator.ready() is None)

    async def test_is_not_ready_once_stopped(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        await coordinator.logged_in()
        await coordinator.stop()
        self.assertIsInstance(coordinator.ready(), Refusal)
        self.assertEqual(pool.state.xapi_sessions, {})

    async def test_a_bug_of_ours_leaves_nobody_waiting(self) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        pool = self.pool()
        coordinator = self.coordinator(pool)
        self.patch(Xapi, "log_in", broken)
        asking = [coordinator.logged_in(), coordinator.logged_in()]
        for each in asking:
            await self.failure(each, Reason.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_is_ready_when_it_is_logged_in(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault(LOGIN, failure=("HOST_STILL_BOOTING",), times=len(pool.addresses)))
        coordinator = self.coordinator(pool)
        refusal = coordinator.ready()
        assert refusal is not None
        self.assertEqual(refusal.reason, Reason.HYPERVISOR_UNREACHABLE)
        await self.until(lambda: "booting" in (coordinator.ready() or refusal).detail)
        self.reactor.clock.advance(FIRST_PAUSE)
        await self.until(lambda: coordinator.ready() is None)


class CallTests(CoordinatorCase):
    async def test_a_call(self) -> None:
        pool = self.pool()
        vm = pool.state.vm_named("web-1")
        self.assertEqual(await self.coordinator(pool).call("VM.get_by_name_label", "web-1"), [vm])

    async def test_an_xapi_session_that_has_ended_is_opened_again(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        logins = self.logins(pool)
        await coordinator.call("pool.get_all")
        pool.state.expire_sessions()
        calls = [coordinator.call("pool.get_all") for _ in range(5)]
        for call in calls:
            self.assertEqual(await call, [pool.state.pool])
        self.assertEqual(len(logins), 2)
        self.assertEqual(len(pool.state.xapi_sessions), 1)

    async def test_a_pool_that_forgets_every_session_at_once_is_asked_twice_and_no_more(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault("pool.get_all", failure=("SESSION_INVALID", "x")))
        logins = self.logins(pool)
        await self.failure(self.coordinator(pool).call("pool.get_all"), Reason.HYPERVISOR_REFUSED, "SESSION_INVALID")
        self.assertEqual(len(logins), 2)

    async def test_another_coordinator_is_found(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        await coordinator.call("pool.get_all")
        pool.state.fail_over(pool.state.host_at(pool.addresses[1]))
        self.assertEqual(await coordinator.call("pool.get_all"), [pool.state.pool])
        self.assertEqual(len(pool.state.xapi_sessions), 1)  # the one that was lost is ended where it can be

    async def test_a_coordinator_that_is_lost_is_replaced(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        await coordinator.call("pool.get_all")
        await pool.lose_host(pool.addresses[0])
        pool.state.fail_over(pool.state.host_at(pool.addresses[1]))
        self.assertEqual(await coordinator.call("pool.get_all"), [pool.state.pool])

    async def test_a_refusal_of_the_call_is_not_repeated(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault("pool.get_all", failure=("RBAC_PERMISSION_DENIED", "x"), times=1))
        coordinator = self.coordinator(pool)
        await self.failure(coordinator.call("pool.get_all"), Reason.HYPERVISOR_REFUSED, "RBAC_PERMISSION_DENIED")
        self.assertEqual(await coordinator.call("pool.get_all"), [pool.state.pool])

    async def test_a_call_that_hangs_is_given_up(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault("pool.get_all", hang=True))
        coordinator = self.coordinator(pool, Deadlines(call=0.05))
        await self.failure(coordinator.call("pool.get_all"), Reason.HYPERVISOR_SLOW)


class StopTests(CoordinatorCase):
    async def test_logs_out(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool)
        await coordinator.call("pool.get_all")
        await coordinator.stop()
        self.assertEqual(pool.state.xapi_sessions, {})
        await self.until(lambda: pool.connections(pool.addresses[0]) == 0)

    async def test_an_attempt_that_is_under_way_leaves_no_session(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault(LOGIN, delay=0.05))
        coordinator = self.coordinator(pool)
        asking = coordinator.logged_in()
        await coordinator.stop()
        await asking
        self.assertEqual(pool.state.xapi_sessions, {})

    async def test_hanging_calls_and_a_hanging_logout_do_not_hold_it_up(self) -> None:
        pool = self.pool()
        coordinator = self.coordinator(pool, Deadlines(logout=0.1))
        await coordinator.logged_in()
        pool.faults.order_api(EVERYWHERE, ApiFault(hang=True))
        calls = [coordinator.call("pool.get_all") for _ in range(10)]
        await coordinator.stop()
        for call in calls:
            await self.failure(call, Reason.HYPERVISOR_UNREACHABLE)
        await self.until(lambda: pool.connections(pool.addresses[0]) == 0)

    async def test_a_hanging_attempt_does_not_hold_it_up(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault(hang=True))
        coordinator = self.coordinator(pool, Deadlines(logout=0.1))
        asking = coordinator.logged_in()
        await coordinator.stop()
        await self.failure(asking, Reason.HYPERVISOR_UNREACHABLE)

    async def test_nothing_is_asked_afterwards(self) -> None:
        pool = self.pool()
        logins = self.logins(pool)
        coordinator = self.coordinator(pool)
        await coordinator.stop()
        await self.failure(coordinator.logged_in(), Reason.HYPERVISOR_UNREACHABLE, "stopping")
        await self.failure(coordinator.call("pool.get_all"), Reason.HYPERVISOR_UNREACHABLE, "stopping")
        self.assertEqual(logins, [])
