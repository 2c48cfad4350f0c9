"""`xvpd.grants.redis`: the store for many nodes when something is wrong with Redis, the network, or another node.

The servers are real; what they and the network do is as they do it: killed, paused, full, replaced.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.certificates import Identity, make_identity
from tests.grants.samples import a_grant, a_session
from tests.grants.test_redis_scripts import complaints
from tests.redis_proxy import RedisProxy
from tests.redis_server import RedisServer, age, free_port, until
from xvpd.grants.grant import Grant
from xvpd.grants.redis import RedisStore
from xvpd.grants.redis_url import parse_redis_url
from xvpd.grants.store import Activity, Caps, Revoked, Selector, Session
from xvpd.reason import Reason, Refusal

CLIENT = "192.0.2.7"


class RedisCase(TestCase):
    """Stores on a real server."""

    timeout = 60

    answer_seconds = 2.0

    def store(self, url: str, node: str = "node-a", password: str = "", ca_file: str = "") -> RedisStore:
        """A store that is not started yet, and will be stopped."""
        settings = replace(parse_redis_url(url, password, ca_file), answer_seconds=self.answer_seconds)
        store = RedisStore(reactor, settings, node, os.urandom)
        self.addCleanup(store.stop)
        return store

    async def server_and_store(self, *options: str, **kinds: Any) -> tuple[RedisServer, RedisStore]:
        server = RedisServer(self, *options, **kinds)
        await server.start()
        store = self.store(f"redis://127.0.0.1:{server.port}")
        await store.start()
        self.assertIsNone(store.ready())
        return server, store

    async def issued(self, store: RedisStore, token: str = "token", **fields: Any) -> Grant:
        grant = a_grant(token, **fields)
        self.assertIsNone(await store.issue(grant))
        return grant

    async def until_ready(self, store: RedisStore) -> None:
        await until(lambda: store.ready() is None, "the store did not recover")

    async def until_away(self, store: RedisStore) -> str:
        await until(lambda: store.ready() is not None, "the store did not notice")
        return self.why(store)

    def why(self, store: RedisStore) -> str:
        refusal = store.ready()
        assert refusal is not None
        self.assertIs(refusal.reason, Reason.STORE_AWAY)
        return refusal.detail

    def away(self, outcome: object) -> str:
        assert isinstance(outcome, Refusal), outcome
        self.assertIs(outcome.reason, Reason.STORE_AWAY)
        return outcome.detail

    def cuts(self, store: RedisStore) -> list[tuple[Selector, Reason]]:
        heard: list[tuple[Selector, Reason]] = []
        store.watch(lambda selector, reason: heard.append((selector, reason)))
        return heard


class Late:
    """The reactor, with a clock that is late by so many seconds."""

    by = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def seconds(self) -> float:
        return reactor.seconds() + self.by


class ConnectingTests(RedisCase):
    """Being let in, and by whom."""

    async def test_a_store_whose_server_is_not_there_says_so_and_comes_up_with_it(self) -> None:
        server = RedisServer(self)
        store = self.store(f"redis://127.0.0.1:{server.port}")
        await store.start()
        self.assertIn("refused", self.why(store))
        self.assertIn("refused", self.away(await store.issue(a_grant())))
        await server.start()
        await self.until_ready(store)
        await self.issued(store)

    async def test_a_password_opens_the_server_and_a_wrong_one_is_not_the_end(self) -> None:
        server = RedisServer(self, password="canary-right")
        await server.start()
        right = self.store(f"redis://127.0.0.1:{server.port}", password="canary-right")
        wrong = self.store(f"redis://127.0.0.1:{server.port}", "node-b", password="canary-wrong")
        none = self.store(f"redis://127.0.0.1:{server.port}", "node-c")
        for store in (right, wrong, none):
            await store.start()
        self.assertIsNone(right.ready())
        self.assertIn("WRONGPASS", self.why(wrong))
        self.assertIn("NOAUTH", self.why(none))
        for store in (wrong, none):
            self.assertNotIn("canary", self.why(store))
        server.ask("CONFIG", "SET", "requirepass", "canary-wrong")
        await self.until_ready(wrong)

    async def test_a_user_of_the_servers_is_enough_with_the_rights_that_the_manual_names(self) -> None:
        server = RedisServer(self)
        await server.start()
        rights = (
            "~xvpd:* &xvpd:* -@all +@connection +@scripting +@sortedset +@hash +@string +@keyspace +@pubsub +info +role +wait"
        )
        server.ask("ACL", "SETUSER", "xvpd", "on", ">secret", *rights.split(), "+time")
        store = self.store(f"redis://xvpd@127.0.0.1:{server.port}/2", password="secret")
        await store.start()
        self.assertIsNone(store.ready())
        grant = await self.issued(store)
        self.assertEqual(await store.redeem(grant.digest, "s1", CLIENT), grant)
        await store.lease(a_session("s1", grant), Caps(per_vm=1))
        self.assertEqual(await store.revoke(Selector("vm", grant.vm_uuid)), Revoked(1))

    async def test_databases_of_one_server_are_worlds_apart(self) -> None:
        server = RedisServer(self)
        await server.start()
        here, there = [self.store(f"redis://127.0.0.1:{server.port}/{n}", f"node-{n}") for n in (0, 1)]
        for store in (here, there):
            await store.start()
        cuts = self.cuts(there)
        grant = await self.issued(here)
        self.assertEqual(await there.redeem(grant.digest, "s1", CLIENT), Refusal(Reason.TOKEN_UNKNOWN))
        self.assertEqual(await here.revoke(Selector("grant", grant.id)), Revoked(1))
        self.assertEqual(await there.grants(None), [])
        self.assertEqual(cuts, [])

    async def test_only_digests_are_kept(self) -> None:
        server, store = await self.server_and_store()
        grant = await self.issued(store, "canary-token", id="grant-1")
        await store.redeem(grant.digest, "s1", CLIENT)
        await store.lease(a_session("s1", grant, client=CLIENT), Caps())
        dump = b"".join(server.ask("DUMP", key) or b"" for key in server.ask("KEYS", "*"))
        self.assertIn(grant.digest.encode(), b"".join(server.ask("KEYS", "*")))
        self.assertNotIn(b"canary-token", dump)

    async def test_stops_at_once_while_connecting(self) -> None:
        proxy = RedisProxy(self, free_port())
        proxy.hangs = True
        store = self.store(f"redis://127.0.0.1:{proxy.listens_at}")
        starting = store.start()
        await until(lambda: proxy.seen > 0, "no connection came")
        await store.stop()
        await starting

    async def test_stops_at_once_between_attempts(self) -> None:
        store = self.store(f"redis://127.0.0.1:{free_port()}")
        await store.start()
        await store.stop()
        self.away(await store.issue(a_grant()))


class TlsTests(RedisCase):
    """``rediss://`` proves who the server is before anything is said to it."""

    async def server(self, identity: Identity, password: str = "") -> int:
        certificate, key = identity.write(str(Path.cwd() / self.mktemp()))
        port = free_port()
        lines = [f"tls-port {port}", f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {certificate}"]
        await RedisServer(self, *lines, "tls-auth-clients no", password=password).start()
        return port

    def ca_file(self, *authorities: Identity) -> str:
        name: str = self.mktemp()
        with open(name, "wb") as file:
            for authority in authorities:
                file.write(authority.certificate_pem)
        return name

    async def test_a_server_that_an_authority_vouches_for_by_name_is_used(self) -> None:
        authority, other = (
            make_identity(authority=True, common_name="authority"),
            make_identity(authority=True, common_name="other"),
        )
        port = await self.server(make_identity("localhost", "127.0.0.1", issuer=authority), "secret")
        for host in ("localhost", "127.0.0.1"):
            url = f"rediss://{host}:{port}"
            store = self.store(url, f"node-{host}", password="secret", ca_file=self.ca_file(other, authority))
            await store.start()
            self.assertIsNone(store.ready())
            grant = await self.issued(store, host)
            self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(1))
            await store.stop()

    async def test_any_other_server_is_told_nothing(self) -> None:
        authority = make_identity(authority=True, common_name="authority")
        trusted = self.ca_file(authority)
        elsewhere = await self.server(make_identity("elsewhere.example.org", issuer=authority))
        stranger = await self.server(make_identity("localhost"))
        expired = await self.server(make_identity("localhost", issuer=authority, days=-1))
        plain = RedisServer(self)
        await plain.start()
        self.answer_seconds = 0.5
        for port, ca_file, complaint in (
            (elsewhere, trusted, "elsewhere|Mismatch"),
            (stranger, trusted, "certificate verify failed"),
            (stranger, "", "certificate verify failed"),
            (expired, trusted, "certificate verify failed"),
            (plain.port, trusted, "."),
            (stranger, "/nonexistent/ca.pem", "/nonexistent/ca.pem"),
        ):
            store = self.store(f"rediss://localhost:{port}", password="canary", ca_file=ca_file)
            await store.start()
            self.assertRegex(self.why(store), complaint)
            await store.stop()


class FaultTests(RedisCase):
    """What servers and networks do to a store that was well."""

    async def test_a_server_that_was_killed_is_away_at_once_and_used_again_when_it_is_back(self) -> None:
        server, store = await self.server_and_store()
        grant = await self.issued(store)
        server.kill()
        await until(lambda: store.ready() is not None, "the store did not notice")
        self.away(await store.redeem(grant.digest, "s1", CLIENT))
        self.away(await store.issue(a_grant("other")))
        self.away(await store.revoke(Selector("vm", "v")))
        self.away(await store.lease(a_session("s1", grant), Caps()))
        self.away(await store.grants(None))
        self.away(await store.sessions())
        await store.give_back(grant, "s1")
        await store.ended(grant, "s1", Reason.STOPPED)
        await server.start()
        await self.until_ready(store)
        grant = await self.issued(store)
        self.assertEqual(await store.redeem(grant.digest, "s1", CLIENT), grant)

    async def test_a_server_that_hangs_lets_nobody_in_and_takes_no_use(self) -> None:
        self.answer_seconds = 0.5
        server, store = await self.server_and_store()
        grant = await self.issued(store, uses=1)
        lease = await store.lease(a_session("s0", grant), Caps())
        assert not isinstance(lease, Refusal)
        server.pause()
        self.assertIn("no answer", self.away(await store.redeem(grant.digest, "s1", CLIENT)))
        await lease.renew(Activity())
        self.assertNotEqual(self.why(store), "")
        server.go_on()
        await self.until_ready(store)
        await self.until_redeemed(store, grant)
        self.assertEqual(await store.redeem(grant.digest, "one-more", CLIENT), Refusal(Reason.TOKEN_USED))
        await lease.release()

    async def until_redeemed(self, store: RedisStore, grant: Grant) -> None:
        for n in range(200):
            outcome = await store.redeem(grant.digest, f"again-{n}", CLIENT)
            if outcome == grant:
                return
            self.assertEqual(outcome, Refusal(Reason.TOKEN_USED))
            await deferLater(reactor, 0.05)
        self.fail("the use was never given back")

    async def test_a_redeem_that_was_cancelled_takes_no_use(self) -> None:
        _, store = await self.server_and_store()
        grant = await self.issued(store, uses=1)
        redeeming = store.redeem(grant.digest, "s1", CLIENT)
        redeeming.addErrback(lambda failure: None)
        redeeming.cancel()
        await redeeming
        await self.until_redeemed(store, grant)

    async def test_a_connection_that_is_reset_during_authentication_is_tried_again(self) -> None:
        server = RedisServer(self, password="secret")
        await server.start()
        proxy = RedisProxy(self, server.port)
        proxy.resets = 4
        store = self.store(f"redis://127.0.0.1:{proxy.listens_at}/1", password="secret")
        await store.start()
        self.why(store)
        await self.until_ready(store)
        self.assertGreaterEqual(proxy.seen, 6)
        proxy.resets = 4
        proxy.cut()
        await self.until_away(store)
        await self.until_ready(store)
        await self.issued(store)

    async def test_a_server_that_is_full_is_tried_again(self) -> None:
        server = RedisServer(self)
        await server.start()
        store = self.store(f"redis://127.0.0.1:{server.port}/1")
        server.ask("CONFIG", "SET", "maxclients", 1)
        with server.held_connection():
            await store.start()
            self.assertIn("max number of clients", self.why(store))
        await until(lambda: server.asked("CONFIG", "SET", "maxclients", 100), "the server stayed full")
        await self.until_ready(store)

    async def test_a_server_without_memory_refuses_and_forgets_nothing(self) -> None:
        server, store = await self.server_and_store()
        grant = await self.issued(store)
        server.ask("CONFIG", "SET", "maxmemory", 1)
        self.assertIn("OOM", self.away(await store.issue(a_grant("other"))))
        server.ask("CONFIG", "SET", "maxmemory", 0)
        self.assertEqual(await store.redeem(grant.digest, "s1", CLIENT), grant)

    async def test_a_server_that_may_forget_grants_is_warned_of(self) -> None:
        with capturedLogs() as events:
            server = RedisServer(self, "maxmemory-policy allkeys-lru")
            await server.start()
            store = self.store(f"redis://127.0.0.1:{server.port}")
            await store.start()
            await until(lambda: any("allkeys-lru" in str(formatEvent(event)) for event in events), "no warning")

    async def test_a_server_that_forgot_the_scripts_is_given_them_again(self) -> None:
        server, store = await self.server_and_store()
        grant = await self.issued(store)
        for n in range(2):
            server.ask("SCRIPT", "FLUSH")
            self.assertEqual(await store.redeem(grant.digest, f"s{n}", CLIENT), grant)

    async def test_what_is_no_redis_is_away_and_causes_no_traceback(self) -> None:
        self.answer_seconds = 0.2
        proxy = RedisProxy(self, free_port())
        for nonsense in (
            b"\xff\xfe\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"$99999999999\r\n",
            b"+OK\r\n" * 100,
            b"*-7\r\n",
            b"*2\r\n*3\r\n:x\r\n",
            b":1\r\n",
            b"$3\r\nabcde",
            b"x" * 100_000,
        ):
            proxy.says = nonsense
            store = self.store(f"redis://127.0.0.1:{proxy.listens_at}")
            await store.start()
            self.why(store)
            await store.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_what_could_not_be_given_back_is_given_back_later(self) -> None:
        server = RedisServer(self)
        await server.start()
        proxy = RedisProxy(self, server.port)
        store = self.store(f"redis://127.0.0.1:{proxy.listens_at}")
        await store.start()
        opened, unopened = await self.issued(store, "opened", uses=1), await self.issued(store, "unopened", uses=1)
        for grant in (opened, unopened):
            self.assertEqual(await store.redeem(grant.digest, "s1", CLIENT), grant)
        proxy.resets = 1_000
        proxy.cut()
        await self.until_away(store)
        await store.ended(opened, "s1", Reason.HYPERVISOR_LOST)
        await store.give_back(unopened, "s1")
        proxy.resets = 0
        await self.until_ready(store)
        for grant in (opened, unopened):
            await self.until_redeemed(store, grant)

    async def test_a_grant_of_a_later_version_lets_nobody_in(self) -> None:
        server, store = await self.server_and_store()
        grant = await self.issued(store, uses=1)
        server.ask("HSET", f"xvpd:grant:{grant.digest}", "grant", '{"only_on_sundays":true}')
        outcome = await store.redeem(grant.digest, "s1", CLIENT)
        assert isinstance(outcome, Refusal)
        self.assertIs(outcome.reason, Reason.UNSUPPORTED)
        self.assertEqual(await store.grants(None), [])


class RevocationTests(RedisCase):
    """Every node hears, or is named."""

    async def two_nodes(self) -> tuple[RedisServer, RedisStore, RedisProxy, RedisStore]:
        server, a = await self.server_and_store()
        proxy = RedisProxy(self, server.port)
        b = self.store(f"redis://127.0.0.1:{proxy.listens_at}", "node-b")
        await b.start()
        self.assertIsNone(b.ready())
        return server, a, proxy, b

    async def test_a_node_that_is_cut_off_is_named_and_catches_up_when_it_is_back(self) -> None:
        _, a, proxy, b = await self.two_nodes()
        cuts = self.cuts(b)
        grants = [await self.issued(a, f"token-{n}") for n in range(450)]
        sessions = [a_session(f"s{n}", grant) for n, grant in enumerate(grants)]
        b.reconcile(lambda: sessions)
        proxy.resets = 1_000
        proxy.cut()
        await self.until_away(b)
        for n in (3, 444):
            self.assertEqual(await a.revoke(Selector("grant", grants[n].id)), Revoked(1, ("node-b",)))
        self.assertEqual(await a.revoke(Selector("session", "s7")), Revoked(0, ("node-b",)))
        self.assertEqual(cuts, [])
        proxy.resets = 0
        await self.until_ready(b)
        self.assertEqual(
            cuts,
            [
                (Selector("session", "s3"), Reason.REVOKED),
                (Selector("session", "s7"), Reason.KILLED),
                (Selector("session", "s444"), Reason.REVOKED),
            ],
        )

    async def test_a_node_that_was_cut_off_for_longer_than_revocations_are_remembered_keeps_only_what_is_known(self) -> None:
        server, a = await self.server_and_store()
        for hours, expected in ((0.5, []), (1.5, [(Selector("session", "s1"), Reason.REVOKED)])):
            proxy, late = RedisProxy(self, server.port), Late()
            b = RedisStore(late, parse_redis_url(f"redis://127.0.0.1:{proxy.listens_at}"), f"node-{hours}", os.urandom)
            self.addCleanup(b.stop)
            await b.start()
            cuts = self.cuts(b)
            known = await self.issued(a, f"known-{hours}")
            sessions = [a_session("s1", a_grant("forgotten")), a_session("s2", known)]
            b.reconcile(lambda sessions=sessions: sessions)  # type: ignore[misc]
            proxy.resets = 1_000
            proxy.cut()
            await self.until_away(b)
            late.by += hours * 3_600
            proxy.resets = 0
            await self.until_ready(b)
            self.assertEqual(cuts, expected)

    async def test_a_subscription_that_is_lost_alone_is_taken_up_again_and_what_was_missed_is_cut(self) -> None:
        server, a, _, b = await self.two_nodes()
        cuts = self.cuts(b)
        grant = await self.issued(a)
        b.reconcile(lambda: [a_session("s1", grant)])
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        revoked = await a.revoke(Selector("grant", grant.id))
        assert isinstance(revoked, Revoked)
        await until(lambda: len(cuts) > 0, "the session was not cut")
        self.assertIs(cuts[0][1], Reason.REVOKED)
        await self.until_ready(b)

    async def test_a_subscription_that_hears_nothing_is_not_believed(self) -> None:
        _, a, proxy, b = await self.two_nodes()
        cuts = self.cuts(b)
        grant = await self.issued(a)
        b.reconcile(lambda: [a_session("s1", grant)])
        proxy.freeze(1)
        self.assertEqual(await a.revoke(Selector("grant", grant.id)), Revoked(1, ("node-b",)))
        self.assertIn("nothing has come", await self.until_away(b))
        self.assertEqual(cuts, [])
        await self.until_ready(b)
        self.assertEqual(cuts, [(Selector("session", "s1"), Reason.REVOKED)])

    async def test_a_server_that_lets_nobody_publish_is_not_ready(self) -> None:
        server, store = await self.server_and_store()
        server.ask("ACL", "SETUSER", "default", "resetchannels")
        await self.until_away(store)
        server.ask("ACL", "SETUSER", "default", "allchannels")
        await self.until_ready(store)

    async def test_a_node_that_died_is_waited_for_no_more_and_its_sessions_vanish(self) -> None:
        server, a, proxy, b = await self.two_nodes()
        grant = await self.issued(a)
        await a.lease(a_session("mine", grant), Caps())
        await b.lease(a_session("its", grant, node="node-b"), Caps(per_vm=2))
        self.assertIsInstance(await a.lease(a_session("third", grant), Caps(per_vm=2)), Refusal)
        proxy.resets = 1_000
        proxy.cut()
        await self.until_away(b)
        self.assertEqual(await a.revoke(Selector("vm", "other")), Revoked(0, ("node-b",)))
        server.ask("ZINCRBY", "xvpd:nodes", -31_000, "node-b")
        age(server, 31)
        self.assertEqual(await a.revoke(Selector("vm", "other")), Revoked(0))
        self.assertEqual(await a.sessions(), [])
        third = await a.lease(a_session("third", grant), Caps(per_vm=1))
        self.assertNotIsInstance(third, Refusal)

    async def test_a_hundred_sessions_on_two_nodes_are_cut_by_one_order(self) -> None:
        _, a, _, b = await self.two_nodes()
        grants = [await self.issued(a, f"token-{n}") for n in range(100)]
        live: dict[str, list[Session]] = {
            name: [a_session(f"{name}-{n}", grant) for n, grant in enumerate(grants)] for name in ("a", "b")
        }
        for name, store in (("a", a), ("b", b)):

            def cut(selector: Selector, reason: Reason, name: str = name) -> None:
                live[name] = [session for session in live[name] if not selector.matches(session)]

            store.watch(cut)
            await gatherResults([store.lease(session, Caps()) for session in live[name]])
        self.assertEqual(await a.revoke(Selector("vm", grants[0].vm_uuid)), Revoked(100))
        self.assertEqual(live, {"a": [], "b": []})

    async def test_a_watcher_that_fails_keeps_no_other_from_hearing(self) -> None:
        _, store = await self.server_and_store()

        def broken(selector: Selector, reason: Reason) -> None:
            raise RuntimeError("a bug")

        store.watch(broken)
        cuts = self.cuts(store)
        self.assertEqual(await store.revoke(Selector("vm", "v")), Revoked(0))
        self.assertEqual(len(cuts), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_orders_that_make_no_sense_are_not_obeyed(self) -> None:
        server, store = await self.server_and_store()
        cuts = self.cuts(store)
        for text in ("", "{", "[]", '{"order":"o","by":"n"}', '{"order":"o","by":"n","selector":{"kind":"all","value":""}}',
                     '{"obeyed":"o","by":"n"}', '{"beat":"another"}'):  # fmt: skip
            server.ask("PUBLISH", "xvpd:0:orders", text)
        await store.revoke(Selector("vm", "v"))
        self.assertEqual([selector for selector, _ in cuts], [Selector("vm", "v")])

    async def test_races_of_issue_and_revoke_leave_no_orphan(self) -> None:
        server, a, _, b = await self.two_nodes()
        for batch in range(10):
            work: list[Deferred[Any]] = []
            for n in range(100):
                grant = a_grant(f"token-{batch}-{n}", vm_uuid=f"vm-{n % 10}", user=f"user-{n % 7}")
                work.append((a, b)[n % 2].issue(grant))
                selectors = (
                    Selector("vm", grant.vm_uuid),
                    Selector.of_user("portal", grant.user),
                    Selector("grant", grant.id),
                )
                work.append((b, a)[n % 2].revoke(selectors[n % 3]))
            for outcome in await gatherResults(work):
                self.assertNotIsInstance(outcome, Refusal)
        self.assertEqual(complaints(server), [])
        age(server, 3 * 3_600)
        self.assertEqual(server.ask("KEYS", "xvpd:*"), [b"xvpd:nodes"])


class ReplicaTests(RedisCase):
    """Replicated servers: what was answered is not forgotten, and a replica is not written to."""

    async def pair(self) -> tuple[RedisServer, RedisServer, RedisStore]:
        master = RedisServer(self)
        await master.start()
        replica = RedisServer(self, f"replicaof 127.0.0.1 {master.port}", "repl-diskless-load swapdb")
        await replica.start()
        await until(lambda: len(master.ask("ROLE")[2]) == 1, "no replication")
        master.ask("PUBLISH", "a-channel", "something to replicate")
        await until(lambda: int(master.ask("ROLE")[2][0][2]) > 0, "the replica confirmed nothing")
        store = self.store(f"redis://127.0.0.1:{master.port}")
        await store.start()
        self.assertIsNone(store.ready())
        return master, replica, store

    async def test_what_matters_is_answered_once_a_replica_has_it(self) -> None:
        _, replica, store = await self.pair()
        for n in range(20):
            grant = await self.issued(store, f"token-{n}", uses=1)
            key = f"xvpd:grant:{grant.digest}"
            self.assertEqual(replica.ask("HGET", key, "used"), b"0")
            self.assertEqual(await store.redeem(grant.digest, "s1", CLIENT), grant)
            self.assertEqual(replica.ask("HGET", key, "used"), b"1")
            self.assertEqual(await store.revoke(Selector("grant", grant.id)), Revoked(1))
            self.assertEqual(replica.ask("HGET", key, "revoked"), b"1")

    async def test_many_at_once_wait_together(self) -> None:
        _, _, store = await self.pair()
        grant = await self.issued(store, uses=100)
        outcomes = await gatherResults([store.redeem(grant.digest, f"s{n}", CLIENT) for n in range(200)])
        self.assertEqual(outcomes.count(grant), 100)

    async def test_what_no_replica_confirms_is_refused_and_given_back(self) -> None:
        self.answer_seconds = 1.0
        _, replica, store = await self.pair()
        counted, uncounted = await self.issued(store, "counted", uses=1), await self.issued(store, "uncounted")
        replica.pause()
        self.assertEqual(await store.redeem(uncounted.digest, "s1", CLIENT), uncounted)
        self.assertIn("no replica", self.away(await store.redeem(counted.digest, "s1", CLIENT)))
        self.assertIn("no replica", self.away(await store.issue(a_grant("other"))))
        cuts = self.cuts(store)
        self.assertIn("no replica", self.away(await store.revoke(Selector("grant", uncounted.id))))
        await until(lambda: len(cuts) > 0, "a revocation that was carried out was not obeyed here")
        replica.go_on()
        for n in range(200):
            outcome = await store.redeem(counted.digest, f"s{n}", CLIENT)
            if outcome == counted:
                break
            await deferLater(reactor, 0.05)
        self.assertEqual(outcome, counted)

    async def test_a_replica_that_died_is_not_waited_for(self) -> None:
        _, replica, store = await self.pair()
        replica.kill()
        for n in range(3):
            grant = await self.issued(store, f"token-{n}", uses=1)
            self.assertEqual(await store.redeem(grant.digest, "s1", CLIENT), grant)

    async def test_a_read_only_replica_is_not_used_until_it_is_promoted(self) -> None:
        _, replica, _ = await self.pair()
        store = self.store(f"redis://127.0.0.1:{replica.port}", "node-b")
        await store.start()
        self.assertIn("read-only replica", self.why(store))
        self.away(await store.issue(a_grant()))
        replica.ask("REPLICAOF", "NO", "ONE")
        await self.until_ready(store)
        await self.issued(store)

    async def test_a_master_that_is_made_a_replica_is_given_up(self) -> None:
        _, replica, store = await self.pair()
        grant = await self.issued(store)
        other = RedisServer(self)
        await other.start()
        replica.ask("REPLICAOF", "NO", "ONE")
        follower = self.store(f"redis://127.0.0.1:{replica.port}", "node-b")
        await follower.start()
        self.assertIsNone(follower.ready())
        replica.ask("REPLICAOF", "127.0.0.1", other.port)
        self.away(await follower.redeem(grant.digest, "s1", CLIENT))
        self.assertIn("replica", await self.until_away(follower))


class SentinelTests(RedisCase):
    """Sentinel says who the master is; a failover loses nothing that was answered."""

    async def cluster(self, password: str = "") -> tuple[RedisServer, RedisServer, RedisServer]:
        auth = [f"masterauth {password}"] if password else []
        master = RedisServer(self, *auth, password=password)
        await master.start()
        replica = RedisServer(
            self, f"replicaof 127.0.0.1 {master.port}", *auth, "repl-diskless-load swapdb", password=password
        )
        await replica.start()
        await until(lambda: len(master.ask("ROLE")[2]) == 1, "no replication")
        sentinel = RedisServer(
            self,
            f"sentinel monitor main 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds main 400",
            "sentinel failover-timeout main 4000",
            *([f"sentinel auth-pass main {password}"] if password else []),
            sentinel=True,
            password=password,
        )
        await sentinel.start()
        await until(lambda: len(sentinel.ask("SENTINEL", "REPLICAS", "main")) == 1, "the sentinel found no replica")
        return master, replica, sentinel

    async def test_a_failover_loses_nothing_that_was_answered(self) -> None:
        master, replica, sentinel = await self.cluster("secret")
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/1"
        a, b = [self.store(url, node, password="secret") for node in ("node-a", "node-b")]
        for store in (a, b):
            await store.start()
            self.assertIsNone(store.ready())
        used, revoked, good = [await self.issued(a, token, uses=1) for token in ("used", "revoked", "good")]
        self.assertEqual(await b.redeem(used.digest, "s1", CLIENT), used)
        self.assertEqual(await b.revoke(Selector("grant", revoked.id)), Revoked(1))
        master.kill()
        await until(lambda: a.ready() is not None and b.ready() is not None, "the loss was not noticed")
        await until(lambda: replica.ask("ROLE")[0] == b"master", "no failover", 30)
        for store in (a, b):
            await self.until_ready(store)
        self.assertEqual(await a.redeem(used.digest, "s2", CLIENT), Refusal(Reason.TOKEN_USED))
        self.assertEqual(await a.redeem(revoked.digest, "s2", CLIENT), Refusal(Reason.TOKEN_REVOKED))
        self.assertEqual(await b.redeem(good.digest, "s2", CLIENT), good)
        cuts = self.cuts(b)
        self.assertEqual(await a.revoke(Selector("grant", good.id)), Revoked(1))
        self.assertEqual(len(cuts), 1)

    async def test_a_master_that_the_sentinels_no_longer_name_is_given_up_though_it_answers(self) -> None:
        master, replica, sentinel = await self.cluster()
        store = self.store(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        await store.start()
        self.assertIsNone(store.ready())
        sentinel.ask("SENTINEL", "REMOVE", "main")
        replica.ask("REPLICAOF", "NO", "ONE")
        sentinel.ask("SENTINEL", "MONITOR", "main", "127.0.0.1", replica.port, 1)
        subscribers = ("PUBSUB", "NUMSUB", "xvpd:0:orders")  # the sentinel subscribes too, to something else
        await until(lambda: replica.ask(*subscribers)[1] == 1 and store.ready() is None, "the store did not move", 30)
        await self.issued(store)
        self.assertEqual(len(replica.ask("KEYS", "xvpd:grant:*")), 1)
        self.assertEqual(master.ask("KEYS", "xvpd:grant:*"), [])

    async def test_sentinels_that_do_not_know_the_master_or_are_not_there_are_named(self) -> None:
        _, _, sentinel = await self.cluster()
        dead = free_port()
        store = self.store(f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{sentinel.port}/other")
        await store.start()
        why = self.why(store)
        self.assertIn(f"127.0.0.1:{dead}: ", why)
        self.assertIn(f"127.0.0.1:{sentinel.port}: knows no master of the name other", why)
