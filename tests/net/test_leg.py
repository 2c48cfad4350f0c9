"""`xvpd.net.leg`, over real sockets: TCP, unix and behind ``haproxy:``; plain, TLS 1.2 and TLS 1.3; accepted and dialled."""

import gc
import hashlib
import random
import select
import socket
import ssl
import weakref
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.net.legs import Kind, connect, listen, pair, read_all, read_exactly, until
from tests.net.peers import PATIENCE, Peer, in_thread, their_context
from xvpd.net.leg import READ_AHEAD, Detached, End, Leg

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

reactor: Any = installed_reactor


class RecordingSink:
    """Keeps what a leg says, in order, with what was received run together."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg
        self.said: list[object] = []
        self.received = bytearray()
        self.pause_after: int | None = None
        self.ended: Deferred[None] = Deferred()

    def leg_received(self, data: bytes) -> None:
        self.received += data
        if self.said[-1:] != ["received"]:
            self.said.append("received")
        if self.pause_after is not None and len(self.received) >= self.pause_after:
            self.leg.pause()

    def leg_ended(self) -> None:
        self.said.append(self.leg.end)
        self.ended.callback(None)

    def leg_full(self) -> None:
        if self.said[-1:] != ["full"]:
            self.said.append("full")

    def leg_drained(self) -> None:
        self.said.append("drained")


class LegSuite(Base):
    """What holds for every kind of leg."""

    kind = Kind()

    async def pair(self, **options: Any) -> tuple[Leg, Peer]:
        return await pair(self, self.kind, **options)

    # Reading and writing.

    async def test_bytes_go_both_ways(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"ping")
        self.assertEqual(await read_exactly(leg, 4), b"ping")
        leg.write(b"pong")
        self.assertEqual(await peer.receive(4), b"pong")

    async def test_what_is_unread_is_read_next_and_before_what_arrives_later(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"head and body")
        data = await read_exactly(leg, 13)
        leg.unread(data[5:])
        await peer.send(b", more")
        self.assertEqual(await read_exactly(leg, 14), b"and body, more")

    async def test_unread_serves_a_reader_that_waits(self) -> None:
        leg, _ = await self.pair()
        reading = leg.read()
        leg.unread(b"back again")
        self.assertEqual(await reading, b"back again")

    async def test_a_leg_has_one_reader_at_a_time(self) -> None:
        leg, _ = await self.pair()
        reading = leg.read()
        self.assertRaises(RuntimeError, leg.read)
        self.assertRaises(RuntimeError, leg.push_to, RecordingSink(leg))
        self.assertRaises(RuntimeError, leg.detach)
        reading.cancel()
        await self.assertFailure(reading, CancelledError)
        leg.push_to(RecordingSink(leg))
        self.assertRaises(RuntimeError, leg.read)

    async def test_a_cancelled_read_loses_nothing(self) -> None:
        leg, peer = await self.pair()
        reading = leg.read()
        reading.cancel()
        await self.assertFailure(reading, CancelledError)
        await peer.send(b"still there")
        self.assertEqual(await read_exactly(leg, 11), b"still there")

    async def test_a_reader_may_read_again_from_within_its_callback(self) -> None:
        leg, peer = await self.pair()
        seen: list[bytes] = []
        done: Deferred[None] = Deferred()

        def again(data: bytes) -> None:
            seen.append(data)
            if data:
                leg.read().addCallback(again)
            else:
                done.callback(None)

        leg.read().addCallback(again)
        sent = random.Random(1).randbytes(300_000)
        await peer.send(sent)
        goodbye = peer.goodbye()
        await done
        self.assertEqual(b"".join(seen), sent)
        leg.close(PATIENCE)
        await goodbye

    async def test_a_leg_nobody_reads_stops_its_peer(self) -> None:
        leg, peer = await self.pair()
        data = random.Random(13).randbytes(16 << 20)
        sending = peer.send(data)
        await until(lambda: len(leg._inbox) >= READ_AHEAD)
        for _ in range(100):
            await deferLater(reactor, 0)
        self.assertLess(len(leg._inbox), 3 * READ_AHEAD)
        self.assertFalse(sending.called)
        self.assertEqual(await read_exactly(leg, len(data)), data)
        await sending
        await peer.send(b"go on")
        self.assertEqual(await read_exactly(leg, 5), b"go on")

    async def test_megabytes_in_one_write_arrive_unchanged(self) -> None:
        leg, peer = await self.pair()
        data = random.Random(2).randbytes(5_000_000)
        leg.write(data)
        leg.write(b"end")
        received = await peer.receive(len(data) + 3)
        self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(data + b"end").digest())

    async def test_megabytes_both_ways_at_once_arrive_unchanged(self) -> None:
        leg, peer = await self.pair()
        there, here = random.Random(3).randbytes(3_000_000), random.Random(4).randbytes(3_000_000)
        exchanged = peer.exchange(there, len(here))
        for start in range(0, len(here), 70_001):
            leg.write(here[start : start + 70_001])
        self.assertEqual(hashlib.sha256(await read_exactly(leg, len(there))).digest(), hashlib.sha256(there).digest())
        self.assertEqual(hashlib.sha256(await exchanged).digest(), hashlib.sha256(here).digest())

    # Push mode.

    async def test_a_sink_is_given_what_was_unread_and_then_all_that_comes(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        await peer.send(b"one ")
        leg.unread(await read_exactly(leg, 4))
        leg.push_to(sink)
        await until(lambda: len(sink.received) == 4)
        await peer.send(b"two")
        await until(lambda: len(sink.received) == 7)
        self.assertEqual(bytes(sink.received), b"one two")

    async def test_a_sink_hears_of_the_end_after_the_last_byte_and_of_nothing_else_then(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        leg.push_to(sink)
        data = random.Random(5).randbytes(1_000_000)
        await peer.send(data)
        goodbye = peer.goodbye()
        await sink.ended
        self.assertEqual(bytes(sink.received), data)
        self.assertEqual(sink.said, ["received", End.CLOSED])
        leg.close(PATIENCE)
        await goodbye
        await leg.gone()
        self.assertEqual(sink.said, ["received", End.CLOSED])

    async def test_a_paused_sink_is_given_nothing_until_it_is_resumed(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        sink.pause_after = 1
        leg.push_to(sink)
        data = random.Random(6).randbytes(200_000)
        sending = peer.send(data)
        while len(sink.received) < len(data):
            await until(lambda: leg._paused)
            received = len(sink.received)
            await deferLater(reactor, 0)
            self.assertEqual(len(sink.received), received)
            leg.resume()
        self.assertEqual(bytes(sink.received), data)
        await sending

    async def test_a_paused_leg_hands_over_the_rest_and_the_end_when_it_is_resumed(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        leg.push_to(sink)
        leg.pause()
        await peer.send(b"last words")
        goodbye = peer.goodbye()
        await deferLater(reactor, 0)
        self.assertEqual(sink.said, [])
        leg.resume()
        await sink.ended
        self.assertEqual((bytes(sink.received), sink.said), (b"last words", ["received", End.CLOSED]))
        leg.close(PATIENCE)
        await goodbye

    async def test_reading_no_more_hands_over_what_a_paused_leg_had_read(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        await peer.send(b"x" * 40_000)
        leg.unread(await read_exactly(leg, 40_000))
        sink.pause_after = 1
        leg.pause()
        leg.push_to(sink)
        self.assertEqual(sink.said, [])
        leg.read_no_more()
        self.assertEqual((len(sink.received), sink.said), (40_000, ["received", End.OURS]))

    async def test_a_sink_is_told_when_the_leg_is_full_and_when_it_takes_bytes_again(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        leg.push_to(sink)
        written = 0
        while not leg.full:
            leg.write(bytes(65536))
            written += 65536
        self.assertEqual(sink.said, ["full"])
        await peer.receive(written)
        await until(lambda: not leg.full)
        self.assertEqual(sink.said, ["full", "drained"])

    async def test_a_sink_that_comes_to_a_full_leg_is_told_so(self) -> None:
        leg, _ = await self.pair()
        while not leg.full:
            leg.write(bytes(65536))
        sink = RecordingSink(leg)
        leg.push_to(sink)
        self.assertEqual(sink.said, ["full"])

    async def test_a_sink_may_close_the_leg_while_it_is_given_bytes(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        received = sink.leg_received

        def close_at_once(data: bytes) -> None:
            received(data)
            leg.close(PATIENCE)

        sink.leg_received = close_at_once  # type: ignore[method-assign]
        leg.push_to(sink)
        await peer.send(b"x" * 100_000)
        await sink.ended
        self.assertEqual(sink.said, ["received", End.OURS])
        self.assertLess(len(sink.received), 100_000)
        self.assertEqual(await peer.receive_all(), (b"", "clean"))

    async def test_a_sink_may_abort_the_leg_while_it_is_given_bytes(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        sink.leg_received = lambda data: leg.abort()  # type: ignore[method-assign]
        leg.push_to(sink)
        peer.send(b"x" * 100_000).addErrback(lambda failure: failure.trap(OSError))
        await sink.ended
        await leg.gone()
        self.assertEqual(sink.said, [End.OURS])

    async def test_a_sink_that_raises_costs_its_leg_alone_and_hears_of_the_end(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        sink.leg_received = fail  # type: ignore[method-assign]
        leg.push_to(sink)
        peer.send(b"x" * 100_000).addErrback(lambda failure: failure.trap(OSError))
        await sink.ended
        await leg.gone()
        self.assertEqual(sink.said, [End.LOST])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # Ends.

    async def test_an_orderly_end_is_read_behind_the_last_byte(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"last words")
        goodbye = peer.goodbye()
        self.assertEqual(await read_all(leg), b"last words")
        self.assertIs(leg.end, End.CLOSED)
        self.assertEqual(await leg.read(), b"")
        leg.close(PATIENCE)
        await goodbye
        await leg.gone()

    async def test_the_peers_end_is_known_while_bytes_are_unread(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"unread")
        goodbye = peer.goodbye()
        await leg.ended()
        self.assertIs(leg.end, End.CLOSED)
        self.assertEqual(await leg.read(), b"unread")
        self.assertEqual(await leg.read(), b"")
        leg.close(PATIENCE)
        await goodbye

    async def test_who_hears_of_the_end_may_have_the_rest_pushed_to_a_sink(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        leg.ended().addCallback(lambda _: leg.push_to(sink))
        await peer.send(b"unread")
        peer.finish()
        await sink.ended
        self.assertEqual((bytes(sink.received), sink.said), (b"unread", ["received", End.CLOSED]))

    async def test_a_peer_that_ends_without_a_goodbye_has_closed(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"x" * 100_000)
        peer.finish()
        self.assertEqual(await read_all(leg), b"x" * 100_000)
        self.assertIs(leg.end, End.CLOSED)

    async def test_a_peer_that_has_ended_can_still_be_written_to(self) -> None:
        leg, peer = await self.pair()
        peer.finish()
        await leg.ended()
        data = random.Random(7).randbytes(1_000_000)
        leg.write(data)
        leg.close(PATIENCE)
        self.assertEqual(await peer.receive_all(), (data, "clean"))
        await leg.gone()

    async def test_closing_sends_what_was_written_and_then_the_goodbye(self) -> None:
        leg, peer = await self.pair()
        data = random.Random(8).randbytes(3_000_000)
        leg.write(data)
        leg.close(PATIENCE)
        leg.write(b"too late")
        self.assertIs(leg.end, End.OURS)
        received, how = await peer.receive_all()
        self.assertEqual((hashlib.sha256(received).digest(), how), (hashlib.sha256(data).digest(), "clean"))
        peer.close()
        await leg.gone()

    async def test_closing_does_not_reset_a_peer_whose_bytes_are_unread(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"x" * 100_000)
        leg.write(b"answer")
        leg.close(PATIENCE)
        self.assertEqual(await peer.receive_all(), (b"answer", "clean"))

    async def test_closing_drops_what_is_unread(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"x" * 1000)
        leg.unread(await read_exactly(leg, 1000))
        leg.close(PATIENCE)
        leg.unread(b"nobody wants it")
        self.assertEqual(await leg.read(), b"")

    async def test_closing_answers_a_reader_that_waits(self) -> None:
        leg, _ = await self.pair()
        reading = leg.read()
        leg.close(PATIENCE)
        self.assertEqual(await reading, b"")
        self.assertIs(leg.end, End.OURS)

    async def test_closing_and_aborting_again_change_nothing(self) -> None:
        leg, peer = await self.pair()
        leg.close(PATIENCE)
        leg.close(0)
        self.assertEqual(await peer.receive_all(), (b"", "clean"))
        peer.close()
        await leg.gone()
        leg.close(0)
        leg.abort()
        leg.write(b"nobody")
        leg.pause()
        leg.resume()
        self.assertEqual(await leg.read(), b"")

    async def test_a_deaf_peer_is_aborted_when_its_seconds_are_over(self) -> None:
        clock = Clock()
        leg, peer = await self.pair(clock=clock)
        leg.write(bytes(50 << 20))
        leg.close(5)
        await deferLater(reactor, 0.01)
        clock.advance(4.9)
        await deferLater(reactor, 0.01)
        self.assertFalse(leg.gone().called)
        clock.advance(0.2)
        await leg.gone()
        self.assertEqual(clock.getDelayedCalls(), [])
        peer.close()

    async def test_a_peer_that_reads_but_never_answers_the_goodbye_is_aborted(self) -> None:
        clock = Clock()
        leg, peer = await self.pair(clock=clock)
        leg.close(seconds=5, flush_seconds=60)
        await peer.receive_all()
        await until(lambda: [call.getTime() for call in clock.getDelayedCalls()] == [5])
        clock.advance(5)
        await leg.gone()

    async def test_a_peer_that_does_not_take_its_bytes_is_aborted_when_the_flush_is_over(self) -> None:
        clock = Clock()
        leg, peer = await self.pair(clock=clock)
        leg.write(bytes(50 << 20))
        leg.close(seconds=60, flush_seconds=2)
        await deferLater(reactor, 0.01)
        clock.advance(2)
        await leg.gone()
        peer.close()

    async def test_a_peer_that_is_gone_leaves_no_timer(self) -> None:
        clock = Clock()
        leg, peer = await self.pair(clock=clock)
        leg.close(5)
        await peer.receive_all()
        peer.close()
        await leg.gone()
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_aborting_ends_at_once(self) -> None:
        leg, peer = await self.pair()
        reading = leg.read()
        leg.write(bytes(1 << 20))
        leg.abort()
        self.assertEqual(await reading, b"")
        await leg.gone()
        self.assertIs(leg.end, End.OURS)
        _, how = await peer.receive_all()
        self.assertNotEqual(how, "clean" if self.kind.tls else "")

    async def test_waiting_for_an_end_can_be_given_up(self) -> None:
        leg, _ = await self.pair()
        for waiting in (leg.gone(), leg.ended()):
            waiting.cancel()
            await self.assertFailure(waiting, CancelledError)
        leg.abort()
        await leg.gone()
        await leg.ended()

    async def test_nothing_keeps_the_tls_state_or_the_leg_afterwards(self) -> None:
        leg, peer = await self.pair()
        state = weakref.ref(leg._tls.connection) if leg._tls is not None else lambda: None
        sink = RecordingSink(leg)
        leg.push_to(sink)
        await peer.send(b"x" * 100_000)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        goodbye = peer.goodbye()
        await sink.ended
        leg.close(PATIENCE)
        await goodbye
        await leg.gone()
        await deferLater(reactor, 0)
        self.assertIsNone(state(), "a cycle keeps the TLS state until the collector finds it")
        self.assertIsNone(leg._sink)

    # Being detached.

    async def test_a_detached_connection_goes_on_where_the_leg_stopped(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"abc")
        leg.unread(await read_exactly(leg, 3))
        data = random.Random(9).randbytes(2_000_000)
        leg.write(data)  # far more than the socket takes: detaching has to wait for the peer
        detaching = leg.detach()
        there = random.Random(10).randbytes(500_000)
        exchanged = peer.exchange(there, len(data) + 5)
        holder = Holder(await detaching)
        self.addCleanup(holder.close)
        await leg.gone()
        received = await in_thread(holder.receive, 3 + len(there))
        await in_thread(holder.send, b"after")
        self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(b"abc" + there).digest())
        self.assertEqual(hashlib.sha256(await exchanged).digest(), hashlib.sha256(data + b"after").digest())

    async def test_nobody_keeps_a_detached_leg(self) -> None:
        leg, peer = await self.pair()
        references = [weakref.ref(leg), weakref.ref(leg._bottom)]
        leg.push_to(RecordingSink(leg))
        await peer.send(b"abc")
        holder = Holder(await leg.detach())
        self.addCleanup(holder.close)
        del leg
        await deferLater(reactor, 0)
        gc.collect()
        self.assertEqual([reference() for reference in references], [None, None])

    async def test_detaching_in_the_middle_of_traffic_loses_nothing(self) -> None:
        for seed in range(4):
            leg, peer = await self.pair()
            there, here = random.Random(seed).randbytes(1_500_000), random.Random(-seed - 1).randbytes(400_000)
            exchanged = peer.exchange(there, len(here))
            sink = RecordingSink(leg)
            sink.pause_after = (seed + 1) * 100_000  # the rest of the piece stays behind, as ciphertext
            leg.push_to(sink)
            leg.write(here[:300_000])
            await until(lambda sink=sink: len(sink.received) >= sink.pause_after)  # type: ignore[misc]
            holder = Holder(await leg.detach())
            self.addCleanup(holder.close)
            rest = in_thread(holder.exchange, here[300_000:], len(there) - len(sink.received))
            received = bytes(sink.received) + await rest
            self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(there).digest())
            self.assertEqual(hashlib.sha256(await exchanged).digest(), hashlib.sha256(here).digest())

    async def test_detaching_from_within_a_sink_loses_nothing(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        detaching: list[Deferred[Detached | None]] = []

        def detach(data: bytes) -> None:
            sink.received += data
            detaching.append(leg.detach())

        sink.leg_received = detach  # type: ignore[method-assign]
        leg.push_to(sink)
        sent = random.Random(11).randbytes(300_000)
        sending = peer.send(sent)
        await until(lambda: detaching)
        holder = Holder(await detaching[0])
        self.addCleanup(holder.close)
        received = bytes(sink.received) + await in_thread(holder.receive, len(sent) - len(sink.received))
        self.assertEqual(received, sent)
        await sending

    async def test_what_a_leg_had_read_ahead_is_handed_out(self) -> None:
        leg, peer = await self.pair()
        sent = random.Random(12).randbytes(4 * READ_AHEAD)
        sending = peer.send(sent)
        await until(lambda: len(leg._inbox) >= READ_AHEAD)
        holder = Holder(await leg.detach())
        self.addCleanup(holder.close)
        self.assertGreaterEqual(len(holder.unread), READ_AHEAD)
        self.assertEqual(await in_thread(holder.receive, len(sent)), sent)
        await sending

    async def test_a_connection_that_its_peer_has_ended_can_be_detached(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"last words")
        peer.finish()
        await leg.ended()
        holder = Holder(await leg.detach())
        self.addCleanup(holder.close)
        self.assertEqual(await in_thread(holder.receive, 10), b"last words")
        await in_thread(holder.send, b"answer")
        self.assertEqual(await peer.receive(6), b"answer")

    async def test_a_lost_connection_cannot_be_detached(self) -> None:
        leg, _ = await self.pair()
        leg.write(bytes(50 << 20))
        detaching = leg.detach()
        self.assertRaises(RuntimeError, leg.detach)
        leg.abort()
        self.assertIsNone(await detaching)
        self.assertIsNone(await leg.detach())

    async def test_a_closed_leg_cannot_be_detached(self) -> None:
        leg, _ = await self.pair()
        leg.close(PATIENCE)
        self.assertIsNone(await leg.detach())

    async def test_giving_up_a_detach_aborts_the_leg(self) -> None:
        leg, peer = await self.pair()
        leg.write(bytes(50 << 20))
        detaching = leg.detach()
        detaching.cancel()
        await self.assertFailure(detaching, CancelledError)
        await leg.gone()
        peer.close()


class Holder:
    """Who holds a detached connection: blocking, in a thread, with the TLS state as it was handed out."""

    def __init__(self, detached: Detached | None) -> None:
        assert detached is not None
        self.tls = detached.tls
        self.unread = detached.unread
        self._sock = socket.socket(fileno=detached.fd)
        self._sock.settimeout(PATIENCE)
        self._plain = bytearray(detached.unread)
        self._ciphertext = detached.unread_ciphertext

    def send(self, data: bytes) -> None:
        if self.tls is None:
            self._sock.sendall(data)
            return
        for start in range(0, len(data), 16384):
            self.tls.sendall(data[start : start + 16384])
            self._sock.sendall(self.tls.bio_read(65536))

    def receive(self, size: int) -> bytes:
        while len(self._plain) < size and self._receive_more():
            pass
        data = bytes(self._plain[:size])
        del self._plain[:size]
        return data

    def exchange(self, data: bytes, size: int) -> bytes:
        self.send(data)  # small enough for the peer's buffers
        return self.receive(size)

    def _receive_more(self) -> bool:
        if self.tls is None:
            more = self._sock.recv(65536)
            self._plain += more
            return bool(more)
        try:
            self._plain += self.tls.recv(65536)
            return True
        except SSL.WantReadError:
            ciphertext, self._ciphertext = self._ciphertext or self._sock.recv(65536), b""
            if ciphertext:
                self.tls.bio_write(ciphertext)
            return bool(ciphertext)

    def close(self) -> None:
        self._sock.close()


class LossSuite(Base):
    """What holds for connections that break. A unix socket breaks when its peer closes it with bytes unread."""

    kind = Kind()

    async def pair(self, **options: Any) -> tuple[Leg, Peer]:
        return await pair(self, self.kind, **options)

    async def break_off(self, leg: Leg, peer: Peer) -> None:
        """Have the peer be gone as if it had crashed."""
        if self.kind.via == "unix":
            leg.write(b"never read")
            await until(lambda: select.select([peer.sock], [], [], 0)[0])
        peer.reset()

    async def test_a_lost_connection_is_read_to_its_end(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"last words")
        self.assertEqual(await read_exactly(leg, 10), b"last words")
        await self.break_off(leg, peer)
        self.assertEqual(await leg.read(), b"")
        self.assertIs(leg.end, End.LOST)
        self.assertTrue(leg.end_detail)
        await leg.gone()
        leg.write(b"nobody")
        leg.close(PATIENCE)
        self.assertIsNone(await leg.detach())

    async def test_what_was_read_ahead_of_the_loss_can_still_be_read(self) -> None:
        leg, peer = await self.pair()
        await peer.send(b"last words")
        await until(lambda: len(leg._inbox) == 10)
        await self.break_off(leg, peer)
        await leg.gone()
        self.assertIs(leg.end, End.LOST)
        self.assertEqual(await leg.read(), b"last words")
        self.assertEqual(await leg.read(), b"")

    async def test_a_sink_hears_of_the_loss_once(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        leg.push_to(sink)
        await self.break_off(leg, peer)
        await sink.ended
        leg.abort()
        await leg.gone()
        self.assertEqual(sink.said, [End.LOST])

    async def test_a_loss_that_a_paused_leg_notices_by_writing_is_told_at_once_behind_the_last_byte(self) -> None:
        leg, peer = await self.pair()
        sink = RecordingSink(leg)
        sink.pause_after = 1
        await peer.send(b"x" * 50_000)
        leg.unread(await read_exactly(leg, 50_000))
        leg.pause()
        leg.push_to(sink)
        leg.write(bytes(20 << 20))
        await self.break_off(leg, peer)
        await sink.ended
        self.assertEqual((len(sink.received), sink.said[-2:]), (50_000, ["received", End.LOST]))

    async def test_a_peer_that_is_lost_while_the_leg_closes_ends_it(self) -> None:
        clock = Clock()
        leg, peer = await self.pair(clock=clock)
        leg.write(bytes(20 << 20))
        leg.close(60)
        await self.break_off(leg, peer)
        await leg.gone()
        self.assertIs(leg.end, End.OURS)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_a_connection_that_is_lost_while_it_is_detached_is_none(self) -> None:
        leg, peer = await self.pair()
        leg.write(bytes(20 << 20))
        detaching = leg.detach()
        await self.break_off(leg, peer)
        self.assertIsNone(await detaching)


class TlsSuite(Base):
    """What holds for legs with TLS alone."""

    kind = Kind(tls="tls1.3")

    async def connect(self, **options: Any) -> tuple[Leg, Peer]:
        return await connect(self, self.kind, **options)

    def start_peer(self, peer: Peer) -> "Deferred[None]":
        assert self.kind.tls is not None
        return peer.start_tls(their_context(self.kind.tls, self.kind.dialled), self.kind.dialled)

    async def test_what_is_written_before_the_handshake_is_sent_after_it_in_order(self) -> None:
        leg, peer = await self.connect()
        leg.write(b"first ")
        leg.write(b"second ")
        leg.secure().addCallback(lambda _: leg.write(b"third"))
        await self.start_peer(peer)
        self.assertEqual(await peer.receive(18), b"first second third")

    async def test_nothing_is_sent_to_a_peer_that_does_not_prove_its_identity(self) -> None:
        asked: list[SSL.Connection] = []

        def verify(connection: SSL.Connection) -> str:
            asked.append(connection)
            return "not the one I know"

        leg, peer = await self.connect(verify=verify)
        leg.write(b"secret")
        self.start_peer(peer).addErrback(lambda failure: failure.trap(OSError))
        self.assertFalse(await leg.secure())
        self.assertEqual((leg.end, leg.end_detail, len(asked)), (End.UNTRUSTED, "not the one I know", 1))
        self.assertEqual(await leg.read(), b"")
        leg.close(PATIENCE)
        self.assertFalse(await leg.secure())
        self.assertIsNone(await leg.detach())

    async def test_a_verifier_that_raises_costs_its_leg_alone(self) -> None:
        leg, peer = await self.connect(verify=lambda connection: str(1 / 0))
        leg.write(b"secret")
        self.start_peer(peer).addErrback(lambda failure: failure.trap(OSError))
        self.assertFalse(await leg.secure())
        await leg.gone()
        self.assertIs(leg.end, End.LOST)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_a_verified_peer_can_be_spoken_to(self) -> None:
        leg, peer = await self.connect(verify=lambda connection: None)
        shaken = self.start_peer(peer)
        self.assertTrue(await leg.secure())
        await shaken
        leg.write(b"hello")
        self.assertEqual(await peer.receive(5), b"hello")

    async def test_garbage_instead_of_a_handshake_is_answered_with_an_alert(self) -> None:
        leg, peer = await self.connect()
        await peer.send(b"\x16\x03\x01\x00\x05hello")
        self.assertFalse(await leg.secure())
        self.assertIs(leg.end, End.BROKEN)
        self.assertTrue(leg.end_detail)
        leg.close(PATIENCE)
        said, how = await peer.receive_all()
        self.assertEqual((said[-7:-5], how), (ALERT, "clean"))
        peer.close()
        await leg.gone()

    async def test_plain_http_instead_of_a_handshake_is_called_so(self) -> None:
        leg, peer = await self.connect()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" if self.kind.dialled else b"GET / HTTP/1.0\r\n\r\n")
        self.assertFalse(await leg.secure())
        self.assertIs(leg.end, End.BROKEN)
        self.assertIn("wrong version number" if self.kind.dialled else "http request", leg.end_detail)

    async def test_a_peer_that_leaves_during_the_handshake_has_closed(self) -> None:
        leg, peer = await self.connect()
        secure, reading = leg.secure(), leg.read()
        peer.finish()
        self.assertEqual((await secure, await reading, leg.end), (False, b"", End.CLOSED))

    async def test_closing_during_the_handshake_aborts(self) -> None:
        clock = Clock()
        leg, peer = await self.connect(clock=clock)
        leg.write(b"never sent")
        secure = leg.secure()
        leg.close(60)
        self.assertFalse(await secure)
        await leg.gone()
        self.assertEqual(clock.getDelayedCalls(), [])
        _, how = await peer.receive_all()
        self.assertIn(how, ("reset", "clean"))

    async def test_waiting_for_the_handshake_can_be_given_up(self) -> None:
        leg, peer = await self.connect()
        secure = leg.secure()
        secure.cancel()
        await self.assertFailure(secure, CancelledError)
        await self.start_peer(peer)
        self.assertTrue(await leg.secure())

    async def test_a_leg_cannot_be_detached_before_the_handshake(self) -> None:
        leg, _ = await self.connect()
        self.assertRaises(RuntimeError, leg.detach)

    async def test_what_came_before_a_broken_record_is_read_and_the_peer_is_told(self) -> None:
        leg, peer = await pair(self, self.kind)
        await peer.send(b"good")
        self.assertEqual(await read_exactly(leg, 4), b"good")
        bare = peer.bare
        self.addCleanup(bare.close)
        bare.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.assertEqual(await leg.read(), b"")
        self.assertIs(leg.end, End.BROKEN)
        leg.write(b"no more")
        leg.close(PATIENCE)
        failure = await self.assertFailure(peer.receive(1), ssl.SSLError)
        self.assertIn("alert", str(failure).lower())
        self.assertIsNone(await leg.detach())

    async def test_bytes_without_a_goodbye_are_all_read(self) -> None:
        leg, peer = await pair(self, self.kind)
        sink = RecordingSink(leg)
        sink.pause_after = 1  # most of what the peer sent is ciphertext still when its FIN is read
        leg.push_to(sink)
        await peer.send(b"x" * 60_000)
        peer.finish()
        while not sink.ended.called:
            await until(lambda: sink.ended.called or leg._paused)
            leg.resume()
        self.assertEqual((len(sink.received), sink.said[-1]), (60_000, End.CLOSED))


ALERT = b"\x15\x03"
"""How a TLS record of seven bytes with an alert begins (RFC 8446 sections 5.1 and 6)."""


class PlainTcpAcceptedTests(LegSuite, LossSuite, TestCase):
    pass


class PlainTcpDialledTests(LegSuite, LossSuite, TestCase):
    kind = Kind(dialled=True)


class PlainUnixAcceptedTests(LegSuite, LossSuite, TestCase):
    kind = Kind(via="unix")


class PlainUnixDialledTests(LegSuite, LossSuite, TestCase):
    kind = Kind(via="unix", dialled=True)


class PlainHaproxyTests(LegSuite, LossSuite, TestCase):
    kind = Kind(via="haproxy")


class Tls12TcpAcceptedTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("tls1.2")


class Tls12TcpDialledTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("xapi", dialled=True)


class Tls13TcpAcceptedTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("tls1.3")


class Tls13TcpDialledTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("tls1.3", dialled=True)


class Tls13UnixAcceptedTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("tls1.3", via="unix")


class Tls13UnixDialledTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("tls1.3", via="unix", dialled=True)


class Tls13HaproxyTests(LegSuite, LossSuite, TlsSuite, TestCase):
    kind = Kind("tls1.3", via="haproxy")


class HaproxyTests(TestCase):
    async def test_the_peer_is_the_one_that_the_proxy_announced(self) -> None:
        leg, peer = await pair(self, Kind(via="haproxy"))
        await peer.send(b"x")
        await leg.read()
        self.assertEqual(leg.peer, IPv4Address("TCP", "192.0.2.7", 4711))

    async def test_a_peer_that_does_not_speak_the_proxy_protocol_is_closed(self) -> None:
        accepted: Deferred[Leg] = Deferred()
        port = await listen(Kind(), "haproxy:tcp:0:interface=127.0.0.1", accepted.callback)
        peer = Peer(await in_thread(socket.create_connection, ("127.0.0.1", port.getHost().port)))
        leg = await accepted
        await port.stopListening()
        await peer.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(await leg.read(), b"")
        self.assertIs(leg.end, End.CLOSED)
        await leg.gone()
        peer.close()


class SocketTests(TestCase):
    async def test_small_writes_are_sent_at_once_and_absent_peers_are_noticed(self) -> None:
        for kind in (Kind(), Kind(dialled=True), Kind(via="haproxy")):
            leg, _ = await pair(self, kind)
            sock = leg._bottom.socket
            self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 60)
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 120_000)

    async def test_a_leg_can_be_aborted_as_soon_as_it_is_connected(self) -> None:
        for tls in (None, "tls1.3"):
            accepted: list[Leg] = []

            def turn_away(leg: Leg, accepted: list[Leg] = accepted) -> None:
                accepted.append(leg)
                leg.abort()

            port = await listen(Kind(tls), "tcp:0:interface=127.0.0.1", turn_away)
            peer = Peer(await in_thread(socket.create_connection, ("127.0.0.1", port.getHost().port)))
            self.assertEqual((await peer.receive_all())[0], b"")
            peer.close()
            (leg,) = accepted
            await leg.gone()
            self.assertIs(leg.end, End.OURS)
            await port.stopListening()
