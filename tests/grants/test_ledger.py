"""`xvpd.grants.ledger`: that nothing in it grows for ever. Its rules are tested as those of the store that has it."""

from twisted.trial.unittest import SynchronousTestCase

from tests.grants.samples import TTL, a_grant, a_session
from xvpd.grants.ledger import Ledger
from xvpd.grants.store import LEASE_SECONDS, TOMBSTONE_SECONDS, Activity, Caps, Selector
from xvpd.reason import Refusal

NOW = 1_700_000_000.0
MUCH_LATER = NOW + TTL + 3 * TOMBSTONE_SECONDS


class ForgettingTests(SynchronousTestCase):
    """What is over leaves no trace."""

    def setUp(self) -> None:
        self.ledger = Ledger()

    def test_a_thousand_of_everything_leave_nothing(self) -> None:
        for n in range(1_000):
            grant = a_grant(f"token-{n}", uses=n % 3, vm_uuid=f"vm-{n % 7}", user=f"user-{n % 5 or ''}")
            session = a_session(f"s{n}", grant, host=f"host-{n % 3}")
            self.assertTrue(self.ledger.issue(NOW, grant))
            self.assertEqual(self.ledger.redeem(NOW, grant.digest, session.id, "192.0.2.7"), grant)
            self.assertIsNone(self.ledger.lease(NOW, session, Caps()))
            self.ledger.renew(NOW + 1, session, Activity())
            if n % 2:
                self.ledger.release(NOW + 2, session.id)
            match n % 4:
                case 0:
                    self.ledger.give_back(NOW + 2, grant.digest, session.id)
                case 1:
                    self.ledger.ended(NOW + 2, grant.digest, session.id, resumable=True)
                case 2:
                    self.ledger.revoke(NOW + 2, Selector("grant", grant.id))
            self.ledger.revoke(NOW + 2, Selector("session", session.id))
        self.assertGreater(self.ledger.size(), 5_000)
        self.assertEqual(self.ledger.sessions(MUCH_LATER), [])
        self.assertEqual(self.ledger.size(), 0)

    def test_a_strangers_questions_leave_nothing(self) -> None:
        for n in range(1_000):
            self.assertIsInstance(self.ledger.redeem(NOW, f"digest-{n}", f"s{n}", "192.0.2.7"), Refusal)
            self.ledger.give_back(NOW, f"digest-{n}", f"s{n}")
            self.ledger.ended(NOW, f"digest-{n}", f"s{n}", resumable=True)
            self.ledger.release(NOW, f"s{n}")
            self.assertEqual(self.ledger.revoke(NOW, Selector("vm", f"vm-{n}")), 0)
        self.assertEqual(self.ledger.size(), 0)

    def test_a_lease_renewed_for_ever_and_a_token_resumed_for_ever_stay_small(self) -> None:
        grant = a_grant(uses=1)
        self.ledger.issue(NOW, grant)
        self.ledger.redeem(NOW, grant.digest, "s0", "192.0.2.7")
        for n in range(2_000):
            now = NOW + n * LEASE_SECONDS / 3
            self.ledger.renew(now, a_session(f"s{n}", grant), Activity())
            self.ledger.ended(now, grant.digest, f"s{n}", resumable=True)
            self.assertEqual(self.ledger.redeem(now, grant.digest, f"s{n + 1}", "192.0.2.7"), grant)
            self.ledger.release(now, f"s{n}")
        self.assertLess(self.ledger.size(), 1_000)

    def test_a_clock_that_is_set_back_brings_no_revoked_token_back(self) -> None:
        grant = a_grant()
        self.ledger.issue(NOW, grant)
        self.ledger.revoke(NOW + TTL - 1, Selector("grant", grant.id))
        self.assertIsInstance(self.ledger.redeem(NOW - 86_400, grant.digest, "s1", "192.0.2.7"), Refusal)
