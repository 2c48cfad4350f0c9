"""`xvpd.xen.records`: what a host sends is checked once, here."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim import records as simulated
from xvpd.xen.records import (
    Host,
    Policy,
    RecordError,
    Vm,
    console_protocol,
    host_record,
    pool_policy,
    reference,
    references,
    vm_record,
)

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
REF = f"OpaqueRef:{UUID}"


def _vm(**fields: Any) -> dict[str, Any]:
    return {**simulated.vm("web-1", hvm=True), "uuid": UUID, **fields}


def _host(**fields: Any) -> dict[str, Any]:
    return {**simulated.host("xen-1", "10.0.0.11"), "uuid": UUID, **fields}


class VmRecordTests(SynchronousTestCase):
    def test_a_record_of_xapi(self) -> None:
        more = {"tags": ["web"], "other_config": {"nova_uuid": UUID}}
        record = _vm(power_state="Running", resident_on=REF, domid="7", consoles=[REF], **more)
        self.assertEqual(
            vm_record(REF, record),
            Vm(REF, UUID, "web-1", "Running", REF, 7, (REF,), False, False, False, False, ("web",), UUID),
        )

    def test_what_can_run_is_a_vm(self) -> None:
        self.assertTrue(vm_record(REF, _vm()).is_vm)
        self.assertTrue(vm_record(REF, _vm(is_control_domain=True)).is_vm)
        self.assertFalse(vm_record(REF, _vm(is_a_template=True)).is_vm)
        self.assertFalse(vm_record(REF, _vm(is_a_snapshot=True)).is_vm)

    def test_an_owner_may_want_no_console(self) -> None:
        self.assertTrue(vm_record(REF, _vm(other_config={"disable_pv_vnc": "1"})).without_console)
        self.assertFalse(vm_record(REF, _vm(other_config={"disable_pv_vnc": "0"})).without_console)

    def test_wrong_fields_are_named_and_their_values_are_not(self) -> None:
        for field, value in {
            "uuid": "secret",
            "name_label": 7,
            "power_state": "secret",
            "resident_on": "secret",
            "domid": "secret",
            "tags": [7],
            "consoles": "secret",
            "is_a_template": "secret",
            "is_a_snapshot": None,
            "is_control_domain": 1,
            "other_config": ["secret"],
        }.items():
            for record in (_vm(**{field: value}), {key: each for key, each in _vm().items() if key != field}):
                error = self.assertRaises(RecordError, vm_record, REF, record)
                self.assertIn(f"VM.{field}", str(error))
                self.assertNotIn("secret", str(error))

    def test_a_console_that_is_no_reference(self) -> None:
        self.assertRaises(RecordError, vm_record, REF, _vm(consoles=[REF, "x"]))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        )
    )
    def test_nothing_else_is_a_record(self, value: object) -> None:
        for read in (lambda record: vm_record(REF, record), lambda record: host_record(REF, record), console_protocol):
            self.assertRaises(RecordError, read, value)


class OtherRecordTests(SynchronousTestCase):
    def test_a_host(self) -> None:
        self.assertEqual(host_record(REF, _host()), Host(REF, UUID, "xen-1", "10.0.0.11"))
        self.assertEqual(host_record(REF, _host(address="")).address, "")

    def test_a_host_with_an_address_that_is_none(self) -> None:
        for address in ("10.0.0.11:443", "10.0.0.11\r\n", "/etc/passwd", 7, None):
            self.assertRaises(RecordError, host_record, REF, _host(address=address))

    def test_a_console(self) -> None:
        self.assertEqual(console_protocol(simulated.console(REF, "rfb")), "rfb")

    def test_a_pool_and_one_that_is_too_old_to_have_a_policy(self) -> None:
        record = {**simulated.pool("lab", REF), "limit_console_sessions": True, "vm_console_idle_timeout": "600"}
        self.assertEqual(pool_policy(record), Policy(True, 600))
        del record["limit_console_sessions"], record["vm_console_idle_timeout"]
        self.assertEqual(pool_policy(record), Policy(False, 0))
        for field, value in {"limit_console_sessions": "true", "vm_console_idle_timeout": 600}.items():
            self.assertRaises(RecordError, pool_policy, {**record, field: value})

    def test_references(self) -> None:
        self.assertEqual(reference(REF), REF)
        self.assertEqual(references([REF, REF]), (REF, REF))
        for value in (None, 7, "", UUID, [REF], f"{REF}&uuid=x"):
            self.assertRaises(RecordError, reference, value)
        for set_of in (None, REF, [REF, 7], ["x"]):
            self.assertRaises(RecordError, references, set_of)
