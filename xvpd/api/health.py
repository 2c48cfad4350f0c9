"""What the machinery around xvpd asks: is it there, is it ready, how is it doing."""

from collections.abc import Callable, Mapping

from xvpd.api.auth import Role
from xvpd.api.reply import Reply, json_reply
from xvpd.api.route import Answer, Call, Route
from xvpd.ops.metrics import CONTENT_TYPE, Metrics
from xvpd.reason import Reason, Refusal

Check = Callable[[], Refusal | None]
"""What is wrong with a part at this moment."""


class Health:
    """The calls that are asked by probes and by Prometheus."""

    def __init__(self, *, draining: Callable[[], bool], store: Check, pools: Mapping[str, Check], metrics: Metrics) -> None:
        """``pools`` by their names in the configuration."""
        self._draining = draining
        self._store = store
        self._pools = pools
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """All of them."""
        watchers = frozenset({Role.METRICS})
        return [
            Route("GET", "/healthz", self._healthz, open=True, routine=True),
            Route("GET", "/readyz", self._readyz, watchers, routine=True),
            Route("GET", "/metrics", self._metrics_now, watchers, routine=True),
        ]

    async def _healthz(self, _: Call) -> Answer:
        if self._draining():
            return Reply(503, b"draining\n", "text/plain; charset=utf-8")
        return Reply(200, b"ok\n", "text/plain; charset=utf-8")

    async def _readyz(self, _: Call) -> Answer:
        """Ready is whoever can open a console: one pool is enough, or the pool that fails would take all nodes with it."""
        pools = {f"pool {name}": check() for name, check in self._pools.items()}
        parts = {"store": self._store(), **pools, "xvpd": Refusal(Reason.DRAINING) if self._draining() else None}
        faults = [
            {"part": name, "reason": refusal.reason.word, "detail": refusal.reason.sentence}
            for name, refusal in parts.items()
            if refusal is not None
        ]
        ready = parts["store"] is None and parts["xvpd"] is None and None in pools.values()
        return json_reply(200 if ready else 503, {"ready": ready, "not_ready": faults})

    async def _metrics_now(self, _: Call) -> Answer:
        self._metrics.store_up.set(self._store() is None)
        for name, check in self._pools.items():
            self._metrics.pool_up.labels(pool=name).set(check() is None)
        return Reply(200, self._metrics.exposition(), CONTENT_TYPE)
