"""A pool's objects as xapi's database keeps them: tables of records, and a generation that counts every change.

Records are dicts in the shapes that XML-RPC carries: int64 as a decimal string, a set as a list, a reference as
``OpaqueRef:<uuid>``. `event.from` is answered from the generations (xapi: ocaml/database, ocaml/xapi/xapi_event.ml).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

NULL: Final = "OpaqueRef:NULL"
"""The reference to nothing: what a halted VM is resident on."""
_REMEMBERED: Final = 10000
"""How many deletions are remembered for `changes`."""

Record = dict[str, Any]


@dataclass(slots=True)
class _Row:
    table: str
    record: Record
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one object, all its changes since a generation merged into one."""

    operation: str
    """``add``, ``mod`` or ``del``."""
    table: str
    ref: str
    generation: int
    record: Record | None
    """A copy of the whole record; None when the object is gone."""


class Database:
    """Tables of records by reference. `watch` hears of every change, after it was made."""

    def __init__(self, new_uuid: Callable[[], str]) -> None:
        self.generation = 0
        self._new_uuid = new_uuid
        self._rows: dict[str, _Row] = {}
        self._tables: dict[str, dict[str, _Row]] = {}
        self._deleted: deque[tuple[str, str, int, int]] = deque(maxlen=_REMEMBERED)
        self._watchers: list[Callable[[], None]] = []

    def create(self, table: str, record: Record) -> str:
        """Keep a record, giving it a uuid; returns its reference."""
        ref = f"OpaqueRef:{self._new_uuid()}"
        record.setdefault("uuid", self._new_uuid())
        self.generation += 1
        self._rows[ref] = _Row(table, record, self.generation, self.generation)
        self._tables.setdefault(table, {})[ref] = self._rows[ref]
        self._tell()
        return ref

    def modify(self, ref: str, **fields: Any) -> None:
        """Set fields of an object."""
        row = self._rows[ref]
        row.record.update(fields)
        self.generation += 1
        row.modified = self.generation
        self._tell()

    def destroy(self, ref: str) -> None:
        """Forget an object; `changes` remembers that it was there."""
        row = self._rows.pop(ref)
        del self._tables[row.table][ref]
        self.generation += 1
        self._deleted.append((row.table, ref, row.created, self.generation))
        self._tell()

    def get(self, table: str, ref: str) -> Record | None:
        """The record itself, not a copy; None when the table has no such object."""
        row = self._rows.get(ref)
        return row.record if row is not None and row.table == table else None

    def table_of(self, ref: str) -> str | None:
        """Which table an object is in."""
        row = self._rows.get(ref)
        return row.table if row is not None else None

    def rows(self, table: str) -> Iterator[tuple[str, Record]]:
        """Every object of a table, oldest first."""
        return ((ref, row.record) for ref, row in list(self._tables.get(table, {}).items()))

    def find(self, table: str, field: str, value: object) -> list[str]:
        """References of the objects whose field has this value, oldest first."""
        return [ref for ref, record in self.rows(table) if record.get(field) == value]

    def counts(self) -> Mapping[str, int]:
        """How many objects each table has."""
        return {table: len(rows) for table, rows in self._tables.items()}

    def changes(self, since: int, wanted: Callable[[str, str], bool]) -> list[Change]:
        """What happened after the generation ``since`` to the objects that ``wanted(table, ref)``: first those that are new,
        then those that changed, then those that are gone. What came and went meanwhile is not told."""
        adds: list[Change] = []
        mods: list[Change] = []
        for ref, row in self._rows.items():
            if row.modified > since and wanted(row.table, ref):
                into, operation = (adds, "add") if row.created > since else (mods, "mod")
                into.append(Change(operation, row.table, ref, row.modified, dict(row.record)))
        gone = [
            Change("del", table, ref, deleted, None)
            for table, ref, created, deleted in self._deleted
            if created <= since < deleted and wanted(table, ref)
        ]
        return [*adds, *mods, *gone]

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every change; returns what ends that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def _tell(self) -> None:
        for watcher in list(self._watchers):
            watcher()
