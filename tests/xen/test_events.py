"""`xvpd.xen.events`: what an answer of event.from is read as."""

import xmlrpc.client
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.xen.lab import UNKNOWN_UUID
from xvpd.sim import records as simulated
from xvpd.xen.events import Batch, Event, batch_of, event_of, event_parser
from xvpd.xen.records import Policy, RecordError, host_record, vm_record

REF = f"OpaqueRef:{UNKNOWN_UUID}"
VM = {**simulated.vm("web-1", hvm=True), "uuid": UNKNOWN_UUID}
HOST = {**simulated.host("xen-1", "10.0.0.11"), "uuid": UNKNOWN_UUID}


def event(kind: str, operation: str = "mod", ref: object = REF, **more: Any) -> dict[str, Any]:
    return {"id": "7", "timestamp": "0.0", "class": kind, "operation": operation, "ref": ref, **more}


def read(value: Any, piece: int = 1000) -> Any:
    """What the parser makes of a reply with this value, which comes in pieces."""
    body = xmlrpc.client.dumps(({"Status": "Success", "Value": value},), methodresponse=True).encode()
    parser, unmarshaller = event_parser()
    for start in range(0, len(body), piece):
        parser.feed(body[start : start + piece])
    parser.close()
    replies: Any = unmarshaller.close()
    return replies[0]["Value"]


class EventTests(SynchronousTestCase):
    def test_every_class_that_is_subscribed_to(self) -> None:
        for kind, snapshot, record in (
            ("vm", VM, vm_record(REF, VM)),
            ("host", HOST, host_record(REF, HOST)),
            ("console", simulated.console(REF, "vt100"), "vt100"),
            ("pool", simulated.pool("lab", REF), Policy()),
        ):
            for operation in ("add", "mod"):
                self.assertEqual(event_of(event(kind, operation, snapshot=snapshot)), Event(kind, REF, record))
            self.assertEqual(event_of(event(kind, "del")), Event(kind, REF, None))

    def test_another_class_is_nothing(self) -> None:
        self.assertIsNone(event_of(event("task", "add", snapshot={})))

    def test_a_record_that_cannot_be_read_is_its_objects_problem(self) -> None:
        for snapshot in ({**VM, "power_state": "Dancing"}, None, 7, {}):
            read = event_of(event("vm", snapshot=snapshot))
            assert read is not None
            self.assertIsNone(read.record)
            self.assertIn("VM", read.problem)

    def test_what_is_no_event_is_a_problem_of_all(self) -> None:
        for struct in (event("vm", "dance"), event("vm", "del", ref="x"), event("vm", "del", ref=None), {"operation": "del"}):
            self.assertRaises(RecordError, event_of, struct)


class BatchTests(SynchronousTestCase):
    def test_an_answer(self) -> None:
        events = [event("vm", "add", snapshot=VM), event("task", "del"), event("host", "del")]
        for piece in (1, 77, 100_000):
            batch = batch_of(read({"events": events, "token": "1,2", "valid_ref_counts": {"vm": 1}}, piece))
            self.assertEqual(batch, Batch("1,2", (Event("vm", REF, vm_record(REF, VM)), Event("host", REF, None))))

    def test_an_empty_answer(self) -> None:
        self.assertEqual(batch_of(read({"events": [], "token": "1,2", "valid_ref_counts": {}})), Batch("1,2", ()))

    def test_a_record_that_looks_like_an_event_is_none(self) -> None:
        """Whoever may write to a VM's other_config does not get to write events."""
        vm = {**VM, "other_config": event("vm", "del"), "platform": event("vm", "del")}
        batch = batch_of(read({"events": [event("vm", "add", snapshot=vm)], "token": "1,2"}))
        self.assertEqual(batch.events, (Event("vm", REF, vm_record(REF, VM)),))

    def test_what_is_no_answer(self) -> None:
        good = {"events": [], "token": "1,2"}
        values: list[Any] = [[], "x", {}, {**good, "token": ""}, {**good, "token": 7}, {**good, "token": "x" * 1000}]
        wrong: list[Any] = ["x", ["x"], [[]], [{}], {}]
        values += [{**good, "events": events} for events in wrong]
        for value in values:
            self.assertRaises(RecordError, batch_of, read(value))

    @given(
        st.recursive(
            st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text("abc"),
            lambda each: st.lists(each) | st.dictionaries(st.sampled_from(["events", "token", "class", "ref"]), each),
        )
    )
    def test_anything_else_is_read_as_it_is(self, value: object) -> None:
        self.assertEqual(read(value), value)
