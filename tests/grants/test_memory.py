"""`xvpd.grants.memory`: what is the memory store's own, beside the promises of every store."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.grants.samples import a_grant
from xvpd.grants.memory import MemoryStore
from xvpd.grants.store import Selector
from xvpd.reason import Reason, Refusal


class MemoryStoreTests(SynchronousTestCase):
    """A store for one process."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)

    def test_answers_at_once(self) -> None:
        self.successResultOf(self.store.start())
        self.assertIsNone(self.successResultOf(self.store.issue(a_grant())))
        self.successResultOf(self.store.redeem(a_grant().digest, "s1", "192.0.2.7"))
        self.successResultOf(self.store.stop())

    def test_needs_no_timer(self) -> None:
        self.store.start()
        self.store.issue(a_grant())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stores_that_share_nothing_know_nothing_of_each_other(self) -> None:
        self.store.issue(a_grant())
        outcome = self.successResultOf(MemoryStore(self.clock).redeem(a_grant().digest, "s1", "192.0.2.7"))
        self.assertEqual(outcome, Refusal(Reason.TOKEN_UNKNOWN))

    def test_a_watcher_may_stop_the_store(self) -> None:
        heard: list[Selector] = []

        def stop(selector: Selector, reason: Reason) -> None:
            self.store.stop()

        self.store.watch(stop)
        self.store.watch(lambda selector, reason: heard.append(selector))
        self.store.revoke(Selector("vm", "v"))
        self.store.revoke(Selector("vm", "w"))
        self.assertEqual(heard, [Selector("vm", "v")])

    def test_stopping_twice_is_no_error(self) -> None:
        self.store.watch(lambda selector, reason: None)
        for _ in range(2):
            self.successResultOf(self.store.stop())
