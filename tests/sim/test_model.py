"""What operations do to the records of a pool."""

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from xvpd.sim.database import NULL
from xvpd.sim.model import OPERATIONS, Account, PoolState, XapiError
from xvpd.sim.records import ALLOWED_OPERATIONS


def a_pool() -> PoolState:
    state = PoolState("pool", random.Random(1))
    state.add_host("host-1", "127.0.0.1")
    state.add_host("host-2", "127.0.0.2")
    return state


class Operations(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = a_pool()
        self.first, self.second = (self.state.host_at(f"127.0.0.{number}") for number in (1, 2))
        self.vm = self.state.add_vm("web-1")
        self.ended: list[tuple[str, bool]] = []
        self.state.domain_ended.append(lambda vm, lives_on: self.ended.append((vm, lives_on)))

    def record(self) -> dict[str, Any]:
        return self.state.record("VM", self.vm)

    def consoles(self) -> list[tuple[str, str]]:
        return [(ref, self.state.record("console", ref)["uuid"]) for ref in self.record()["consoles"]]

    def failure(self, operation: str) -> list[str]:
        failure: XapiError = self.assertRaises(XapiError, self.state.do, self.vm, operation)
        return failure.description

    def test_a_halted_vm_is_nowhere(self) -> None:
        record = self.record()
        self.assertEqual(
            (record["power_state"], record["resident_on"], record["domid"], record["consoles"]), ("Halted", NULL, "-1", [])
        )

    def test_a_started_vm_has_a_domain_and_a_console(self) -> None:
        self.state.do(self.vm, "start", self.second)
        record = self.record()
        self.assertEqual((record["power_state"], record["resident_on"], record["domid"]), ("Running", self.second, "1"))
        (console,) = record["consoles"]
        about = self.state.record("console", console)
        self.assertEqual((about["protocol"], about["VM"]), ("rfb", self.vm))
        self.assertEqual(about["location"], f"https://127.0.0.2/console?uuid={about['uuid']}")
        self.assertIn(self.vm, self.state.record("host", self.second)["resident_VMs"])

    def test_a_migration_renews_the_console_and_the_domain(self) -> None:
        self.state.do(self.vm, "start", self.first)
        before, uuid = self.consoles(), self.record()["uuid"]
        self.state.do(self.vm, "pool_migrate", self.second)
        ((ref, console_uuid),) = self.consoles()
        self.assertNotIn(ref, [old for old, _ in before])
        self.assertNotIn(console_uuid, [old for _, old in before])
        self.assertIsNone(self.state.database.get("console", before[0][0]))
        self.assertEqual((self.record()["resident_on"], self.record()["uuid"]), (self.second, uuid))
        self.assertNotIn(self.vm, self.state.record("host", self.first)["resident_VMs"])
        self.assertEqual(self.ended, [(self.vm, True)])

    def test_a_reboot_stays_where_it_is_with_a_new_domain(self) -> None:
        self.state.do(self.vm, "start", self.second)
        self.state.do(self.vm, "clean_reboot")
        self.assertEqual((self.record()["resident_on"], self.record()["domid"]), (self.second, "2"))
        self.assertEqual(self.ended, [(self.vm, False)])

    def test_a_pause_changes_only_the_power_state(self) -> None:
        self.state.do(self.vm, "start")
        before = dict(self.record())
        self.state.do(self.vm, "pause")
        changed = {name for name, value in self.record().items() if before[name] != value}
        self.assertEqual(changed, {"power_state", "allowed_operations"})
        self.assertEqual(self.ended, [])
        self.state.do(self.vm, "unpause")
        self.assertEqual(self.record(), before)

    def test_suspend_and_resume(self) -> None:
        self.state.do(self.vm, "start", self.second)
        self.state.do(self.vm, "suspend")
        self.assertEqual((self.record()["power_state"], self.record()["consoles"]), ("Suspended", []))
        self.state.do(self.vm, "resume")
        self.assertEqual((self.record()["power_state"], self.record()["resident_on"]), ("Running", self.second))

    def test_destroyed_is_gone(self) -> None:
        self.state.do(self.vm, "destroy")
        self.assertEqual(self.failure("start"), ["HANDLE_INVALID", "VM", self.vm])

    def test_the_wrong_power_state_is_refused(self) -> None:
        self.assertEqual(self.failure("clean_reboot"), ["VM_BAD_POWER_STATE", self.vm, "running", "halted"])
        self.state.do(self.vm, "start")
        self.assertEqual(self.failure("start"), ["VM_BAD_POWER_STATE", self.vm, "halted", "running"])

    def test_one_operation_at_a_time(self) -> None:
        self.state.do(self.vm, "start")
        self.state.check(self.vm, "clean_shutdown")
        self.state.begin(self.vm, "clean_shutdown", "OpaqueRef:task")
        self.assertEqual(self.record()["current_operations"], {"OpaqueRef:task": "clean_shutdown"})
        failure = self.failure("hard_shutdown")
        self.assertEqual(failure, ["OTHER_OPERATION_IN_PROGRESS", "VM", self.vm, "clean_shutdown", "OpaqueRef:task"])
        self.state.perform(self.vm, "clean_shutdown")
        self.assertEqual((self.record()["current_operations"], self.record()["power_state"]), ({}, "Halted"))

    def test_templates_and_control_domains_are_left_alone(self) -> None:
        template = self.state.add_template("Debian")
        self.assertEqual(self.assertRaises(XapiError, self.state.do, template, "start").description[0], "VM_IS_TEMPLATE")
        dom0 = self.state.record("host", self.first)["control_domain"]
        failure = self.assertRaises(XapiError, self.state.do, dom0, "hard_shutdown")
        self.assertEqual(failure.description[0], "OPERATION_NOT_ALLOWED")

    def test_a_dead_host_halts_its_vms_and_keeps_its_control_domain(self) -> None:
        other = self.state.add_vm("other")
        self.state.do(self.vm, "start", self.second)
        self.state.do(other, "start", self.first)
        self.state.declare_dead(self.second)
        self.assertEqual(self.record()["power_state"], "Halted")
        self.assertEqual(self.state.record("VM", other)["power_state"], "Running")
        self.assertFalse(self.state.record("host", self.second)["enabled"])
        dom0 = self.state.record("host", self.second)["control_domain"]
        self.assertEqual(self.state.record("VM", dom0)["power_state"], "Running")


class Pools(SynchronousTestCase):
    def test_the_first_host_is_the_coordinator_until_another_is(self) -> None:
        state = a_pool()
        self.assertEqual(state.coordinator, state.host_at("127.0.0.1"))
        state.fail_over(state.host_at("127.0.0.2"))
        self.assertEqual(state.coordinator, state.host_at("127.0.0.2"))

    def test_every_host_has_a_control_domain_with_a_console_that_is_named_by_reference(self) -> None:
        state = a_pool()
        for _, host in state.database.rows("host"):
            dom0 = state.record("VM", host["control_domain"])
            self.assertTrue(dom0["is_control_domain"])
            self.assertEqual((dom0["domid"], dom0["power_state"]), ("0", "Running"))
            for ref in dom0["consoles"]:
                self.assertEqual(state.record("console", ref)["location"], f"https://{host['address']}/console?ref={ref}")

    def test_a_vm_is_found_by_uuid_or_unique_name(self) -> None:
        state = a_pool()
        vm = state.add_vm("twin")
        self.assertEqual(state.vm_named("twin"), vm)
        self.assertEqual(state.vm_named(state.record("VM", vm)["uuid"]), vm)
        state.add_vm("twin")
        self.assertRaises(KeyError, state.vm_named, "twin")
        self.assertRaises(KeyError, state.vm_named, "nobody")
        self.assertRaises(KeyError, state.host_at, "127.0.0.9")

    def test_sessions(self) -> None:
        state = a_pool()
        state.accounts["user"] = Account("secret", "vm-operator")
        ended: list[str] = []
        state.session_ended.append(ended.append)
        session = state.log_in("user", "secret", "xvpd")
        self.assertEqual((state.xapi_sessions[session].originator, state.xapi_sessions[session].role), ("xvpd", "vm-operator"))
        state.log_out("OpaqueRef:another")
        state.expire_sessions()
        self.assertEqual((ended, state.xapi_sessions), ([session], {}))

    def test_wrong_passwords_and_unknown_users_are_told_the_same(self) -> None:
        state = a_pool()
        state.accounts["user"] = Account("secret")
        for user, password in (("user", "wrong"), ("nobody", "secret")):
            failure = self.assertRaises(XapiError, state.log_in, user, password, "")
            self.assertEqual(failure.description, ["SESSION_AUTHENTICATION_FAILED", user, "Authentication failure"])
        self.assertNotIn("secret", repr(state.accounts))

    def test_the_same_random_source_gives_the_same_pool(self) -> None:
        self.assertEqual([ref for ref, _ in a_pool().database.rows("VM")], [ref for ref, _ in a_pool().database.rows("VM")])


class PoolLife(RuleBasedStateMachine):
    """Whatever happens, the records fit together."""

    @initialize()
    def begin(self) -> None:
        self.state = a_pool()
        self.vms = [self.state.add_vm(f"vm-{number}", hvm=bool(number)) for number in range(3)]
        self.hosts = [ref for ref, _ in self.state.database.rows("host")]

    @rule(number=st.integers(0, 2), operation=st.sampled_from(sorted(OPERATIONS - {"destroy"})), host=st.integers(0, 1))
    def operate(self, number: int, operation: str, host: int) -> None:
        allowed = operation in self.state.record("VM", self.vms[number])["allowed_operations"]
        code = ""
        try:
            self.state.do(self.vms[number], operation, self.hosts[host])
        except XapiError as error:
            code = error.description[0]
        assert code == ("" if allowed else "VM_BAD_POWER_STATE")

    @invariant()
    def records_fit_together(self) -> None:
        consoles = {ref: record["VM"] for ref, record in self.state.database.rows("console")}
        for vm, record in self.state.database.rows("VM"):
            alive = record["power_state"] in ("Running", "Paused")
            assert (record["domid"] != "-1") == (record["resident_on"] != NULL) == bool(record["consoles"]) == alive
            assert sorted(record["consoles"]) == sorted(ref for ref, owner in consoles.items() if owner == vm)
            for host, about in self.state.database.rows("host"):
                assert (vm in about["resident_VMs"]) == (record["resident_on"] == host)
            if not record["is_control_domain"]:
                assert record["allowed_operations"] == ALLOWED_OPERATIONS[record["power_state"]]


class Life(SynchronousTestCase):
    def test_records_fit_together_whatever_happens(self) -> None:
        run_state_machine_as_test(PoolLife, settings=settings(max_examples=30, deadline=None))
