"""Simulated pools for tests, and ways to talk to one: the XenAPI SDK in a thread, and raw sockets."""

import functools
import socket
import ssl
import struct
import time
import xmlrpc.client
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import XenAPI
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from xvpd.sim.certificate import Certificate, self_signed
from xvpd.sim.pool import SimulatedPool

T = TypeVar("T")
SECONDS = 20.0


@functools.cache
def certificates() -> tuple[Certificate, ...]:
    """Keys cost time: every pool of the tests has the same."""
    return tuple(self_signed([f"127.0.0.{number}"], datetime.now(UTC)) for number in (1, 2, 3))


class PoolCase(TestCase):
    """A test with pools, which are stopped at its end."""

    timeout = 60

    def pool(self, **options: Any) -> SimulatedPool:
        options.setdefault("certificates", certificates())
        pool = SimulatedPool(reactor, **options)
        pool.start()
        self.addCleanup(pool.stop)
        return pool

    def in_thread(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThread(work, *arguments)

    async def asked(self, pool: SimulatedPool, request: bytes, address: str | None = None) -> bytes:
        """What a host answers to a request on a connection of its own, up to its end."""
        return await self.in_thread(lambda: ask(connect(pool, address), request))

    async def watching(self, pool: SimulatedPool, request: bytes, address: str | None = None) -> socket.socket:
        """A console that was opened by a request, whose server has said its version."""

        def work() -> socket.socket:
            connection = connect(pool, address)
            connection.sendall(request)
            reply = read_exactly(connection, len(OPEN) + 12)
            assert reply[: len(OPEN)] == OPEN, reply
            assert reply[len(OPEN) :] in (b"RFB 003.008\n", b"RFB 003.003\n"), reply
            return connection

        return await self.in_thread(work)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so; fail when it does not come to be."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                self.fail("it did not come to be")
            await task.deferLater(reactor, 0.01)

    async def answered(self, ask: Callable[[], Deferred[T]], condition: Callable[[T], Any]) -> T:
        """Ask again until the answer is so; fail when it does not come to be."""
        deadline = time.monotonic() + SECONDS
        while not condition(answer := await ask()):
            if time.monotonic() > deadline:
                self.fail(f"it did not come to be: {answer}")
            await task.deferLater(reactor, 0.01)
        return answer


def trusting(pool: SimulatedPool) -> ssl.SSLContext:
    """Trust in the certificates of a pool's hosts, names and all."""
    pem = "".join(each.certificate_pem.decode("ascii") for each in pool.certificates.values())
    return ssl.create_default_context(cadata=pem)


def sdk(pool: SimulatedPool, address: str | None = None, password: str | None = None) -> Any:
    """The SDK's session, logged in. For threads."""
    session = unknown_sdk(pool, address)
    session.login_with_password(pool.username, password or pool.password, "1.0", "tests")
    return session


def unknown_sdk(pool: SimulatedPool, address: str | None = None) -> Any:
    """The SDK's session, not logged in yet."""
    uri = f"https://{address or pool.addresses[0]}:{pool.port}"
    return XenAPI.Session(uri, transport=xmlrpc.client.SafeTransport(context=trusting(pool)))


def connect(pool: SimulatedPool, address: str | None = None) -> socket.socket:
    """A connection to a host. For threads."""
    address = address or pool.addresses[0]
    connection = socket.create_connection((address, pool.port), SECONDS)
    return connection if pool.plain else trusting(pool).wrap_socket(connection, server_hostname=address)


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and read until the peer closes. For threads."""
    with connection:
        connection.sendall(request)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the peer's end. For threads."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes. For threads."""
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise AssertionError(f"closed after {data!r}")
        data += piece
    return data


def console_request(pool: SimulatedPool, vm: str = "web-1", session: str | None = None, version: str = "1.1") -> bytes:
    """The bytes by which a console is asked for, by reference, with a fresh session unless one is given."""
    ref = pool.state.vm_named(vm)
    if session is None:
        session = pool.state.log_in(pool.username, pool.password, "tests")
    return f"CONNECT /console?ref={ref} HTTP/{version}\r\nHost: pool\r\nCookie: session_id={session}\r\n\r\n".encode()


def opening(connection: socket.socket) -> tuple[int, int, str]:
    """RFB 3.8's opening after the server's banner was read: width, height, name. For threads."""
    connection.sendall(b"RFB 003.008\n")
    assert read_exactly(connection, 2) == b"\1\1"
    connection.sendall(b"\1")
    assert read_exactly(connection, 4) == b"\0\0\0\0"
    connection.sendall(b"\1")
    width, height, _, length = struct.unpack(">HH16sI", read_exactly(connection, 24))
    return width, height, read_exactly(connection, length).decode()


OPEN = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
