from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.ops.test_sessions import Relaying, session
from xvpd.grants.memory import MemoryStore
from xvpd.grants.store import LEASE_SECONDS
from xvpd.ops.sessions import Sessions
from xvpd.ops.store_watch import GRACE_SECONDS, StoreWatch
from xvpd.reason import Reason, Refusal


class StoreThatGoesAway(MemoryStore):
    """A store that is away when a test says so."""

    away: Refusal | None = None

    def ready(self) -> Refusal | None:
        return self.away


class StoreWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = StoreThatGoesAway(self.clock)
        self.sessions = Sessions(self.clock, self.store)

    def watch(self, close: bool) -> None:
        """Begin to watch the store."""
        watch = StoreWatch(self.clock, self.store, self.sessions, close=close)
        watch.startService()
        self.addCleanup(watch.stopService)

    def live(self, number: int = 1) -> Relaying:
        """A live session's relay."""
        relaying = Relaying()
        self.sessions.register(session(number)).relayed_by(relaying)
        return relaying

    def go(self) -> None:
        """Let the store go away."""
        self.store.away = Refusal(Reason.STORE_AWAY, "10.0.0.5: refused")

    def wait(self, seconds: float) -> None:
        """Let time pass in the small steps of a real clock."""
        self.clock.pump([0.5] * round(seconds * 2))

    def test_sessions_are_closed_when_the_store_was_away_for_the_grace_period(self) -> None:
        self.watch(close=True)
        relaying = self.live()
        self.go()
        self.wait(GRACE_SECONDS)
        self.assertEqual(relaying.stopped, [])
        self.wait(1)
        self.assertEqual(relaying.stopped, [Reason.STORE_AWAY])

    def test_a_session_that_comes_up_later_is_closed_as_well(self) -> None:
        self.watch(close=True)
        self.go()
        self.wait(GRACE_SECONDS + 5)
        relaying = self.live()
        self.wait(1)
        self.assertEqual(relaying.stopped, [Reason.STORE_AWAY])

    def test_sessions_are_kept_when_that_is_wanted(self) -> None:
        self.watch(close=False)
        relaying = self.live()
        self.go()
        self.wait(10 * GRACE_SECONDS)
        self.assertEqual(relaying.stopped, [])

    def test_a_store_that_is_back_in_time_costs_no_session_and_has_its_whole_grace_again(self) -> None:
        self.watch(close=True)
        relaying = self.live()
        for _ in range(3):
            self.go()
            self.wait(GRACE_SECONDS - 1)
            self.store.away = None
            self.wait(1)
        self.assertEqual(relaying.stopped, [])

    def test_the_grace_is_over_before_other_nodes_stop_waiting_for_this_one(self) -> None:
        self.assertLess(GRACE_SECONDS, LEASE_SECONDS)

    def test_the_log_says_when_it_goes_and_when_it_is_back_and_what_becomes_of_live_consoles(self) -> None:
        self.watch(close=False)
        with capturedLogs() as events:
            self.go()
            self.wait(5)
            self.store.away = None
            self.wait(5)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "the store cannot be used, no console can be opened, and live ones go on: store_away: 10.0.0.5: refused",
                "the store can be used again, after 5 s",
            ],
        )

    def test_the_log_says_when_live_consoles_are_closed(self) -> None:
        self.watch(close=True)
        self.go()
        with capturedLogs() as events:
            self.wait(GRACE_SECONDS + 5)
        (line,) = [str(formatEvent(event)) for event in events]
        self.assertIn(f"are closed in {GRACE_SECONDS:g} s", line)

    def test_nothing_is_watched_any_more_once_it_is_stopped(self) -> None:
        watch = StoreWatch(self.clock, self.store, self.sessions, close=True)
        watch.startService()
        watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
