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

    def __init__(self, draining: Callable[[], bool], checks: Mapping[str, Check], metrics: Metrics) -> None:
        """``checks`` are the parts that must work for console URLs to be issued and opened, by name."""
        self._draining = draining
        self._checks = checks
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
        refusals = {name: check() for name, check in self._checks.items()}
        if self._draining():
            refusals["xvpd"] = Refusal(Reason.DRAINING)
        faults = [
            {"part": name, "reason": refusal.reason.word, "detail": refusal.reason.sentence}
            for name, refusal in refusals.items()
            if refusal is not None
        ]
        return json_reply(503 if faults else 200, {"ready": not faults, "not_ready": faults})

    async def _metrics_now(self, _: Call) -> Answer:
        return Reply(200, self._metrics.exposition(), CONTENT_TYPE)
