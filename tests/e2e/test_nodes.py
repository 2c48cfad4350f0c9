"""Several nodes that share nothing but a Redis."""

from tests.e2e.stage import StageCase
from tests.redis_server import RedisServer
from xvpd.sim.viewer import ViewerError


class NodesTests(StageCase):
    async def setting(self, **console: int) -> None:
        """Two nodes, one pool, one Redis."""
        self.redis = RedisServer(self)
        await self.redis.start()
        await self.raise_curtain(grants={"store": f"redis://127.0.0.1:{self.redis.port}"}, console=console)
        self.other_port, self.other_api, self.other = await self.another_node()

    def at_the_other(self, url: str) -> str:
        """The same console URL, at the other node."""
        return url.replace(f":{self.console_port}/", f":{self.other_port}/")

    async def test_any_node_redeems_any_token_and_a_single_use_is_one_use_over_all(self) -> None:
        await self.setting()
        url = await self.issue("web-1", uses=1)
        (await self.view(self.at_the_other(url))).close()
        with self.assertRaisesRegex(ViewerError, "401"):
            await self.view(url)

    async def test_a_revocation_on_one_node_cuts_the_console_on_the_other(self) -> None:
        await self.setting()
        status, console = await self.ask({"vm": "web-1", "type": "xvpvnc"})
        self.assertEqual(status, 201)
        viewer = await self.view(self.at_the_other(console["url"]))
        self.assertEqual(len(self.other.sessions), 1)
        self.assertEqual(await self.call("DELETE", f"/v1/consoles/{console['id']}"), (204, None))
        with self.assertRaises(ViewerError):
            await self.in_thread(viewer.framebuffer)
        viewer.close()
        await self.until(lambda: self.outcomes() == ["revoked"])
        with self.assertRaisesRegex(ViewerError, "401"):
            await self.view(console["url"])

    async def test_every_node_tells_of_all_sessions_and_ends_each(self) -> None:
        await self.setting()
        viewer = await self.view(self.at_the_other(await self.issue("web-1")))
        status, answer = await self.call("GET", "/v1/sessions")
        self.assertEqual((status, len(answer["sessions"])), (200, 1))
        self.assertEqual((await self.call("DELETE", f"/v1/sessions/{answer['sessions'][0]['id']}"))[0], 204)
        viewer.close()
        await self.until(lambda: self.outcomes() == ["killed"])

    async def test_the_cap_for_a_vm_counts_the_sessions_of_all_nodes(self) -> None:
        await self.setting(max_sessions_per_vm=1)
        url = await self.issue("web-1")
        with await self.view(url), self.assertRaisesRegex(ViewerError, "429"):
            await self.view(self.at_the_other(url))

    async def test_a_store_that_is_away_lets_nobody_in_and_loses_no_live_console(self) -> None:
        await self.setting()
        url = await self.issue("web-1")
        viewer = await self.view(url)
        self.redis.pause()
        try:
            with self.assertRaisesRegex(ViewerError, "503"):
                await self.view(url)
            await self.in_thread(viewer.framebuffer)
        finally:
            self.redis.go_on()
        viewer.close()
        await self.until(lambda: self.daemon_ready() is None)
        (await self.view(url)).close()

    def daemon_ready(self) -> object:
        return vars(self.daemon)["_store"].ready()

    async def test_a_dump_of_redis_lets_nobody_in(self) -> None:
        await self.setting()
        with await self.view(await self.issue("web-1")):
            keys = self.redis.ask("KEYS", "*")
            self.assertNotEqual(keys, [])
            for key in keys:
                self.canary.keep("redis", key)
                self.canary.keep("redis", self.redis.ask("DUMP", key))
