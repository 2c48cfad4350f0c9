"""Redeeming a token: each store, beside a bare GET over the same kind of connection, which is the least that Redis costs."""

import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults

from benchmarks.child import BenchmarkError
from benchmarks.loop import in_reactor
from benchmarks.redis import Counting, Detour, Redis, redis_server
from benchmarks.table import Table, percentile
from xvpd.grants.grant import Grant, digest, mint_id
from xvpd.grants.memory import MemoryStore
from xvpd.grants.records import grant_to_json
from xvpd.grants.redis import RedisStore
from xvpd.grants.redis_url import RedisSettings
from xvpd.grants.redis_wire import Wire, dial
from xvpd.grants.store import ITokenStore

_MANY: Final = 64
_FLOOR_KEY: Final = "benchmark:floor"
_CLIENT: Final = "192.0.2.7"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done in a round."""

    rounds: int
    alone: int
    """Redeems, one at a time."""
    together: int
    """Redeems, `_MANY` at a time."""
    counted: int
    """Redeems whose round trips are counted."""


FULL: Final = Size(rounds=21, alone=500, together=1920, counted=100)
SHORT: Final = Size(rounds=5, alone=300, together=960, counted=50)


def run(short: bool) -> Table:
    """The memory store, and the Redis store over a unix socket and over TCP."""
    size = SHORT if short else FULL
    table = Table(
        "store: redeeming a token",
        f"{size.rounds} rounds of {size.alone} redeems one at a time and {size.together} redeems {_MANY} at a time, each of a",
        "token of its own, good for one use; beside as many GETs of a value as long as a grant.",
    )
    with TemporaryDirectory(prefix="xvpd-benchmark-") as directory, redis_server(Path(directory)) as redis:
        in_reactor(lambda reactor: _measure(reactor, redis, size, table))
    return table


class Redeem:
    """A store's redeem."""

    def __init__(self, name: str, store: ITokenStore, beside: str = "") -> None:
        self.name = name
        self.beside = beside
        self._store = store

    async def prepare(self, count: int) -> list[str]:
        """Issue so many grants; returns what `ask` takes."""
        grants = [_grant() for _ in range(count)]
        for start in range(0, count, _MANY):
            refusals = await gatherResults([self._store.issue(grant) for grant in grants[start : start + _MANY]])
            if any(refusals):
                raise BenchmarkError(f"{self.name}: a grant was not kept: {next(filter(None, refusals))}")
        return [grant.digest for grant in grants]

    def ask(self, token: str) -> Deferred[Any]:
        """Redeem it, once."""
        return self._store.redeem(token, mint_id(secrets.token_bytes), _CLIENT)

    def is_good(self, answer: object) -> bool:
        """Whether the token was redeemed."""
        return isinstance(answer, Grant)


class Get:
    """A bare GET."""

    beside = ""

    def __init__(self, name: str, wire: Wire) -> None:
        self.name = name
        self._wire = wire
        self._value = grant_to_json(_grant()).encode()

    async def prepare(self, count: int) -> list[str]:
        """As for `Redeem`."""
        await self._wire.call("SET", _FLOOR_KEY, self._value)
        return [_FLOOR_KEY] * count

    def ask(self, key: str) -> Deferred[Any]:
        """The key's value."""
        return self._wire.call("GET", key)

    def is_good(self, answer: object) -> bool:
        """Whether it was all of the value."""
        return answer == self._value


Case = Redeem | Get


async def _measure(reactor: Any, redis: Redis, size: Size, table: Table) -> None:
    async with AsyncExitStack() as stack:
        cases: list[Case] = [Redeem("redeem, memory", MemoryStore(reactor))]
        for way, through in (("unix socket", Detour(reactor, redis.path)), ("TCP", reactor)):
            wire = await dial(through, _settings(redis.port))
            stack.callback(wire.abort)
            store = await _started(stack, through, redis.port)
            cases += [Get(f"GET, {way}", wire), Redeem(f"redeem, {way}", store, beside=f"GET, {way}")]
        proxy = Counting(redis.port)
        listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")
        stack.push_async_callback(_fired, listening.stopListening)
        counted = Redeem("redeem", await _started(stack, reactor, listening.getHost().port))
        for number in range(size.rounds):
            first = number % len(cases)
            for case in cases[first:] + cases[:first]:
                await _one_at_a_time(case, size.alone, table)
                await _many_at_a_time(case, size.together, table)
            await _round_trips(counted, proxy, size.counted, table)


async def _one_at_a_time(case: Case, count: int, table: Table) -> None:
    seconds = []
    for name in await case.prepare(count):
        began = time.perf_counter()
        answer = await case.ask(name)
        seconds.append(time.perf_counter() - began)
        _check(case, answer)
    table.add("latency, p50, us", case.name, 1e6 * percentile(seconds, 50), case.beside)
    table.add("latency, p99, us", case.name, 1e6 * percentile(seconds, 99), case.beside)
    table.add("one at a time, per second", case.name, count / sum(seconds), case.beside)


async def _many_at_a_time(case: Case, count: int, table: Table) -> None:
    names = iter(await case.prepare(count))

    async def work() -> list[object]:
        return [await case.ask(name) for name in names]

    began, cpu_before = time.perf_counter(), time.process_time()
    answers = await gatherResults([Deferred.fromCoroutine(work()) for _ in range(_MANY)])
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_before
    for answer in chain.from_iterable(answers):
        _check(case, answer)
    table.add(f"{_MANY} at a time, per second", case.name, count / seconds, case.beside)
    table.add(f"{_MANY} at a time, own CPU, us each", case.name, 1e6 * cpu_seconds / count, case.beside)


async def _round_trips(case: Redeem, proxy: Counting, count: int, table: Table) -> None:
    """What is sent for each redeem. The store's heartbeat, once a second, takes the same connection: it may be counted
    with one of them."""
    sent = []
    for name in await case.prepare(count):
        before = proxy.sent
        _check(case, await case.ask(name))
        sent.append(proxy.sent - before)
    table.add("round trips to Redis, counted by a proxy", "of a redeem, median", median(sent))
    table.add("round trips to Redis, counted by a proxy", "of any redeem, at most", max(sent))


def _check(case: Case, answer: object) -> None:
    if not case.is_good(answer):
        raise BenchmarkError(f"{case.name}: the answer was {answer!r}")


async def _started(stack: AsyncExitStack, reactor: Any, port: int) -> RedisStore:
    store = RedisStore(reactor, _settings(port), mint_id(secrets.token_bytes), secrets.token_bytes)
    stack.push_async_callback(_fired, store.stop)
    await store.start()
    refusal = store.ready()
    if refusal is not None:
        raise BenchmarkError(f"the store is not ready: {refusal}")
    return store


async def _fired(work: Callable[[], Deferred[Any]]) -> None:
    await work()


def _settings(port: int) -> RedisSettings:
    return RedisSettings(servers=(("127.0.0.1", port),))


def _grant() -> Grant:
    name, now = mint_id(secrets.token_bytes), time.time()
    return Grant(
        id=name,
        digest=digest(name),
        vm_uuid="5f1e9c6e-0000-4000-8000-000000000001",
        vm_name="web-1",
        console_type="xvpvnc",
        issuer="portal",
        user="ann",
        issued_at=now,
        expires_at=now + 600,
        uses=1,
        resume=300,
    )
