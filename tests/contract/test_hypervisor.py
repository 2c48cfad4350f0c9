"""What `xvpd.xen.hypervisor.IHypervisor` promises, of every implementation, in front of a simulated pool."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from zope.interface.verify import verifyObject

from tests.canary import Canary
from tests.xen.lab import UNKNOWN_UUID, LabCase
from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.sim.faults import EVERYWHERE, ApiFault, ConsoleFault
from xvpd.sim.http import NO_CONSOLE
from xvpd.sim.pool import DEMO_VMS, SimulatedPool, SimulatedVm
from xvpd.xen.hypervisor import Change, ChangeKind, IHypervisor, ListedVm, Location
from xvpd.xen.pool import Pool
from xvpd.xen.pools import Pools
from xvpd.xen.records import Policy

if TYPE_CHECKING:
    Base = LabCase
else:
    Base = object

PASSWORD = "a-password-and-a-canary"
HYPERVISOR_REASONS = {reason for reason in Reason if 70 <= reason.number < 80}


class HypervisorPromises(Base):
    """Each promise is a test; an implementation's own class provides `make`."""

    def make(self, lab: SimulatedPool) -> IHypervisor:
        """An implementation, not started yet, that knows this pool under the name ``lab``."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.canary = Canary()
        self.canary.watch_log(self)

    async def started(self, **options: Any) -> tuple[IHypervisor, SimulatedPool]:
        """A pool, and an implementation that has logged in to it."""
        options.setdefault("vms", [*DEMO_VMS, SimulatedVm("twin"), SimulatedVm("twin", running=False)])
        lab = self.pool(password=PASSWORD, **options)
        hypervisor = self.make(lab)
        self.addCleanup(hypervisor.stop)
        await hypervisor.start()
        self.sessions = set(lab.state.xapi_sessions)
        self.hypervisor = hypervisor
        return hypervisor, lab

    def uuid_of(self, lab: SimulatedPool, name: str) -> str:
        return str(lab.state.record("VM", lab.state.vm_named(name))["uuid"])

    def there(self, answer: object) -> Location:
        assert isinstance(answer, Location), answer
        return answer

    def tunnel(self, answer: object) -> Leg:
        assert isinstance(answer, Leg), answer
        self.addCleanup(answer.abort)
        return answer

    def connections(self, lab: SimulatedPool) -> int:
        """Of all hosts: for consoles, and for calls."""
        return sum(map(lab.connections, lab.addresses))

    async def test_provides_the_interface(self) -> None:
        hypervisor, _ = await self.started()
        verifyObject(IHypervisor, hypervisor)

    # Finding.

    async def test_finds_a_running_vm_by_uuid_and_by_name(self) -> None:
        hypervisor, lab = await self.started()
        for name, address in (("web-1", lab.addresses[0]), ("web-2", lab.addresses[1])):
            ref, host = lab.state.vm_named(name), lab.state.host_at(address)
            uuid = self.uuid_of(lab, name)
            expected = Location(
                pool="lab",
                vm_uuid=uuid,
                vm_ref=ref,
                vm_name=name,
                host_uuid=str(lab.state.record("host", host)["uuid"]),
                host_address=address,
            )
            self.assertEqual(await hypervisor.find(name), expected)
            self.assertEqual(await hypervisor.find(uuid), expected)
            self.assertEqual(await hypervisor.find(uuid.upper()), expected)
            self.assertEqual(await hypervisor.locate(uuid), expected)

    async def test_what_is_not_there_is_not_found(self) -> None:
        hypervisor, _ = await self.started()
        for name in (
            "web-3",
            "WEB-1",
            "",
            " ",
            "web-1\n",
            "\0",
            "\ud800",
            "<x>&y;",
            "ü" * 2000,
            "Debian Bookworm 12",
            UNKNOWN_UUID,
        ):
            self.assert_refused(await hypervisor.find(name), Reason.VM_NOT_FOUND)
        for uuid in (UNKNOWN_UUID, "web-1", "", "\0", "OpaqueRef:NULL"):
            self.assert_refused(await hypervisor.locate(uuid), Reason.VM_NOT_FOUND)

    async def test_a_template_is_not_found_by_its_uuid_either(self) -> None:
        hypervisor, lab = await self.started()
        self.assert_refused(await hypervisor.locate(self.uuid_of(lab, "Debian Bookworm 12")), Reason.VM_NOT_FOUND)

    async def test_a_name_of_two_vms_is_ambiguous(self) -> None:
        hypervisor, _ = await self.started()
        self.assert_refused(await hypervisor.find("twin"), Reason.VM_AMBIGUOUS)

    async def test_a_vm_that_does_not_run_is_found_and_refused(self) -> None:
        hypervisor, lab = await self.started()
        lab.state.do(lab.state.vm_named("web-1"), "pause")
        lab.state.do(lab.state.vm_named("web-2"), "suspend")
        for name in ("build-agent", "web-1", "web-2"):
            found = await self.answered(partial(hypervisor.find, name), lambda answer: isinstance(answer, Refusal))
            self.assert_refused(found, Reason.VM_NOT_RUNNING)
            self.assert_refused(await hypervisor.locate(self.uuid_of(lab, name)), Reason.VM_NOT_RUNNING)

    async def test_a_control_domain_has_no_console_for_anybody(self) -> None:
        hypervisor, lab = await self.started()
        name = "Control domain on host: host-2"
        self.assert_refused(await hypervisor.find(name), Reason.NO_CONSOLE, "control domain")
        self.assert_refused(await hypervisor.locate(self.uuid_of(lab, name)), Reason.NO_CONSOLE, "control domain")

    async def test_a_vm_is_found_where_it_is_now(self) -> None:
        hypervisor, lab = await self.started()
        uuid = self.uuid_of(lab, "web-1")
        before = self.there(await hypervisor.locate(uuid))
        lab.state.do(lab.state.vm_named("web-1"), "pool_migrate", lab.state.host_at(lab.addresses[1]))
        after = await self.answered(lambda: hypervisor.locate(uuid), lambda answer: answer != before)
        self.assertEqual((before.host_address, self.there(after).host_address), (lab.addresses[0], lab.addresses[1]))

    async def test_a_pool_that_is_away_is_a_refusal(self) -> None:
        hypervisor, lab = await self.started()
        await lab.stop()
        for ask in (lambda: hypervisor.find("web-1"), lambda: hypervisor.locate(UNKNOWN_UUID)):
            answer = await self.answered(ask, lambda answer: isinstance(answer, Refusal))
            self.assert_refused(answer, Reason.HYPERVISOR_UNREACHABLE)

    async def test_what_was_found_is_found_again_without_a_call(self) -> None:
        hypervisor, lab = await self.started()
        lab.faults.order_api(EVERYWHERE, ApiFault(failure=("INTERNAL_ERROR", "asked")))
        for vm in ("web-1", self.uuid_of(lab, "web-2")):
            self.there(await hypervisor.find(vm))

    async def test_what_has_just_come_is_found(self) -> None:
        """Nobody is sent away because an event is still on its way."""
        hypervisor, lab = await self.started()
        lab.add_vm(SimulatedVm("newcomer", host=1))
        lab.state.do(lab.state.vm_named("build-agent"), "start")
        for name in ("newcomer", "build-agent"):
            self.there(await hypervisor.find(name))

    async def test_what_is_not_known_for_sure_is_asked_for(self) -> None:
        hypervisor, lab = await self.started()
        lab.faults.order_api(EVERYWHERE, ApiFault("event.from", failure=("INTERNAL_ERROR", "x")))
        lab.state.expire_sessions()
        lab.state.do(lab.state.vm_named("web-1"), "pause")
        await self.answered(partial(hypervisor.find, "web-1"), lambda answer: isinstance(answer, Refusal))
        self.there(await hypervisor.find("web-2"))

    async def test_starts_though_the_pool_is_away(self) -> None:
        lab = self.pool()
        await lab.stop()
        hypervisor = self.make(lab)
        self.addCleanup(hypervisor.stop)
        await hypervisor.start()
        self.assert_refused(await hypervisor.find("web-1"), Reason.HYPERVISOR_UNREACHABLE)

    # Dialling.

    async def test_a_console_is_opened_and_its_first_bytes_are_still_to_be_read(self) -> None:
        hypervisor, _ = await self.started()
        for name, banner in (("web-1", b"RFB 003.008\n"), ("web-2", b"RFB 003.008\n"), ("legacy-pv", b"RFB 003.003\n")):
            leg = self.tunnel(await hypervisor.dial(self.there(await hypervisor.find(name)), "request"))
            self.assertEqual(await leg.read(), banner)
            self.assertIsNone(leg.end)

    async def test_bytes_go_both_ways(self) -> None:
        hypervisor, _ = await self.started()
        leg = self.tunnel(await hypervisor.dial(self.there(await hypervisor.find("web-1")), "request"))
        await leg.read()
        leg.write(b"RFB 003.008\n")
        self.assertEqual(await leg.read(), b"\1\1")  # one security type, None

    async def test_a_vm_that_has_left_its_host_is_dialled_where_it_is(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-1"))
        followed: list[Location] = []
        lab.state.do(lab.state.vm_named("web-1"), "pool_migrate", lab.state.host_at(lab.addresses[1]))
        leg = self.tunnel(await hypervisor.dial(location, "request", followed.append))
        self.assertEqual(getattr(leg.peer, "host", None), lab.addresses[1])
        there = await self.answered(partial(hypervisor.locate, location.vm_uuid), lambda answer: answer != location)
        self.assertEqual(followed, [there])

    async def test_a_vm_that_has_come_to_an_end_meanwhile_is_refused_for_that(self) -> None:
        hypervisor, lab = await self.started()
        for operation, reason in (("hard_shutdown", Reason.VM_NOT_RUNNING), ("destroy", Reason.VM_NOT_FOUND)):
            location = self.there(await hypervisor.find("web-1" if operation == "hard_shutdown" else "web-2"))
            if operation == "destroy":
                lab.state.do(location.vm_ref, "hard_shutdown")
            lab.state.do(location.vm_ref, operation)
            self.assert_refused(await hypervisor.dial(location, "request"), reason)

    async def test_a_vm_that_reboots_is_dialled_when_it_is_back(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-1"))
        lab.faults.order_console(location.vm_uuid, ConsoleFault(reply=NO_CONSOLE, then="close", times=1))
        lab.state.do(location.vm_ref, "hard_reboot")
        self.tunnel(await hypervisor.dial(location, "request"))

    async def test_an_address_that_is_not_a_members_is_not_dialled(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-1"))
        before = self.connections(lab)
        for other in (
            replace(location, host_address="127.0.0.9"),
            replace(location, host_address="localhost"),
            replace(location, host_address="x\r\ny"),
            replace(location, host_uuid=UNKNOWN_UUID),
            replace(location, pool="another"),
        ):
            self.assert_refused(await hypervisor.dial(other, "request"), Reason.HYPERVISOR_UNTRUSTED)
        self.assertEqual(self.connections(lab), before)

    async def test_a_host_that_is_away_is_a_refusal(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-2"))
        await lab.lose_host(lab.addresses[1])
        self.assert_refused(await hypervisor.dial(location, "request"), Reason.HYPERVISOR_UNREACHABLE, lab.addresses[1])

    # What happens.

    async def told(self) -> tuple[list[Change], SimulatedPool]:
        """What has been told of a pool so far, and the pool."""
        hypervisor, lab = await self.started()
        changes: list[Change] = []
        hypervisor.changes(changes.append)
        return changes, lab

    async def test_what_becomes_of_a_vm_is_told_and_where_it_runs_now(self) -> None:
        changes, lab = await self.told()
        hypervisor = self.hypervisor
        here, there = map(lab.state.host_at, lab.addresses)
        vm, uuid = lab.state.vm_named("web-1"), self.uuid_of(lab, "web-1")
        for operation, kind, host in (
            ("clean_reboot", ChangeKind.REBOOTED, here),
            ("pool_migrate", ChangeKind.MOVED, there),
            ("suspend", ChangeKind.SUSPENDED, None),
            ("resume", None, None),
            ("pause", None, None),
            ("unpause", None, None),
            ("hard_shutdown", ChangeKind.HALTED, None),
            ("start", None, None),
            ("clean_shutdown", ChangeKind.HALTED, None),
            ("destroy", ChangeKind.DESTROYED, None),
        ):
            changes.clear()
            lab.state.do(vm, operation, there if operation == "pool_migrate" else None)
            host_uuid = str(lab.state.record("host", host)["uuid"]) if host is not None else ""
            expected = [Change("lab", uuid, kind, host_uuid)] if kind is not None else []
            lab.state.add_vm(operation)  # comes in the same batch
            await self.answered(lambda: succeed(hypervisor.vms()), partial(_has, operation))
            self.assertEqual(changes, expected)

    async def test_the_owner_s_wish_for_no_console_is_told(self) -> None:
        changes, lab = await self.told()
        lab.state.database.modify(lab.state.vm_named("web-1"), other_config={"disable_pv_vnc": "1"})
        await self.until(lambda: changes)
        self.assertEqual([change.kind for change in changes], [ChangeKind.CONSOLE_DISABLED])

    async def test_whoever_is_told_finds_it_so(self) -> None:
        hypervisor, lab = await self.started()
        found: list[Deferred[Location | Refusal]] = []
        hypervisor.changes(lambda change: found.append(hypervisor.locate(change.vm_uuid)))
        lab.state.do(lab.state.vm_named("web-1"), "pool_migrate", lab.state.host_at(lab.addresses[1]))
        await self.until(lambda: found)
        self.assertEqual(self.there(await found[0]).host_address, lab.addresses[1])

    async def test_what_happened_while_no_events_came_is_told_later(self) -> None:
        changes, lab = await self.told()
        lab.state.expire_sessions()
        lab.state.do(lab.state.vm_named("web-1"), "pool_migrate", lab.state.host_at(lab.addresses[1]))
        lab.state.do(lab.state.vm_named("web-2"), "hard_shutdown")
        await self.until(lambda: len(changes) == 2)
        self.assertEqual({change.kind for change in changes}, {ChangeKind.MOVED, ChangeKind.HALTED})

    async def test_one_who_fails_when_told_does_not_keep_others_from_hearing(self) -> None:
        hypervisor, lab = await self.started()
        changes: list[Change] = []
        hypervisor.changes(lambda change: 1 / 0)  # type: ignore[arg-type]
        hypervisor.changes(changes.append)
        lab.state.do(lab.state.vm_named("web-1"), "suspend")
        await self.until(lambda: changes)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_nothing_is_told_after_stop(self) -> None:
        hypervisor, lab = await self.started()
        changes: list[Change] = []
        hypervisor.changes(changes.append)
        lab.state.do(lab.state.vm_named("web-1"), "suspend")
        await hypervisor.stop()
        self.assertEqual(changes, [])

    # What there is, and what is wanted of it.

    async def test_the_pool_s_policy(self) -> None:
        changes, lab = await self.told()
        hypervisor = self.hypervisor
        location = self.there(await hypervisor.find("web-1"))
        self.assertEqual(await hypervisor.policy(location), Policy())
        lab.state.set_policy(limit_console_sessions=True, vm_console_idle_timeout=600)
        await self.until(lambda: changes)
        self.assertEqual(changes, [Change("lab", "", ChangeKind.POLICY)])
        self.assertEqual(await hypervisor.policy(location), Policy(True, 600))
        lab.faults.order_api(EVERYWHERE, ApiFault("event.from", failure=("INTERNAL_ERROR", "x")))
        lab.state.expire_sessions()
        lab.state.set_policy(limit_console_sessions=False)
        await self.answered(partial(hypervisor.policy, location), lambda policy: policy == Policy())

    async def test_every_vm_is_listed(self) -> None:
        hypervisor, lab = await self.started()
        listed = [vm for vm in hypervisor.vms() if vm.pool == "lab"]
        self.assertEqual([vm.name for vm in listed], sorted([vm.name for vm in DEMO_VMS] + ["twin"] * 2))
        (web,) = [vm for vm in listed if vm.name == "web-2"]
        host = str(lab.state.record("host", lab.state.host_at(lab.addresses[1]))["uuid"])
        self.assertEqual(web, ListedVm("lab", self.uuid_of(lab, "web-2"), "web-2", "Running", ("web",), "", host, False))

    # Giving up.

    async def test_everything_may_be_cancelled(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-2"))
        for method in ("VM.get_by_uuid", "VM.get_by_name_label"):
            lab.faults.order_api(EVERYWHERE, ApiFault(method, hang=True))
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=b"", then="silence"))
        asking: list[Deferred[Any]] = [
            hypervisor.find("web-3"),
            hypervisor.find(UNKNOWN_UUID),
            hypervisor.locate(UNKNOWN_UUID),
            hypervisor.dial(location, "request"),
        ]
        await self.until(lambda: lab.connections(lab.addresses[1]) == 1)
        for each in asking:
            each.cancel()
            await self.assertFailure(each, CancelledError)
        await self.until(lambda: lab.connections(lab.addresses[1]) == 0)
        await self.until(lambda: self.connections(lab) <= 2)  # that of the events, and one that is kept for calls
        lab.faults.lift()

    async def test_a_dial_cancelled_before_it_is_connected_leaves_nothing(self) -> None:
        hypervisor, lab = await self.started()
        dialling = hypervisor.dial(self.there(await hypervisor.find("web-2")), "request")
        dialling.cancel()
        await self.assertFailure(dialling, CancelledError)
        await self.until(lambda: lab.connections(lab.addresses[1]) == 0)

    async def test_stop_logs_out_and_leaves_nothing(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-2"))
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=b"", then="silence"))
        dialling = hypervisor.dial(location, "request")
        await self.until(lambda: lab.connections(lab.addresses[1]) == 1)
        await hypervisor.stop()
        self.assertEqual(lab.state.xapi_sessions, {})
        answer = await dialling
        self.assertIn(getattr(answer, "reason", None), HYPERVISOR_REASONS)
        await self.until(lambda: self.connections(lab) == 0)

    async def test_after_stop_everything_is_refused(self) -> None:
        hypervisor, _ = await self.started()
        location = self.there(await hypervisor.find("web-1"))
        await hypervisor.stop()
        for asking in (hypervisor.find("web-1"), hypervisor.locate(location.vm_uuid), hypervisor.dial(location, "request")):
            answer = await asking
            self.assert_refused(answer, Reason.HYPERVISOR_UNREACHABLE)

    # Secrets.

    async def test_neither_password_nor_xapi_session_is_ever_said(self) -> None:
        hypervisor, lab = await self.started()
        location = self.there(await hypervisor.find("web-1"))
        self.canary.keep("the location", location)
        self.canary.keep("the implementation", vars(hypervisor))
        for status in (b"401 Unauthorised", b"500 Internal Error", b"200 OK"):
            reply = b"HTTP/1.1 " + status + b"\r\nX: " + next(iter(self.sessions)).encode() + b"\r\n\r\n"
            lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=reply, then="close"))
            self.canary.keep("a refusal", await hypervisor.dial(location, "request"))
        lab.faults.order_api(EVERYWHERE, ApiFault("VM.get_record", failure=("SESSION_INVALID", *self.sessions)))
        self.canary.keep("a refusal", await hypervisor.locate(location.vm_uuid))
        lab.faults.order_api(EVERYWHERE, ApiFault(failure=(*self.sessions, PASSWORD)))
        self.canary.keep("a refusal", await hypervisor.find("web-1"))
        self.canary.assert_no_secret(PASSWORD, *self.sessions, *lab.state.xapi_sessions)


class PoolTests(HypervisorPromises, LabCase):
    def make(self, lab: SimulatedPool) -> IHypervisor:
        return Pool(reactor, self.settings(lab))


class PoolsTests(HypervisorPromises, LabCase):
    """Several pools, one of which is ``lab``."""

    def make(self, lab: SimulatedPool) -> IHypervisor:
        other = self.pool(hosts=1, vms=[SimulatedVm("elsewhere")])
        return Pools([Pool(reactor, self.settings(other, name="other")), Pool(reactor, self.settings(lab))])


def _has(name: str, vms: list[ListedVm]) -> bool:
    return name in {vm.name for vm in vms}
