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

    def test_readyz_names_what_is_not_ready_without_its_detail(self) -> None:
        self.faults["pool lab"] = Refusal(Reason.HYPERVISOR_UNREACHABLE, "10.0.0.11 refused")
        self.draining = True
        answer = self.ask("GET", "/readyz", METRICS_KEY)
        self.assertEqual(answer.status, 503)
        self.assertEqual(
            answer.json(),
            {
                "ready": False,
                "not_ready": [
                    {
                        "part": "pool lab",
                        "reason": "hypervisor_unreachable",
                        "detail": Reason.HYPERVISOR_UNREACHABLE.sentence,
                    },
                    {"part": "xvpd", "reason": "draining", "detail": Reason.DRAINING.sentence},
                ],
            },
        )

    def test_metrics_are_prometheus_text(self) -> None:
        self.metrics.sessions.inc()
        answer = self.ask("GET", "/metrics", METRICS_KEY)
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        self.assertIn(b"\nxvpd_sessions 1.0\n", answer.body)
