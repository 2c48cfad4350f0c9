"""What `event.from` answers, as records of ours. Pure.

Source: xapi's ocaml/xapi/xapi_event.ml. The answer has ``events`` and ``token``; an event has a lower-case ``class``, an
``operation`` (``add``, ``mod`` or ``del``), a ``ref`` and, except for ``del``, a ``snapshot`` that is the whole record. All
changes of an object since the token are merged into one event. The answer to an empty token has every object as ``add``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xmlrpc.client import ExpatParser, Unmarshaller

from xvpd.xen.records import Host, Policy, RecordError, Vm, console_protocol, host_record, pool_policy, reference, vm_record

CLASSES: Final = ("vm", "console", "host", "pool")
"""What is subscribed to."""
TOKEN_CAP: Final = 200
_EVENT_DEPTH: Final = 3
"""How many structs and arrays an event is in: reply, value, list of events."""


@dataclass(frozen=True, slots=True)
class Event:
    """The present state of one object."""

    kind: str
    """One of `CLASSES`."""
    ref: str
    record: Vm | Host | Policy | str | None
    """A console's is its protocol. None: the object is gone, or its record cannot be read."""
    problem: str = ""
    """Why the record cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One answer."""

    token: str
    """For the next call."""
    events: tuple[Event, ...]


def event_of(struct: Mapping[str, Any]) -> Event | None:
    """An event as it comes; None for a class that nobody asked for. A `RecordError` is for what is no event at all: a record
    that cannot be read is its object's problem, not the pool's."""
    kind, operation, ref = struct.get("class"), struct.get("operation"), reference(struct.get("ref"))
    if kind not in CLASSES:
        return None
    if operation == "del":
        return Event(kind, ref, None)
    if operation not in ("add", "mod"):
        raise RecordError("event.operation is none")
    try:
        return Event(kind, ref, _record(kind, ref, struct.get("snapshot")))
    except RecordError as error:
        return Event(kind, ref, None, str(error))


def batch_of(value: object) -> Batch:
    """The value that ``event.from`` returned, read by `event_parser`. Raises `RecordError`."""
    if not isinstance(value, dict):
        raise RecordError("the answer to event.from is none")
    token, events = value.get("token"), value.get("events")
    if not isinstance(token, str) or not 0 < len(token) <= TOKEN_CAP:
        raise RecordError("the token of event.from is none")
    if not isinstance(events, list) or not all(each is None or isinstance(each, Event) for each in events):
        raise RecordError("the events of event.from are none")
    return Batch(token, tuple(each for each in events if each is not None))


def event_parser() -> tuple[ExpatParser, Unmarshaller]:
    """As `xmlrpc.client.getparser`, for answers of `event.from`: every event becomes an `Event` once it has been read, so that
    ten thousand records with all their fields are never in memory at once."""
    unmarshaller = _EventUnmarshaller()
    return ExpatParser(unmarshaller), unmarshaller


def _record(kind: str, ref: str, snapshot: object) -> Vm | Host | Policy | str:
    match kind:
        case "vm":
            return vm_record(ref, snapshot)
        case "host":
            return host_record(ref, snapshot)
        case "console":
            return console_protocol(snapshot)
        case _:
            return pool_policy(snapshot)


class _EventUnmarshaller(Unmarshaller):
    """Of the standard library's, whose ``dispatch`` names what to do at the end of each XML element."""

    _marks: list[int]
    _stack: list[Any]

    def end_struct(self, data: str) -> None:
        super().end_struct(data)
        if len(self._marks) == _EVENT_DEPTH and isinstance(self._stack[-1], dict) and "operation" in self._stack[-1]:
            self._stack[-1] = event_of(self._stack[-1])

    dispatch = {**Unmarshaller.dispatch, "struct": end_struct}  # type: ignore[dict-item] # noqa: RUF012 # as the base has it
