"""What every `ITokenStore` promises, and each store held to it.

The promises come in groups. `GrantPromises` are the heart, and no store may waive them. A weaker store that cannot keep one of
the other groups (a cache cannot list what it holds) says so by not taking that group's class.

Time passes by `StoreCase.advance`, so that an hour's promise is tested in no time, whatever the store's clock is.
"""

import os
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.grants.samples import RESUME, TTL, a_grant, a_session
from tests.redis_server import RedisServer, age
from xvpd.grants.grant import Grant
from xvpd.grants.memory import MemoryStore, Shared
from xvpd.grants.redis import RedisStore
from xvpd.grants.redis_url import parse_redis_url
from xvpd.grants.store import (
    RESUMABLE,
    TOMBSTONE_SECONDS,
    Activity,
    Caps,
    ILease,
    ITokenStore,
    Revoked,
    Selector,
    Session,
)
from xvpd.reason import Reason, Refusal

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

CLIENT = "192.0.2.7"
NO_CAPS = Caps()


class StoreCase(Base):
    """What a store's own class has to provide, and the words that the promises are written in."""

    async def nodes(self, count: int) -> list[ITokenStore]:
        """So many started stores, of as many nodes that share everything, stopped when the test is over."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let the store's time pass."""
        raise NotImplementedError

    async def node(self) -> ITokenStore:
        (store,) = await self.nodes(1)
        return store

    async def issued(self, store: ITokenStore, token: str = "token", **fields: Any) -> Grant:
        grant = a_grant(token, **fields)
        self.assertIsNone(await store.issue(grant))
        return grant

    async def redeemed(self, store: ITokenStore, grant: Grant, session_id: str) -> None:
        self.assertEqual(await store.redeem(grant.digest, session_id, CLIENT), grant)

    async def refused(self, store: ITokenStore, grant: Grant, session_id: str, reason: Reason) -> None:
        self.assertEqual(await store.redeem(grant.digest, session_id, CLIENT), Refusal(reason))

    async def leased(self, store: ITokenStore, session: Session, caps: Caps = NO_CAPS) -> ILease:
        lease = await store.lease(session, caps)
        self.assertNotIsInstance(lease, Refusal)
        return lease  # type: ignore[return-value] # narrowed by the assertion

    async def live_ids(self, store: ITokenStore) -> list[str]:
        sessions = await store.sessions()
        assert not isinstance(sessions, Refusal), sessions
        return [session.id for session, _ in sessions]

    def watched(self, store: ITokenStore) -> list[tuple[Selector, Reason]]:
        """What the store's watcher is told, as it is told."""
        heard: list[tuple[Selector, Reason]] = []
        store.watch(lambda selector, reason: heard.append((selector, reason)))
        return heard


class GrantPromises(StoreCase):
    """Issue, redeem, give back, resume, revoke a token: no store may waive these."""

    async def test_provides_the_interface(self) -> None:
        verifyObject(ITokenStore, await self.node())

    async def test_is_ready_once_started(self) -> None:
        self.assertIsNone((await self.node()).ready())

    async def test_any_node_redeems_what_another_issued(self) -> None:
        a, b = await self.nodes(2)
        grant = await self.issued(a)
        await self.redeemed(b, grant, "s1")

    async def test_refuses_a_token_that_was_never_issued(self) -> None:
        await self.refused(await self.node(), a_grant("guess"), "s1", Reason.TOKEN_UNKNOWN)

    async def test_keeps_no_second_grant_for_a_known_digest_or_id(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        for twin in (a_grant("token", id="other", vm_name="web-2"), a_grant("other", id=grant.id)):
            refusal = await store.issue(twin)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.reason, Reason.INTERNAL)
        await self.redeemed(store, grant, "s1")
        await self.refused(store, a_grant("other"), "s2", Reason.TOKEN_UNKNOWN)

    async def test_redeems_an_uncounted_token_any_number_of_times(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=0)
        for n in range(20):
            await self.redeemed(store, grant, f"s{n}")

    async def test_counts_uses(self) -> None:
        a, b = await self.nodes(2)
        grant = await self.issued(a, uses=2)
        await self.redeemed(a, grant, "s1")
        await self.redeemed(b, grant, "s2")
        for store in (a, b):
            await self.refused(store, grant, "s3", Reason.TOKEN_USED)

    async def test_of_many_redeems_at_once_over_two_nodes_exactly_as_many_succeed_as_there_are_uses(self) -> None:
        stores = await self.nodes(2)
        for uses in (1, 7):
            grant = await self.issued(stores[0], f"token-{uses}", uses=uses)
            outcomes = await gatherResults(
                [
                    stores[n % 2].redeem(grant.digest, f"s{n}", CLIENT) for n in range(200)
                ]  # all on their way before any is done
            )
            self.assertEqual(outcomes.count(grant), uses)
            self.assertEqual(outcomes.count(Refusal(Reason.TOKEN_USED)), 200 - uses)

    async def test_redeems_once_for_a_session(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=0)
        await self.redeemed(store, grant, "s1")
        await self.refused(store, grant, "s1", Reason.TOKEN_USED)

    async def test_expires_a_token_that_many_seconds_after_it_was_kept_whatever_the_issuers_clock_says(self) -> None:
        store = await self.node()
        slow = await self.issued(store, "slow", issued_at=0.0, expires_at=TTL)
        fast = await self.issued(store, "fast", issued_at=9e9, expires_at=9e9 + TTL)
        await self.advance(TTL - 30)
        await self.redeemed(store, slow, "s1")
        await self.redeemed(store, fast, "s2")
        await self.advance(31)
        for grant in (slow, fast):
            await self.refused(store, grant, "s3", Reason.TOKEN_EXPIRED)

    async def test_takes_a_use_back_when_the_console_could_not_be_opened(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1)
        await self.redeemed(store, grant, "s1")
        await store.give_back(grant, "s1")
        await self.redeemed(store, grant, "s2")
        await self.refused(store, grant, "s3", Reason.TOKEN_USED)

    async def test_takes_a_use_back_once_and_only_from_a_session_that_has_it(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=2)
        for session_id in ("s1", "s2"):
            await self.redeemed(store, grant, session_id)
        await store.give_back(grant, "s3")
        await store.give_back(grant, "s1")
        await store.give_back(grant, "s1")
        await store.ended(grant, "s2", Reason.CLIENT_CLOSED)
        await store.give_back(grant, "s2")
        await self.redeemed(store, grant, "s4")
        await self.refused(store, grant, "s5", Reason.TOKEN_USED)

    async def test_giving_back_to_a_grant_it_does_not_know_does_nothing(self) -> None:
        store = await self.node()
        await store.give_back(a_grant("unknown"), "s1")
        await store.ended(a_grant("unknown"), "s1", Reason.STOPPED)
        await self.refused(store, a_grant("unknown"), "s2", Reason.TOKEN_UNKNOWN)

    # Resuming.

    async def test_resumes_once_for_each_session_that_ended_by_no_fault_of_the_client(self) -> None:
        store = await self.node()
        for reason in RESUMABLE:
            grant = await self.issued(store, f"token-{reason.word}", uses=2)
            for session_id in ("s1", "s2"):
                await self.redeemed(store, grant, session_id)
            await self.refused(store, grant, "s3", Reason.TOKEN_USED)
            for session_id in ("s1", "s2", "s2"):
                await store.ended(grant, session_id, reason)
            for session_id in ("s4", "s5"):
                await self.redeemed(store, grant, session_id)
            await self.refused(store, grant, "s6", Reason.TOKEN_USED)

    async def test_resumes_a_resumed_session(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1)
        await self.redeemed(store, grant, "s0")
        for n in range(5):
            await self.advance(TTL)
            await store.ended(grant, f"s{n}", Reason.HYPERVISOR_CLOSED)
            await self.redeemed(store, grant, f"s{n + 1}")

    async def test_does_not_resume_after_any_other_end(self) -> None:
        store = await self.node()
        others = set(Reason) - RESUMABLE
        grant = await self.issued(store, uses=len(others))
        for n, reason in enumerate(others):
            await self.redeemed(store, grant, f"s{n}")
            await store.ended(grant, f"s{n}", reason)
        await self.refused(store, grant, "one-more", Reason.TOKEN_USED)

    async def test_does_not_resume_for_a_session_that_never_redeemed_or_gave_back(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1)
        await self.redeemed(store, grant, "s1")
        await store.give_back(grant, "s1")
        await store.ended(grant, "s1", Reason.HYPERVISOR_LOST)
        await store.ended(grant, "s2", Reason.HYPERVISOR_LOST)
        await self.redeemed(store, grant, "s3")
        await self.refused(store, grant, "s4", Reason.TOKEN_USED)

    async def test_resumes_an_expired_token_within_the_grants_time_alone(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        for session_id in ("s1", "s2"):
            await self.redeemed(store, grant, session_id)
        await self.advance(TTL + 1)
        for session_id in ("s1", "s2"):
            await store.ended(grant, session_id, Reason.HYPERVISOR_CLOSED)
        await self.advance(RESUME - 30)
        await self.redeemed(store, grant, "s3")
        await self.advance(31)
        await self.refused(store, grant, "s4", Reason.TOKEN_EXPIRED)

    async def test_does_not_resume_when_the_grant_says_so(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1, resume=0.0)
        await self.redeemed(store, grant, "s1")
        await store.ended(grant, "s1", Reason.STOPPED)
        await self.refused(store, grant, "s2", Reason.TOKEN_USED)

    async def test_takes_a_right_to_resume_back_as_that_with_what_is_left_of_its_time(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1)
        await self.redeemed(store, grant, "s1")
        await store.ended(grant, "s1", Reason.STOPPED)
        for session_id in ("s2", "s3"):
            await self.redeemed(store, grant, session_id)
            await store.give_back(grant, session_id)
        await self.refused_after(store, grant, RESUME + 1, Reason.TOKEN_USED)

    async def refused_after(self, store: ITokenStore, grant: Grant, seconds: float, reason: Reason) -> None:
        await self.advance(seconds)
        await self.refused(store, grant, "too-late", reason)

    async def test_a_counted_token_spends_a_right_to_resume_before_a_use(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=2)
        await self.redeemed(store, grant, "s1")
        await store.ended(grant, "s1", Reason.STOPPED)
        await self.redeemed(store, grant, "s2")
        await self.advance(RESUME + 1)
        await self.redeemed(store, grant, "s3")
        await self.refused(store, grant, "s4", Reason.TOKEN_USED)

    async def test_an_uncounted_token_keeps_its_rights_to_resume_for_when_it_has_expired(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        await self.redeemed(store, grant, "s1")
        await self.advance(TTL - 30)
        await store.ended(grant, "s1", Reason.STOPPED)
        await self.redeemed(store, grant, "s2")
        await self.advance(31)
        await self.redeemed(store, grant, "s3")
        await self.refused(store, grant, "s4", Reason.TOKEN_EXPIRED)

    # Where clients must come from.

    async def test_lets_in_only_clients_from_the_grants_network(self) -> None:
        store = await self.node()
        for network, inside, outside in (
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("192.0.2.0/25", "::ffff:192.0.2.5", "::ffff:192.0.2.200"),
            ("::/0", "fe80::1%eth0", "::ffff:192.0.2.5"),
            ("192.0.2.0/24", "192.0.2.1", "unix"),
        ):
            grant = await self.issued(store, f"{network} {inside}", client=network, uses=1)
            self.assertEqual(await store.redeem(grant.digest, "s1", outside), Refusal(Reason.TOKEN_ELSEWHERE))
            self.assertEqual(await store.redeem(grant.digest, "s2", inside), grant)

    async def test_lets_in_clients_from_anywhere_when_there_is_no_network(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        for n, client in enumerate(("192.0.2.7", "2001:db8::1", "unix")):
            self.assertEqual(await store.redeem(grant.digest, f"s{n}", client), grant)

    async def test_a_session_is_resumed_from_the_grants_network_alone(self) -> None:
        store = await self.node()
        grant = await self.issued(store, client="192.0.2.0/24", uses=1)
        await self.redeemed(store, grant, "s1")
        await store.ended(grant, "s1", Reason.STOPPED)
        self.assertEqual(await store.redeem(grant.digest, "s2", "198.51.100.1"), Refusal(Reason.TOKEN_ELSEWHERE))
        await self.redeemed(store, grant, "s3")

    # How long it may all last.

    async def test_a_token_is_good_for_its_max_duration_from_its_first_redeem_on(self) -> None:
        store = await self.node()
        grant = await self.issued(store, max_duration=200.0)
        await self.advance(300)
        await self.redeemed(store, grant, "s1")
        await self.advance(150)
        await self.redeemed(store, grant, "s2")
        await self.advance(51)
        await self.refused(store, grant, "s3", Reason.TOKEN_EXPIRED)

    async def test_a_session_is_never_resumed_past_its_grants_max_duration(self) -> None:
        store = await self.node()
        grant = await self.issued(store, max_duration=TTL + 200, uses=1)
        await self.redeemed(store, grant, "s1")
        await self.advance(TTL + 100)
        await store.ended(grant, "s1", Reason.HYPERVISOR_LOST)
        await self.redeemed(store, grant, "s2")
        await self.advance(50)
        await store.ended(grant, "s2", Reason.HYPERVISOR_LOST)
        await self.advance(51)
        await self.refused(store, grant, "s3", Reason.TOKEN_EXPIRED)

    async def test_a_lease_says_what_is_left_of_the_max_duration(self) -> None:
        a, b = await self.nodes(2)
        grant = await self.issued(a, max_duration=500.0)
        for n, left in enumerate((500, 300, 0)):
            if left:
                await self.redeemed(a, grant, f"s{n}")
            lease = await self.leased(b, a_session(f"s{n}", grant))
            assert lease.seconds_left is not None
            self.assertTrue(left - 30 < lease.seconds_left <= left, lease.seconds_left)
            await self.advance(200 if left == 500 else 400)
        endless = await self.issued(a, "endless")
        await self.redeemed(a, endless, "s1")
        self.assertIsNone((await self.leased(b, a_session("endless", endless))).seconds_left)

    async def test_what_is_past_its_max_duration_is_neither_listed_nor_there_to_be_revoked(self) -> None:
        store = await self.node()
        grant = await self.issued(store, max_duration=200.0)
        await self.redeemed(store, grant, "s1")
        await store.ended(grant, "s1", Reason.STOPPED)
        self.assertEqual(await store.grants(None), [grant])
        await self.advance(201)
        self.assertEqual(await store.grants(None), [])
        self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(0))

    async def test_a_max_duration_begins_anew_when_the_only_redeem_was_given_back(self) -> None:
        store = await self.node()
        grant = await self.issued(store, max_duration=200.0)
        await self.redeemed(store, grant, "s1")
        await self.advance(150)
        await store.give_back(grant, "s1")
        await self.redeemed(store, grant, "s2")
        await self.advance(150)
        await self.redeemed(store, grant, "s3")
        await store.give_back(grant, "s3")
        await self.advance(51)
        await self.refused(store, grant, "s4", Reason.TOKEN_EXPIRED)

    # Revoking a token.

    async def test_revokes_by_grant_and_by_digest(self) -> None:
        a, b = await self.nodes(2)
        for kind in ("grant", "digest"):
            grant = await self.issued(a, f"by-{kind}")
            other = await self.issued(a, f"not-by-{kind}")
            selector = Selector(kind, grant.id if kind == "grant" else grant.digest)
            self.assertEqual(await b.revoke(selector), Revoked(1))
            await self.refused(a, grant, "s1", Reason.TOKEN_REVOKED)
            await self.redeemed(a, other, "s2")

    async def test_revoking_what_does_not_exist_or_has_ended_ends_nothing(self) -> None:
        store = await self.node()
        revoked, used = await self.issued(store, "revoked"), await self.issued(store, "used", uses=1)
        await store.revoke(Selector("grant", revoked.id))
        await self.redeemed(store, used, "s1")
        await store.ended(used, "s1", Reason.CLIENT_CLOSED)
        for selector in (Selector("grant", "none"), Selector("grant", revoked.id), Selector("grant", used.id)):
            self.assertEqual(await store.revoke(selector), Revoked(0))
        await self.refused(store, used, "s2", Reason.TOKEN_USED)

    async def test_revokes_only_what_the_selectors_issuer_issued(self) -> None:
        store = await self.node()
        grant = await self.issued(store, issuer="portal")
        self.assertEqual(await store.revoke(Selector("grant", grant.id, "stranger")), Revoked(0))
        await self.redeemed(store, grant, "s1")
        self.assertEqual(await store.revoke(Selector("grant", grant.id, "portal")), Revoked(1))
        await self.refused(store, grant, "s2", Reason.TOKEN_REVOKED)

    async def test_what_was_revoked_stays_revoked(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=3)
        for session_id in ("s1", "s2", "s3"):
            await self.redeemed(store, grant, session_id)
        await store.ended(grant, "s1", Reason.STOPPED)
        lease = await self.leased(store, a_session("s3", grant))
        self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(1))
        await store.give_back(grant, "s2")
        await lease.renew(Activity())
        await store.ended(grant, "s3", Reason.HYPERVISOR_CLOSED)
        await lease.release()
        self.assertIsInstance(await store.issue(grant), Refusal)
        await self.refused(store, grant, "s4", Reason.TOKEN_REVOKED)
        await self.advance(TTL + 1)
        await self.refused(store, grant, "s4", Reason.TOKEN_REVOKED)

    async def test_revoking_an_expired_or_used_up_token_whose_session_lives_forbids_to_resume_it(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1)
        await self.redeemed(store, grant, "s1")
        await self.advance(TTL + 1)
        for ended in (1, 0):
            self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(ended))
        await store.ended(grant, "s1", Reason.HYPERVISOR_LOST)
        await self.refused(store, grant, "s2", Reason.TOKEN_REVOKED)

    # Keeping and forgetting.

    async def test_keeps_the_grant_of_a_live_session_for_as_long_as_its_lease_is_renewed(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        await self.redeemed(store, grant, "s1")
        lease = await self.leased(store, a_session("s1", grant))
        passed = 0.0
        while passed < TTL + 2 * TOMBSTONE_SECONDS:
            await self.advance(store.lease_seconds / 2)
            passed += store.lease_seconds / 2
            await lease.renew(Activity())
        await store.ended(grant, "s1", Reason.HYPERVISOR_CLOSED)
        await self.redeemed(store, grant, "s2")

    async def test_forgets_what_matters_no_more(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        await self.redeemed(store, grant, "s1")
        await self.leased(store, a_session("s1", grant))
        await self.advance(TTL + 2 * TOMBSTONE_SECONDS)
        await self.refused(store, grant, "s2", Reason.TOKEN_UNKNOWN)
        self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(0))
        self.assertIsNone(await store.issue(grant))


class TombstonePromises(StoreCase):
    """Telling for an hour how a token came to its end. A store that waives it says TOKEN_UNKNOWN."""

    async def test_remembers_for_an_hour_that_a_token_expired(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        await self.advance(TTL + TOMBSTONE_SECONDS - 30)
        await self.refused(store, grant, "s1", Reason.TOKEN_EXPIRED)

    async def test_remembers_for_an_hour_that_a_token_was_used_up_before_it_expired(self) -> None:
        store = await self.node()
        grant = await self.issued(store, uses=1)
        await self.redeemed(store, grant, "s1")
        await self.advance(TTL + TOMBSTONE_SECONDS - 30)
        await self.refused(store, grant, "s2", Reason.TOKEN_USED)

    async def test_remembers_for_an_hour_that_a_token_was_revoked(self) -> None:
        store = await self.node()
        long, short = await self.issued(store, "long"), await self.issued(store, "short", expires_at=1_000_001.0)
        for grant in (long, short):
            self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(1))
        await self.advance(TOMBSTONE_SECONDS - 30)
        for grant in (long, short):
            await self.refused(store, grant, "s1", Reason.TOKEN_REVOKED)


class SelectionPromises(StoreCase):
    """Revoking by VM and by user. A store that waives it refuses such a selector with UNSUPPORTED."""

    async def test_revokes_every_grant_for_a_vm(self) -> None:
        a, b = await self.nodes(2)
        mine = [await self.issued(a, f"mine-{n}", vm_uuid="vm-1", issuer=f"i{n}") for n in range(3)]
        other = await self.issued(b, "other", vm_uuid="vm-2")
        self.assertEqual(await b.revoke(Selector("vm", "vm-1")), Revoked(3))
        for grant in mine:
            await self.refused(a, grant, "s1", Reason.TOKEN_REVOKED)
        await self.redeemed(a, other, "s1")
        later = await self.issued(a, "later", vm_uuid="vm-1")
        await self.redeemed(b, later, "s1")

    async def test_revokes_an_issuers_grants_for_a_vm(self) -> None:
        store = await self.node()
        mine, other = await self.issued(store, "mine", issuer="i1"), await self.issued(store, "other", issuer="i2")
        self.assertEqual(await store.revoke(Selector("vm", mine.vm_uuid, "i1")), Revoked(1))
        await self.refused(store, mine, "s1", Reason.TOKEN_REVOKED)
        await self.redeemed(store, other, "s1")

    async def test_a_user_is_one_issuers_user(self) -> None:
        store = await self.node()
        mine = [await self.issued(store, f"mine-{n}", issuer="i1", user="ann") for n in range(2)]
        others = [
            await self.issued(store, "namesake", issuer="i2", user="ann"),
            await self.issued(store, "colleague", issuer="i1", user="bob"),
            await self.issued(store, "look-alike", issuer="i1/ann", user=""),
        ]
        self.assertEqual(await store.revoke(Selector.of_user("i1", "ann")), Revoked(2))
        for grant in mine:
            await self.refused(store, grant, "s1", Reason.TOKEN_REVOKED)
        for grant in others:
            await self.redeemed(store, grant, "s1")
        self.assertEqual(await store.revoke(Selector("user", "ann")), Revoked(1))

    async def test_counts_only_the_grants_that_it_ended(self) -> None:
        store = await self.node()
        for n in range(3):
            await self.issued(store, f"token-{n}", vm_uuid="vm-1")
        expired = await self.issued(store, "expired", vm_uuid="vm-1", expires_at=1_000_000.0)
        await store.revoke(Selector("grant", "grant-of-token-0"))
        self.assertEqual(await store.revoke(Selector("vm", "vm-1")), Revoked(2))
        self.assertEqual(await store.revoke(Selector("vm", "vm-1")), Revoked(0))
        await self.refused(store, expired, "s1", Reason.TOKEN_EXPIRED)


class ListingPromises(StoreCase):
    """Showing what there is. A store that waives it answers UNSUPPORTED."""

    async def test_lists_the_grants_of_all_or_of_one_issuer_oldest_first(self) -> None:
        a, b = await self.nodes(2)
        newest = await self.issued(a, "newest", issued_at=3_000.0)
        oldest = await self.issued(b, "oldest", issued_at=1_000.0, issuer="other")
        middle = await self.issued(a, "middle", issued_at=2_000.0)
        self.assertEqual(await b.grants(None), [oldest, middle, newest])
        self.assertEqual(await b.grants("portal"), [middle, newest])
        self.assertEqual(await b.grants("nobody"), [])

    async def test_lists_only_grants_that_can_be_redeemed(self) -> None:
        store = await self.node()
        resumable, used, revoked, good = [
            await self.issued(store, token, uses=1, issued_at=n)
            for n, token in enumerate(("resumable", "used", "revoked", "good"))
        ]
        await self.issued(store, "expired", issued_at=9.0, expires_at=9.0)
        for grant in (resumable, used):
            await self.redeemed(store, grant, "s1")
        self.assertEqual(await store.grants(None), [revoked, good])
        await store.ended(resumable, "s1", Reason.STOPPED)
        await store.revoke(Selector("grant", revoked.id))
        self.assertEqual(await store.grants(None), [resumable, good])
        await self.advance(RESUME + 1)
        self.assertEqual(await store.grants(None), [good])

    async def test_lists_many_grants(self) -> None:
        store = await self.node()
        grants = [await self.issued(store, f"token-{n}", issued_at=float(n)) for n in range(1_100)]
        self.assertEqual(await store.grants(None), grants)

    async def test_lists_the_live_sessions_of_every_node_oldest_first(self) -> None:
        a, b = await self.nodes(2)
        grant = await self.issued(a, user="Zoë \r\n of Łódź", vm_name='"quoted"\n')
        later = a_session("s1", grant, node="a", since=20.0, client="2001:db8::7")
        sooner = a_session("s2", grant, node="b", since=10.0)
        lease = await self.leased(a, later)
        await self.leased(b, sooner)
        self.assertEqual(await a.sessions(), [(sooner, Activity()), (later, Activity())])
        await lease.renew(Activity(123_456_789_012, 17, 21.5))
        self.assertEqual(await b.sessions(), [(sooner, Activity()), (later, Activity(123_456_789_012, 17, 21.5))])

    async def test_a_session_that_ended_or_whose_node_died_vanishes_from_the_list(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        kept, released, _ = [await self.leased(store, a_session(name, grant)) for name in ("kept", "released", "lapsed")]
        await released.release()
        await self.advance(store.lease_seconds - 5)
        await kept.renew(Activity())
        await self.advance(6)
        self.assertEqual(await self.live_ids(store), ["kept"])


class LeasePromises(StoreCase):
    """Counting the live sessions of all nodes. A store that waives it refuses a lease with any cap with UNSUPPORTED."""

    async def test_caps_the_sessions_of_a_vm_a_host_and_a_user_over_all_nodes(self) -> None:
        a, b = await self.nodes(2)
        for name, caps, same in (
            ("vm", Caps(per_vm=2), {"vm_uuid": "vm-9"}),
            ("host", Caps(per_host=2), {"host": "host-9"}),
            ("user", Caps(per_user=2), {"user": "zoe"}),
        ):

            async def session(n: int, name: str = name, **same: str) -> Session:
                host = same.pop("host", f"{name}-host-{n}")
                grant = a_grant(f"{name}-{n}", **{"user": f"{name}-user-{n}", "vm_uuid": f"{name}-vm-{n}", **same})
                await a.issue(grant)
                return a_session(f"{name}-{n}", grant, host=host)

            first = await self.leased(a, await session(1, **same), caps)
            await self.leased(b, await session(2, **same), caps)
            third = await session(3, **same)
            self.assertEqual(await a.lease(third, caps), Refusal(Reason.TOO_MANY, f"the cap per {name} is reached"))
            await self.leased(a, await session(4), caps)
            await first.release()
            await self.leased(a, third, caps)

    async def test_a_refused_lease_counts_nowhere(self) -> None:
        store = await self.node()
        first, second, third = [await self.issued(store, f"token-{n}") for n in range(3)]
        await self.leased(store, a_session("s1", first, host="full"), Caps(per_host=1))
        self.assertIsInstance(await store.lease(a_session("s2", second, host="full"), Caps(per_host=1)), Refusal)
        await self.leased(store, a_session("s3", third, host="free"), Caps(per_vm=2))
        self.assertEqual(sorted(await self.live_ids(store)), ["s1", "s3"])

    async def test_of_many_leases_at_once_exactly_as_many_succeed_as_the_cap_allows(self) -> None:
        stores = await self.nodes(2)
        grant = await self.issued(stores[0])
        leases = await gatherResults([stores[n % 2].lease(a_session(f"s{n}", grant), Caps(per_vm=8)) for n in range(100)])
        self.assertEqual(sum(not isinstance(lease, Refusal) for lease in leases), 8)

    async def test_does_not_count_sessions_of_no_user_as_one_users(self) -> None:
        store = await self.node()
        grant = await self.issued(store, user="")
        for n in range(3):
            await self.leased(store, a_session(f"s{n}", grant), Caps(per_user=1))

    async def test_counts_a_session_once(self) -> None:
        store = await self.node()
        session = a_session("s1", await self.issued(store))
        for _ in range(2):
            await self.leased(store, session, Caps(per_vm=1, per_host=1, per_user=1))

    async def test_a_lease_that_is_not_renewed_lapses_and_one_that_is_does_not(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        kept = await self.leased(store, a_session("kept", grant))
        await self.leased(store, a_session("lapsed", grant))
        for _ in range(3):
            await self.advance(store.lease_seconds * 0.6)
            await kept.renew(Activity())
        await self.leased(store, a_session("s3", grant), Caps(per_vm=2))
        self.assertIsInstance(await store.lease(a_session("s4", grant), Caps(per_vm=2)), Refusal)

    async def test_a_lapsed_lease_is_taken_again_by_renewing_it_even_beyond_the_cap(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        slow = await self.leased(store, a_session("slow", grant, since=1.0), Caps(per_vm=1))
        await self.advance(store.lease_seconds + 1)
        await self.leased(store, a_session("quick", grant, since=2.0), Caps(per_vm=1))
        await slow.renew(Activity())
        self.assertEqual(await self.live_ids(store), ["slow", "quick"])

    async def test_a_released_lease_stays_released(self) -> None:
        store = await self.node()
        grant = await self.issued(store)
        lease = await self.leased(store, a_session("s1", grant))
        await lease.release()
        await lease.renew(Activity())
        await lease.release()
        self.assertEqual(await self.live_ids(store), [])

    async def test_leases_a_session_whose_grant_it_does_not_know(self) -> None:
        store = await self.node()
        await self.leased(store, a_session("s1", a_grant("lost")))
        self.assertEqual(await self.live_ids(store), ["s1"])

    async def test_refuses_a_lease_to_a_session_that_was_revoked_or_killed_since_it_redeemed(self) -> None:
        store = await self.node()
        revoked, killed = await self.issued(store, "revoked"), await self.issued(store, "killed")
        for grant in (revoked, killed):
            await self.redeemed(store, grant, f"s-{grant.id}")
        await store.revoke(Selector("grant", revoked.id))
        await store.revoke(Selector("session", "s-killed"))
        self.assertEqual(await store.lease(a_session("s-revoked", revoked), NO_CAPS), Refusal(Reason.TOKEN_REVOKED))
        self.assertEqual(await store.lease(a_session("s-killed", killed), NO_CAPS), Refusal(Reason.KILLED))
        self.assertEqual(await self.live_ids(store), [])


class CutPromises(StoreCase):
    """Every node hears of every revocation. A store that waives it serves one node."""

    async def test_every_node_has_been_told_of_a_revocation_when_it_is_answered(self) -> None:
        a, b = await self.nodes(2)
        heard_a, heard_b = self.watched(a), self.watched(b)
        selectors = [Selector("grant", "g"), Selector("digest", "d"), Selector("vm", "v", "i"), Selector.of_user("i", "u\n")]
        for selector in selectors:
            self.assertEqual(await a.revoke(selector), Revoked(0, ()))
            for heard in (heard_a, heard_b):
                self.assertEqual(heard.pop(), (selector, Reason.REVOKED))
        self.assertEqual((heard_a, heard_b), ([], []))

    async def test_a_session_is_killed_and_its_grant_stays(self) -> None:
        a, b = await self.nodes(2)
        heard = self.watched(b)
        grant = await self.issued(a)
        await self.leased(b, a_session("s1", grant))
        self.assertEqual(await a.revoke(Selector("session", "s1")), Revoked(0))
        self.assertEqual(heard, [(Selector("session", "s1"), Reason.KILLED)])
        await self.redeemed(a, grant, "s2")

    async def test_every_watcher_of_a_node_is_told(self) -> None:
        store = await self.node()
        first, second = self.watched(store), self.watched(store)
        await store.revoke(Selector("vm", "v"))
        self.assertEqual((len(first), len(second)), (1, 1))

    async def test_renewing_cuts_a_session_that_was_revoked_or_killed_unheard(self) -> None:
        store = await self.node()
        revoked, killed, fine = [await self.issued(store, token) for token in ("revoked", "killed", "fine")]
        leases = [await self.leased(store, a_session(f"s-{grant.id}", grant)) for grant in (revoked, killed, fine)]
        await store.revoke(Selector("grant", revoked.id))
        await store.revoke(Selector("session", f"s-{killed.id}"))
        heard = self.watched(store)
        for lease in leases:
            await lease.renew(Activity())
        self.assertEqual(
            heard,
            [
                (Selector("session", f"s-{revoked.id}"), Reason.REVOKED),
                (Selector("session", f"s-{killed.id}"), Reason.KILLED),
            ],
        )

    async def test_a_stopped_node_is_told_nothing_and_waited_for_no_more(self) -> None:
        a, b = await self.nodes(2)
        heard = self.watched(b)
        await b.stop()
        self.assertEqual(await a.revoke(Selector("vm", "v")), Revoked(0, ()))
        self.assertEqual(heard, [])


class AllPromises(
    GrantPromises, TombstonePromises, SelectionPromises, ListingPromises, LeasePromises, CutPromises
):  # what a full store takes
    """Everything that `ITokenStore` says."""


class MemoryStoreTests(AllPromises, TestCase):
    """The memory store, on a clock that the tests turn; its nodes share a ledger."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000.0)

    async def nodes(self, count: int) -> list[ITokenStore]:
        shared = Shared()
        stores = [MemoryStore(self.clock, shared) for _ in range(count)]
        for store in stores:
            await store.start()
            self.addCleanup(store.stop)
        return list(stores)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class RedisStoreTests(AllPromises, TestCase):
    """The Redis store, on a real server, in whose keys time passes by making them older."""

    async def nodes(self, count: int) -> list[ITokenStore]:
        self.server = RedisServer(self)
        await self.server.start()
        settings = parse_redis_url(f"redis://127.0.0.1:{self.server.port}")
        stores = [RedisStore(reactor, settings, f"node-{n}", os.urandom) for n in range(count)]
        for store in stores:
            await store.start()
            self.addCleanup(store.stop)
        return list(stores)

    async def advance(self, seconds: float) -> None:
        age(self.server, seconds)
