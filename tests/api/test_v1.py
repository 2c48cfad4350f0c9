"""``POST /v1/consoles``, as those who ask see it."""

from typing import Any

from tests.api.asking import ISSUER_KEY, METRICS_KEY, OPERATOR_KEY, WEB, Answer, ApiTestCase
from xvpd.grants.grant import Grant, digest
from xvpd.reason import Reason, Refusal


class Issuing(ApiTestCase):
    def post(self, body: dict[str, Any] | None = None, key: str | None = ISSUER_KEY) -> Answer:
        """Ask for a console URL."""
        return self.ask("POST", "/v1/consoles", key, {"vm": "web-1", "type": "xvpvnc"} | (body or {}))

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

    def test_issuers_and_operators_may_and_others_may_not(self) -> None:
        self.assertEqual(self.post(key=ISSUER_KEY).status, 201)
        self.assertEqual(self.post(key=OPERATOR_KEY).status, 201)
        self.assert_problem(self.post(key=METRICS_KEY), 403, "forbidden")
        self.assert_problem(self.post(key=None), 401, "unauthorized")
        self.assert_problem(self.post(key="wrong"), 401, "unauthorized")

    def test_what_is_not_enforced_yet_is_refused_by_name_whatever_its_value(self) -> None:
        for key in ("view_only", "power", "take_over", "client", "max_duration"):
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
