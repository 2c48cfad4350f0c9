"""Issuing console URLs over HTTP: the daemon's own CPU time, and its answers' latency; beside a GET /healthz, the least that a
request over HTTP costs it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.api import Api
from benchmarks.child import cpu_seconds
from benchmarks.nodes import Node, nodes
from benchmarks.pool import VMS
from benchmarks.table import Table, percentile

_MANY: Final = 16


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done in a round."""

    rounds: int
    alone: int
    """Requests over one connection."""
    together: int
    """Requests over `_MANY`, each of them the same number."""


FULL: Final = Size(rounds=11, alone=200, together=480)
SHORT: Final = Size(rounds=5, alone=100, together=160)


@dataclass(frozen=True, slots=True)
class Case:
    """A request."""

    name: str
    ask: Callable[[Api], object]
    """Sends it, and waits for the answer."""
    beside: str = ""


def run(short: bool) -> Table:
    """Over one connection, and over several at once."""
    return measure(SHORT if short else FULL)


def measure(size: Size) -> Table:
    """The figure, of that size."""
    table = Table(
        "issuing: a console URL, over HTTP, from grants in memory",
        f"{size.rounds} rounds of {size.alone} requests one at a time, then {size.together} requests {_MANY} at a time, over",
        "connections that are kept alive, by the VM's uuid. The pool and the client are other processes.",
        "Goal: below 1 ms of own CPU for a URL that needs no call to the pool.",
    )
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="xvpd-benchmark-")))
        (node,) = stack.enter_context(nodes(1, directory))
        apis = [stack.enter_context(node.api()) for _ in range(_MANY)]
        vm: str = loads(_issue(apis[0], VMS[0]))["vm"]["uuid"]
        cases = [Case("GET /healthz", _healthz), Case("POST /v1/consoles", lambda api: _issue(api, vm), "GET /healthz")]
        for _ in range(size.rounds):
            for connections, count in ((apis[:1], size.alone), (apis, size.together)):
                for case in cases:
                    _measure(table, case, node, connections, count)
    return table


def _measure(table: Table, case: Case, node: Node, apis: list[Api], count: int) -> None:
    each, how = count // len(apis), f"{len(apis)} at a time"
    calls_before, cpu_before, began = _pool_calls(apis[0]), cpu_seconds(node.process), time.perf_counter()
    with ThreadPoolExecutor(len(apis)) as clients:
        seconds = [one for some in clients.map(lambda api: _timed(case, api, each), apis) for one in some]
    took, cpu = time.perf_counter() - began, cpu_seconds(node.process) - cpu_before
    calls = _pool_calls(apis[0]) - calls_before
    table.add(f"{how}: own CPU, ms a request", case.name, 1000 * cpu / len(seconds), case.beside)
    table.add(f"{how}: latency, p50, ms", case.name, 1000 * percentile(seconds, 50), case.beside)
    table.add(f"{how}: latency, p99, ms", case.name, 1000 * percentile(seconds, 99), case.beside)
    table.add(f"{how}: requests a second", case.name, len(seconds) / took, case.beside)
    table.add(f"{how}: calls to the pool, a request", case.name, calls / len(seconds))


def _timed(case: Case, api: Api, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        case.ask(api)
        seconds.append(time.perf_counter() - began)
    return seconds


def _healthz(api: Api) -> bytes:
    return api.ask("GET", "/healthz")


def _issue(api: Api, vm: str) -> bytes:
    return api.ask("POST", "/v1/consoles", {"vm": vm, "type": "xvpvnc"}, status=201)


def _pool_calls(api: Api) -> float:
    """How many calls to the pool's API the daemon has made up to now, by its own count."""
    metrics = text_string_to_metric_families(api.ask("GET", "/metrics").decode())
    return sum(sample.value for family in metrics for sample in family.samples if sample.name == "xvpd_xapi_seconds_count")
