"""The numbers: their names are a contract, and none of their labels tells about a person."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from xvpd.ops.metrics import Metrics
from xvpd.ops.record import Record
from xvpd.reason import Reason

OPENED = Record(
    request_id="request",
    outcome=Reason.CLIENT_CLOSED,
    detail="canary-detail",
    client="192.0.2.7",
    started_at=1000.0,
    seconds=61.0,
    opened=True,
    grant="canary-grant",
    issuer="canary-issuer",
    user="canary-user",
    console_type="xvpvnc",
    vm_uuid="canary-uuid",
    vm_name="canary-name",
    pool="lab",
    host="canary-host",
    bytes_to_client=5000,
    bytes_to_hypervisor=70,
)


def value_of(metrics: Metrics, sample: str, **labels: str) -> float | None:
    """The value of one sample in the exposition; None when it is not there."""
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for each in family.samples:
            if each.name == sample and each.labels == labels:
                return each.value
    return None


class MetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def test_the_names_and_types_are_the_contracts(self) -> None:
        types = {
            tuple(line.split()[2:]) for line in self.metrics.exposition().decode().splitlines() if line.startswith("# TYPE")
        }
        self.assertEqual(
            types,
            {
                ("xvpd_sessions", "gauge"),
                ("xvpd_sessions_total", "counter"),
                ("xvpd_session_seconds", "histogram"),
                ("xvpd_bytes_total", "counter"),
                ("xvpd_grants_issued_total", "counter"),
                ("xvpd_redeem_total", "counter"),
                ("xvpd_handshake_seconds", "histogram"),
                ("xvpd_dial_seconds", "histogram"),
                ("xvpd_certificate_expiry_seconds", "gauge"),
                ("xvpd_store_seconds", "histogram"),
                ("xvpd_xapi_seconds", "histogram"),
                ("xvpd_pool_up", "gauge"),
                ("xvpd_store_up", "gauge"),
                ("xvpd_relay_info", "gauge"),
            },
        )

    def test_labels_are_the_contracts(self) -> None:
        self.metrics.sessions.inc()
        self.metrics.grants_issued_total.labels(type="xvpvnc", result="issued").inc()
        self.metrics.redeem_total.labels(result="granted").inc()
        self.metrics.store_seconds.labels(op="redeem").observe(0.1)
        self.metrics.xapi_seconds.labels(call="VM.get_record").observe(0.1)
        self.metrics.pool_up.labels(pool="lab").set(1)
        self.metrics.relay_info.labels(relay="copy").set(1)
        self.assertEqual(value_of(self.metrics, "xvpd_sessions"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_grants_issued_total", type="xvpvnc", result="issued"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_redeem_total", result="granted"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_store_seconds_count", op="redeem"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_xapi_seconds_count", call="VM.get_record"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_pool_up", pool="lab"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_relay_info", relay="copy"), 1)

    def test_a_console_that_was_open_counts_with_its_time_and_bytes(self) -> None:
        self.metrics.record(OPENED)
        self.assertEqual(value_of(self.metrics, "xvpd_sessions_total", type="xvpvnc", outcome="client_closed"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_session_seconds_sum"), 61)
        self.assertEqual(value_of(self.metrics, "xvpd_bytes_total", direction="to_client"), 5000)
        self.assertEqual(value_of(self.metrics, "xvpd_bytes_total", direction="to_hypervisor"), 70)

    def test_a_connection_that_was_refused_counts_without(self) -> None:
        self.metrics.record(replace(OPENED, opened=False, outcome=Reason.HEAD_SLOW, console_type=""))
        self.assertEqual(value_of(self.metrics, "xvpd_sessions_total", type="", outcome="head_slow"), 1)
        self.assertEqual(value_of(self.metrics, "xvpd_session_seconds_count"), 0)
        self.assertIsNone(value_of(self.metrics, "xvpd_bytes_total", direction="to_client"))

    def test_calls_and_operations_count_with_their_seconds(self) -> None:
        self.metrics.time_xapi_call("VM.get_record", 0.25)
        self.metrics.time_store("redeem", 0.5)
        self.assertEqual(value_of(self.metrics, "xvpd_xapi_seconds_sum", call="VM.get_record"), 0.25)
        self.assertEqual(value_of(self.metrics, "xvpd_store_seconds_sum", op="redeem"), 0.5)

    def test_a_certificate_is_named_for_its_host_until_the_host_is_gone(self) -> None:
        self.metrics.certificates_expire("lab", {"xen-1": 1000.0, "xen-2": 2000.0})
        self.metrics.certificates_expire("other", {"xen-1": 3000.0})
        self.metrics.certificates_expire("lab", {"xen-1": 4000.0})
        expiry = "xvpd_certificate_expiry_seconds"
        self.assertEqual(value_of(self.metrics, expiry, name="lab/xen-1"), 4000)
        self.assertEqual(value_of(self.metrics, expiry, name="other/xen-1"), 3000)
        self.assertIsNone(value_of(self.metrics, expiry, name="lab/xen-2"))

    def test_no_person_vm_or_address_is_in_a_label(self) -> None:
        self.metrics.record(OPENED)
        self.assertNotIn(b"canary", self.metrics.exposition())
        self.assertNotIn(OPENED.client.encode(), self.metrics.exposition())

    def test_two_of_them_do_not_share_numbers(self) -> None:
        Metrics().sessions.inc()
        self.assertEqual(value_of(self.metrics, "xvpd_sessions"), 0)
