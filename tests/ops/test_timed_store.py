from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.contract.test_store import AllPromises
from tests.grants.samples import a_grant, a_session
from xvpd.grants.memory import MemoryStore, Shared
from xvpd.grants.store import Activity, Caps, ITokenStore, Selector
from xvpd.ops.timed_store import TimedStore
from xvpd.reason import Reason, Refusal


class TimedStoreKeepsEveryPromise(AllPromises, TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000.0)

    async def nodes(self, count: int) -> list[ITokenStore]:
        shared = Shared()
        stores = [TimedStore(self.clock, MemoryStore(self.clock, shared), lambda op, seconds: None) for _ in range(count)]
        for store in stores:
            await store.start()
            self.addCleanup(store.stop)
        return list(stores)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class Timing(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, float]] = []
        self.inner = MemoryStore(self.clock)
        self.store = TimedStore(self.clock, self.inner, lambda op, seconds: self.told.append((op, seconds)))

    def test_every_operation_is_told_of_by_name(self) -> None:
        grant = a_grant()
        self.store.issue(grant)
        self.store.redeem(grant.digest, "s1", "192.0.2.7")
        self.store.redeem(grant.digest, "s2", "192.0.2.7")
        lease = self.successResultOf(self.store.lease(a_session("s1", grant), Caps()))
        assert not isinstance(lease, Refusal)
        lease.renew(Activity())
        self.store.grants(None)
        self.store.sessions()
        self.store.revoke(Selector("session", "s1"))
        lease.release()
        self.store.ended(grant, "s1", Reason.KILLED)
        self.store.give_back(grant, "s2")
        names = "issue redeem redeem lease renew grants sessions revoke release ended give_back"
        self.assertEqual(self.told, [(name, 0.0) for name in names.split()])

    def test_it_is_told_how_long_the_answer_took(self) -> None:
        answer: Deferred[None] = Deferred()
        self.patch(self.inner, "issue", lambda _: answer)
        self.store.issue(a_grant())
        self.clock.advance(0.25)
        self.assertEqual(self.told, [])
        answer.callback(None)
        self.assertEqual(self.told, [("issue", 0.25)])

    def test_what_is_given_up_is_told_of_as_well_and_given_up_in_the_store(self) -> None:
        cancelled: list[object] = []
        answer: Deferred[None] = Deferred(cancelled.append)
        self.patch(self.inner, "issue", lambda _: answer)
        issuing = self.store.issue(a_grant())
        self.clock.advance(2)
        issuing.cancel()
        self.failureResultOf(issuing)
        self.assertEqual((cancelled, self.told), ([answer], [("issue", 2.0)]))

    def test_a_lease_that_was_refused_is_no_lease(self) -> None:
        grant = a_grant()
        self.store.issue(grant)
        self.store.revoke(Selector("grant", grant.id))
        lease = self.successResultOf(self.store.lease(a_session("s1", grant), Caps()))
        self.assertEqual(lease, Refusal(Reason.TOKEN_REVOKED))
