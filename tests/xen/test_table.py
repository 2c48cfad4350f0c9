"""`xvpd.xen.table`: the table is what the events say, and says what has changed."""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.reason import Reason, Refusal
from xvpd.xen.events import Event
from xvpd.xen.hypervisor import Change, ChangeKind, Location
from xvpd.xen.records import Host, Policy, Vm
from xvpd.xen.syntax import NULL_REF
from xvpd.xen.table import Table


def uuid(kind: int, number: int) -> str:
    return f"00000000-0000-4000-800{kind}-{number:012x}"


def ref(kind: int, number: int) -> str:
    return f"OpaqueRef:{uuid(kind, number)}"


def vm_ref(number: int) -> str:
    return ref(1, number)


def console_ref(number: int) -> str:
    return ref(2, number)


def host_ref(number: int) -> str:
    return ref(3, number)


HOSTS = [Host(host_ref(number), uuid(3, number), f"xen-{number}", f"10.0.0.{number}") for number in (1, 2)]
WEB = Vm(
    ref=vm_ref(1),
    uuid=uuid(1, 1),
    name="web-1",
    power_state="Running",
    resident_on=host_ref(1),
    domid=5,
    consoles=(console_ref(1),),
    is_template=False,
    is_snapshot=False,
    is_control_domain=False,
    without_console=False,
    tags=("web",),
    nova_uuid="",
)
HALTED = replace(WEB, power_state="Halted", resident_on=NULL_REF, domid=-1, consoles=())


def of_vm(vm: Vm) -> Event:
    return Event("vm", vm.ref, vm)


def gone(kind: str, ref: str) -> Event:
    return Event(kind, ref, None)


def unreadable(ref: str) -> Event:
    return Event("vm", ref, None, "VM.power_state is none")


class TableCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.table = Table("lab")
        events = [of_vm(WEB), Event("console", console_ref(1), "rfb"), *(Event("host", host.ref, host) for host in HOSTS)]
        self.assertEqual(self.table.apply([*events, Event("pool", ref(4, 1), Policy())]), [])

    def location(self, vm: Vm = WEB, host: Host = HOSTS[0]) -> Location:
        return Location("lab", vm.uuid, vm.ref, vm.name, host.uuid, host.address)

    def assert_refused(self, vm: str, reason: Reason, *words: str) -> None:
        answer = self.table.find(vm)
        assert isinstance(answer, Refusal), answer
        self.assertEqual(answer.reason, reason)
        for word in words:
            self.assertIn(word, answer.detail)


class FindTests(TableCase):
    def test_a_running_vm_by_uuid_and_by_name(self) -> None:
        for vm in (WEB.uuid, WEB.uuid.upper(), WEB.name):
            self.assertEqual(self.table.find(vm), self.location())

    def test_what_there_is_not(self) -> None:
        for vm in (uuid(1, 2), "web-2", "WEB-1", "", WEB.ref):
            self.assert_refused(vm, Reason.VM_NOT_FOUND)

    def test_templates_and_snapshots_are_not_there(self) -> None:
        for vm in (replace(WEB, is_template=True), replace(WEB, is_snapshot=True)):
            self.table.apply([of_vm(vm)])
            self.assert_refused(WEB.uuid, Reason.VM_NOT_FOUND)
            self.assert_refused(WEB.name, Reason.VM_NOT_FOUND)
            self.assertEqual(len(self.table), 0)

    def test_a_name_of_several_is_ambiguous_running_or_not_and_all_are_listed(self) -> None:
        twin = replace(HALTED, ref=vm_ref(2), uuid=uuid(1, 2))
        self.table.apply([of_vm(twin)])
        self.assert_refused(WEB.name, Reason.VM_AMBIGUOUS, WEB.uuid, twin.uuid)
        self.table.apply([of_vm(replace(twin, name="web-2"))])
        self.assertEqual(self.table.find(WEB.name), self.location())

    def test_a_long_list_of_candidates_is_cut(self) -> None:
        self.table.apply(of_vm(replace(HALTED, ref=vm_ref(number), uuid=uuid(1, number))) for number in range(2, 14))
        self.assert_refused(WEB.name, Reason.VM_AMBIGUOUS, "13 VMs", "and 3 more")

    def test_a_vm_that_cannot_be_opened(self) -> None:
        for vm, reason, word in (
            (HALTED, Reason.VM_NOT_RUNNING, "Halted"),
            (replace(WEB, power_state="Paused"), Reason.VM_NOT_RUNNING, "Paused"),
            (replace(WEB, without_console=True), Reason.NO_CONSOLE, "disable_pv_vnc"),
            (replace(WEB, is_control_domain=True), Reason.NO_CONSOLE, "control domain"),
            (replace(WEB, consoles=()), Reason.NO_CONSOLE, "rfb"),
        ):
            self.table.apply([of_vm(vm)])
            self.assert_refused(WEB.uuid, reason, word)

    def test_a_text_console_is_none(self) -> None:
        self.table.apply([Event("console", console_ref(1), "vt100")])
        self.assert_refused(WEB.uuid, Reason.NO_CONSOLE, "rfb")

    def test_a_host_without_an_address(self) -> None:
        self.table.apply([Event("host", HOSTS[0].ref, replace(HOSTS[0], address=""))])
        self.assert_refused(WEB.uuid, Reason.HYPERVISOR_UNREACHABLE)

    def test_what_names_something_unknown_is_not_known(self) -> None:
        for event in (gone("console", console_ref(1)), gone("host", HOSTS[0].ref)):
            self.setUp()
            self.table.apply([event])
            self.assertIsNone(self.table.find(WEB.uuid))

    def test_a_record_that_cannot_be_read_may_have_any_name(self) -> None:
        self.table.apply([unreadable(vm_ref(2))])
        self.assertIsNone(self.table.find(WEB.name))
        self.assertIsNone(self.table.find("web-2"))
        self.assertEqual(self.table.find(WEB.uuid), self.location())
        self.table.apply([gone("vm", vm_ref(2))])
        self.assertEqual(self.table.find(WEB.name), self.location())

    def test_the_list_has_vms_in_any_state_and_no_control_domains(self) -> None:
        self.table.apply([of_vm(replace(WEB, ref=vm_ref(2), uuid=uuid(1, 2), is_control_domain=True))])
        (listed,) = self.table.vms()
        self.assertEqual((listed.uuid, listed.power_state, listed.host_uuid), (WEB.uuid, "Running", HOSTS[0].uuid))
        self.table.apply([of_vm(HALTED)])
        (listed,) = self.table.vms()
        self.assertEqual((listed.power_state, listed.host_uuid, listed.tags), ("Halted", "", ("web",)))


class ChangeTests(TableCase):
    def told(self, *events: Event) -> list[tuple[ChangeKind, str]]:
        changes = self.table.apply(events)
        self.assertEqual({(change.pool, change.vm_uuid) for change in changes} - {("lab", WEB.uuid)}, set())
        return [(change.kind, change.host_uuid) for change in changes]

    def test_what_a_domain_may_come_to(self) -> None:
        here, there = HOSTS[0].uuid, HOSTS[1].uuid
        for vm, kind, host in (
            (HALTED, ChangeKind.HALTED, ""),
            (replace(HALTED, power_state="Suspended"), ChangeKind.SUSPENDED, ""),
            (replace(WEB, domid=6), ChangeKind.REBOOTED, here),
            (replace(WEB, resident_on=HOSTS[1].ref), ChangeKind.MOVED, there),
            (replace(WEB, resident_on=HOSTS[1].ref, domid=1), ChangeKind.MOVED, there),
            (replace(WEB, without_console=True), ChangeKind.CONSOLE_DISABLED, here),
            (replace(WEB, is_template=True), ChangeKind.DESTROYED, ""),
        ):
            self.setUp()
            self.assertEqual(self.told(of_vm(vm)), [(kind, host)])
            self.assertEqual(self.told(of_vm(vm)), [])

    def test_what_is_no_change_for_a_console(self) -> None:
        for vm in (
            replace(WEB, power_state="Paused"),
            replace(WEB, name="web-2", tags=()),
            replace(WEB, consoles=(console_ref(2),)),
        ):
            self.assertEqual(self.told(of_vm(vm)), [])

    def test_a_paused_vm_has_a_domain(self) -> None:
        self.told(of_vm(replace(WEB, power_state="Paused")))
        self.assertEqual(self.told(of_vm(HALTED)), [(ChangeKind.HALTED, "")])

    def test_a_vm_without_a_domain_can_only_be_destroyed(self) -> None:
        self.told(of_vm(HALTED))
        self.assertEqual(self.told(of_vm(replace(HALTED, power_state="Suspended")), of_vm(WEB)), [])
        self.told(of_vm(HALTED))
        self.assertEqual(self.told(gone("vm", WEB.ref)), [(ChangeKind.DESTROYED, "")])

    def test_one_batch_with_add_mod_and_del(self) -> None:
        self.assertEqual(self.told(gone("vm", WEB.ref)), [(ChangeKind.DESTROYED, "")])
        events = (of_vm(WEB), of_vm(replace(WEB, domid=6)), of_vm(HALTED), gone("vm", WEB.ref))
        self.assertEqual([kind.value for kind, _ in self.told(*events)], ["rebooted", "halted", "destroyed"])
        self.assert_refused(WEB.uuid, Reason.VM_NOT_FOUND)

    def test_nothing_is_destroyed_because_its_record_cannot_be_read(self) -> None:
        self.assertEqual(self.told(unreadable(WEB.ref)), [])
        self.assertEqual(self.told(unreadable(WEB.ref), of_vm(WEB)), [])
        self.assertEqual(self.table.find(WEB.uuid), self.location())
        self.told(unreadable(WEB.ref))
        self.assertEqual(self.told(of_vm(HALTED)), [(ChangeKind.HALTED, "")])

    def test_the_policy(self) -> None:
        self.assertEqual(self.table.policy, Policy())
        change = Change("lab", "", ChangeKind.POLICY)
        event = Event("pool", ref(4, 1), Policy(idle_seconds=600))
        self.assertEqual(self.table.apply([event]), [change])
        self.assertEqual(self.table.apply([event]), [])
        self.assertEqual(self.table.policy, Policy(idle_seconds=600))

    def test_a_policy_that_is_gone_stays_as_it_was(self) -> None:
        self.assertEqual(self.table.apply([gone("pool", ref(4, 1))]), [])
        self.assertEqual(self.table.policy, Policy())

    def test_a_uuid_that_has_a_new_record_before_the_old_one_is_gone(self) -> None:
        successor = replace(WEB, ref=vm_ref(2))
        self.told(of_vm(successor), gone("vm", WEB.ref))
        self.assertEqual(self.table.find(WEB.uuid), self.location(successor))


class SinceTests(TableCase):
    def since(self, *events: Event) -> list[Change]:
        now = Table("lab")
        now.apply([Event("pool", ref(4, 1), Policy()), *(Event("host", host.ref, host) for host in HOSTS), *events])
        self.now = now
        return now.since(self.table)

    def test_nothing(self) -> None:
        self.assertEqual(self.since(of_vm(WEB)), [])

    def test_everything_that_happened_meanwhile(self) -> None:
        self.assertEqual([change.kind for change in self.since()], [ChangeKind.DESTROYED])
        self.assertEqual([change.kind for change in self.since(of_vm(HALTED))], [ChangeKind.HALTED])
        moved = replace(WEB, resident_on=HOSTS[1].ref)
        self.assertEqual(self.since(of_vm(moved)), [Change("lab", WEB.uuid, ChangeKind.MOVED, HOSTS[1].uuid)])
        policy = Event("pool", ref(4, 1), Policy(True))
        self.assertEqual(self.since(of_vm(WEB), policy), [Change("lab", "", ChangeKind.POLICY)])

    def test_a_record_that_cannot_be_read_is_compared_when_it_can(self) -> None:
        self.assertEqual(self.since(unreadable(WEB.ref)), [])
        self.assertEqual([change.kind for change in self.now.apply([of_vm(HALTED)])], [ChangeKind.HALTED])
        self.table.apply([unreadable(WEB.ref)])
        self.assertEqual([change.kind for change in self.since(of_vm(HALTED))], [ChangeKind.HALTED])


# Against a model that is as simple as can be.

numbers = st.integers(1, 3)
vms = st.builds(
    lambda number, name, power_state, host, domid, console, template, disabled: Vm(
        ref=vm_ref(number),
        uuid=uuid(1, number),
        name=name,
        power_state=power_state,
        resident_on=host_ref(host) if host else NULL_REF,
        domid=domid,
        consoles=(console_ref(console),),
        is_template=template,
        is_snapshot=False,
        is_control_domain=False,
        without_console=disabled,
        tags=(),
        nova_uuid="",
    ),
    numbers,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["Running", "Running", "Halted", "Suspended"]),
    st.integers(0, 2),
    st.integers(-1, 3),
    numbers,
    st.booleans(),
    st.booleans(),
)
events = st.one_of(
    vms.map(of_vm),
    numbers.map(lambda number: gone("vm", vm_ref(number))),
    numbers.map(lambda number: unreadable(vm_ref(number))),
    st.builds(
        lambda number, protocol: Event("console", console_ref(number), protocol), numbers, st.sampled_from(["rfb", "vt100"])
    ),
    numbers.map(lambda number: gone("console", console_ref(number))),
    st.sampled_from(HOSTS).map(lambda host: Event("host", host.ref, host)),
    st.integers(1, 2).map(lambda number: gone("host", host_ref(number))),
)


@dataclass
class Model:
    """The last event of each object."""

    last: dict[str, Event] = field(default_factory=dict)

    def vms(self) -> list[Vm]:
        records = [event.record for event in self.last.values()]
        return [record for record in records if isinstance(record, Vm) and not record.is_template]

    def expected(self, vm: Vm) -> Location | Reason | None:
        if vm.power_state != "Running" or vm.resident_on == NULL_REF:
            return Reason.VM_NOT_RUNNING
        if vm.without_console:
            return Reason.NO_CONSOLE
        host = self.last.get(vm.resident_on)
        console = self.last.get(vm.consoles[0])
        if host is None or host.record is None or console is None or console.record is None:
            return None
        assert isinstance(host.record, Host)
        return (
            Location("lab", vm.uuid, vm.ref, vm.name, host.record.uuid, host.record.address)
            if console.record == "rfb"
            else Reason.NO_CONSOLE
        )


class ModelTests(SynchronousTestCase):
    @given(st.lists(st.lists(events, max_size=5), max_size=12))
    def test_the_table_is_what_the_last_events_say(self, batches: list[list[Event]]) -> None:
        table, model = Table("lab"), Model()
        for batch in batches:
            before = {vm.uuid for vm in table.vms()}
            told = {change.vm_uuid for change in table.apply(batch) if change.kind is ChangeKind.DESTROYED}
            model.last.update({event.ref: event for event in batch})
            found = model.vms()
            unread = {event.ref for event in model.last.values() if event.problem}
            left = {each for each in before if f"OpaqueRef:{each}" not in unread} - {vm.uuid for vm in found}
            self.assertLessEqual(left, told)
            self.assertEqual(len(table), len(found))
            self.assertEqual({vm.uuid for vm in table.vms()}, {vm.uuid for vm in found})
            for vm in found:
                answer = table.find(vm.uuid)
                self.assertEqual(answer.reason if isinstance(answer, Refusal) else answer, model.expected(vm))
            if not any(event.problem for event in model.last.values()):
                self.check_names(table, model, found)

    def check_names(self, table: Table, model: Model, found: list[Vm]) -> None:
        for name in ("a", "b"):
            answer = table.find(name)
            reason = answer.reason if isinstance(answer, Refusal) else answer
            match [vm for vm in found if vm.name == name]:
                case []:
                    self.assertEqual(reason, Reason.VM_NOT_FOUND)
                case [vm]:
                    self.assertEqual(reason, model.expected(vm))
                case _:
                    self.assertEqual(reason, Reason.VM_AMBIGUOUS)

    @given(st.lists(events, max_size=20), st.lists(events, max_size=20))
    def test_a_fresh_table_tells_what_its_events_would_have_told_of_each_vm(
        self, before: list[Event], after: list[Event]
    ) -> None:
        """One comparison tells at most one change a VM, and nothing when nothing has changed."""
        old, new = Table("lab"), Table("lab")
        old.apply(before)
        new.apply([*before, *after])
        changes = new.since(old)
        self.assertEqual(len({change.vm_uuid for change in changes}), len(changes))
        same = Table("lab")
        same.apply(before)
        self.assertEqual(same.since(old), [])
