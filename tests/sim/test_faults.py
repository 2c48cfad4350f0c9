"""Hosts and consoles that do wrong as they were ordered to."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.sim.pools import OPEN, PoolCase, connect, console_request, read_all, read_exactly
from xvpd.sim import http
from xvpd.sim.faults import EVERYWHERE, ApiFault, ConsoleFault, Faults
from xvpd.sim.pool import SimulatedPool

BANNER = b"RFB 003.008\n"


class Orders(SynchronousTestCase):
    def test_the_nearest_place_counts(self) -> None:
        faults = Faults()
        vm, host, everywhere = ConsoleFault(delay=1), ConsoleFault(delay=2), ConsoleFault(delay=3)
        faults.order_console(EVERYWHERE, everywhere)
        self.assertIs(faults.take_console("10.0.0.1", "vm"), everywhere)
        faults.order_console("10.0.0.1", host)
        self.assertIs(faults.take_console("10.0.0.1", "vm"), host)
        faults.order_console("vm", vm)
        self.assertIs(faults.take_console("10.0.0.1", "vm"), vm)
        self.assertIs(faults.take_console("10.0.0.2", "other"), everywhere)

    def test_a_call_is_met_by_name_before_all_calls(self) -> None:
        faults = Faults()
        every, one = ApiFault(hang=True), ApiFault("VM.get_all", failure=("X",))
        faults.order_api("10.0.0.1", every)
        faults.order_api("10.0.0.1", one)
        self.assertIs(faults.take_api("10.0.0.1", "VM.get_all"), one)
        self.assertIs(faults.take_api("10.0.0.1", "host.get_all"), every)
        self.assertIsNone(faults.take_api("10.0.0.2", "VM.get_all"))

    def test_a_fault_lasts_as_often_as_was_ordered(self) -> None:
        faults = Faults()
        faults.order_console("vm", ConsoleFault(times=2))
        met = [faults.take_console("host", "vm") is not None for _ in range(3)]
        self.assertEqual(met, [True, True, False])

    def test_faults_are_lifted(self) -> None:
        faults = Faults()
        faults.order_console(EVERYWHERE, ConsoleFault())
        faults.order_api(EVERYWHERE, ApiFault())
        faults.lift()
        self.assertIsNone(faults.take_console("host", "vm"))
        self.assertIsNone(faults.take_api("host", "VM.get_all"))

    def test_what_a_host_cannot_do(self) -> None:
        self.assertRaises(ValueError, ConsoleFault, then="explode")


class Consoles(PoolCase):
    def order(self, plain: bool = False, **fault: object) -> tuple[SimulatedPool, bytes]:
        """A pool whose console of web-1 meets a fault, and the request for that console."""
        pool = self.pool(plain=plain)
        uuid = pool.state.record("VM", pool.state.vm_named("web-1"))["uuid"]
        pool.faults.order_console(uuid, ConsoleFault(**fault))  # type: ignore[arg-type]
        return pool, console_request(pool)

    async def received(self, pool: SimulatedPool, request: bytes, count: int) -> bytes:
        def work() -> bytes:
            with connect(pool) as connection:
                connection.sendall(request)
                return read_exactly(connection, count)

        return await self.in_thread(work)

    async def test_the_banner_comes_in_the_segment_of_the_reply(self) -> None:
        pool, request = self.order(banner_in_segment=True)

        def first() -> bytes:
            with connect(pool) as connection:
                connection.sendall(request)
                return connection.recv(65536)  # one TLS record at a time

        self.assertEqual(await self.in_thread(first), OPEN + BANNER)
        pool.faults.lift()
        self.assertEqual(await self.in_thread(first), OPEN)

    async def test_byte_by_byte(self) -> None:
        pool, request = self.order(piece=1)

        def pieces() -> list[bytes]:
            with connect(pool) as connection:
                connection.sendall(request)
                found: list[bytes] = []
                while b"".join(found) != OPEN:
                    found.append(connection.recv(65536))
                return found

        self.assertEqual([len(piece) for piece in await self.in_thread(pieces)], [1] * len(OPEN))

    async def test_a_200_and_then_the_end(self) -> None:
        pool, request = self.order(then="close")
        self.assertEqual(await self.asked(pool, request), OPEN)

    async def test_a_200_and_then_silence(self) -> None:
        pool, request = self.order(then="silence")

        def work() -> bytes:
            with connect(pool) as connection:
                connection.sendall(request)
                reply = read_exactly(connection, len(OPEN))
                connection.settimeout(0.05)
                self.assertRaises(TimeoutError, connection.recv, 1)
                return reply

        self.assertEqual(await self.in_thread(work), OPEN)
        await self.until(lambda: pool.connections("127.0.0.1") == 0)

    async def test_nothing_and_then_silence(self) -> None:
        pool, request = self.order(reply=b"", then="silence")

        def work() -> None:
            with connect(pool) as connection:
                connection.sendall(request)
                connection.settimeout(0.05)
                self.assertRaises(TimeoutError, connection.recv, 1)

        await self.in_thread(work)

    async def test_a_reset(self) -> None:
        pool, request = self.order(plain=True, then="reset", reply=b"")

        def work() -> None:
            with connect(pool) as connection:
                connection.sendall(request)
                read_all(connection)

        await self.assertFailure(self.in_thread(work), ConnectionResetError)

    async def test_a_delayed_reply(self) -> None:
        pool, request = self.order(delay=0.05)
        self.assertEqual(await self.received(pool, request, len(OPEN) + 12), OPEN + BANNER)

    async def test_a_client_that_leaves_during_the_delay_leaves_nothing(self) -> None:
        pool, request = self.order(delay=3600.0)

        def leave() -> socket.socket:
            connection = connect(pool)
            connection.sendall(request)
            return connection

        connection = await self.in_thread(leave)
        await self.until(lambda: pool.connections("127.0.0.1") == 1)
        connection.close()
        await self.until(lambda: pool.connections("127.0.0.1") == 0)

    async def test_a_header_of_nine_kilobytes_before_a_console_that_works(self) -> None:
        reply = OPEN[:-2] + b"X-Padding: " + b"x" * 9216 + b"\r\n\r\n"
        pool, request = self.order(reply=reply)
        self.assertEqual(await self.received(pool, request, len(reply) + 12), reply + BANNER)

    async def test_an_http_1_0_reply_before_a_console_that_works(self) -> None:
        reply = OPEN.replace(b"HTTP/1.1", b"HTTP/1.0")
        pool, request = self.order(reply=reply)
        self.assertEqual(await self.received(pool, request, len(reply) + 12), reply + BANNER)

    async def test_any_refusal_once_and_then_the_console(self) -> None:
        replies = [
            http.unauthorised("1.1", "connect_console"),
            http.forbidden(),
            http.NO_CONSOLE,
            http.internal_error("1.1", "Console.Failure"),
            http.limit_exceeded("1.1", ["root"]),
            b"",
            b"nonsense",
        ]
        for reply in replies:
            pool, request = self.order(reply=reply, times=1)
            self.assertEqual(await self.asked(pool, request), reply)
            self.assertEqual(await self.received(pool, request, len(OPEN) + 12), OPEN + BANNER)
