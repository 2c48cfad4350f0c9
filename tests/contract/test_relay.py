"""What every `IRelay` promises, and each relay held to it, between each two kinds of legs."""

import contextlib
import gc
import hashlib
import os
import random
import sys
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.net.legs import Kind, connect, dial, listen, pair, read_exactly, until
from tests.net.peers import PATIENCE, Peer
from tests.relay.crowd import Crowd, moved
from tests.relay.sender import stream_hash
from xvpd.net.leg import Leg
from xvpd.reason import Reason
from xvpd.relay.copy import CopyRelay
from xvpd.relay.relay import IRelay, IRelaying, Plan, Relayed, Totals

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

reactor: Any = installed_reactor

PATIENT = Plan(flush_seconds=PATIENCE, close_seconds=PATIENCE)
NO_FLUSH = Plan(flush_seconds=0.2, close_seconds=1000)
NO_ANSWER = Plan(flush_seconds=1000, close_seconds=0.2)
"""For peers that make a relay wait to the end of one of its deadlines. It would take the other for ever."""
MEGABYTE = 1 << 20


class RelayCase(Base):
    """What a relay's own class provides, and what a test has in its hands."""

    client_tls: str | None = None
    tunnel_tls: str | None = None

    def relay(self) -> IRelay:
        raise NotImplementedError

    async def legs(self) -> None:
        """``self.client_leg`` and ``self.tunnel_leg``, with ``self.client`` and ``self.host`` at their other ends."""
        await deferLater(reactor, 0)  # until the reactor runs it has not opened its own
        self.sockets = _open_sockets()
        self.client_leg, self.client = await pair(self, Kind(self.client_tls))
        self.tunnel_leg, self.host = await pair(self, Kind(self.tunnel_tls, dialled=True))

    async def start(self, plan: Plan = PATIENT) -> IRelaying:
        """A session that is being relayed."""
        await self.legs()
        return self.relay().start(self.client_leg, self.tunnel_leg, plan)

    async def over(self, relaying: IRelaying, reason: Reason) -> Totals:
        """Wait for the end, for ``reason``, after which nothing may be left."""
        relayed = await relaying.done
        self.assertIsInstance(relayed, Relayed)
        self.assertIs(relayed.reason, reason)
        self.assertEqual(relaying.totals(), relayed.totals)
        self.client.close()
        self.host.close()
        self.assertEqual(_open_sockets(), self.sockets)
        return relayed.totals


class RelayPromises(RelayCase):
    """All of them."""

    def test_it_provides_the_interface(self) -> None:
        relay = self.relay()
        verifyObject(IRelay, relay)
        self.assertTrue(relay.accepts(Plan()))

    async def test_its_sessions_provide_the_interface(self) -> None:
        verifyObject(IRelaying, await self.start())

    # Bytes.

    async def test_every_byte_arrives_both_ways_at_once(self) -> None:
        relaying = await self.start()
        there, back = random.Random(1).randbytes(4 * MEGABYTE), random.Random(2).randbytes(5 * MEGABYTE)
        at_client, at_host = await gatherResults(
            [self.client.exchange(there, len(back)), self.host.exchange(back, len(there))]
        )
        self.assertEqual((_hash(at_client), _hash(at_host)), (_hash(back), _hash(there)))
        self.assertEqual(relaying.totals(), Totals(bytes_to_client=len(back), bytes_to_hypervisor=len(there)))
        goodbye = self.client.goodbye()
        self.assertEqual(await self.host.receive_all(), (b"", "clean"))
        self.host.close()
        await goodbye
        totals = await self.over(relaying, Reason.CLIENT_CLOSED)
        self.assertEqual(totals, Totals(bytes_to_client=len(back), bytes_to_hypervisor=len(there)))

    async def test_small_messages_go_to_and_fro(self) -> None:
        relaying = await self.start()
        for number in range(200):
            message = b"%d" % number
            await self.client.send(message)
            self.assertEqual(await self.host.receive(len(message)), message)
            await self.host.send(message[::-1])
            self.assertEqual(await self.client.receive(len(message)), message[::-1])
        self.assertEqual(relaying.totals(), Totals(490, 490))

    async def test_what_was_unread_on_both_legs_is_delivered_first(self) -> None:
        await self.legs()
        await self.client.send(b"from the client, ")
        await self.host.send(b"from the host, ")
        self.client_leg.unread(await read_exactly(self.client_leg, 17))
        self.tunnel_leg.unread(await read_exactly(self.tunnel_leg, 15))
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, PATIENT)
        await self.client.send(b"and more")
        await self.host.send(b"and more")
        self.assertEqual(await self.host.receive(25), b"from the client, and more")
        self.assertEqual(await self.client.receive(23), b"from the host, and more")
        self.assertEqual(relaying.totals(), Totals(bytes_to_client=23, bytes_to_hypervisor=25))

    async def test_what_was_written_before_it_started_is_sent_before_what_it_relays(self) -> None:
        await self.legs()
        data = random.Random(3).randbytes(3 * MEGABYTE)
        self.client_leg.write(data)
        self.tunnel_leg.write(data)
        await self.client.send(b"from the client")
        await self.host.send(b"from the host")
        self.relay().start(self.client_leg, self.tunnel_leg, PATIENT)
        at_client, at_host = await gatherResults([self.client.receive(len(data) + 13), self.host.receive(len(data) + 15)])
        self.assertEqual(_hash(at_client), _hash(data + b"from the host"))
        self.assertEqual(_hash(at_host), _hash(data + b"from the client"))

    # The guard.

    async def test_a_guard_is_handed_all_that_the_client_sends_and_says_what_passes(self) -> None:
        await self.legs()
        seen = bytearray()

        def without_vowels(data: bytes) -> bytes:
            seen.extend(data)
            return data.translate(None, b"aeiou")

        self.client_leg.unread(b"unread, ")
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, replace(PATIENT, guard=without_vowels))
        await self.client.send(b"and from the client")
        self.assertEqual(await self.host.receive(18), b"nrd, nd frm th cln")
        await self.host.send(b"from the host")
        self.assertEqual(await self.client.receive(13), b"from the host")
        self.assertEqual(bytes(seen), b"unread, and from the client")
        self.assertEqual(relaying.totals(), Totals(bytes_to_client=13, bytes_to_hypervisor=19))

    async def test_a_guard_may_stop_the_relay_that_calls_it(self) -> None:
        relaying: list[IRelaying] = []

        def indignant(data: bytes) -> bytes:
            relaying[0].stop(Reason.CLIENT_PROTOCOL)
            return b""

        relaying.append(await self.start(replace(PATIENT, guard=indignant)))
        ends = gatherResults([self.client.receive_all(), self.host.receive_all()])
        await self.client.send(b"something rude")
        self.assertEqual([received for received, _ in await ends], [b"", b""])
        self.client.close()
        self.host.close()
        totals = await self.over(relaying[0], Reason.CLIENT_PROTOCOL)
        self.assertEqual(totals, Totals(0, 0))

    async def test_a_guard_may_stop_the_relay_at_what_was_unread_when_it_started(self) -> None:
        await self.legs()
        self.client_leg.unread(b"something rude")
        relaying: list[IRelaying] = []

        def indignant(data: bytes) -> bytes:
            relaying[0].stop(Reason.CLIENT_PROTOCOL)
            return data

        relaying.append(self.relay().start(self.client_leg, self.tunnel_leg, replace(PATIENT, guard=indignant)))
        self.assertEqual(await self.host.receive_all(), (b"", "clean"))
        self.client.close()
        self.host.close()
        await self.over(relaying[0], Reason.CLIENT_PROTOCOL)

    async def test_the_clients_last_input_is_known(self) -> None:
        before = reactor.seconds()
        relaying = await self.start()
        started = relaying.last_input()
        self.assertGreaterEqual(started, before)
        await self.host.send(b"a picture")
        await self.client.receive(9)
        self.assertEqual(relaying.last_input(), started)
        before = reactor.seconds()
        await self.client.send(b"a key")
        await self.host.receive(5)
        await until(lambda: relaying.last_input() >= before)

    # A leg that does not take its bytes.

    async def test_a_client_that_does_not_read_stops_the_host_and_memory_stays_flat(self) -> None:
        await self._backpressure(Kind(self.tunnel_tls, dialled=True), Kind(self.client_tls))

    async def test_a_host_that_does_not_read_stops_the_client_and_memory_stays_flat(self) -> None:
        await self._backpressure(Kind(self.client_tls), Kind(self.tunnel_tls, dialled=True))

    async def _backpressure(self, sending: Kind, reading: Kind) -> None:
        size = 96 * MEGABYTE
        from_leg, inherited = await connect(self, sending)
        to_leg, reader = await pair(self, reading)
        sender = Sender(inherited, sending, size)
        self.addCleanup(sender.end)
        self.assertTrue(await from_leg.secure())
        before = _resident_bytes()
        if sending.dialled:
            self.relay().start(to_leg, from_leg, PATIENT)
        else:
            self.relay().start(from_leg, to_leg, PATIENT)
        self.assertLess(await sender.stuck(), size // 2)
        self.assertLess(_resident_bytes() - before, 16 * MEGABYTE)
        self.assertEqual(await reader.receive_hash(size), stream_hash(size))
        self.assertLess(_resident_bytes() - before, 16 * MEGABYTE)

    # Orderly ends.

    async def test_all_that_the_client_sent_before_it_closed_is_delivered(self) -> None:
        relaying = await self.start()
        data = random.Random(4).randbytes(2 * MEGABYTE)
        receiving = self.host.receive_all()
        await self.client.send(data)
        goodbye = self.client.goodbye()  # with TLS, ends only when the goodbye is answered
        received, how = await receiving
        self.assertEqual((_hash(received), how), (_hash(data), "clean"))
        self.host.close()
        await goodbye
        totals = await self.over(relaying, Reason.CLIENT_CLOSED)
        self.assertEqual(totals, Totals(0, len(data)))

    async def test_all_that_the_host_sent_before_it_closed_is_delivered(self) -> None:
        relaying = await self.start()
        data = random.Random(5).randbytes(2 * MEGABYTE)
        receiving = self.client.receive_all()
        await self.host.send(data)
        goodbye = self.host.goodbye()
        received, how = await receiving
        self.assertEqual((_hash(received), how), (_hash(data), "clean"))
        self.client.close()
        await goodbye
        totals = await self.over(relaying, Reason.HYPERVISOR_CLOSED)
        self.assertEqual(totals, Totals(len(data), 0))

    async def test_an_end_without_a_goodbye_is_an_end(self) -> None:
        relaying = await self.start()
        await self.host.send(b"last words")
        self.host.finish()
        self.assertEqual(await self.client.receive_all(), (b"last words", "clean"))
        self.client.close()
        self.assertEqual(await self.host.receive_all(), (b"", "clean"))
        self.host.close()
        await self.over(relaying, Reason.HYPERVISOR_CLOSED)

    async def test_a_client_that_has_ended_but_reads_gets_what_had_been_read_for_it(self) -> None:
        relaying = await self.start()
        data = random.Random(6).randbytes(40 * MEGABYTE)
        sending = self.host.send(data).addErrback(lambda failure: failure.trap(OSError))
        await self._until_stuck(relaying)
        self.client.finish()
        received, how = await self.client.receive_all()
        self.client.close()
        self.host.close()
        totals = await self.over(relaying, Reason.CLIENT_CLOSED)
        self.assertEqual((len(received), how), (totals.bytes_to_client, "clean"))
        self.assertEqual(_hash(received), _hash(data[: len(received)]))
        await sending

    async def test_a_leg_that_had_ended_before_it_started_ends_it(self) -> None:
        for ender, reason in (("client", Reason.CLIENT_CLOSED), ("host", Reason.HYPERVISOR_CLOSED)):
            await self.legs()
            await self.client.send(b"from the client")
            await self.host.send(b"from the host")
            self.client_leg.unread(await read_exactly(self.client_leg, 15))
            self.tunnel_leg.unread(await read_exactly(self.tunnel_leg, 13))
            getattr(self, ender).finish()
            await (self.client_leg if ender == "client" else self.tunnel_leg).ended()
            relaying = self.relay().start(self.client_leg, self.tunnel_leg, PATIENT)
            self.assertEqual(await self.host.receive_all(), (b"from the client", "clean"))
            self.assertEqual(await self.client.receive_all(), (b"from the host", "clean"))
            self.client.close()
            self.host.close()
            await self.over(relaying, reason)

    async def test_what_was_unread_for_a_full_client_that_has_ended_is_delivered(self) -> None:
        await self.legs()
        data = random.Random(8).randbytes(20 * MEGABYTE)
        self.client_leg.write(data)
        await self.host.send(b"from the host")
        self.tunnel_leg.unread(await read_exactly(self.tunnel_leg, 13))
        self.client.finish()
        await self.client_leg.ended()
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, PATIENT)
        received, how = await self.client.receive_all()
        self.assertEqual((_hash(received), how), (_hash(data + b"from the host"), "clean"))
        self.client.close()
        self.host.close()
        await self.over(relaying, Reason.CLIENT_CLOSED)

    async def test_both_may_end_at_once(self) -> None:
        relaying = await self.start()
        await gatherResults([self.client.goodbye(), self.host.goodbye()])
        relayed = await relaying.done
        self.assertIn(relayed.reason, (Reason.CLIENT_CLOSED, Reason.HYPERVISOR_CLOSED))

    # Ends that are not orderly.

    async def test_a_client_that_is_lost_ends_it(self) -> None:
        relaying = await self.start()
        await self.client.send(b"last words")
        self.assertEqual(await self.host.receive(10), b"last words")
        self.client.reset()
        self.assertEqual(await self.host.receive_all(), (b"", "clean"))
        self.host.close()
        await self.over(relaying, Reason.CLIENT_LOST)

    async def test_a_host_that_is_lost_ends_it(self) -> None:
        relaying = await self.start()
        await self.host.send(b"last words")
        self.assertEqual(await self.client.receive(10), b"last words")
        self.host.reset()
        self.assertEqual(await self.client.receive_all(), (b"", "clean"))
        self.client.close()
        await self.over(relaying, Reason.HYPERVISOR_LOST)

    async def test_a_leg_that_was_lost_before_it_started_ends_it(self) -> None:
        await self.legs()
        self.host.reset()
        await self.tunnel_leg.gone()
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, PATIENT)
        self.assertEqual(await self.client.receive_all(), (b"", "clean"))
        self.client.close()
        await self.over(relaying, Reason.HYPERVISOR_LOST)

    async def test_a_leg_that_someone_else_aborts_ends_it(self) -> None:
        relaying = await self.start()
        await self.client.send(b"x")
        await self.host.receive(1)
        self.client_leg.abort()
        self.assertEqual(await self.host.receive_all(), (b"", "clean"))
        self.host.close()
        await self.over(relaying, Reason.CLIENT_LOST)

    async def test_a_client_that_never_answers_the_goodbye_is_given_up(self) -> None:
        relaying = await self.start(NO_ANSWER)
        goodbye = self.host.goodbye()
        self.assertEqual(await self.client.receive_all(), (b"", "clean"))
        await goodbye
        await relaying.done
        await self.over(relaying, Reason.HYPERVISOR_CLOSED)

    async def test_a_host_that_never_answers_the_goodbye_is_given_up(self) -> None:
        relaying = await self.start(NO_ANSWER)
        goodbye = self.client.goodbye()
        self.assertEqual(await self.host.receive_all(), (b"", "clean"))
        await goodbye
        await relaying.done
        await self.over(relaying, Reason.CLIENT_CLOSED)

    async def test_a_client_that_reads_late_gets_all_though_it_takes_longer_than_an_answer_may(self) -> None:
        await self.legs()
        data = random.Random(9).randbytes(20 * MEGABYTE)
        self.client_leg.write(data)
        self.host.finish()
        await self.tunnel_leg.ended()
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, NO_ANSWER)
        await deferLater(reactor, 2 * NO_ANSWER.close_seconds)
        self.assertFalse(relaying.done.called)
        received, how = await self.client.receive_all()
        self.assertEqual((_hash(received), how), (_hash(data), "clean"))
        await self.over(relaying, Reason.HYPERVISOR_CLOSED)

    async def test_a_deaf_client_is_given_up_when_the_host_has_ended(self) -> None:
        await self.legs()
        self.client_leg.write(bytes(40 * MEGABYTE))
        self.host.finish()
        await self.tunnel_leg.ended()
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, NO_FLUSH)
        await self.over(relaying, Reason.HYPERVISOR_CLOSED)

    async def test_a_deaf_host_is_given_up_when_the_client_has_ended(self) -> None:
        await self.legs()
        self.tunnel_leg.write(bytes(40 * MEGABYTE))
        self.client.finish()
        await self.client_leg.ended()
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, NO_FLUSH)
        await self.over(relaying, Reason.CLIENT_CLOSED)

    # Being stopped.

    async def test_stopping_ends_both_legs_cleanly(self) -> None:
        relaying = await self.start()
        relaying.stop(Reason.REVOKED)
        relaying.stop(Reason.KILLED)
        for peer in (self.client, self.host):
            self.assertEqual(await peer.receive_all(), (b"", "clean"))
            peer.close()
        await self.over(relaying, Reason.REVOKED)
        relaying.stop(Reason.KILLED)

    async def test_deaf_legs_do_not_keep_it_from_being_stopped(self) -> None:
        relaying = await self.start(NO_ANSWER)
        self.client_leg.write(bytes(40 * MEGABYTE))
        self.tunnel_leg.write(bytes(40 * MEGABYTE))
        relaying.stop(Reason.KILLED)
        await self.over(relaying, Reason.KILLED)

    async def test_it_can_be_stopped_at_any_moment(self) -> None:
        moments = random.Random(7)
        for _ in range(20):
            relaying = await self.start()
            there, back = moments.randbytes(2 * MEGABYTE), moments.randbytes(2 * MEGABYTE)
            traffic = gatherResults([self.client.exchange(there, len(back)), self.host.exchange(back, len(there))])
            moment = moments.randrange(3 * MEGABYTE)
            await until(lambda relaying=relaying, moment=moment: _moved(relaying) >= moment)  # type: ignore[misc]
            relaying.stop(Reason.KILLED)
            at_client, at_host = await traffic
            self.assertTrue(back.startswith(at_client))
            self.assertTrue(there.startswith(at_host))
            self.client.close()
            self.host.close()
            await self.over(relaying, Reason.KILLED)

    async def test_stopping_it_in_the_turn_in_which_it_started_is_early_enough(self) -> None:
        await self.legs()
        relaying = self.relay().start(self.client_leg, self.tunnel_leg, PATIENT)
        relaying.stop(Reason.STOPPED)
        await self.client.receive_all()
        await self.host.receive_all()
        self.client.close()
        self.host.close()
        await self.over(relaying, Reason.STOPPED)

    async def test_it_cannot_be_stopped_for_another_reason_once_it_is_ending(self) -> None:
        relaying = await self.start()
        self.client.finish()
        await self.host.receive_all()
        relaying.stop(Reason.KILLED)
        self.client.close()
        self.host.close()
        await self.over(relaying, Reason.CLIENT_CLOSED)

    # Nothing is left.

    async def test_nothing_keeps_a_session_that_is_over(self) -> None:
        relaying = await self.start()
        references = [weakref.ref(each) for each in (relaying, self.client_leg, self.tunnel_leg)]
        await self.client.send(bytes(MEGABYTE))
        await self.host.receive(MEGABYTE)
        self.client.reset()
        await self.host.receive_all()
        self.host.close()
        await self.over(relaying, Reason.CLIENT_LOST)
        self.client_leg = self.tunnel_leg = relaying = None  # type: ignore[assignment]
        await deferLater(reactor, 0)
        gc.collect()
        self.assertEqual([reference() for reference in references], [None, None, None])

    async def _until_stuck(self, relaying: IRelaying) -> None:
        moved = -1
        while moved != _moved(relaying) or not moved:
            moved = _moved(relaying)
            await deferLater(reactor, 0.2)


class CrowdPromises(RelayCase):
    """What holds for many sessions at once, whatever is spoken on their legs."""

    async def test_two_hundred_sessions_lose_and_mix_up_nothing(self) -> None:
        await deferLater(reactor, 0)
        sockets = _open_sockets()
        clients_speak, hosts_speak = (None, "tls1.3", "tls1.2"), (None, "xapi")
        crowd = Crowd(200, list(hosts_speak))
        relay = self.relay()
        sessions: list[Deferred[Relayed]] = []

        async def session(client: Leg, number: int) -> Relayed:
            host = Kind(hosts_speak[number % 2], dialled=True)
            tunnel = await dial(host, f"tcp:127.0.0.1:{crowd.host_ports[number % 2]}")
            self.assertTrue(await client.secure())
            self.assertTrue(await tunnel.secure())
            return await relay.start(client, tunnel, PATIENT).done

        def accepted(client: Leg) -> None:
            sessions.append(Deferred.fromCoroutine(session(client, len(sessions))))

        listeners = [await listen(Kind(tls), "tcp:0:interface=127.0.0.1:backlog=200", accepted) for tls in clients_speak]
        await crowd.come([(port.getHost().port, tls) for port, tls in zip(listeners, clients_speak, strict=True)])
        ends = await gatherResults(sessions)
        for listener in listeners:
            await listener.stopListening()

        self.assertEqual(crowd.faults, [])
        reasons = Counter(each.reason for each in ends)
        self.assertEqual(reasons, {Reason.CLIENT_CLOSED: 100, Reason.HYPERVISOR_CLOSED: 100})
        totals = (sum(each.totals.bytes_to_client for each in ends), sum(each.totals.bytes_to_hypervisor for each in ends))
        self.assertEqual(totals, moved(200))
        self.assertEqual(_open_sockets(), sockets)


class Sender(ProcessProtocol):
    """`tests.relay.sender`, on a peer's connection."""

    def __init__(self, peer: Peer, kind: Kind, size: int) -> None:
        self.sent = 0
        self._said = b""
        self._ended: Deferred[None] = Deferred()
        fd = peer.sock.fileno()
        role = "server" if kind.dialled else "client"
        arguments = [sys.executable, "-m", "tests.relay.sender", str(fd), kind.tls or "plain", role, str(size)]
        root = str(Path(__file__).parents[2])
        self._process = reactor.spawnProcess(
            self,
            sys.executable,
            arguments,
            env={**os.environ, "PYTHONPATH": root},
            childFDs={0: "w", 1: "r", 2: 2, fd: fd},
        )
        peer.close()

    async def stuck(self) -> int:
        """How many bytes it could send before it could send no more: for half a second, which is long for loopback."""
        await until(lambda: self.sent)
        sent = 0
        while sent != self.sent:
            sent = self.sent
            await deferLater(reactor, 0.5)
        return sent

    def end(self) -> "Deferred[None]":
        self._process.signalProcess("KILL")
        return self._ended

    def outReceived(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(b"\n")
        if lines:
            self.sent = int(lines[-1])

    def processEnded(self, reason: Failure) -> None:
        self._ended.callback(None)


def _moved(relaying: IRelaying) -> int:
    totals = relaying.totals()
    return totals.bytes_to_client + totals.bytes_to_hypervisor


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _open_sockets() -> int:
    """How many this process has; not files, for Twisted opens one of its own with the first listener."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            links.append(os.readlink(link))
    return sum(link.startswith("socket:") for link in links)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Copying(RelayCase):
    def relay(self) -> IRelay:
        return CopyRelay(reactor)


class CopyPlainToPlainTests(Copying, RelayPromises, TestCase):
    pass


class CopyPlainToTlsTests(Copying, RelayPromises, TestCase):
    tunnel_tls = "xapi"


class CopyTlsToPlainTests(Copying, RelayPromises, TestCase):
    client_tls = "tls1.3"


class CopyTlsToTlsTests(Copying, RelayPromises, TestCase):
    client_tls = "tls1.3"
    tunnel_tls = "xapi"


class CopyCrowdTests(Copying, CrowdPromises, TestCase):
    pass
