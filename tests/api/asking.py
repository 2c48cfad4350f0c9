"""The API in memory: a real `ApiSite` with real routes, keys and store, asked over a transport of bytes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from xvpd.api.auth import KeysFile, digest_of
from xvpd.api.consoles import ConsoleCalls
from xvpd.api.health import Health
from xvpd.api.issuer import Issuer, Terms
from xvpd.api.route import Route
from xvpd.api.sessions import SessionCalls
from xvpd.api.site import ApiChannel, ApiSite
from xvpd.grants.memory import MemoryStore
from xvpd.net.leg import Leg
from xvpd.ops.metrics import Metrics
from xvpd.reason import Reason, Refusal
from xvpd.xen.hypervisor import Change, IHypervisor, ListedVm, Location
from xvpd.xen.records import Policy

ISSUER_KEY = "issuer-key-canary"
OTHER_KEY = "other-issuers-key-canary"
OPERATOR_KEY = "operator-key-canary"
METRICS_KEY = "metrics-key-canary"
KEYS = f"""\
# who may ask
portal issuer {digest_of(ISSUER_KEY)}
lab issuer {digest_of(OTHER_KEY)}
ops operator {digest_of(OPERATOR_KEY)}
prometheus metrics {digest_of(METRICS_KEY)}
"""
NOW = 1_700_000_000.0
WEB = Location("lab", "5a1f6f2c-0001-4000-8000-000000000001", "OpaqueRef:vm", "web-1", "host-1", "10.0.0.11")


@implementer(IHypervisor)
class FewVms:
    """A hypervisor that knows a VM or a refusal for some names, and keeps silent about others."""

    def __init__(self) -> None:
        self.known: dict[str, Location | Refusal] = {WEB.vm_name: WEB, WEB.vm_uuid: WEB}
        self.silent: set[str] = set()
        self.cancelled: list[str] = []

    def find(self, vm: str) -> Deferred[Location | Refusal]:
        if vm in self.silent:
            return Deferred(lambda _: self.cancelled.append(vm))
        return succeed(self.known.get(vm, Refusal(Reason.VM_NOT_FOUND)))

    def locate(self, vm_uuid: str) -> Deferred[Location | Refusal]:
        return self.find(vm_uuid)

    def dial(
        self, location: Location, request_id: str, moved: Callable[[Location], None] | None = None
    ) -> Deferred[Leg | Refusal]:
        return succeed(Refusal(Reason.HYPERVISOR_UNREACHABLE))

    def changes(self, callback: Callable[[Change], None]) -> None:
        """None ever comes."""

    def policy(self, location: Location) -> Deferred[Policy | Refusal]:
        return succeed(Policy())

    def vms(self) -> list[ListedVm]:
        return []

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)


@dataclass
class Answer:
    """What came back for a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Connection:
    """A client's connection to a site."""

    site: ApiSite
    transport: StringTransport = field(default_factory=StringTransport)

    def __post_init__(self) -> None:
        channel = self.site.buildProtocol(None)
        assert isinstance(channel, ApiChannel)
        self.channel = channel
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Bytes to the site."""
        self.channel.dataReceived(data)

    def answers(self, to_head: bool = False) -> list[Answer]:
        """Every whole answer so far; they are taken away."""
        answers = list(_answers(self.transport.value(), to_head))
        self.transport.clear()
        return answers


def _answers(data: bytes, to_head: bool) -> Iterator[Answer]:
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if to_head else int(headers.get("content-length", 0))
        assert len(data) >= length, "an answer was cut short"
        yield Answer(int(status), headers, data[:length])
        data = data[length:]


def raw(method: str, path: str, key: str | None = None, body: Any = None, **headers: str) -> bytes:
    """A request's bytes. A body that is not bytes is sent as JSON; ``_`` in a header's name stands for ``-``."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if body is not None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    lines = [f"{method} {path} HTTP/1.1", "Host: api", *(f"{name.replace('_', '-')}: {v}" for name, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class ApiTestCase(SynchronousTestCase):
    """Has an API, and asks it."""

    terms = Terms(ttl=600, uses=0, resume=300)
    more_routes: tuple[Route, ...] = ()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        numbers = count(1)
        self.random_bytes = lambda length: next(numbers).to_bytes(length, "big")
        self.vms = FewVms()
        self.store = MemoryStore(self.clock)
        self.metrics = Metrics()
        self.draining = False
        self.faults: dict[str, Refusal | None] = {"store": None, "lab": None, "dmz": None}
        self.keys_path = self.mktemp()
        self.write_keys(KEYS)
        self.issuer = Issuer(
            self.clock,
            self.vms,
            self.store,
            metrics=self.metrics,
            random_bytes=self.random_bytes,
            base_url="https://console.example.org:6081",
            terms=self.terms,
            locate_seconds=30,
            draining=lambda: self.draining,
        )
        checks = {name: partial(self.faults.__getitem__, name) for name in self.faults}
        health = Health(draining=lambda: self.draining, store=checks.pop("store"), pools=checks, metrics=self.metrics)
        calls = [*ConsoleCalls(self.issuer, self.store).routes(), *SessionCalls(self.store).routes()]
        routes = [*health.routes(), *calls, *self.more_routes]
        self.site = ApiSite(self.clock, KeysFile(self.keys_path), routes, self.random_bytes)

    def write_keys(self, text: str) -> None:
        """Put ``text`` into the keys file."""
        with open(self.keys_path, "w", encoding="utf-8") as file:
            file.write(text)

    def ask(self, method: str, path: str, key: str | None = None, body: Any = None, **headers: str) -> Answer:
        """The answer to one request on a connection of its own."""
        connection = Connection(self.site)
        connection.send(raw(method, path, key, body, **headers))
        (answer,) = connection.answers(to_head=method == "HEAD")
        return answer

    def assert_problem(self, answer: Answer, status: int, reason: str, detail: str | None = None) -> None:
        """``answer`` is a problem of this kind, in full form."""
        self.assertEqual((answer.status, answer.json()["reason"]), (status, reason), answer.body)
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        self.assertEqual(set(answer.json()), {"type", "title", "status", "detail", "reason", "request_id"})
        self.assertEqual(answer.json()["status"], status)
        self.assertEqual(answer.json()["request_id"], answer.headers["x-request-id"])
        if detail is not None:
            self.assertEqual(answer.json()["detail"], detail)
