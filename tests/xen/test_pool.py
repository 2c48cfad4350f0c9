"""`xvpd.xen.pool`: what a pool says and does that is not as it should be. The rest is in `tests.contract.test_hypervisor`."""

import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.certificates import make_identity
from tests.sim.pools import certificates
from tests.xen.lab import LabCase
from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.sim.faults import EVERYWHERE, ApiFault, ConsoleFault
from xvpd.sim.http import CONSOLE_OPEN, NO_CONSOLE, internal_error
from xvpd.sim.pool import SimulatedPool, SimulatedVm
from xvpd.xen import dialling
from xvpd.xen.breaker import FAILURES
from xvpd.xen.hypervisor import Location
from xvpd.xen.pool import Pool
from xvpd.xen.settings import Deadlines
from xvpd.xen.trust import Authority, Plain, Trust

CONNECT_500 = internal_error("1.1", "Db_exn.Read_missing_uuid")
CONNECT_401 = b'HTTP/1.1 401 Unauthorised\r\nWWW-Authenticate: Basic realm="connect_console"\r\n\r\n'


class PoolCase(LabCase):
    async def started(
        self, deadlines: Deadlines | None = None, trust: Trust | None = None, *, events: bool = True, **options: Any
    ) -> tuple[Pool, SimulatedPool]:
        """A pool that has been logged in to. Without ``events`` it tells none, and has to be asked."""
        lab = self.pool(**options)
        if not events:
            lab.faults.order_api(EVERYWHERE, ApiFault("event.from", failure=("INTERNAL_ERROR", "x")))
        pool = Pool(reactor, self.settings(lab, trust=trust), deadlines)
        self.addCleanup(pool.stop)
        self.addCleanup(lab.faults.lift)
        await pool.start()
        return pool, lab

    async def found(self, pool: Pool, name: str = "web-1") -> Location:
        location = await pool.find(name)
        assert isinstance(location, Location), location
        return location

    async def opened(self, opening: Deferred[Leg | Refusal]) -> Leg:
        leg = await opening
        assert isinstance(leg, Leg), leg
        self.addCleanup(leg.gone)
        self.addCleanup(leg.abort)
        return leg


class AskingTests(PoolCase):
    """A pool whose events do not come is asked, and what it says is looked at more closely."""

    async def started(
        self, deadlines: Deadlines | None = None, trust: Trust | None = None, *, events: bool = False, **options: Any
    ) -> tuple[Pool, SimulatedPool]:
        return await super().started(deadlines, trust, events=events, **options)

    async def test_a_vm_whose_console_has_just_been_replaced_is_looked_at_again(self) -> None:
        pool, lab = await self.started()
        lab.faults.order_api(EVERYWHERE, ApiFault("console.get_record", failure=("HANDLE_INVALID", "console", "x"), times=1))
        await self.found(pool)

    async def test_a_vm_that_moves_all_the_time_is_given_up(self) -> None:
        pool, lab = await self.started()
        lab.faults.order_api(EVERYWHERE, ApiFault("console.get_record", failure=("HANDLE_INVALID", "console", "x")))
        self.assert_refused(await pool.find("web-1"), Reason.HYPERVISOR_REFUSED, "moving")

    async def test_a_vm_that_is_destroyed_while_it_is_looked_for(self) -> None:
        pool, lab = await self.started()
        lab.faults.order_api(EVERYWHERE, ApiFault("VM.get_record", failure=("HANDLE_INVALID", "VM", "x")))
        self.assert_refused(await pool.find("web-1"), Reason.VM_NOT_FOUND)
        uuid = lab.state.record("VM", lab.state.vm_named("web-1"))["uuid"]
        self.assert_refused(await pool.locate(uuid), Reason.VM_NOT_FOUND)

    async def test_a_vm_without_a_graphical_console(self) -> None:
        pool, lab = await self.started()
        for console in lab.state.record("VM", lab.state.vm_named("web-1"))["consoles"]:
            lab.state.database.modify(console, protocol="vt100")
        self.assert_refused(await pool.find("web-1"), Reason.NO_CONSOLE, "rfb")
        lab.state.database.modify(lab.state.vm_named("web-1"), consoles=[])
        self.assert_refused(await pool.find("web-1"), Reason.NO_CONSOLE, "rfb")

    async def test_a_vm_whose_owner_wants_no_console(self) -> None:
        pool, _ = await self.started(vms=[SimulatedVm("private", other_config={"disable_pv_vnc": "1"})])
        self.assert_refused(await pool.find("private"), Reason.NO_CONSOLE, "disable_pv_vnc")

    async def test_templates_and_snapshots_do_not_make_a_name_ambiguous(self) -> None:
        pool, lab = await self.started()
        lab.state.add_template("web-1")
        lab.state.database.modify(lab.add_vm(SimulatedVm("web-1", running=False)), is_a_snapshot=True)
        self.assertEqual((await self.found(pool)).vm_ref, lab.state.vm_named(str((await self.found(pool)).vm_uuid)))

    async def test_an_ambiguous_name_tells_an_operator_the_uuids(self) -> None:
        pool, lab = await self.started(vms=[SimulatedVm("twin"), SimulatedVm("twin")])
        uuids = [record["uuid"] for _, record in lab.state.database.rows("VM") if record["name_label"] == "twin"]
        self.assert_refused(await pool.find("twin"), Reason.VM_AMBIGUOUS, *uuids)

    async def test_a_host_without_an_address(self) -> None:
        pool, lab = await self.started()
        lab.state.database.modify(lab.state.host_at(lab.addresses[1]), address="")
        self.assert_refused(await pool.find("web-2"), Reason.HYPERVISOR_UNREACHABLE)

    async def test_records_that_are_none(self) -> None:
        pool, lab = await self.started()
        lab.state.database.modify(lab.state.host_at(lab.addresses[1]), address="127.0.0.2:443")
        self.assert_refused(await pool.find("web-2"), Reason.HYPERVISOR_PROTOCOL, "host.address")
        lab.state.database.modify(lab.state.vm_named("web-1"), power_state="Dancing")
        self.assert_refused(await pool.find("web-1"), Reason.HYPERVISOR_PROTOCOL, "VM.power_state")

    async def test_an_account_that_may_not(self) -> None:
        pool, lab = await self.started()
        for method in ("console.get_record", "VM.get_record", "VM.get_by_name_label", EVERYWHERE):
            lab.faults.order_api(EVERYWHERE, ApiFault(method, failure=("RBAC_PERMISSION_DENIED", "x", "y")))
            self.assert_refused(await pool.find("web-1"), Reason.HYPERVISOR_REFUSED, "RBAC_PERMISSION_DENIED")
            lab.faults.lift()

    async def test_a_pool_is_ready_when_it_is_logged_in(self) -> None:
        pool, lab = await self.started()
        self.assertIsNone(pool.ready())
        await lab.stop()
        await pool.find("web-1")
        self.assert_refused(pool.ready(), Reason.HYPERVISOR_UNREACHABLE)

    async def test_a_pool_that_hangs_is_given_up(self) -> None:
        pool, lab = await self.started(Deadlines(find=0.05))
        lab.faults.order_api(EVERYWHERE, ApiFault(hang=True))
        self.assert_refused(await pool.find("web-1"), Reason.HYPERVISOR_SLOW, "0.05")


class DiallingTests(PoolCase):
    def setUp(self) -> None:
        self.patch(dialling, "REBOOT_PAUSES", (0.01,) * 4)

    async def dialled(self, fault: ConsoleFault, deadlines: Deadlines | None = None) -> Leg | Refusal:
        pool, lab = await self.started(deadlines)
        location = await self.found(pool)
        lab.faults.order_console(EVERYWHERE, fault)
        return await pool.dial(location, "request")

    async def test_an_xapi_session_that_has_ended_is_opened_again(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        lab.state.expire_sessions()
        self.assertEqual(await (await self.opened(pool.dial(location, "request"))).read(), b"RFB 003.008\n")

    async def test_a_host_that_knows_no_session_is_asked_twice(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        logins = self.logins(lab)
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=CONNECT_401, then="close"))
        self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_REFUSED, "401")
        self.assertEqual(len(logins), 1)

    async def test_a_vm_without_a_vnc_server(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        lab.vnc_server_away("web-1")
        self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_REFUSED, "404")

    async def test_a_vm_that_reboots_is_tried_again_for_a_moment(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        for reply in (NO_CONSOLE, CONSOLE_OPEN):
            lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=reply, then="close", times=2))
            await self.opened(pool.dial(location, "request"))

    async def test_a_vm_that_is_shut_down_while_it_is_tried_again(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=NO_CONSOLE, then="close"))
        lab.state.do(lab.state.vm_named("web-1"), "hard_shutdown")
        self.assert_refused(await pool.dial(location, "request"), Reason.VM_NOT_RUNNING)

    async def test_a_vm_whose_host_answers_500_is_looked_for_again(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        followed: list[Location] = []
        lab.state.do(lab.state.vm_named("web-1"), "pool_migrate", lab.state.host_at(lab.addresses[1]))
        leg = await self.opened(pool.dial(location, "request", followed.append))
        self.assertEqual(await leg.read(), b"RFB 003.008\n")
        self.assertEqual([each.host_address for each in followed], [lab.addresses[1]])

    async def test_a_vm_that_is_where_it_was_is_not_dialled_twice_for_a_500(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=CONNECT_500, then="close", times=1))
        self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_REFUSED, "500")

    async def test_a_vm_that_moves_from_host_to_host_is_not_followed_for_ever(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        vm = lab.state.vm_named("web-1")
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=CONNECT_500, then="close"))
        hosts = [lab.state.host_at(address) for address in lab.addresses]

        def moved(there: Location) -> None:
            followed.append(there)
            lab.state.do(vm, "pool_migrate", hosts[(len(followed) + 1) % 2])

        followed: list[Location] = []
        lab.state.do(vm, "pool_migrate", hosts[1])
        self.assert_refused(await pool.dial(location, "request", moved), Reason.HYPERVISOR_REFUSED, "500")
        self.assertEqual(len(followed), 2)

    async def test_what_a_busy_host_says_is_not_asked_for_twice(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        page = b"HTTP/1.1 503 Connection Limit Exceeded\r\n\r\n<h1>User '<script>alert(1)</script>' is connected</h1>"
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=page, then="close", times=1))
        refusal = await pool.dial(location, "request")
        self.assert_refused(refusal, Reason.CONSOLE_BUSY, "503")
        self.assertNotIn("script", str(refusal))

    async def test_an_answer_just_in_time(self) -> None:
        leg = await self.dialled(ConsoleFault(delay=0.2), Deadlines(dial=5.0))
        self.assertIsInstance(leg, Leg)
        assert isinstance(leg, Leg)
        leg.abort()
        await leg.gone()

    async def test_answers_that_are_none(self) -> None:
        big = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000 + b"\r\n\r\n"
        for reply in (big, b"RFB 003.008\n", b"HTTP/1.1 200 OK\n\nRFB 003.008\n"):
            answer = await self.dialled(ConsoleFault(reply=reply, then="close"))
            self.assert_refused(answer, Reason.HYPERVISOR_PROTOCOL)

    async def test_an_answer_of_http_1_0(self) -> None:
        for status, reason in ((b"500 Internal Error", Reason.HYPERVISOR_REFUSED), (b"503 Busy", Reason.CONSOLE_BUSY)):
            answer = await self.dialled(ConsoleFault(reply=b"HTTP/1.0 " + status + b"\r\n\r\n", then="close"))
            self.assert_refused(answer, reason)

    async def test_a_host_that_cannot_be_reached_is_left_alone_for_a_while(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool, "web-2")
        await lab.lose_host(lab.addresses[1])
        for _ in range(FAILURES):
            self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_UNREACHABLE, "refused")
        self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_UNREACHABLE, "not tried")
        await self.opened(pool.dial(await self.found(pool), "request"))

    async def test_a_host_that_says_nothing_is_left_alone_and_one_whose_vm_says_nothing_is_not(self) -> None:
        for reply, words in ((b"", "not tried"), (CONSOLE_OPEN, "no console within")):
            pool, lab = await self.started(Deadlines(dial=0.1))
            location = await self.found(pool)
            lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=reply, then="silence"))
            for _ in range(FAILURES):
                self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_SLOW)
            refusal = await pool.dial(location, "request")
            self.assertIsInstance(refusal, Refusal)
            self.assertIn(words, str(refusal))

    async def test_a_dial_that_somebody_gives_up_says_nothing_about_its_host(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool)
        lab.faults.order_console(EVERYWHERE, ConsoleFault(reply=b"", then="silence"))
        for _ in range(FAILURES + 1):
            given_up = pool.dial(location, "request")
            given_up.cancel()
            await self.assertFailure(given_up, CancelledError)
        lab.faults.lift()
        await self.opened(pool.dial(location, "request"))

    async def test_a_console_that_is_taken_where_only_one_may_be(self) -> None:
        pool, lab = await self.started()
        lab.state.database.modify(lab.state.pool, limit_console_sessions=True)
        location = await self.found(pool)
        await self.opened(pool.dial(location, "request"))
        self.assert_refused(await pool.dial(location, "request"), Reason.CONSOLE_BUSY)

    async def test_the_answer_and_the_banner_in_one_segment(self) -> None:
        leg = await self.dialled(ConsoleFault(banner_in_segment=True))
        assert isinstance(leg, Leg), leg
        self.addCleanup(leg.abort)
        self.assertEqual(await leg.read(), b"RFB 003.008\n")

    async def test_an_answer_byte_by_byte(self) -> None:
        leg = await self.dialled(ConsoleFault(piece=1))
        assert isinstance(leg, Leg), leg
        self.addCleanup(leg.abort)
        self.assertEqual(await leg.read(), b"RFB 003.008\n")

    async def test_a_200_and_the_end(self) -> None:
        answer = await self.dialled(ConsoleFault(reply=b"HTTP/1.1 200 OK\r\n\r\n", then="close"))
        self.assert_refused(answer, Reason.HYPERVISOR_REFUSED, "200")

    async def test_a_host_that_does_not_answer(self) -> None:
        for reply in (b"", b"HTTP/1.1 200 OK\r\n\r\n"):
            answer = await self.dialled(ConsoleFault(reply=reply, then="silence"), Deadlines(dial=0.2))
            self.assert_refused(answer, Reason.HYPERVISOR_SLOW, "0.2")

    async def test_a_host_whose_certificate_is_another_now(self) -> None:
        pool, lab = await self.started()
        location = await self.found(pool, "web-2")
        lab.present(lab.addresses[1], certificates()[2])
        shown = certificates()[2].fingerprint_sha256
        self.assert_refused(await pool.dial(location, "request"), Reason.HYPERVISOR_UNTRUSTED, shown, *lab.fingerprints)
        await self.until(lambda: lab.connections(lab.addresses[1]) == 0)

    async def test_a_pool_that_is_away_does_not_hinder_a_dial(self) -> None:
        """Streams go to the VM's own host; the xapi session is still good."""
        pool, lab = await self.started()
        location = await self.found(pool, "web-2")
        await lab.lose_host(lab.addresses[0])
        await self.opened(pool.dial(location, "request"))


class TrustTests(PoolCase):
    def authority(self, pem: bytes) -> Authority:
        path = Path(self.mktemp())
        path.write_bytes(pem)
        return Authority(str(path))

    async def test_hosts_that_an_authority_vouches_for(self) -> None:
        pem = b"".join(each.certificate_pem for each in certificates())
        pool, _ = await self.started(trust=self.authority(pem))
        for name in ("web-1", "web-2"):
            await self.opened(pool.dial(await self.found(pool, name), "request"))

    async def test_hosts_that_no_authority_vouches_for(self) -> None:
        pool, lab = await self.started(trust=self.authority(make_identity("127.0.0.1").certificate_pem))
        self.assert_refused(await pool.find("web-1"), Reason.HYPERVISOR_UNTRUSTED)
        self.assertEqual(lab.state.xapi_sessions, {})

    async def test_clear_text_is_warned_about_at_every_start(self) -> None:
        events: list[LogEvent] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        pool, _ = await self.started(trust=Plain(), plain=True)
        await self.opened(pool.dial(await self.found(pool), "request"))
        warnings = [event for event in events if event.get("log_level") is LogLevel.warn]
        self.assertEqual([event.get("pool") for event in warnings], ["lab"])


class LeftoverTests(PoolCase):
    async def test_nothing_is_left_of_a_busy_pool(self) -> None:
        """File descriptors, threads and xapi sessions return to where they were."""
        lab = self.pool()
        await self.busy(lab)  # opens what the reactor and the simulation keep
        before = _descriptors()
        await self.busy(lab)
        self.assertEqual(_descriptors(), before)
        self.assertEqual(lab.state.xapi_sessions, {})
        self.assertEqual([thread.name for thread in threading.enumerate() if "xapi-lab" in thread.name], [])

    async def busy(self, lab: SimulatedPool) -> None:
        """The life of a pool with more asked of it than it does at once, a third of which is given up."""
        pool = Pool(reactor, self.settings(lab))
        await pool.start()
        location = await self.found(pool)
        asking: list[Deferred[Any]] = []
        for _ in range(20):
            asking += [pool.find("web-1"), pool.dial(location, "request")]
        for each in asking[::3]:
            each.addErrback(_given_up)
            each.cancel()
        for answer in [await each for each in asking]:
            self.assertIsInstance(answer, Location | Leg | None)
            if isinstance(answer, Leg):
                answer.abort()
                await answer.gone()
        await pool.stop()
        await self.until(lambda: sum(map(lab.connections, lab.addresses)) == 0)


def _given_up(failure: Failure) -> None:
    failure.trap(CancelledError)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
