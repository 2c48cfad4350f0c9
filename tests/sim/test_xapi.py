"""XML-RPC, through the SDK that real clients use."""

import xmlrpc.client
from typing import Any

import XenAPI

from tests.sim.pools import PoolCase, sdk, unknown_sdk
from xvpd.sim.database import NULL
from xvpd.sim.faults import EVERYWHERE, ApiFault
from xvpd.sim.model import Account
from xvpd.sim.pool import SimulatedPool


class Calls(PoolCase):
    async def failure(self, work: Any, *arguments: Any) -> list[str]:
        """What a call that must fail says."""

        def call() -> list[str]:
            try:
                work(*arguments)
            except XenAPI.Failure as failure:
                return list(failure.details)
            raise AssertionError("the call did not fail")

        return await self.in_thread(call)

    async def test_log_in_and_out(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        (known,) = pool.state.xapi_sessions.values()
        self.assertEqual((known.user, known.originator), ("root", "tests"))
        await self.in_thread(session.xenapi.session.logout)
        self.assertEqual(pool.state.xapi_sessions, {})

    async def test_log_in_takes_two_to_four_arguments(self) -> None:
        pool = self.pool()
        for extra in ((), ("1.0",), ("1.0", "me")):
            session = unknown_sdk(pool)
            await self.in_thread(session.login_with_password, pool.username, pool.password, *extra)
        session = unknown_sdk(pool)
        failure = await self.failure(session.login_with_password, "root")
        self.assertEqual(failure[0], "MESSAGE_PARAMETER_COUNT_MISMATCH")

    async def test_a_wrong_password(self) -> None:
        pool = self.pool()
        failure = await self.failure(sdk, pool, None, "wrong")
        self.assertEqual(failure, ["SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure"])

    async def test_a_member_names_its_coordinator(self) -> None:
        pool = self.pool()
        self.assertEqual(await self.failure(sdk, pool, "127.0.0.2"), ["HOST_IS_SLAVE", "127.0.0.1"])
        pool.state.fail_over(pool.state.host_at("127.0.0.2"))
        self.assertEqual(await self.failure(sdk, pool, "127.0.0.1"), ["HOST_IS_SLAVE", "127.0.0.2"])
        await self.in_thread(sdk, pool, "127.0.0.2")

    async def test_records_are_those_of_the_pool(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        xenapi = session.xenapi

        def work() -> tuple[Any, ...]:
            (vm,) = xenapi.VM.get_by_name_label("web-1")
            record = xenapi.VM.get_record(vm)
            return vm, record, xenapi.console.get_record(record["consoles"][0]), xenapi.host.get_record(record["resident_on"])

        vm, record, console, host = await self.in_thread(work)
        self.assertEqual(vm, pool.state.vm_named("web-1"))
        self.assertEqual((record["power_state"], record["domid"]), ("Running", "1"))
        self.assertIs(record["is_a_template"], False)
        self.assertEqual((console["protocol"], console["VM"]), ("rfb", vm))
        self.assertEqual((host["address"], host["https_only"]), ("127.0.0.1", True))

    async def test_getters(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        xenapi = session.xenapi
        vm = pool.state.vm_named("web-1")
        uuid = pool.state.record("VM", vm)["uuid"]
        self.assertEqual(await self.in_thread(xenapi.VM.get_by_uuid, uuid), vm)
        self.assertEqual(await self.in_thread(xenapi.VM.get_uuid, vm), uuid)
        self.assertEqual(await self.in_thread(xenapi.VM.get_power_state, vm), "Running")
        (record,) = (await self.in_thread(xenapi.pool.get_all_records)).values()
        self.assertEqual(record["master"], pool.state.coordinator)
        self.assertEqual((record["limit_console_sessions"], record["vm_console_idle_timeout"]), (False, "0"))
        self.assertEqual(await self.in_thread(xenapi.pool.get_master, pool.state.pool), pool.state.coordinator)
        self.assertEqual(len(await self.in_thread(xenapi.host.get_all)), 2)
        names = [each["name_label"] for each in (await self.in_thread(xenapi.VM.get_all_records)).values()]
        self.assertIn("Control domain on host: host-1", names)
        self.assertIn("Debian Bookworm 12", names)
        self.assertEqual(await self.in_thread(lambda: session.API_version), "2.21")

    async def test_what_is_wrong_is_named_as_xapi_names_it(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        xenapi = session.xenapi
        vm = pool.state.vm_named("web-1")
        events = getattr(xenapi.event, "from")
        cases: list[tuple[Any, tuple[Any, ...], list[str]]] = [
            (xenapi.VM.get_by_uuid, ("nobody",), ["UUID_INVALID", "VM", "nobody"]),
            (xenapi.VM.get_record, ("OpaqueRef:x",), ["HANDLE_INVALID", "VM", "OpaqueRef:x"]),
            (xenapi.console.get_record, (vm,), ["HANDLE_INVALID", "console", vm]),
            (xenapi.VM.get_colour, (vm,), ["MESSAGE_METHOD_UNKNOWN", "VM.get_colour"]),
            (xenapi.VM.explode, (vm,), ["MESSAGE_METHOD_UNKNOWN", "VM.explode"]),
            (xenapi.SR.get_all, (), ["MESSAGE_METHOD_UNKNOWN", "SR.get_all"]),
            (xenapi.VM.get_all, ("more",), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_all", "1", "2"]),
            (xenapi.VM.get_record, (7,), ["FIELD_TYPE_ERROR", "self"]),
            (xenapi.VM.start, (vm, False, False), ["VM_BAD_POWER_STATE", vm, "halted", "running"]),
            (xenapi.VM.pool_migrate, (vm, "OpaqueRef:x", {}), ["HANDLE_INVALID", "host", "OpaqueRef:x"]),
            (events, (["VM"], "yesterday", 1.0), ["EVENT_FROM_TOKEN_PARSE_FAILURE", "yesterday"]),
            (events, (["VM/"], "", 1), ["FIELD_TYPE_ERROR", "timeout"]),
            (events, (["a b"], "", 1.0), ["EVENT_SUBSCRIPTION_PARSE_FAILURE", "a b"]),
        ]
        for call, arguments, expected in cases:
            self.assertEqual(await self.failure(call, *arguments), expected)

    async def test_without_a_session_nothing_is_said(self) -> None:
        pool = self.pool()
        session = unknown_sdk(pool)
        call = getattr(session, "VM.get_all")
        for arguments in (("OpaqueRef:nobody",), ("",)):
            reply = await self.in_thread(call, *arguments)
            self.assertEqual(reply, {"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", arguments[0]]})
        reply = await self.in_thread(call, {"a": "struct"})
        self.assertEqual(reply["ErrorDescription"], ["SESSION_INVALID", ""])

    async def test_the_sdk_logs_in_again_when_its_session_has_expired(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        before = session.handle
        pool.state.expire_sessions()
        await self.in_thread(session.xenapi.VM.get_all)
        self.assertNotEqual(session.handle, before)

    async def test_certificates_are_told(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        for address, certificate in pool.certificates.items():
            pem = await self.in_thread(session.xenapi.host.get_server_certificate, pool.state.host_at(address))
            self.assertEqual(pem.encode(), certificate.certificate_pem)


class PowerOperations(PoolCase):
    async def until_done(self, session: Any, task: str) -> dict[str, Any]:
        for _ in range(1000):
            record: dict[str, Any] = await self.in_thread(session.xenapi.task.get_record, task)
            if record["status"] != "pending":
                return record
        raise AssertionError("the task does not end")

    async def test_at_once(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        vm = pool.state.vm_named("web-1")
        operations: list[tuple[str, tuple[Any, ...], str]] = [
            ("pause", (), "Paused"),
            ("unpause", (), "Running"),
            ("suspend", (), "Suspended"),
            ("resume", (False, False), "Running"),
            ("hard_reboot", (), "Running"),
            ("clean_shutdown", (), "Halted"),
            ("start", (False, False), "Running"),
            ("pool_migrate", (pool.state.host_at("127.0.0.2"), {"live": "true"}), "Running"),
            ("hard_shutdown", (), "Halted"),
            ("start_on", (pool.state.host_at("127.0.0.2"), False, False), "Running"),
        ]
        for operation, more, after in operations:
            result = await self.in_thread(getattr(session.xenapi.VM, operation), vm, *more)
            self.assertEqual((result, pool.state.record("VM", vm)["power_state"]), ("", after), operation)
        self.assertEqual(pool.state.record("VM", vm)["resident_on"], pool.state.host_at("127.0.0.2"))
        self.assertEqual(list(pool.state.database.rows("task")), [])

    async def test_in_the_background(self) -> None:
        pool = self.pool(operation_seconds=0.05)
        session = await self.in_thread(sdk, pool)
        vm = pool.state.vm_named("web-1")
        task = await self.in_thread(session.xenapi.Async.VM.clean_shutdown, vm)
        self.assertEqual(pool.state.record("VM", vm)["current_operations"], {task: "clean_shutdown"})
        record = await self.until_done(session, task)
        self.assertEqual((record["status"], record["name_label"]), ("success", "Async.VM.clean_shutdown"))
        self.assertEqual(pool.state.record("VM", vm)["power_state"], "Halted")
        await self.in_thread(session.xenapi.task.destroy, task)
        self.assertIsNone(pool.state.database.get("task", task))

    async def test_in_the_background_and_in_vain(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        vm = pool.state.vm_named("build-agent")
        task = await self.in_thread(session.xenapi.Async.VM.clean_reboot, vm)
        record = await self.until_done(session, task)
        self.assertEqual(record["status"], "failure")
        self.assertEqual(record["error_info"], ["VM_BAD_POWER_STATE", vm, "running", "halted"])

    async def test_an_operation_that_takes_time_is_answered_at_its_end(self) -> None:
        pool = self.pool(operation_seconds=0.05)
        session = await self.in_thread(sdk, pool)
        vm = pool.state.vm_named("web-1")
        self.assertEqual(await self.in_thread(session.xenapi.VM.hard_shutdown, vm), "")
        self.assertEqual(pool.state.record("VM", vm)["power_state"], "Halted")

    async def test_an_operation_under_way_leaves_nothing_behind_when_the_pool_stops(self) -> None:
        pool = self.pool(operation_seconds=3600.0)
        session = await self.in_thread(sdk, pool)
        await self.in_thread(session.xenapi.Async.VM.hard_shutdown, pool.state.vm_named("web-1"))

    async def test_a_role_that_may_only_read(self) -> None:
        pool = self.pool()
        pool.state.accounts["reader"] = Account("pass", "read-only")
        session = unknown_sdk(pool)
        await self.in_thread(session.login_with_password, "reader", "pass", "1.0", "tests")
        vm = pool.state.vm_named("web-1")

        def refused() -> list[str]:
            try:
                session.xenapi.VM.hard_shutdown(vm)
            except XenAPI.Failure as failure:
                return list(failure.details)
            return []

        self.assertEqual((await self.in_thread(refused))[0], "RBAC_PERMISSION_DENIED")
        self.assertEqual(await self.in_thread(session.xenapi.VM.get_power_state, vm), "Running")


class Events(PoolCase):
    def poll(self, session: Any, token: str, seconds: float = 30.0, classes: tuple[str, ...] = ("VM", "console")) -> Any:
        return self.in_thread(getattr(session.xenapi.event, "from"), list(classes), token, seconds)

    async def started(self, **options: Any) -> tuple[SimulatedPool, Any, str]:
        pool = self.pool(**options)
        session = await self.in_thread(sdk, pool)
        batch = await self.poll(session, "")
        return pool, session, batch["token"]

    async def test_the_first_call_replays_everything(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        batch = await self.poll(session, "")
        self.assertEqual({event["operation"] for event in batch["events"]}, {"add"})
        refs = {event["ref"] for event in batch["events"] if event["class"] == "vm"}
        self.assertEqual(refs, {ref for ref, _ in pool.state.database.rows("VM")})
        self.assertEqual(batch["valid_ref_counts"]["host"], 2)
        self.assertRegex(batch["token"], r"^\d{20},\d{20}$")
        (web,) = [event for event in batch["events"] if event["ref"] == pool.state.vm_named("web-1")]
        self.assertEqual(web["snapshot"]["power_state"], "Running")
        self.assertEqual((web["timestamp"], set(web)), ("0.0", {"id", "timestamp", "class", "operation", "ref", "snapshot"}))

    async def test_nothing_happens(self) -> None:
        _, session, token = await self.started()
        batch = await self.poll(session, token, 0.01)
        self.assertEqual((batch["events"], batch["token"]), ([], token))

    async def test_a_long_poll_hears_of_a_migration(self) -> None:
        pool, session, token = await self.started()
        vm = pool.state.vm_named("web-1")
        (old,) = pool.state.record("VM", vm)["consoles"]
        polling = self.poll(session, token)
        await self.until(lambda: pool.state.session_ended)
        pool.state.do(vm, "pool_migrate", pool.state.host_at("127.0.0.2"))
        batch = await polling
        (new,) = pool.state.record("VM", vm)["consoles"]
        happened = [(event["class"], event["operation"], event["ref"]) for event in batch["events"]]
        self.assertEqual(happened, [("console", "add", new), ("vm", "mod", vm), ("console", "del", old)])
        self.assertEqual(batch["events"][1]["snapshot"]["resident_on"], pool.state.host_at("127.0.0.2"))
        self.assertNotIn("snapshot", batch["events"][2])

    async def test_what_was_not_asked_for_wakes_nobody(self) -> None:
        pool, session, token = await self.started()
        polling = self.poll(session, token, classes=(f"vm/{pool.state.vm_named('db-1')}", "host"))
        await self.until(lambda: pool.state.session_ended)
        pool.state.do(pool.state.vm_named("legacy-pv"), "pause")
        pool.state.do(pool.state.vm_named("db-1"), "pause")
        batch = await polling
        self.assertEqual([event["ref"] for event in batch["events"]], [pool.state.vm_named("db-1")])

    async def test_a_destroyed_vm(self) -> None:
        pool, session, token = await self.started()
        vm = pool.state.vm_named("build-agent")
        pool.state.do(vm, "destroy")
        batch = await self.poll(session, token)
        self.assertEqual([(event["operation"], event["ref"]) for event in batch["events"]], [("del", vm)])

    async def test_the_session_may_end_meanwhile(self) -> None:
        pool, session, token = await self.started()
        raw = getattr(session, "event.from")
        polling = self.in_thread(raw, session.handle, ["VM"], token, 30.0)
        await self.until(lambda: pool.state.session_ended)
        pool.state.expire_sessions()
        reply = await polling
        self.assertEqual(reply["ErrorDescription"], ["SESSION_INVALID", session.handle])

    async def test_a_poller_that_goes_away_is_forgotten(self) -> None:
        pool, session, token = await self.started()
        watchers = len(pool.state.session_ended)
        polling = self.poll(session, token)
        await self.until(lambda: len(pool.state.session_ended) > watchers)
        await pool.lose_host("127.0.0.1")
        await self.assertFailure(polling, Exception)
        self.assertEqual(len(pool.state.session_ended), watchers)


class Faults(PoolCase):
    async def test_a_call_fails_as_ordered_and_as_often(self) -> None:
        pool = self.pool()
        session = await self.in_thread(sdk, pool)
        pool.faults.order_api("127.0.0.1", ApiFault("VM.get_all", failure=("HOST_STILL_BOOTING",), times=1))
        failure = await self.assertFailure(self.in_thread(session.xenapi.VM.get_all), XenAPI.Failure)
        self.assertEqual(failure.details, ["HOST_STILL_BOOTING"])
        self.assertIn(pool.state.vm_named("web-1"), await self.in_thread(session.xenapi.VM.get_all))

    async def test_a_hung_api_says_nothing(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault(hang=True))
        waiting = self.in_thread(sdk, pool)
        await self.until(lambda: pool.connections("127.0.0.1"))
        await pool.lose_host("127.0.0.1")
        await self.assertFailure(waiting, OSError, xmlrpc.client.Error)

    async def test_a_slow_api_answers_in_the_end(self) -> None:
        pool = self.pool()
        pool.faults.order_api(EVERYWHERE, ApiFault(delay=0.05))
        session = await self.in_thread(sdk, pool)
        self.assertNotEqual(session.handle, NULL)
