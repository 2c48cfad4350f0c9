"""`xvpd.grants.redis_scripts`: the rules in Lua are the ledger's, and no index loses or keeps what it must not."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from tests.grants.samples import a_grant, a_session
from tests.redis_server import RedisServer, age
from xvpd.grants import redis_scripts as scripts
from xvpd.grants.ledger import Ledger
from xvpd.grants.network import address_bits, network_bits
from xvpd.grants.store import Caps, Selector, Session
from xvpd.reason import Reason, Refusal

HOUR = 3_600_000
TOKENS = ("t0", "t1", "t2")
SESSIONS = ("s0", "s1", "s2", "s3")
CAPS = Caps(per_vm=2, per_host=1, per_user=2)
CHECK_INDEXES = """
local bad = {}
local function live(set) return redis.call('ZRANGEBYSCORE', set, '(' .. ARGV[1], '+inf', 'WITHSCORES') end
for _, set in ipairs(redis.call('KEYS', 'xvpd:*')) do
  if set == 'xvpd:grants' or string.find(set, '^xvpd:vm:') or string.find(set, '^xvpd:user:') then
    local members = live(set)
    for n = 1, #members, 2 do
      local key = 'xvpd:grant:' .. members[n]
      if redis.call('EXISTS', key) == 0 then bad[#bad + 1] = 'orphan ' .. members[n] .. ' in ' .. set
      elseif redis.call('PEXPIRETIME', key) ~= tonumber(members[n + 1]) then bad[#bad + 1] = set .. ' has a wrong end' end
    end
  elseif string.find(set, '^xvpd:grant:') then
    local digest = string.sub(set, 12)
    local names = redis.call('HMGET', set, 'id', 'vm', 'user', 'open')
    local open = 0
    for _, field in ipairs(redis.call('HKEYS', set)) do if string.find(field, '^open:') then open = open + 1 end end
    if tonumber(names[4] or 0) ~= open then bad[#bad + 1] = set .. ' miscounts what is open' end
    if redis.call('GET', 'xvpd:id:' .. names[1]) ~= digest then bad[#bad + 1] = 'no id for ' .. set end
    for _, index in ipairs({'xvpd:grants', 'xvpd:vm:' .. names[2], 'xvpd:user:' .. names[3]}) do
      if not redis.call('ZSCORE', index, digest) then bad[#bad + 1] = set .. ' is not in ' .. index end
    end
  end
  if redis.call('PTTL', set) < 0 then bad[#bad + 1] = set .. ' has no end' end
end
return bad
"""


def complaints(server: RedisServer) -> list[bytes]:
    """What is wrong with the indexes."""
    seconds, micros = server.ask("TIME")
    found: list[bytes] = server.ask("EVAL", CHECK_INDEXES, 0, int(seconds) * 1000 + int(micros) // 1000)
    return found


class Both:
    """A ledger and a server that are told the same, and must say the same."""

    def __init__(self, case: TestCase, server: RedisServer) -> None:
        self._case = case
        self._server = server
        self._ledger = Ledger()
        self._now = 1e9
        self._passed = 0.0
        self._grants = {
            token: a_grant(token, vm_uuid=f"vm-{token[-1] > '0'}", user=token[1:].replace("2", "")) for token in TOKENS
        }
        server.ask("FLUSHALL")

    def take(self, step: tuple[Any, ...]) -> None:
        name, *arguments = step
        getattr(self, name)(*arguments)
        self._case.assertEqual(self._listed_grants(), {grant.id for grant in self._ledger.grants(self._now, None)})
        live = {session.id for session, _ in self._ledger.sessions(self._now)}
        self._case.assertEqual(set(self._run(scripts.LIST, "xvpd:sessions").split()), live)

    def time(self, seconds: float) -> None:
        if self._passed + seconds < 3_000:  # no further: when exactly something is forgotten is for each store to say
            self._now, self._passed = self._now + seconds, self._passed + seconds
            age(self._server, seconds)

    def issue(self, token: str, uses: int, times: tuple[float, float, float], client: str) -> None:
        (ttl, resume, duration), old = times, self._grants[token]
        grant = self._grants[token] = replace(
            old, uses=uses, resume=resume, expires_at=old.issued_at + ttl, client=client, max_duration=duration
        )
        names = (grant.digest, grant.id, grant.vm_uuid, grant.user, grant.issuer)
        limits = (network_bits(client), round(duration * 1000))
        answer = self._run(scripts.ISSUE, *names, uses, round(ttl * 1000), round(resume * 1000), grant.id, HOUR, *limits)
        self._case.assertEqual(answer, "kept" if self._ledger.issue(self._now, grant) else "known")

    def redeem(self, token: str, session_id: str, client: str) -> None:
        digest = self._grants[token].digest
        outcome = self._ledger.redeem(self._now, digest, session_id, client)
        answer = self._run(scripts.REDEEM, digest, session_id, address_bits(client)).lstrip("!=")
        self._case.assertEqual(answer, outcome.reason.word if isinstance(outcome, Refusal) else outcome.id)

    def give_back(self, token: str, session_id: str) -> None:
        digest = self._grants[token].digest
        self._ledger.give_back(self._now, digest, session_id)
        self._run(scripts.GIVE_BACK, digest, session_id)

    def ended(self, token: str, session_id: str, resumable: bool) -> None:
        digest = self._grants[token].digest
        self._ledger.ended(self._now, digest, session_id, resumable)
        self._run(scripts.ENDED, digest, session_id, int(resumable), HOUR)

    def lease(self, session_id: str) -> None:
        session = self._session(session_id)
        refusal = self._ledger.lease(self._now, session, CAPS)
        caps = (CAPS.per_vm, CAPS.per_host, CAPS.per_user)
        places = [word for place, cap in zip(self._places(session), caps, strict=False) for word in (*place, cap)]
        answer, _, left = self._run(scripts.LEASE, session_id, session.grant.digest, "{}", 30_000, HOUR, *places).partition(
            " "
        )
        self._case.assertEqual(answer, _word(refusal))
        if left:
            expected = self._ledger.seconds_left(self._now, session)
            assert expected is not None
            self._case.assertTrue(abs(float(left) / 1000 - expected) < 5, f"{left} ms is not {expected} s")

    def release(self, session_id: str) -> None:
        self._ledger.release(self._now, session_id)
        places = [word for place in self._places(self._session(session_id)) for word in place]
        self._run(scripts.RELEASE, session_id, *places)

    def revoke(self, kind: str, token: str, session_id: str) -> None:
        grant = self._grants[token]
        values = {"grant": grant.id, "digest": grant.digest, "vm": grant.vm_uuid, "user": grant.user, "session": session_id}
        answer = self._run(scripts.REVOKE, kind, values[kind], "1", "", HOUR, "channel", "message")
        self._case.assertEqual(answer, f"{self._ledger.revoke(self._now, Selector(kind, values[kind]))}\n")

    def ask(self, session_id: str) -> None:
        session = self._session(session_id)
        against = self._ledger.against(self._now, session)
        answer = self._run(scripts.STANDING, session_id, session.grant.digest)
        self._case.assertIn(answer, {Reason.REVOKED: "r", Reason.KILLED: "k", None: ".?"}[against])

    def _session(self, session_id: str) -> Session:
        number = SESSIONS.index(session_id)
        return a_session(session_id, self._grants[TOKENS[number % len(TOKENS)]], host=f"host-{number % 2}")

    def _places(self, session: Session) -> list[tuple[str, str]]:
        grant = session.grant
        places = [("vm", grant.vm_uuid), ("host", session.host)]
        return [*places, ("user", f"{grant.issuer}\n{grant.user}")] if grant.user else places

    def _listed_grants(self) -> set[str]:
        digests = self._run(scripts.LIST, "xvpd:grants").split()
        return set(self._run(scripts.READ_GRANTS, "1", "", *digests).split())

    def _run(self, script: bytes, *arguments: Any) -> str:
        answer: bytes = self._server.ask("EVAL", script, 0, *arguments)
        return answer.decode()


def a_step() -> st.SearchStrategy[tuple[Any, ...]]:
    """One thing that happens. Ends fall on odd seconds and time passes in tens: how long a test takes does not matter."""
    token, session = st.sampled_from(TOKENS), st.sampled_from(SESSIONS)
    ttl, resume, duration = (
        st.sampled_from([217.0, 1017.0]),
        st.sampled_from([0.0, 303.0]),
        st.sampled_from([0.0, 151.0, 607.0]),
    )
    client, home = st.sampled_from(["192.0.2.7", "192.0.2.7", "::ffff:192.0.2.8", "2001:db8::1", "unix"]), "192.0.2.0/24"
    return st.one_of(
        st.tuples(
            st.just("issue"), token, st.integers(0, 2), st.tuples(ttl, resume, duration), st.sampled_from(["", "", home])
        ),
        st.tuples(st.just("redeem"), token, session, client),
        st.tuples(st.just("give_back"), token, session),
        st.tuples(st.just("ended"), token, session, st.booleans()),
        st.tuples(st.just("lease"), session),
        st.tuples(st.just("release"), session),
        st.tuples(st.just("revoke"), st.sampled_from(Selector.KINDS), token, session),
        st.tuples(st.just("ask"), session),
        st.tuples(st.just("time"), st.sampled_from([20.0, 100.0, 300.0])),
    )


class ScriptTests(TestCase):
    """The scripts against a real server."""

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        self.server = RedisServer(self)
        await self.server.start()

    @settings(max_examples=150, deadline=None)
    @given(st.lists(a_step(), max_size=40))
    def test_every_script_does_what_the_ledger_does(self, steps: list[tuple[Any, ...]]) -> None:
        both = Both(self, self.server)
        for step in steps:
            both.take(step)
        self.assertEqual(complaints(self.server), [])

    def test_ten_thousand_races_of_issue_and_revoke_leave_no_orphan(self) -> None:
        issue, revoke = (self.server.ask("SCRIPT", "LOAD", script) for script in (scripts.ISSUE, scripts.REVOKE))
        issues: list[tuple[Any, ...]] = []
        revocations: list[tuple[Any, ...]] = []
        for n in range(10_000):
            vm, user = f"vm-{n % 50}", f"user-{n % 37}"
            issues.append(
                ("EVALSHA", issue, 0, f"digest-{n}", f"id-{n}", vm, user, "portal", 1, 600_000, 0, "{}", HOUR, "", 0)
            )
            kind, value = (("vm", vm), ("user", user), ("grant", f"id-{n}"), ("digest", f"digest-{n}"))[n % 4]
            revocations.append(("EVALSHA", revoke, 0, kind, value, "1", "", HOUR, "channel", "message"))
        kept, ended = self.server.ask_many(issues, revocations)
        self.assertEqual(set(kept), {b"kept"})
        self.assertGreater(sum(int(answer) for answer in ended), 0)
        self.assertEqual(complaints(self.server), [])
        age(self.server, 3 * 3_600)
        self.assertEqual(self.server.ask("KEYS", "*"), [])


def _word(refusal: Refusal | None) -> str:
    """What the script for leases answers where the ledger refuses."""
    if refusal is None:
        return "leased"
    words = {Reason.TOKEN_REVOKED: "revoked", Reason.KILLED: "killed"}
    return words.get(refusal.reason) or refusal.detail.removeprefix("the cap per ").removesuffix(" is reached")
