"""The calls about console URLs, as those who ask see them."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from tests.api.asking import ISSUER_KEY, METRICS_KEY, OPERATOR_KEY, OTHER_KEY, WEB, Answer, ApiTestCase
from xvpd.api.issuer import Terms
from xvpd.grants.grant import Grant, digest
from xvpd.grants.store import Revoked, Selector
from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import Location

DB = Location("lab", "5a1f6f2c-0002-4000-8000-000000000002", "OpaqueRef:db", "db-1", "host-2", "10.0.0.12")


class Consoles(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.vms.known |= {DB.vm_name: DB}
        self.cut: list[Selector] = []
        self.store.watch(lambda selector, reason: self.cut.append(selector))

    def post(self, body: dict[str, Any] | None = None, key: str | None = ISSUER_KEY) -> Answer:
        """Ask for a console URL."""
        return self.ask("POST", "/v1/consoles", key, {"vm": "web-1", "type": "xvpvnc"} | (body or {}))

    def console(self, key: str = ISSUER_KEY, **body: Any) -> str:
        """A console's id."""
        return str(self.post(body, key).json()["id"])

    def listed(self, key: str = ISSUER_KEY, query: str = "") -> list[str]:
        """The ids of the consoles on a page."""
        return [console["id"] for console in self.ask("GET", f"/v1/consoles{query}", key).json()["consoles"]]

    def store_says(self, outcome: Revoked | Refusal) -> None:
        """Let the store do as it does, and say this of it."""
        revoke = self.store.revoke

        def saying(selector: Selector) -> Deferred[Revoked | Refusal]:
            return revoke(selector).addCallback(lambda _: outcome)

        self.patch(self.store, "revoke", saying)

    def store_is_away(self) -> None:
        """Let nothing be done any more."""
        away: Deferred[Any] = succeed(Refusal(Reason.STORE_AWAY, "canary 10.0.0.5"))
        for name in ("revoke", "grants", "sessions"):
            self.patch(self.store, name, lambda _: away)


class Issuing(Consoles):
    def test_the_reply_is_the_contracts(self) -> None:
        answer = self.post()
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        console = answer.json()
        self.assertEqual(answer.headers["location"], f"/v1/consoles/{console['id']}")
        self.assertEqual(set(console), {"id", "type", "url", "expires_at", "vm"})
        self.assertEqual(console["type"], "xvpvnc")
        self.assertEqual(console["expires_at"], "2023-11-14T22:23:20Z")
        self.assertEqual(console["vm"], {"uuid": WEB.vm_uuid, "name": "web-1"})
        self.assertTrue(console["url"].startswith("https://console.example.org:6081/console?token="))

    def test_what_is_asked_for_is_in_the_grant(self) -> None:
        url = self.post({"user": "ålice", "ttl": 60, "uses": 1}).json()["url"]
        grant = self.successResultOf(self.store.redeem(digest(url.partition("token=")[2]), "session", "192.0.2.7"))
        assert isinstance(grant, Grant)
        self.assertEqual((grant.issuer, grant.user, grant.uses), ("portal", "ålice", 1))
        self.assertEqual(grant.expires_at - grant.issued_at, 60)

    def test_a_client_has_to_come_from_the_network_that_is_asked_for(self) -> None:
        url = self.post({"client": "10.0.0.0/8"}).json()["url"]
        token = digest(url.partition("token=")[2])
        for address, good in (("192.0.2.7", False), ("10.1.2.3", True)):
            redeemed = self.successResultOf(self.store.redeem(token, address, address))
            self.assertEqual(redeemed == Refusal(Reason.TOKEN_ELSEWHERE), not good)

    def test_a_network_is_kept_in_its_one_spelling(self) -> None:
        for asked, kept in (
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("2001:DB8::/32", "2001:db8::/32"),
        ):
            location = self.post({"client": asked}).headers["location"]
            self.assertEqual(self.ask("GET", location, ISSUER_KEY).json()["client"], kept)

    def test_the_max_duration_that_is_asked_for_is_the_grants(self) -> None:
        location = self.post({"max_duration": 90}).headers["location"]
        self.assertEqual(self.ask("GET", location, ISSUER_KEY).json()["max_duration"], 90)

    def test_issuers_and_operators_may_and_others_may_not(self) -> None:
        self.assertEqual(self.post(key=ISSUER_KEY).status, 201)
        self.assertEqual(self.post(key=OPERATOR_KEY).status, 201)
        self.assert_problem(self.post(key=METRICS_KEY), 403, "forbidden")
        self.assert_problem(self.post(key=None), 401, "unauthorized")
        self.assert_problem(self.post(key="wrong"), 401, "unauthorized")

    def test_what_is_not_enforced_yet_is_refused_by_name_whatever_its_value(self) -> None:
        for key in ("view_only", "power", "take_over"):
            for value in (True, False, None, "10.0.0.0/8", 0):
                answer = self.post({key: value})
                self.assert_problem(answer, 400, "unsupported", f"{key}: is not supported yet")
        self.assert_problem(self.post({"type": "novnc"}), 400, "unsupported", "type: novnc is not supported yet")

    def test_bad_bodies_name_the_key(self) -> None:
        for body, detail in (
            ({"vm": ""}, "vm: must not be empty"),
            ({"vm": 5}, "vm: must be a string"),
            ({"vm": "a\nb"}, "vm: must have no control characters"),
            ({"vm": "x" * 256}, "vm: must be at most 255 characters long"),
            ({"type": "spice"}, "type: must be 'xvpvnc' or 'novnc'"),
            ({"ttl": 0}, "ttl: must be greater than 0"),
            ({"ttl": "60"}, "ttl: must be a number"),
            ({"ttl": True}, "ttl: must be a number"),
            ({"ttl": 601}, "ttl: must be at most 600"),
            ({"uses": -1}, "uses: must be greater than or equal to 0"),
            ({"uses": 1.5}, "uses: must be a whole number"),
            ({"user": "a\x1b[31m"}, "user: must have no control characters"),
            ({"client": ""}, "client: must be a network such as 192.0.2.0/24, or an address"),
            ({"client": "host"}, "client: must be a network such as 192.0.2.0/24, or an address"),
            ({"client": "10.1.2.3/8"}, "client: must have no bits set behind the first 8; 10.0.0.0/8 would do"),
            ({"client": 5}, "client: must be a string"),
            ({"max_duration": 0}, "max_duration: must be greater than 0"),
            ({"max_duration": -1}, "max_duration: must be greater than 0"),
            ({"max_duration": 31_536_001}, "max_duration: must be less than or equal to 31536000"),
            ({"max_duration": "90"}, "max_duration: must be a number"),
            ({"user": "\ud800"}, "user: must be a string"),
            ({"vm_name": "x"}, "vm_name: no such key"),
        ):
            self.assert_problem(self.post(body), 400, "bad_request", detail)
        self.assert_problem(
            self.ask("POST", "/v1/consoles", ISSUER_KEY, {}), 400, "bad_request", "vm: is missing; type: is missing"
        )
        self.assert_problem(self.ask("POST", "/v1/consoles", ISSUER_KEY), 415, "not_json")
        self.assert_problem(
            self.ask("POST", "/v1/consoles", ISSUER_KEY, b'{"vm":"web-1","type":"xvpvnc","ttl":1e999}'),
            400,
            "bad_request",
            "ttl: must be a finite number",
        )

    def test_while_draining_nothing_is_issued_but_what_was_can_be_seen_and_revoked(self) -> None:
        console = self.console()
        self.draining = True
        self.assert_problem(self.post(), 503, "draining")
        self.assertEqual(self.listed(), [console])
        self.assertEqual(self.ask("DELETE", f"/v1/consoles/{console}", ISSUER_KEY).status, 204)

    def test_refusals_have_their_reasons_status_and_none_of_their_detail(self) -> None:
        for reason in (
            Reason.VM_NOT_FOUND,
            Reason.VM_AMBIGUOUS,
            Reason.VM_NOT_RUNNING,
            Reason.NO_CONSOLE,
            Reason.HYPERVISOR_UNTRUSTED,
            Reason.HYPERVISOR_UNREACHABLE,
        ):
            self.vms.known["web-1"] = Refusal(reason, "canary 10.0.0.11")
            answer = self.post()
            assert reason.status is not None
            self.assert_problem(answer, reason.status, reason.word, reason.sentence)
            self.assertNotIn(b"canary", answer.body)


class IssuingWithMaxDuration(Consoles):
    terms = Terms(ttl=600, uses=0, resume=300, max_duration=3600)

    def test_no_more_than_the_configured_may_be_asked_for(self) -> None:
        answer = self.post({"max_duration": 3601})
        self.assert_problem(answer, 400, "bad_request", "max_duration: must be at most 3600")
        self.assertEqual(self.post({"max_duration": 3600}).status, 201)


class Listing(Consoles):
    def test_the_location_of_a_new_console_tells_what_it_is_without_its_token(self) -> None:
        posted = self.post({"user": "ann", "uses": 2, "ttl": 60})
        answer = self.ask("GET", posted.headers["location"], ISSUER_KEY)
        self.assertEqual(answer.status, 200)
        self.assertEqual(
            answer.json(),
            {
                "id": posted.json()["id"],
                "type": "xvpvnc",
                "vm": {"uuid": WEB.vm_uuid, "name": "web-1"},
                "issuer": "portal",
                "user": "ann",
                "issued_at": "2023-11-14T22:13:20Z",
                "expires_at": "2023-11-14T22:14:20Z",
                "uses": 2,
                "client": None,
                "max_duration": None,
            },
        )

    def test_the_list_has_the_same_of_each_oldest_first(self) -> None:
        first = self.console()
        self.clock.advance(1)
        second = self.console()
        answer = self.ask("GET", "/v1/consoles", ISSUER_KEY)
        self.assertEqual([console["id"] for console in answer.json()["consoles"]], [first, second])
        self.assertEqual(answer.json()["consoles"][0], self.ask("GET", f"/v1/consoles/{first}", ISSUER_KEY).json())
        self.assertIsNone(answer.json()["next"])

    def test_the_list_comes_in_pages(self) -> None:
        consoles = [self.console() for _ in range(5)]
        told: list[str] = []
        query = "?limit=2"
        for expected in (2, 2, 1):
            page = self.ask("GET", f"/v1/consoles{query}", ISSUER_KEY).json()
            self.assertEqual(len(page["consoles"]), expected)
            told += [console["id"] for console in page["consoles"]]
            query = f"?after={page['next']}&limit=2"
        self.assertIsNone(page["next"])
        self.assertEqual(sorted(told), sorted(consoles))

    def test_bad_queries_are_refused(self) -> None:
        console = self.console()
        for path in ("?limit=0", "?after=x", "?user=ann", f"/{console}?token=x"):
            self.assert_problem(self.ask("GET", f"/v1/consoles{path}", ISSUER_KEY), 400, "bad_request")

    def test_issuers_see_their_own_and_operators_all(self) -> None:
        mine, other, operators = self.console(ISSUER_KEY), self.console(OTHER_KEY), self.console(OPERATOR_KEY)
        self.assertEqual(self.listed(ISSUER_KEY), [mine])
        self.assertEqual(self.listed(OTHER_KEY), [other])
        self.assertEqual(set(self.listed(OPERATOR_KEY)), {mine, other, operators})
        self.assertEqual(self.ask("GET", f"/v1/consoles/{mine}", OPERATOR_KEY).status, 200)

    def test_anothers_console_is_as_one_that_never_was(self) -> None:
        other = self.console(OTHER_KEY)
        answers = [self.ask("GET", f"/v1/consoles/{each}", ISSUER_KEY) for each in (other, "unknown", "%0A")]
        for answer in answers:
            self.assert_problem(answer, 404, "not_found")
            self.assertEqual({**answer.json(), "request_id": ""}, {**answers[0].json(), "request_id": ""})

    def test_a_console_that_cannot_be_opened_any_more_is_not_there(self) -> None:
        console = self.console(ttl=60)
        self.clock.advance(61)
        self.assert_problem(self.ask("GET", f"/v1/consoles/{console}", ISSUER_KEY), 404, "not_found")
        self.assertEqual(self.listed(), [])

    def test_no_token_or_digest_is_told(self) -> None:
        token = self.post().json()["url"].partition("token=")[2]
        body = self.ask("GET", "/v1/consoles", OPERATOR_KEY).body
        for secret in (token, digest(token)):
            self.assertNotIn(secret.encode(), body)

    def test_without_the_store_it_is_a_503(self) -> None:
        self.store_is_away()
        for path in ("/v1/consoles", "/v1/consoles/x"):
            answer = self.ask("GET", path, ISSUER_KEY)
            self.assert_problem(answer, 503, "store_away")
            self.assertNotIn(b"canary", answer.body)

    def test_metrics_may_not(self) -> None:
        for path in ("/v1/consoles", "/v1/consoles/x"):
            self.assert_problem(self.ask("GET", path, METRICS_KEY), 403, "forbidden")


class Revoking(Consoles):
    """Each of the calls that revoke: what it means, and what is said of it."""

    def delete(self, path: str, key: str = ISSUER_KEY) -> Answer:
        """Revoke."""
        return self.ask("DELETE", path, key)

    def redeemed(self, url: str) -> Grant | Refusal:
        """What the token of a URL is good for now."""
        return self.successResultOf(self.store.redeem(digest(url.partition("token=")[2]), "session", "192.0.2.7"))

    def test_a_revoked_console_is_over_and_its_sessions_are_cut(self) -> None:
        console = self.post().json()
        answer = self.delete(f"/v1/consoles/{console['id']}")
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(self.redeemed(console["url"]), Refusal(Reason.TOKEN_REVOKED))
        self.assertEqual(self.cut, [Selector("grant", console["id"], "portal")])
        self.assert_problem(self.delete(f"/v1/consoles/{console['id']}"), 404, "not_found")

    def test_a_console_that_is_used_up_but_open_can_be_revoked(self) -> None:
        console = self.post({"uses": 1}).json()
        assert isinstance(self.redeemed(console["url"]), Grant)
        self.assertEqual(self.delete(f"/v1/consoles/{console['id']}").status, 204)
        self.assertEqual(self.cut, [Selector("grant", console["id"], "portal")])

    def test_an_issuer_revokes_its_own_alone_and_an_operator_any(self) -> None:
        console = self.post().json()
        for path in (f"/v1/consoles/{console['id']}", "/v1/consoles/unknown", "/v1/consoles/%20"):
            self.assert_problem(self.delete(path, OTHER_KEY), 404, "not_found")
        assert isinstance(self.redeemed(console["url"]), Grant)
        self.assertEqual(self.delete(f"/v1/consoles/{console['id']}", OPERATOR_KEY).status, 204)

    def test_a_vms_consoles_are_revoked_the_issuers_own_or_for_an_operator_all(self) -> None:
        self.console()
        other, elsewhere = self.console(OTHER_KEY), self.console(vm="db-1")
        self.assertEqual(self.delete(f"/v1/vms/{WEB.vm_uuid.upper()}/consoles").status, 204)
        self.assertEqual(set(self.listed(OPERATOR_KEY)), {other, elsewhere})
        self.assertEqual(self.cut, [Selector("vm", WEB.vm_uuid, "portal")])
        self.console()
        self.assertEqual(self.delete(f"/v1/vms/{WEB.vm_uuid}/consoles", OPERATOR_KEY).status, 204)
        self.assertEqual(self.listed(OPERATOR_KEY), [elsewhere])

    def test_a_vm_is_named_by_uuid(self) -> None:
        self.console()
        for name in ("web-1", f"%7B{WEB.vm_uuid}%7D", "x"):
            answer = self.delete(f"/v1/vms/{name}/consoles", OPERATOR_KEY)
            self.assert_problem(answer, 400, "bad_request", "uuid: must be a virtual machine's uuid")
        self.assertEqual(self.cut, [])

    def test_a_users_consoles_are_revoked_within_the_issuers_name_space(self) -> None:
        self.console(user="ann/é")
        bob, others = self.console(user="bob"), self.console(OTHER_KEY, user="ann/é")
        self.assertEqual(self.delete("/v1/users/ann%2F%C3%A9/consoles").status, 204)
        self.assertEqual(set(self.listed(OPERATOR_KEY)), {bob, others})
        self.assertEqual(self.cut, [Selector.of_user("portal", "ann/é")])

    def test_an_operator_says_whose_user_is_meant(self) -> None:
        mine = self.console(user="ann")
        self.console(OTHER_KEY, user="ann")
        answer = self.delete("/v1/users/ann/consoles", OPERATOR_KEY)
        self.assert_problem(answer, 400, "bad_request", "issuer: is missing; whose user is it? ?issuer=NAME says so")
        self.assertEqual(self.delete("/v1/users/ann/consoles?issuer=lab", OPERATOR_KEY).status, 204)
        self.assertEqual(self.listed(OPERATOR_KEY), [mine])

    def test_an_issuer_may_name_itself_and_nobody_else(self) -> None:
        self.console(user="ann")
        self.assert_problem(self.delete("/v1/users/ann/consoles?issuer=portal", OTHER_KEY), 403, "forbidden")
        self.assertEqual(len(self.listed()), 1)
        self.assertEqual(self.delete("/v1/users/ann/consoles?issuer=portal").status, 204)
        self.assertEqual(self.listed(), [])

    def test_names_that_no_user_can_have_are_refused(self) -> None:
        for user in ("a%0Ab", "x" * 256):
            self.assert_problem(self.delete(f"/v1/users/{user}/consoles"), 400, "bad_request")
        self.assert_problem(self.delete("/v1/users/ann/consoles?issuer=", OPERATOR_KEY), 400, "bad_request")
        self.assert_problem(self.delete("/v1/users//consoles"), 404, "not_found")
        self.assertEqual(self.cut, [])

    def test_a_restriction_that_means_nothing_is_refused_and_nothing_revoked(self) -> None:
        console = self.console(user="ann")
        for path in (f"/v1/consoles/{console}", f"/v1/vms/{WEB.vm_uuid}/consoles", "/v1/users/ann/consoles"):
            self.assert_problem(self.delete(f"{path}?vm=db-1"), 400, "bad_request", "vm: no such key")
            self.assert_problem(self.delete(f"{path}?x"), 400, "bad_request")
        self.assertEqual(self.listed(), [console])

    def test_nodes_that_have_not_obeyed_are_named(self) -> None:
        console = self.console(user="ann")
        self.store_says(Revoked(1, ("node-2", "node-3")))
        for path in (f"/v1/consoles/{console}", f"/v1/vms/{WEB.vm_uuid}/consoles", "/v1/users/ann/consoles"):
            answer = self.delete(path)
            self.assertEqual((answer.status, answer.headers["content-type"]), (202, "application/json"))
            self.assertEqual(answer.json(), {"silent_nodes": ["node-2", "node-3"]})

    def test_a_revocation_that_is_given_again_is_not_over_while_a_node_is_silent(self) -> None:
        self.store_says(Revoked(0, ("node-2",)))
        self.assertEqual(self.delete("/v1/consoles/revoked-before").status, 202)

    def test_nothing_to_revoke_of_a_vm_or_a_user_is_no_error(self) -> None:
        for path in (f"/v1/vms/{WEB.vm_uuid}/consoles", "/v1/users/nobody/consoles"):
            self.assertEqual(self.delete(path).status, 204)

    def test_without_the_store_it_is_a_503(self) -> None:
        self.store_is_away()
        for path in ("/v1/consoles/x", f"/v1/vms/{WEB.vm_uuid}/consoles", "/v1/users/ann/consoles"):
            self.assert_problem(self.delete(path), 503, "store_away")

    def test_the_log_says_who_revoked_what(self) -> None:
        for key, path, line in (
            (ISSUER_KEY, "/v1/users/ann/consoles", "portal revokes by user ann, issued by portal"),
            (OPERATOR_KEY, f"/v1/vms/{WEB.vm_uuid}/consoles", f"ops revokes by vm {WEB.vm_uuid}, issued by anyone"),
        ):
            with capturedLogs() as events:
                request_id = self.delete(path, key).headers["x-request-id"]
            self.assertEqual(formatEvent(events[0]), f"{request_id}: {line}")

    def test_metrics_may_not(self) -> None:
        for path in ("/v1/consoles/x", f"/v1/vms/{WEB.vm_uuid}/consoles", "/v1/users/ann/consoles"):
            self.assert_problem(self.delete(path, METRICS_KEY), 403, "forbidden")
