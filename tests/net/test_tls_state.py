"""`xvpd.net.tls_state`, byte by byte and without a socket."""

import random
from collections.abc import Callable

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.net.peers import our_connection
from xvpd.net.tls_state import BrokenTlsError, TlsState, UntrustedPeerError


class TlsStateTests(SynchronousTestCase):
    """A server's state and a client's, with nothing but bytes between them."""

    version = "tls1.3"

    def setUp(self) -> None:
        self.server, self.client = self.make(server=True), self.make(server=False)

    def make(self, server: bool, verify: Callable[[SSL.Connection], str | None] | None = None) -> TlsState:
        connection = our_connection(self.version, server)
        assert connection is not None
        return TlsState(connection, verify)

    def shake_hands(self, size: int = 65536) -> None:
        """Complete the handshake, in pieces of ``size`` bytes."""
        while not (self.server.secure and self.client.secure):
            for this, other in ((self.client, self.server), (self.server, self.client)):
                self.assertEqual(this.decrypt(), b"")
                sent = b"".join(this.outgoing())
                for start in range(0, len(sent), size):
                    other.receive(sent[start : start + size])
                    self.assertEqual(other.decrypt(), b"")

    def test_a_handshake_in_single_bytes(self) -> None:
        self.shake_hands(size=1)
        self.client.receive(b"".join(self.server.encrypt(b"hello")))
        self.assertEqual(_decrypt_all(self.client), b"hello")

    def test_nothing_comes_of_nothing(self) -> None:
        self.assertEqual(self.client.decrypt(), b"")
        self.shake_hands()
        self.assertEqual((self.client.decrypt(), self.client.encrypt(b"")), (b"", []))

    def test_what_was_to_be_sent_before_the_handshake_is_sent_after_it_in_order(self) -> None:
        self.assertEqual((self.client.encrypt(b"first "), self.client.encrypt(b"second ")), ([], []))
        while not self.client.secure:
            self.client.decrypt()
            self.server.receive(b"".join(self.client.outgoing()))
            self.server.decrypt()
            self.client.receive(b"".join(self.server.outgoing()))
            self.client.decrypt()
        self.server.receive(b"".join(self.client.encrypt(b"third")))
        self.assertEqual(_decrypt_all(self.server), b"first second third")

    def test_a_peer_that_is_not_trusted_is_told_nothing(self) -> None:
        self.client = self.make(server=False, verify=lambda connection: "not the one I know")
        self.client.encrypt(b"secret")
        with self.assertRaises(UntrustedPeerError) as caught:
            self.shake_hands()
        self.assertEqual(str(caught.exception), "not the one I know")
        self.assertEqual((self.client.secure, self.client.outgoing()), (False, []))

    def test_a_peer_is_verified_once_and_by_what_it_showed(self) -> None:
        shown: list[object] = []

        def verify(connection: SSL.Connection) -> None:
            shown.append(connection.get_peer_certificate())

        self.client = self.make(server=False, verify=verify)
        self.shake_hands()
        self.client.receive(b"".join(self.server.encrypt(b"hello")))
        self.assertEqual(_decrypt_all(self.client), b"hello")
        self.assertEqual(len(shown), 1)
        self.assertIsNotNone(shown[0])

    def test_bytes_arrive_however_they_are_cut(self) -> None:
        self.shake_hands()
        cuts = random.Random(1)
        data = cuts.randbytes(300_000)
        sent = b"".join(self.server.encrypt(data))
        received = bytearray()
        while sent:
            size = cuts.choice((1, 5, 1000, 16384, 50_000))
            self.client.receive(sent[:size])
            sent = sent[size:]
            if cuts.random() < 0.7:  # otherwise more arrives before anyone asks
                received += _decrypt_all(self.client)
        received += _decrypt_all(self.client)
        self.assertEqual(bytes(received), data)

    def test_what_was_not_asked_for_is_handed_on_whole(self) -> None:
        self.shake_hands()
        data = random.Random(2).randbytes(200_000)
        self.client.receive(b"".join(self.server.encrypt(data)))
        received = self.client.decrypt() + self.client.decrypt() + self.client.decrypt()
        successor = TlsState(self.client.connection)  # a handshake that is complete is found to be so
        successor.receive(self.client.unread)
        self.assertEqual(received + _decrypt_all(successor), data)

    def test_no_piece_is_much_larger_than_a_record(self) -> None:
        self.shake_hands()
        pieces = self.server.encrypt(bytes(1_000_000))
        self.assertLess(max(map(len, pieces)), 20_000)

    def test_a_goodbye_comes_behind_the_last_byte(self) -> None:
        self.shake_hands()
        self.client.receive(b"".join(self.server.encrypt(b"last words")))
        self.server.goodbye()
        self.client.receive(b"".join(self.server.outgoing()))
        self.assertEqual((self.client.decrypt(), self.client.closed), (b"last words", False))
        self.assertEqual((self.client.decrypt(), self.client.closed), (b"", True))
        self.client.receive(b"never looked at")
        self.assertEqual(self.client.decrypt(), b"")

    def test_after_the_peers_goodbye_one_may_still_speak(self) -> None:
        self.shake_hands()
        self.server.goodbye()
        self.client.receive(b"".join(self.server.outgoing()))
        self.assertEqual(self.client.decrypt(), b"")
        self.server.receive(b"".join(self.client.encrypt(b"answer")))
        self.assertEqual(_decrypt_all(self.server), b"answer")

    def test_garbage_breaks_the_handshake(self) -> None:
        self.server.receive(b"GET / HTTP/1.0\r\n\r\n")
        error = self.assertRaises(BrokenTlsError, self.server.decrypt)
        self.assertIn("http request", str(error))
        self.server.goodbye()

    def test_a_changed_byte_breaks_the_connection(self) -> None:
        self.shake_hands()
        sent = bytearray(b"".join(self.server.encrypt(b"hello")))
        sent[-1] ^= 1
        self.client.receive(bytes(sent))
        self.assertRaises(BrokenTlsError, self.client.decrypt)
        self.server.receive(b"".join(self.client.outgoing()))
        error = self.assertRaises(BrokenTlsError, self.server.decrypt)
        self.assertIn("bad record mac", str(error))

    def test_nothing_can_be_written_to_a_broken_connection(self) -> None:
        self.shake_hands()
        self.client.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.assertRaises(BrokenTlsError, self.client.decrypt)
        self.assertRaises(BrokenTlsError, self.client.encrypt, b"hello")

    def test_a_write_that_takes_less_than_it_is_given_is_gone_on_with(self) -> None:
        class Small:
            """An `SSL.Connection` whose peer wants records of 512 bytes (RFC 6066 section 4)."""

            sent = b""

            def send(self, data: bytes) -> int:
                self.sent += bytes(data[:512])
                return min(len(data), 512)

            def bio_read(self, size: int) -> bytes:
                data, self.sent = self.sent[:size], self.sent[size:]
                if not data:
                    raise SSL.WantReadError
                return data

        data = random.Random(3).randbytes(40_000)
        state = TlsState(Small())  # type: ignore[arg-type]
        state.secure = True
        self.assertEqual(b"".join(state.encrypt(data)), data)

    def test_everything_that_waits_to_be_sent_is_sent(self) -> None:
        self.shake_hands()
        for _ in range(40):
            self.server.connection.send(bytes(5000))
        self.client.receive(b"".join(self.server.outgoing()))
        self.assertEqual(len(_decrypt_all(self.client)), 200_000)


class Tls12StateTests(TlsStateTests):
    version = "tls1.2"


def _decrypt_all(state: TlsState) -> bytes:
    data = bytearray()
    while more := state.decrypt():
        data += more
    return bytes(data)
