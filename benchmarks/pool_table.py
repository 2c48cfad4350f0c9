"""What a large pool costs: reading its first answer of event.from, keeping its table, and finding a VM in it.

`measure` is for whoever prints figures; run as a program it prints its own.
"""

import sys
import threading
import time
import tracemalloc
import uuid
import xmlrpc.client
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from xvpd.sim import records
from xvpd.xen.events import Event, batch_of, event_parser
from xvpd.xen.hypervisor import Location
from xvpd.xen.table import Table

_HOSTS: Final = 16
_PIECE: Final = 16384
_MORE_FIELDS: Final = 110
"""A real VM's record has some 150 fields, of which the simulated ones have fewer."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, unless it says otherwise. CPU is that of one thread."""

    vms: int
    reply_megabytes: float
    seed: float
    """From the first byte of the reply to a table that answers, in a thread, while another asks for its turn."""
    seed_cpu: float
    longest_pause: float
    """How long that other thread had to wait for its turn at most: in the daemon it is the reactor's."""
    table_megabytes: float
    find_by_uuid_cpu: float
    find_by_name_cpu: float
    event_cpu: float
    """Reading one event of a VM, and taking it into the table."""


def measure(vms: int = 10_000) -> Figures:
    """The cost of a pool with so many running VMs. Takes half a minute for ten thousand."""
    body = _reply([event for number in range(vms) for event in _events(number)] + [_host(number) for number in range(_HOSTS)])
    seeded: list[tuple[Table, float]] = []

    def seed() -> None:
        began = time.thread_time()
        seeded.append((_seeded(body), time.thread_time() - began))

    began = time.perf_counter()
    thread = threading.Thread(target=seed)
    thread.start()
    longest_pause, last = 0.0, began
    while thread.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        longest_pause, last = max(longest_pause, now - last - 0.001), now
    seconds = time.perf_counter() - began
    (table, seed_cpu) = seeded[0]
    listed = list(table.vms())
    one = _reply([_events(0)[0]])
    return Figures(
        vms=vms,
        reply_megabytes=len(body) / 1e6,
        seed=seconds,
        seed_cpu=seed_cpu,
        longest_pause=longest_pause,
        table_megabytes=_megabytes(body),
        find_by_uuid_cpu=_find(table, [vm.uuid for vm in listed]),
        find_by_name_cpu=_find(table, [vm.name for vm in listed]),
        event_cpu=_cpu(lambda: table.apply(_read(one)), 1000),
    )


def _seeded(body: bytes) -> Table:
    table = Table("lab")
    table.apply(_read(body))
    return table


def _read(body: bytes) -> tuple[Event, ...]:
    parser, unmarshaller = event_parser()
    for start in range(0, len(body), _PIECE):
        parser.feed(body[start : start + _PIECE])
    parser.close()
    replies: Any = unmarshaller.close()
    return batch_of(replies[0]["Value"]).events


def _megabytes(body: bytes) -> float:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        table = _seeded(body)
        after, _ = tracemalloc.get_traced_memory()
        return (after - before) / 1e6 if len(table) else 0.0
    finally:
        tracemalloc.stop()


def _find(table: Table, vms: list[str]) -> float:
    if not all(isinstance(table.find(vm), Location) for vm in vms):
        raise RuntimeError("a VM was not found")
    began = time.thread_time()
    for vm in vms:
        table.find(vm)
    return (time.thread_time() - began) / len(vms)


def _cpu(what: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        what()
    return (time.thread_time() - began) / times


def _uuid(kind: int, number: int) -> str:
    return str(uuid.UUID(int=(kind << 64) + number, version=4))


def _ref(kind: int, number: int) -> str:
    return f"OpaqueRef:{_uuid(kind, number)}"


def _event(kind: str, ref: str, snapshot: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "timestamp": "0.0", "class": kind, "operation": "add", "ref": ref, "snapshot": snapshot}


def _events(number: int) -> list[dict[str, Any]]:
    """A running VM and its console."""
    vm, console = _ref(1, number), _ref(2, number)
    record: dict[str, Any] = {f"field_{each}": f"a value of some length in field {each}" for each in range(_MORE_FIELDS)}
    record |= records.vm(f"vm-{number}", hvm=True)
    record |= {"uuid": _uuid(1, number), "power_state": "Running", "domid": "7", "consoles": [console]}
    record["resident_on"] = _ref(3, number % _HOSTS)
    return [
        _event("vm", vm, record),
        _event("console", console, {**records.console(vm, "rfb"), "uuid": _uuid(2, number)}),
    ]


def _host(number: int) -> dict[str, Any]:
    record = {**records.host(f"xen-{number}", f"10.0.0.{number + 1}"), "uuid": _uuid(3, number)}
    return _event("host", _ref(3, number), record)


def _reply(events: list[dict[str, Any]]) -> bytes:
    value = {"events": events, "token": f"{1:020d},{0:020d}", "valid_ref_counts": {}}
    return xmlrpc.client.dumps(({"Status": "Success", "Value": value},), methodresponse=True).encode()


if __name__ == "__main__":
    for name, value in asdict(measure(*map(int, sys.argv[1:2]))).items():
        sys.stdout.write(f"{name:20} {value:.6g}\n")
