"""Live consoles, seen and ended through the API."""

from typing import Any

from tests.e2e.stage import StageCase, console_request
from xvpd.sim.viewer import Viewer, ViewerError


class RevokingTests(StageCase):
    async def live(self, vm: str = "web-1", **more: Any) -> tuple[dict[str, Any], Viewer]:
        """A console's description, and a viewer that looks at it."""
        status, console = await self.ask({"vm": vm, "type": "xvpvnc", **more})
        self.assertEqual(status, 201, console)
        viewer = await self.view(console["url"])
        self.addCleanup(viewer.close)
        return console, viewer

    async def sessions(self) -> list[dict[str, Any]]:
        """The live sessions that the API tells of."""
        status, answer = await self.call("GET", "/v1/sessions")
        self.assertEqual(status, 200, answer)
        sessions: list[dict[str, Any]] = answer["sessions"]
        return sessions

    async def seen_to_end(self, viewer: Viewer) -> None:
        """A viewer that looks finds its console closed."""
        with self.assertRaises(ViewerError):
            await self.in_thread(viewer.framebuffer)
        viewer.close()

    async def ended(self, outcome: str, count: int) -> None:
        """Wait until so many connections have ended so."""
        await self.until(lambda: self.outcomes().count(outcome) == count)

    async def test_a_live_console_is_listed_with_its_vm_and_host(self) -> None:
        pool = await self.raise_curtain()
        console, viewer = await self.live(user="ann")
        (session,) = await self.sessions()
        vm = pool.state.record("VM", pool.state.vm_named("web-1"))
        host = pool.state.record("host", str(vm["resident_on"]))
        self.assertEqual((session["grant"], session["vm"]), (console["id"], {"uuid": vm["uuid"], "name": "web-1"}))
        self.assertEqual((session["host"], session["user"], session["client"]), (host["uuid"], "ann", "127.0.0.1"))
        viewer.close()
        await self.until(lambda: self.outcomes() == ["client_closed"])
        self.assertEqual(await self.sessions(), [])

    async def test_a_session_that_is_cut_ends_and_its_console_can_be_opened_again(self) -> None:
        await self.raise_curtain()
        console, viewer = await self.live()
        (session,) = await self.sessions()
        self.assertEqual(await self.call("DELETE", f"/v1/sessions/{session['id']}"), (204, None))
        await self.seen_to_end(viewer)
        await self.ended("killed", 1)
        (await self.view(console["url"])).close()

    async def test_whatever_revokes_a_console_ends_its_session_and_its_token(self) -> None:
        await self.raise_curtain()
        for n, path in enumerate(("/v1/consoles/{id}", "/v1/vms/{vm[uuid]}/consoles", "/v1/users/ann/consoles"), 1):
            console, viewer = await self.live(user="ann")
            self.assertEqual(await self.call("DELETE", path.format(**console)), (204, None))
            await self.seen_to_end(viewer)
            await self.ended("revoked", n)
            with self.assertRaisesRegex(ViewerError, "401"):
                await self.view(console["url"])
            await self.ended("token_revoked", n)
            self.assertEqual((await self.call("GET", f"/v1/consoles/{console['id']}"))[0], 404)

    async def test_a_console_is_over_when_its_max_duration_is(self) -> None:
        await self.raise_curtain()
        url = await self.issue("web-1", max_duration=1.5)
        await self.say(console_request(url) + b"RFB 003.008\n\x01\x01")
        await self.ended("max_duration", 1)
        with self.assertRaisesRegex(ViewerError, "401"):
            await self.view(url)
        await self.ended("token_expired", 1)

    async def test_a_console_is_for_clients_of_its_network_alone(self) -> None:
        await self.raise_curtain()
        with self.assertRaisesRegex(ViewerError, "401"):
            await self.view(await self.issue("web-1", client="192.0.2.0/24"))
        await self.ended("token_elsewhere", 1)
        (await self.view(await self.issue("web-1", client="127.0.0.0/8"))).close()

    async def test_other_consoles_go_on(self) -> None:
        await self.raise_curtain()
        console, viewer = await self.live(user="ann")
        _, other = await self.live("web-2", user="bob")
        await self.call("DELETE", f"/v1/consoles/{console['id']}")
        await self.seen_to_end(viewer)
        await self.in_thread(other.framebuffer)
