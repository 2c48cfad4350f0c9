"""Revoking: from the DELETE that one node gets until a client's connection is over, at either of two nodes."""

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from benchmarks.api import Api
from benchmarks.child import BenchmarkError
from benchmarks.nodes import KEY_NAME, Node, nodes
from benchmarks.pool import VMS
from benchmarks.redis import redis_server
from benchmarks.table import Table, percentile
from xvpd.sim.viewer import Viewer, ViewerError

_NODES: Final = 2
_USER: Final = "ann"
_NOBODY: Final = f"/v1/users/nobody/consoles?issuer={KEY_NAME}"
_OPENERS: Final = 8
_SECONDS: Final = 30.0
_FLOOR: Final = "nothing to end: answered"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done in a round."""

    rounds: int
    consoles: int
    """Live ones, for each kind of order."""
    orders: int
    """Orders that end nothing."""


FULL: Final = Size(rounds=7, consoles=100, orders=100)
SHORT: Final = Size(rounds=5, consoles=100, orders=100)


@dataclass(frozen=True, slots=True)
class Console:
    """A live console, and the client that looks at it."""

    grant: str
    vm: str
    client: ssl.SSLSocket


Order = tuple[str, list[ssl.SSLSocket]]
"""The path of a DELETE, and the clients that it is to cut."""


def run(short: bool) -> Table:
    """Orders that end many consoles, some, and one."""
    return measure(SHORT if short else FULL)


def measure(size: Size) -> Table:
    """The figure, of that size."""
    table = Table(
        "revocation: from the DELETE at one node until a client's connection is over, at either of two",
        f"{size.rounds} rounds. In each, {size.consoles} live, idle consoles of {len(VMS)} VMs, half of them at each node,",
        "are ended: by one order, for their user; by an order for each VM; by an order for each grant, of which each has one.",
        f"Beside {size.orders} orders that find nothing to end, which both nodes acknowledge all the same.",
        "Goal: p99 below 1000 ms; aim: below 200 ms.",
    )
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="xvpd-benchmark-")))
        redis = stack.enter_context(redis_server(directory))
        both = stack.enter_context(nodes(_NODES, directory, redis.url))
        api = stack.enter_context(both[0].api())
        openers = stack.enter_context(ThreadPoolExecutor(_OPENERS))
        for _ in range(size.rounds):
            _add(table, _FLOOR, [_answered(api, _NOBODY) for _ in range(size.orders)])
            for case, orders_for in _CASES.items():
                _end_all(table, case, api, orders_for(_open_all(openers, both, api, size.consoles)))
    return table


def _by_user(consoles: list[Console]) -> list[Order]:
    return [(f"/v1/users/{_USER}/consoles?issuer={KEY_NAME}", [each.client for each in consoles])]


def _by_vm(consoles: list[Console]) -> list[Order]:
    clients: dict[str, list[ssl.SSLSocket]] = {}
    for each in consoles:
        clients.setdefault(each.vm, []).append(each.client)
    return [(f"/v1/vms/{vm}/consoles", some) for vm, some in clients.items()]


def _by_grant(consoles: list[Console]) -> list[Order]:
    return [(f"/v1/consoles/{each.grant}", [each.client]) for each in consoles]


_CASES: Final[dict[str, Callable[[list[Console]], list[Order]]]] = {
    "by user": _by_user,
    "by VM": _by_vm,
    "by grant": _by_grant,
}


# Consoles.


def _open_all(openers: ThreadPoolExecutor, both: list[Node], api: Api, count: int) -> list[Console]:
    issued = []
    for number in range(count):
        body = {"vm": VMS[number // _NODES % len(VMS)], "type": "xvpvnc", "user": _USER}
        issued.append(loads(api.ask("POST", "/v1/consoles", body, status=201)))
    at = [both[number % _NODES] for number in range(count)]
    clients = list(openers.map(_open, at, [each["url"] for each in issued]))
    return [Console(each["id"], each["vm"]["uuid"], client) for each, client in zip(issued, clients, strict=True)]


def _open(node: Node, url: str) -> ssl.SSLSocket:
    """A client that has seen its console's ServerInit."""
    plain = socket.create_connection(("127.0.0.1", node.console_port), _SECONDS)
    client = node.tls.wrap_socket(plain, server_hostname="127.0.0.1")
    parts = urlsplit(url)
    viewer = Viewer(client, _SECONDS)
    try:
        viewer.request(f"{parts.path}?{parts.query}")
        viewer.greet()
    except ViewerError as error:
        raise BenchmarkError(f"a console could not be opened: {error}") from None
    client.setblocking(False)
    return client


# Orders.


def _answered(api: Api, path: str) -> float:
    began = time.perf_counter()
    api.ask("DELETE", path, status=204)
    return time.perf_counter() - began


def _end_all(table: Table, case: str, api: Api, orders: list[Order]) -> None:
    over: list[float] = []
    answered: list[float] = []
    for path, clients in orders:
        if any(_is_over(client) for client in clients):
            raise BenchmarkError(f"{case}: a console ended before it was revoked")
        cut, answer = _revoke(api, path, clients)
        over += cut
        answered.append(answer)
    _add(table, case, over, beside=_FLOOR)
    table.add("until the order is answered, p50, ms", case, 1000 * percentile(answered, 50))


def _revoke(api: Api, path: str, clients: list[ssl.SSLSocket]) -> tuple[list[float], float]:
    """After how many seconds each client's connection was over, and the order answered. Who is cut closes at once, as viewers
    do."""
    over: list[float] = []
    answered = 0.0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        selector.register(api, selectors.EVENT_READ)
        began = time.perf_counter()
        api.send("DELETE", path)
        while selector.get_map():
            ready = [key.fileobj for key, _ in selector.select(_SECONDS)]
            seconds = time.perf_counter() - began
            if not ready:
                raise BenchmarkError(f"{len(over)} of {len(clients)} consoles were cut within {_SECONDS:g} s")
            for each in ready:
                if each is api:
                    selector.unregister(each)
                    api.answer(204)
                    answered = seconds
                elif isinstance(each, ssl.SSLSocket) and _is_over(each):
                    selector.unregister(each)
                    each.close()
                    over.append(seconds)
    return over, answered


def _is_over(client: ssl.SSLSocket) -> bool:
    """Whether the connection is, once what has come up to now is read."""
    try:
        while client.recv(65536):
            pass
    except ssl.SSLWantReadError:
        return False
    except OSError:
        pass
    return True


def _add(table: Table, case: str, seconds: list[float], beside: str = "") -> None:
    table.add("until it is over, p50, ms", case, 1000 * percentile(seconds, 50), beside)
    table.add("until it is over, p99, ms", case, 1000 * percentile(seconds, 99), beside)
    table.add("until it is over, max, ms", case, 1000 * max(seconds), beside)
