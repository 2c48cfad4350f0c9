"""Many clients and their hosts at once, in one thread and in an event loop of their own, apart from the reactor's.

A client says its number first; from it both ends know what each has to send, in which pieces, and who closes.
"""

import asyncio
import socket
import ssl
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.net.peers import PATIENCE, their_context

MOST = 300_000


class Crowd:
    """So many clients, and the hosts that they want to get to.

    ``spoken`` is what the hosts speak, each at its port of `host_ports`: words of `tests.net.peers.TLS`, or None.
    """

    def __init__(self, clients: int, spoken: list[str | None]) -> None:
        self.faults: list[str] = []
        self._clients = clients
        self._spoken = spoken
        self._listening = [socket.create_server(("127.0.0.1", 0), backlog=clients) for _ in spoken]
        self._hosts: list[asyncio.Task[None]] = []

    @property
    def host_ports(self) -> list[int]:
        return [each.getsockname()[1] for each in self._listening]

    def come(self, doors: list[tuple[int, str | None]]) -> "Deferred[None]":
        """Have all clients come at once, to one of the ``doors`` each (a port, and what is spoken there). Fires when they and
        their hosts have gone."""
        return deferToThread(lambda: asyncio.run(asyncio.wait_for(self._come(doors), 4 * PATIENCE)))

    async def _come(self, doors: list[tuple[int, str | None]]) -> None:
        servers = [
            await asyncio.start_server(self._host, sock=sock, ssl=_context(tls, True))
            for sock, tls in zip(self._listening, self._spoken, strict=True)
        ]
        await asyncio.gather(*(self._client(number, *doors[number % len(doors)]) for number in range(self._clients)))
        await asyncio.gather(*self._hosts)
        for server in servers:
            server.close()
            await server.wait_closed()

    async def _client(self, number: int, port: int, tls: str | None) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_context(tls, False))
        writer.write(number.to_bytes(4))
        await self._talk(number, "client", reader, writer)

    async def _host(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._hosts.append(task)
        number = int.from_bytes(await reader.readexactly(4))
        await self._talk(number, "host", reader, writer)

    async def _talk(self, number: int, who: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = f"{who} {number}"
        mine, theirs = _says(number, who), _says(number, "host" if who == "client" else "client")
        closes = (number % 2 == 0) == (who == "client")
        try:
            received, _ = await asyncio.gather(_read(reader, len(theirs), Random(name)), _write(writer, mine, Random(name)))
            if received != theirs:
                self.faults.append(f"{name}: received {len(received)} of {len(theirs)} bytes, or others")
            if not closes and await reader.read():
                self.faults.append(f"{name}: received more than there was")
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError) as error:
            self.faults.append(f"{name}: {error!r}")


def moved(clients: int) -> tuple[int, int]:
    """How many bytes a crowd sends: to all clients, to all hosts (their clients' numbers included)."""
    to_clients = sum(len(_says(number, "host")) for number in range(clients))
    return to_clients, sum(4 + len(_says(number, "client")) for number in range(clients))


def _says(number: int, who: str) -> bytes:
    words = Random(f"{who} {number}")
    return words.randbytes(words.choice((0, 1, 1000, MOST, words.randrange(MOST))))


async def _write(writer: asyncio.StreamWriter, data: bytes, sizes: Random) -> None:
    while data:
        size = sizes.choice((1, 20, 1400, 16384, 100_000))
        writer.write(data[:size])
        data = data[size:]
        await writer.drain()
        await asyncio.sleep(sizes.choice((0, 0, 0, 0.001)))


async def _read(reader: asyncio.StreamReader, size: int, pauses: Random) -> bytes:
    data = bytearray()
    while len(data) < size and (more := await reader.read(size - len(data))):
        data += more
        await asyncio.sleep(pauses.choice((0, 0, 0, 0.002)))
    return bytes(data)


def _context(tls: str | None, server: bool) -> ssl.SSLContext | None:
    return their_context(tls, server) if tls is not None else None
