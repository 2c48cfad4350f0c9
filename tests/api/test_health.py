"""Probes and scrapes."""

from tests.api.asking import ISSUER_KEY, METRICS_KEY, OPERATOR_KEY, ApiTestCase
from xvpd.reason import Reason, Refusal


class HealthTests(ApiTestCase):
    def test_healthz_needs_no_key(self) -> None:
        answer = self.ask("GET", "/healthz")
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))

    def test_healthz_says_that_it_drains(self) -> None:
        self.draining = True
        answer = self.ask("GET", "/healthz")
        self.assertEqual((answer.status, answer.body), (503, b"draining\n"))

    def test_head_has_the_headers_of_get_and_no_body(self) -> None:
        answer = self.ask("HEAD", "/healthz")
        self.assertEqual((answer.status, answer.headers["content-length"], answer.body), (200, "3", b""))

    def test_readyz_and_metrics_are_for_metrics_and_operators(self) -> None:
        for path in ("/readyz", "/metrics"):
            self.assert_problem(self.ask("GET", path), 401, "unauthorized")
            self.assert_problem(self.ask("GET", path, ISSUER_KEY), 403, "forbidden")
            for key in (METRICS_KEY, OPERATOR_KEY):
                self.assertEqual(self.ask("GET", path, key).status, 200)

    def test_readyz_when_all_is_well(self) -> None:
        self.assertEqual(self.ask("GET", "/readyz", METRICS_KEY).json(), {"ready": True, "not_ready": []})

    def not_ready(self, status: int) -> list[dict[str, str]]:
        """What is said to be not ready, with this status."""
        answer = self.ask("GET", "/readyz", METRICS_KEY)
        self.assertEqual((answer.status, answer.json()["ready"]), (status, status == 200))
        faults = answer.json()["not_ready"]
        assert isinstance(faults, list)
        return faults

    def test_readyz_names_what_is_not_ready_without_its_detail(self) -> None:
        self.faults["store"] = Refusal(Reason.STORE_AWAY, "10.0.0.5 refused")
        self.faults["lab"] = Refusal(Reason.HYPERVISOR_UNREACHABLE, "10.0.0.11 refused")
        self.draining = True
        self.assertEqual(
            self.not_ready(503),
            [
                {"part": "store", "reason": "store_away", "detail": Reason.STORE_AWAY.sentence},
                {"part": "pool lab", "reason": "hypervisor_unreachable", "detail": Reason.HYPERVISOR_UNREACHABLE.sentence},
                {"part": "xvpd", "reason": "draining", "detail": Reason.DRAINING.sentence},
            ],
        )

    def test_without_the_store_or_while_draining_a_node_is_not_ready(self) -> None:
        self.faults["store"] = Refusal(Reason.STORE_AWAY)
        self.assertEqual([fault["part"] for fault in self.not_ready(503)], ["store"])
        self.faults["store"] = None
        self.draining = True
        self.assertEqual([fault["part"] for fault in self.not_ready(503)], ["xvpd"])

    def test_a_node_is_ready_while_a_pool_is_and_says_which_is_not(self) -> None:
        self.faults["lab"] = Refusal(Reason.HYPERVISOR_UNTRUSTED)
        self.assertEqual([fault["part"] for fault in self.not_ready(200)], ["pool lab"])
        self.faults["dmz"] = Refusal(Reason.HYPERVISOR_UNREACHABLE)
        self.assertEqual([fault["part"] for fault in self.not_ready(503)], ["pool lab", "pool dmz"])

    def test_metrics_are_prometheus_text(self) -> None:
        self.metrics.sessions.inc()
        answer = self.ask("GET", "/metrics", METRICS_KEY)
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        self.assertIn(b"\nxvpd_sessions 1.0\n", answer.body)

    def test_metrics_say_what_is_up_at_this_moment(self) -> None:
        self.faults["lab"] = Refusal(Reason.HYPERVISOR_UNREACHABLE)
        body = self.ask("GET", "/metrics", METRICS_KEY).body
        for line in (b"xvpd_store_up 1.0", b'xvpd_pool_up{pool="lab"} 0.0', b'xvpd_pool_up{pool="dmz"} 1.0'):
            self.assertIn(b"\n" + line + b"\n", body)
        self.faults |= {"store": Refusal(Reason.STORE_AWAY), "lab": None}
        body = self.ask("GET", "/metrics", METRICS_KEY).body
        for line in (b"xvpd_store_up 0.0", b'xvpd_pool_up{pool="lab"} 1.0'):
            self.assertIn(b"\n" + line + b"\n", body)
