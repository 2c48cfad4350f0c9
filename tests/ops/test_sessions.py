from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from xvpd.grants.grant import Grant
from xvpd.grants.memory import MemoryStore
from xvpd.grants.store import LEASE_SECONDS, Activity, Caps, ILease, Selector, Session
from xvpd.ops.sessions import LiveSession, Sessions
from xvpd.reason import Reason, Refusal
from xvpd.relay.relay import IRelaying, Relayed, Totals


def grant(vm: str = "vm-1", number: int = 1) -> Grant:
    return Grant(
        id=f"grant-{number}",
        digest=f"digest-{number}",
        vm_uuid=vm,
        vm_name="web-1",
        console_type="xvpvnc",
        issuer="portal",
        user="ada",
        issued_at=0.0,
        expires_at=600.0,
        uses=0,
        resume=300.0,
    )


def session(number: int = 1, vm: str = "vm-1") -> Session:
    return Session(f"session-{number}", grant(vm, number), "node", "host-1", "192.0.2.1", 0.0)


@implementer(IRelaying)
class Relaying:
    """A relay that notes how it is stopped."""

    def __init__(self) -> None:
        self.done: Deferred[Relayed] = Deferred()
        self.stopped: list[Reason] = []

    def totals(self) -> Totals:
        return Totals(10, 20)

    def last_input(self) -> float:
        return 5.0

    def stop(self, reason: Reason) -> None:
        self.stopped.append(reason)


@implementer(ILease)
class Lease:
    def __init__(self, seconds_left: float | None = None) -> None:
        self.seconds_left = seconds_left
        self.renewals: list[Activity] = []
        self.released = 0

    def renew(self, activity: Activity) -> Deferred[None]:
        self.renewals.append(activity)
        return succeed(None)

    def release(self) -> Deferred[None]:
        self.released += 1
        return succeed(None)


class LiveSessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.live = LiveSession(session())

    def test_work_that_is_done_gives_its_outcome(self) -> None:
        working = Deferred.fromCoroutine(self.live.unless_cut(succeed("a tunnel")))
        self.assertEqual(self.successResultOf(working), "a tunnel")

    def test_a_cut_cancels_the_work_and_says_why(self) -> None:
        cancelled: list[object] = []
        work: Deferred[str | Refusal] = Deferred(cancelled.append)
        working = Deferred.fromCoroutine(self.live.unless_cut(work))
        self.live.cut(Reason.REVOKED)
        self.assertEqual(self.successResultOf(working), Refusal(Reason.REVOKED))
        self.assertEqual(cancelled, [work])

    def test_work_begun_after_a_cut_is_cancelled_at_once(self) -> None:
        self.live.cut(Reason.KILLED)
        working = Deferred.fromCoroutine(self.live.unless_cut(Deferred()))
        self.assertEqual(self.successResultOf(working), Refusal(Reason.KILLED))

    def test_a_relay_is_stopped_by_a_cut(self) -> None:
        relaying = Relaying()
        self.live.relayed_by(relaying)
        self.live.cut(Reason.REVOKED)
        self.assertEqual(relaying.stopped, [Reason.REVOKED])

    def test_a_relay_begun_after_a_cut_is_stopped_at_once(self) -> None:
        self.live.cut(Reason.REVOKED)
        relaying = Relaying()
        self.live.relayed_by(relaying)
        self.assertEqual(relaying.stopped, [Reason.REVOKED])

    def test_the_first_reason_counts(self) -> None:
        relaying = Relaying()
        self.live.relayed_by(relaying)
        self.live.cut(Reason.REVOKED)
        self.live.cut(Reason.KILLED)
        self.assertEqual(relaying.stopped, [Reason.REVOKED])

    def test_activity_is_the_relays(self) -> None:
        self.assertEqual(self.live.activity(), Activity())
        self.live.relayed_by(Relaying())
        self.assertEqual(self.live.activity(), Activity(10, 20, 5.0))

    def test_the_host_is_noted_once_it_is_known(self) -> None:
        self.live.at_host("host-2", "lab")
        self.assertEqual((self.live.session.host, self.live.session.pool), ("host-2", "lab"))


class SessionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.sessions = Sessions(self.clock, self.store)
        self.sessions.startService()
        self.addCleanup(self.sessions.stopService)

    def live(self, number: int, vm: str = "vm-1") -> tuple[LiveSession, Relaying]:
        live, relaying = self.sessions.register(session(number, vm)), Relaying()
        live.relayed_by(relaying)
        return live, relaying

    def test_registered_sessions_are_listed_until_they_are_closed(self) -> None:
        first, _ = self.live(1)
        second, _ = self.live(2)
        self.assertEqual(self.sessions.sessions(), [first.session, second.session])
        self.sessions.close(first)
        self.assertEqual(self.sessions.sessions(), [second.session])
        self.assertEqual(len(self.sessions), 1)

    def test_a_selector_cuts_the_sessions_it_means_and_no_other(self) -> None:
        _, meant = self.live(1, "vm-1")
        _, other = self.live(2, "vm-2")
        self.sessions.cut(Selector("vm", "vm-1"), Reason.REVOKED)
        self.assertEqual((meant.stopped, other.stopped), ([Reason.REVOKED], []))

    def test_a_revocation_in_the_store_cuts_the_session(self) -> None:
        _, relaying = self.live(1)
        self.store.revoke(Selector("vm", "vm-1"))
        self.assertEqual(relaying.stopped, [Reason.REVOKED])

    def test_leases_are_renewed_before_they_lapse_with_the_sessions_activity(self) -> None:
        live, _ = self.live(1)
        lease = Lease()
        self.sessions.leased(live, lease)
        self.clock.pump([LEASE_SECONDS / 6] * 6)
        self.assertEqual(lease.renewals, [Activity(10, 20, 5.0)] * 3)

    def test_closing_a_session_releases_its_lease(self) -> None:
        live, _ = self.live(1)
        lease = self.successResultOf(self.store.lease(live.session, Caps(per_vm=1)))
        assert not isinstance(lease, Refusal)
        self.sessions.leased(live, lease)
        self.sessions.close(live)
        self.assertEqual(self.successResultOf(self.store.sessions()), [])

    def test_a_session_is_cut_when_its_max_duration_is_over(self) -> None:
        live, relaying = self.live(1)
        self.sessions.leased(live, Lease(seconds_left=60.0))
        self.clock.advance(59)
        self.assertEqual(relaying.stopped, [])
        self.clock.advance(1)
        self.assertEqual(relaying.stopped, [Reason.MAX_DURATION])
        self.sessions.close(live)

    def test_a_session_without_max_duration_is_not(self) -> None:
        live, relaying = self.live(1)
        self.sessions.leased(live, Lease())
        self.clock.advance(10 * 365 * 86_400)
        self.assertEqual(relaying.stopped, [])

    def test_no_timer_is_left_of_a_session_that_was_closed_before(self) -> None:
        self.sessions.stopService()
        live, _ = self.live(1)
        self.sessions.leased(live, Lease(seconds_left=60.0))
        self.sessions.close(live)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.sessions.startService()

    def test_empty_fires_when_the_last_session_is_closed(self) -> None:
        self.successResultOf(self.sessions.empty())
        first, _ = self.live(1)
        second, _ = self.live(2)
        empty = self.sessions.empty()
        self.sessions.close(first)
        self.assertNoResult(empty)
        self.sessions.close(second)
        self.successResultOf(empty)

    def test_waiting_for_empty_can_be_given_up(self) -> None:
        live, _ = self.live(1)
        waiting = self.sessions.empty().addTimeout(1, self.clock)
        self.clock.advance(1)
        self.failureResultOf(waiting, TimeoutError)
        self.sessions.close(live)

    def test_everything_is_cut_at_the_end(self) -> None:
        relays = [self.live(number)[1] for number in range(3)]
        self.sessions.cut_all(Reason.STOPPED)
        self.assertEqual([relaying.stopped for relaying in relays], [[Reason.STOPPED]] * 3)
