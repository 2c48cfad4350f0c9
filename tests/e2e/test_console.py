"""The main job, end to end: a console URL is issued and opened, and the machine's screen is seen."""

import pickle

from tests.e2e.stage import StageCase, console_request, read_exactly, read_to_end, token_of
from tests.qemu import Qemu
from xvpd.grants.grant import digest
from xvpd.sim.pool import SimulatedVm
from xvpd.sim.viewer import ViewerError


class RealMachineTests(StageCase):
    """A real QEMU's VNC server behind the simulated pool."""

    async def test_a_viewer_sees_the_real_machines_screen_through_tls_on_both_legs(self) -> None:
        qemu = Qemu()
        self.addCleanup(qemu.stop)
        await qemu.start()
        pool = await self.raise_curtain(vms=[SimulatedVm("firmware", vnc=f"unix:{qemu.vnc_path}")])

        url = await self.issue("firmware")
        viewer = await self.view(url)
        self.addCleanup(viewer.close)
        self.assertEqual(viewer.name, "QEMU")
        self.assertEqual(await self.in_thread(viewer.framebuffer), await qemu.screendump())

        self.assertNotEqual(list(pool.state.xapi_sessions), [])
        viewer.close()
        await self.until(lambda: self.outcomes() == ["client_closed"])
        timed_store = vars(self.daemon)["_store"]
        stored = pickle.dumps(vars(vars(timed_store)["_store"])["_ledger"])
        self.assertIn(digest(token_of(url)).encode(), stored)
        self.canary.keep("the store", stored)


class ConsoleTests(StageCase):
    async def test_consoles_of_either_rfb_version_are_seen_by_a_viewer_of_the_newer_one(self) -> None:
        pool = await self.raise_curtain()
        for name in ("web-1", "legacy-pv"):
            with await self.view(await self.issue(name)) as viewer:
                width, height, rgb = await self.in_thread(viewer.framebuffer)
            canvas = pool.screen(name).canvas
            self.assertEqual((viewer.version, width, height), ("003.008", canvas.width, canvas.height))
            self.assertGreater(len(set(rgb)), 10)

    async def test_keys_reach_the_machine_whose_console_was_asked_for_and_no_other(self) -> None:
        pool = await self.raise_curtain()
        viewer = await self.view(await self.issue("web-1"))
        self.addCleanup(viewer.close)
        await self.in_thread(viewer.type, "hello")
        await self.until(lambda: pool.screen("web-1").typed == "hello")
        self.assertEqual(pool.screen("web-2").typed, "")

    async def test_bytes_sent_behind_the_request_are_kept(self) -> None:
        await self.raise_curtain()
        url = await self.issue("web-1")

        def eager() -> bytes:
            with self.connect() as client:
                client.sendall(console_request(url) + b"RFB 003.008\n\x01\x01")
                return read_exactly(client, 19 + 12 + 2 + 4 + 24)

        answer = await self.in_thread(eager)
        self.assertEqual(answer[:37], b"HTTP/1.1 200 OK\r\n\r\nRFB 003.008\n\x01\x01\0\0\0\0")

    async def test_a_token_may_be_used_again_until_its_uses_are_up(self) -> None:
        await self.raise_curtain()
        url = await self.issue("web-1", uses=2)
        for _ in range(2):
            (await self.view(url)).close()
        with self.assertRaisesRegex(ViewerError, "401"):
            await self.view(url)
        await self.until(lambda: self.outcomes().count("token_used") == 1 and len(self.outcomes()) == 3)

    async def test_a_use_is_given_back_when_the_console_could_not_be_opened(self) -> None:
        pool = await self.raise_curtain()
        url = await self.issue("web-1", uses=1)
        vm = pool.state.vm_named("web-1")
        pool.state.do(vm, "hard_shutdown")
        with self.assertRaisesRegex(ViewerError, "409 The virtual machine is not running"):
            await self.view(url)
        pool.state.do(vm, "start")
        (await self.view(url)).close()

    async def test_a_machine_that_has_moved_is_found_at_its_new_host(self) -> None:
        pool = await self.raise_curtain()
        url = await self.issue("web-1")
        vm = pool.state.vm_named("web-1")
        pool.state.do(vm, "pool_migrate", pool.state.host_at(pool.addresses[1]))
        (await self.view(url)).close()
        self.assertEqual(pool.state.record("VM", vm)["resident_on"], pool.state.host_at(pool.addresses[1]))

    async def test_the_end_of_the_daemon_ends_the_console(self) -> None:
        await self.raise_curtain()
        url = await self.issue("web-1")

        def watch() -> bytes:
            with self.connect() as client:
                client.sendall(console_request(url) + b"RFB 003.008\n\x01\x01")
                return read_to_end(client)

        watching = self.in_thread(watch)
        await self.until(lambda: len(self.daemon.sessions) == 1)
        await self.daemon.stopService()
        await watching
        self.assertEqual(self.outcomes(), ["stopped"])
