"""A pool's addresses, and hosts that come and go."""

from twisted.internet import reactor
from twisted.internet.error import CannotListenError

from tests.sim.pools import OPEN, PoolCase, certificates, connect, console_request, opening, read_all, read_exactly, sdk
from xvpd.sim.pool import SimulatedPool, SimulatedVm


class Pools(PoolCase):
    async def test_every_host_has_an_address_and_all_share_a_port(self) -> None:
        pool = self.pool(hosts=3)
        self.assertEqual(pool.addresses, ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
        self.assertEqual(len(set(pool.fingerprints)), 3)

        def reachable(address: str) -> bool:
            connect(pool, address).close()
            return True

        for address in pool.addresses:
            self.assertTrue(await self.in_thread(reachable, address))
        records = [record for _, record in pool.state.database.rows("host")]
        self.assertEqual([record["address"] for record in records], pool.addresses)

    async def test_pools_do_not_get_in_each_others_way(self) -> None:
        first, second = self.pool(), self.pool()
        self.assertNotEqual(first.port, second.port)

    def test_certificates_are_made_when_none_are_given(self) -> None:
        pool = SimulatedPool(reactor, hosts=2)
        self.assertEqual(len(set(pool.fingerprints)), 2)

    async def test_the_demo_has_vms_of_every_kind(self) -> None:
        pool = self.pool()
        named = {
            record["name_label"]: record for _, record in pool.state.database.rows("VM") if not record["is_control_domain"]
        }
        states = {name: record["power_state"] for name, record in named.items()}
        self.assertEqual(states["web-1"], "Running")
        self.assertEqual(states["build-agent"], "Halted")
        self.assertEqual(named["legacy-pv"]["domain_type"], "pv")
        self.assertTrue(named["Debian Bookworm 12"]["is_a_template"])

    async def test_a_lost_host_cuts_its_streams_and_takes_no_more_until_it_is_back(self) -> None:
        pool = self.pool(plain=True)
        with await self.watching(pool, console_request(pool, "db-1"), "127.0.0.2") as connection:
            await pool.lose_host("127.0.0.2")
            await self.assertFailure(self.in_thread(read_all, connection), ConnectionResetError)
        await self.assertFailure(self.in_thread(connect, pool, "127.0.0.2"), OSError)
        pool.restore_host("127.0.0.2")
        (await self.watching(pool, console_request(pool, "db-1"), "127.0.0.2")).close()

    async def test_streams_of_other_hosts_outlive_the_coordinator(self) -> None:
        pool = self.pool()
        with await self.watching(pool, console_request(pool, "db-1"), "127.0.0.2") as connection:
            await pool.lose_host("127.0.0.1")
            pool.state.fail_over(pool.state.host_at("127.0.0.2"))
            self.assertEqual((await self.in_thread(opening, connection))[2], "db-1")
        session = await self.in_thread(sdk, pool, "127.0.0.2")
        self.assertEqual(await self.in_thread(session.xenapi.pool.get_master, pool.state.pool), pool.state.coordinator)

    async def test_a_vm_may_be_added_and_typed_text_outlives_a_migration_but_not_a_reboot(self) -> None:
        pool = self.pool()
        vm = pool.add_vm(SimulatedVm("late", host=1, tags=("new",)))
        self.assertEqual(pool.state.record("VM", vm)["tags"], ["new"])

        def type_a_key(address: str, request: bytes) -> None:
            with connect(pool, address) as connection:
                connection.sendall(request)
                read_exactly(connection, len(OPEN) + 12)
                opening(connection)
                connection.sendall(b"\4\1\0\0\0\0\0k")

        await self.in_thread(type_a_key, "127.0.0.2", console_request(pool, "late"))
        await self.until(lambda: pool.screen("late").typed == "k")
        pool.state.do(vm, "pool_migrate", pool.state.host_at("127.0.0.1"))
        self.assertEqual(pool.screen("late").typed, "k")
        await self.in_thread(type_a_key, "127.0.0.1", console_request(pool, "late"))
        await self.until(lambda: pool.screen("late").typed == "kk")
        pool.state.do(vm, "hard_reboot")
        self.assertEqual(pool.screen("late").typed, "")

    async def test_a_stopped_pool_has_left_its_port(self) -> None:
        pool = self.pool()
        connection = await self.in_thread(connect, pool)
        await pool.stop()
        self.assertEqual(pool.connections("127.0.0.1"), 0)
        connection.close()
        await self.assertFailure(self.in_thread(connect, pool), OSError)

    def test_without_a_free_port_it_does_not_start(self) -> None:
        class Full:
            tried = 0

            def listenTCP(self, *_: object, **__: object) -> None:
                self.tried += 1
                raise CannotListenError("127.0.0.1", 0, OSError(98, "Address already in use"))

        full = Full()
        pool = SimulatedPool(full, certificates=certificates())
        self.assertRaises(CannotListenError, pool.start)
        self.assertGreater(full.tried, 1)
