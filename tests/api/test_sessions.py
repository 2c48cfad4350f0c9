"""The calls about live sessions, as those who ask see them."""

from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.api.asking import ISSUER_KEY, METRICS_KEY, NOW, OPERATOR_KEY, OTHER_KEY, WEB, Answer, ApiTestCase
from tests.grants.samples import a_grant, a_session
from xvpd.grants.store import Activity, Caps, Revoked, Selector
from xvpd.reason import Reason, Refusal


class SessionCase(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cut: list[tuple[Selector, Reason]] = []
        self.store.watch(lambda selector, reason: self.cut.append((selector, reason)))

    def live(self, name: str, issuer: str = "portal", activity: Activity | None = None, **fields: Any) -> str:
        """The id of a live session."""
        grant = a_grant(name, issuer=issuer, vm_uuid=WEB.vm_uuid, vm_name=WEB.vm_name)
        session = a_session(name, grant, **({"since": self.clock.seconds()} | fields))
        lease = self.successResultOf(self.store.lease(session, Caps()))
        assert not isinstance(lease, Refusal)
        if activity is not None:
            lease.renew(activity)
        return session.id

    def listed(self, key: str, query: str = "") -> list[str]:
        """The ids of the sessions on a page."""
        return [session["id"] for session in self.ask("GET", f"/v1/sessions{query}", key).json()["sessions"]]

    def delete(self, session: str, key: str = ISSUER_KEY) -> Answer:
        """Cut a session."""
        return self.ask("DELETE", f"/v1/sessions/{session}", key)

    def store_is_away(self, *names: str) -> None:
        """Let the store refuse these."""
        away: Deferred[Any] = succeed(Refusal(Reason.STORE_AWAY))
        for name in names:
            self.patch(self.store, name, lambda *_: away)


class Listing(SessionCase):
    def test_every_nodes_sessions_are_listed_with_what_they_have_done(self) -> None:
        first = self.live("s1", activity=Activity(5000, 70, NOW + 61.5), pool="lab")
        self.clock.advance(1)
        second = self.live("s2", node="b", host="host-2")
        answer = self.ask("GET", "/v1/sessions", ISSUER_KEY)
        self.assertEqual(answer.status, 200)
        self.assertEqual([session["id"] for session in answer.json()["sessions"]], [first, second])
        self.assertEqual(
            answer.json()["sessions"][0],
            {
                "id": "s1",
                "grant": "grant-of-s1",
                "vm": {"uuid": WEB.vm_uuid, "name": "web-1"},
                "pool": "lab",
                "host": "host-1",
                "user": "ann",
                "issuer": "portal",
                "client": "192.0.2.7",
                "node": "a",
                "since": "2023-11-14T22:13:20Z",
                "bytes_to_client": 5000,
                "bytes_to_hypervisor": 70,
                "last_input": "2023-11-14T22:14:21Z",
            },
        )
        self.assertEqual((answer.json()["sessions"][1]["node"], answer.json()["sessions"][1]["last_input"]), ("b", None))
        self.assertIsNone(answer.json()["next"])

    def test_the_list_comes_in_pages(self) -> None:
        for n in range(5):
            self.live(f"s{n}")
        page = self.ask("GET", "/v1/sessions?limit=3", ISSUER_KEY).json()
        self.assertEqual([session["id"] for session in page["sessions"]], ["s0", "s1", "s2"])
        self.assertEqual(self.listed(ISSUER_KEY, f"?limit=3&after={page['next']}"), ["s3", "s4"])

    def test_issuers_see_their_own_and_operators_all(self) -> None:
        self.live("s1")
        self.live("s2", "lab")
        self.assertEqual(self.listed(ISSUER_KEY), ["s1"])
        self.assertEqual(self.listed(OTHER_KEY), ["s2"])
        self.assertEqual(self.listed(OPERATOR_KEY), ["s1", "s2"])
        self.assert_problem(self.ask("GET", "/v1/sessions", METRICS_KEY), 403, "forbidden")

    def test_a_session_whose_node_died_vanishes(self) -> None:
        self.live("s1")
        self.clock.advance(self.store.lease_seconds + 1)
        self.assertEqual(self.listed(OPERATOR_KEY), [])

    def test_no_digest_is_told(self) -> None:
        self.live("s1")
        body = self.ask("GET", "/v1/sessions", OPERATOR_KEY).body
        self.assertNotIn(a_grant("s1").digest.encode(), body)

    def test_bad_queries_are_refused(self) -> None:
        self.assert_problem(self.ask("GET", "/v1/sessions?limit=0", ISSUER_KEY), 400, "bad_request")
        self.assert_problem(self.ask("GET", "/v1/sessions?vm=x", ISSUER_KEY), 400, "bad_request")

    def test_without_the_store_it_is_a_503(self) -> None:
        self.patch(self.store, "sessions", lambda: succeed(Refusal(Reason.STORE_AWAY)))
        self.assert_problem(self.ask("GET", "/v1/sessions", ISSUER_KEY), 503, "store_away")


class Cutting(SessionCase):
    def test_a_session_is_cut_whichever_node_has_it(self) -> None:
        self.live("s1", node="b")
        self.live("s2", node="b")
        answer = self.delete("s1")
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(self.cut, [(Selector("session", "s1", "portal"), Reason.KILLED)])

    def test_an_issuer_cuts_its_own_alone_and_an_operator_any(self) -> None:
        self.live("s1")
        for session in ("s1", "unknown", "%0A"):
            self.assert_problem(self.delete(session, OTHER_KEY), 404, "not_found")
        self.assertEqual(self.cut, [])
        self.assertEqual(self.delete("s1", OPERATOR_KEY).status, 204)
        self.assertEqual(len(self.cut), 1)

    def test_nodes_that_have_not_obeyed_are_named(self) -> None:
        self.live("s1", node="b")
        self.patch(self.store, "revoke", lambda _: succeed(Revoked(0, ("b",))))
        answer = self.delete("s1")
        self.assertEqual((answer.status, answer.json()), (202, {"silent_nodes": ["b"]}))

    def test_without_the_store_it_is_a_503(self) -> None:
        self.live("s1")
        self.store_is_away("revoke")
        self.assert_problem(self.delete("s1"), 503, "store_away")
        self.store_is_away("sessions")
        self.assert_problem(self.delete("s1"), 503, "store_away")

    def test_bad_queries_and_metrics_are_refused(self) -> None:
        self.live("s1")
        self.assert_problem(self.delete("s1?issuer=portal"), 400, "bad_request")
        self.assert_problem(self.delete("s1", METRICS_KEY), 403, "forbidden")
        self.assertEqual(self.cut, [])
