"""`Metrics`: the daemon's numbers, in Prometheus' text format.

Label values come from closed lists, from the configuration or, for certificates, from the names that a pool has for its hosts:
none of them is a token, a user, an address or a VM.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from xvpd.ops.record import Record

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_CALL_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SESSION_BUCKETS: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Metrics:
    """One process's numbers. Attributes are named as the metrics are, without ``xvpd_``."""

    def __init__(self) -> None:
        self.sessions = Gauge("xvpd_sessions", "Console sessions that are being relayed.", registry=None)
        self.sessions_total = Counter(
            "xvpd_sessions_total",
            "Connections to the console door that have ended; those that never showed a good token have no type.",
            ["type", "outcome"],
            registry=None,
        )
        self.session_seconds = Histogram(
            "xvpd_session_seconds", "How long opened consoles lasted.", buckets=_SESSION_BUCKETS, registry=None
        )
        self.bytes_total = Counter(
            "xvpd_bytes_total", "Bytes relayed by console sessions that have ended.", ["direction"], registry=None
        )
        self.grants_issued_total = Counter(
            "xvpd_grants_issued_total", "Console URLs that were asked for.", ["type", "result"], registry=None
        )
        self.redeem_total = Counter("xvpd_redeem_total", "Tokens that clients came with.", ["result"], registry=None)
        self.handshake_seconds = self._histogram("handshake_seconds", "From accept to a complete request head, TLS included.")
        self.dial_seconds = self._histogram("dial_seconds", "From the first packet to a host to its 200 for a console.")
        self.store_seconds = self._histogram("store_seconds", "How long the store took for an operation.", "op")
        self.xapi_seconds = self._histogram("xapi_seconds", "How long a pool took for a call.", "call")
        self.pool_up = Gauge("xvpd_pool_up", "Whether xvpd is logged in at the pool's coordinator.", ["pool"], registry=None)
        self.store_up = Gauge("xvpd_store_up", "Whether the store can be used.", registry=None)
        self.relay_info = Gauge("xvpd_relay_info", "1 for each relay that can serve sessions.", ["relay"], registry=None)
        self.certificate_expiry_seconds = Gauge(
            "xvpd_certificate_expiry_seconds",
            "When the certificate of a pool's host (pool/host) expires, in seconds since the epoch.",
            ["name"],
            registry=None,
        )
        self._certificates: dict[str, set[str]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_All([each for each in vars(self).values() if isinstance(each, MetricWrapperBase)]))

    def record(self, record: Record) -> None:
        """Count a connection to the console door that has ended: a `Recorder`."""
        self.sessions_total.labels(type=record.console_type, outcome=record.outcome.word).inc()
        if record.opened:
            self.session_seconds.observe(record.seconds)
            self.bytes_total.labels(direction="to_client").inc(record.bytes_to_client)
            self.bytes_total.labels(direction="to_hypervisor").inc(record.bytes_to_hypervisor)

    def time_xapi_call(self, call: str, seconds: float) -> None:
        """Count a call to a pool's API; ``call`` is its method's name."""
        self.xapi_seconds.labels(call=call).observe(seconds)

    def certificates_expire(self, pool: str, expiry: Mapping[str, float]) -> None:
        """Note when the certificates of a pool's hosts expire, seconds since the epoch by the hosts' names; all of them."""
        names = {f"{pool}/{host}": at for host, at in expiry.items()}
        for name in self._certificates.get(pool, set()) - names.keys():
            self.certificate_expiry_seconds.remove(name)
        for name, at in names.items():
            self.certificate_expiry_seconds.labels(name=name).set(at)
        self._certificates[pool] = set(names)

    def time_store(self, op: str, seconds: float) -> None:
        """Count an operation of the store's."""
        self.store_seconds.labels(op=op).observe(seconds)

    def exposition(self) -> bytes:
        """Everything, as ``GET /metrics`` answers it; its media type is `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"xvpd_{name}", text, labels, buckets=_CALL_BUCKETS, registry=None)


class _All(Collector):
    """All metrics as one collector.

    The client library would not register the gauge ``xvpd_sessions`` beside the counter ``xvpd_sessions_total``, which is no
    clash in the text format, and would add to every counter and histogram a series of the time it was made.
    """

    def __init__(self, metrics: list[MetricWrapperBase]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for each in self._metrics:
            for metric in each.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric
