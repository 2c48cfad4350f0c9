"""Tables, generations, and what changed since one."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim.database import Change, Database


def everything(table: str, ref: str) -> bool:
    return True


class DatabaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        uuids = (f"uuid-{number}" for number in itertools.count(1))
        self.database = Database(lambda: next(uuids))

    def operations(self, since: int) -> list[tuple[str, str]]:
        return [(change.operation, change.ref) for change in self.database.changes(since, everything)]

    def test_an_object_has_a_reference_and_a_uuid_of_its_own(self) -> None:
        ref = self.database.create("VM", {"name_label": "a"})
        self.assertEqual(ref, "OpaqueRef:uuid-1")
        self.assertEqual(self.database.get("VM", ref), {"name_label": "a", "uuid": "uuid-2"})
        self.assertIsNone(self.database.get("host", ref))
        self.assertEqual(self.database.table_of(ref), "VM")
        self.assertIsNone(self.database.table_of("OpaqueRef:NULL"))

    def test_changes_of_one_object_are_merged(self) -> None:
        ref = self.database.create("VM", {})
        start = self.database.generation
        self.database.modify(ref, power_state="Running")
        self.database.modify(ref, power_state="Paused")
        (change,) = self.database.changes(start, everything)
        self.assertEqual((change.operation, change.ref), ("mod", ref))
        assert change.record is not None
        self.assertEqual(change.record["power_state"], "Paused")

    def test_a_new_object_that_changed_is_only_new(self) -> None:
        ref = self.database.create("VM", {})
        self.database.modify(ref, power_state="Running")
        self.assertEqual(self.operations(0), [("add", ref)])

    def test_a_gone_object_is_told_of_and_one_that_came_and_went_is_not(self) -> None:
        old = self.database.create("VM", {})
        start = self.database.generation
        self.database.destroy(old)
        self.database.destroy(self.database.create("VM", {}))
        self.assertEqual(self.database.changes(start, everything), [Change("del", "VM", old, start + 1, None)])
        self.assertEqual(self.operations(self.database.generation), [])

    def test_only_what_is_wanted_is_told(self) -> None:
        self.database.create("VM", {})
        host = self.database.create("host", {})
        changes = self.database.changes(0, lambda table, _: table == "host")
        self.assertEqual([change.ref for change in changes], [host])

    def test_a_change_holds_the_record_as_it_was(self) -> None:
        ref = self.database.create("VM", {"name_label": "before"})
        (change,) = self.database.changes(0, everything)
        self.database.modify(ref, name_label="after")
        assert change.record is not None
        self.assertEqual(change.record["name_label"], "before")

    def test_watchers_hear_of_every_change_until_they_end_it(self) -> None:
        heard: list[int] = []
        end = self.database.watch(lambda: heard.append(self.database.generation))
        ref = self.database.create("VM", {})
        self.database.modify(ref, tags=[])
        end()
        self.database.destroy(ref)
        self.assertEqual(heard, [1, 2])

    def test_counts(self) -> None:
        for table in ("VM", "VM", "host"):
            self.database.create(table, {})
        self.assertEqual(self.database.counts(), {"VM": 2, "host": 1})
