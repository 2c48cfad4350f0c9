"""`xvpd.xen.trust`: who is believed to be a host, on legs and in the SDK's threads alike."""

import socket
import ssl
import threading
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Identity, carry, handshake, make_identity
from xvpd.net.tls import TlsError
from xvpd.xen.trust import Authority, Check, Pins, Plain, Trust, UntrustedError

HOST = "10.0.0.11"
GONE = frozenset({"ab" * 32})


class _Host:
    """A TLS server in a thread, on one end of a pair of sockets. It notes what it read and the name it was asked for."""

    def __init__(self, identity: Identity, test: SynchronousTestCase) -> None:
        directory = test.mktemp()
        self.read: bytes | None = None
        self.asked_for: str | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*identity.write(directory))
        self._context.sni_callback = self._note_name
        self.client, self._server = socket.socketpair()
        self.client.settimeout(10)
        self._server.settimeout(10)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        test.addCleanup(self.end)

    def end(self) -> None:
        self.client.close()
        self._thread.join()

    def _note_name(self, _: object, name: str | None, context: object) -> None:
        self.asked_for = name

    def _serve(self) -> None:
        with self._server:
            try:
                with self._context.wrap_socket(self._server, server_side=True) as secured:
                    self.read = secured.recv(100)
            except OSError:
                pass


class TrustTestsMixin:
    """What is believed must be the same in both worlds: ``problem_of`` says what is wrong with a host that shows ``identity``
    when it was dialled at ``address``."""

    def problem_of(self, trust: Trust, identity: Identity, address: str) -> str | None:
        raise NotImplementedError

    def authority(self, issuer: Identity) -> Authority:
        path = Path(self.mktemp())  # type: ignore[attr-defined]
        path.write_bytes(issuer.certificate_pem)
        return Authority(str(path))

    def issuer(self) -> Identity:
        return make_identity(common_name="authority", authority=True)

    def assert_believed(self, trust: Trust, identity: Identity, address: str) -> None:
        problem = self.problem_of(trust, identity, address)
        assert problem is None, problem

    def assert_doubted(self, trust: Trust, identity: Identity, address: str, *words: str) -> None:
        problem = self.problem_of(trust, identity, address)
        assert problem is not None
        for word in (address, *words):
            assert word in problem, problem

    def test_a_pinned_certificate_needs_no_name_and_no_date(self) -> None:
        for identity in (make_identity(), make_identity("elsewhere"), make_identity(HOST, days=-1)):
            self.assert_believed(Pins(frozenset({identity.fingerprint})), identity, HOST)

    def test_any_pin_of_the_set_will_do(self) -> None:
        identity = make_identity()
        self.assert_believed(Pins(GONE | {identity.fingerprint}), identity, HOST)

    def test_pins_are_read_in_the_form_that_openssl_prints(self) -> None:
        identity = make_identity()
        printed = identity.certificate.fingerprint(identity.certificate.signature_hash_algorithm).hex(":").upper()  # type: ignore[arg-type]
        self.assert_believed(Pins(frozenset({printed})), identity, HOST)

    def test_another_certificate_than_the_pinned_is_doubted_and_both_are_named(self) -> None:
        identity = make_identity(HOST)
        shown = bytes.fromhex(identity.fingerprint).hex(":").upper()
        self.assert_doubted(Pins(GONE), identity, HOST, shown, ":".join(["AB"] * 32))

    def test_a_listed_host_may_show_what_the_operator_wrote_or_what_was_learnt(self) -> None:
        written, learnt = make_identity(), make_identity()
        pins = Pins(frozenset({written.fingerprint}), [HOST])
        pins.learn({HOST: learnt.fingerprint})
        self.assert_believed(pins, written, HOST)
        self.assert_believed(pins, learnt, HOST)
        self.assert_doubted(pins, learnt, "10.0.0.12")

    def test_a_host_that_is_not_listed_has_to_show_what_was_learnt_of_it(self) -> None:
        written, learnt = make_identity(), make_identity()
        pins = Pins(frozenset({written.fingerprint}), [HOST])
        self.assert_believed(pins, written, "fd00::12")
        pins.learn({"fd00::12": learnt.fingerprint})
        self.assert_believed(pins, learnt, "fd00::12")
        self.assert_doubted(pins, written, "FD00:0::12")
        pins.learn({})
        self.assert_doubted(pins, learnt, "fd00::12")

    def test_no_pins_believe_nobody(self) -> None:
        self.assert_doubted(Pins(frozenset()), make_identity(HOST), HOST)

    def test_an_authority_and_the_right_address(self) -> None:
        issuer = self.issuer()
        for name in (HOST, "fd00::11", "xen-1.example.org"):
            self.assert_believed(self.authority(issuer), make_identity("other", name, issuer=issuer), name)

    def test_a_self_signed_certificate_in_the_file(self) -> None:
        identity = make_identity(HOST)
        self.assert_believed(self.authority(identity), identity, HOST)

    def test_an_authority_and_another_address_is_doubted(self) -> None:
        issuer = self.issuer()
        self.assert_doubted(self.authority(issuer), make_identity("10.0.0.12", issuer=issuer), HOST)
        self.assert_doubted(self.authority(issuer), make_identity("xen-2", issuer=issuer), "xen-1")

    def test_the_common_name_is_no_name(self) -> None:
        issuer = self.issuer()
        self.assert_doubted(self.authority(issuer), make_identity(common_name=HOST, issuer=issuer), HOST)
        self.assert_doubted(self.authority(issuer), make_identity(common_name="xen-1", issuer=issuer), "xen-1")

    def test_an_address_written_as_a_dns_name_is_no_ip_address(self) -> None:
        issuer = self.issuer()
        self.assert_doubted(self.authority(issuer), make_identity("xen-1", common_name=HOST, issuer=issuer), HOST)

    def test_another_authority_is_doubted(self) -> None:
        self.assert_doubted(self.authority(self.issuer()), make_identity(HOST, issuer=self.issuer()), HOST)

    def test_a_self_signed_certificate_is_doubted(self) -> None:
        self.assert_doubted(self.authority(self.issuer()), make_identity(HOST), HOST, "self")

    def test_an_expired_certificate_is_doubted(self) -> None:
        issuer = self.issuer()
        self.assert_doubted(self.authority(issuer), make_identity(HOST, issuer=issuer, days=-1), HOST, "expired")

    def test_a_certificate_for_clients_is_doubted(self) -> None:
        issuer = self.issuer()
        identity = make_identity(HOST, issuer=issuer, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        self.assert_doubted(self.authority(issuer), identity, HOST)


class LegTests(TrustTestsMixin, SynchronousTestCase):
    def problem_of(self, trust: Trust, identity: Identity, address: str) -> str | None:
        made = trust.leg_tls(address)
        assert made is not None
        connection, check = made
        server = identity.accepting()
        try:
            handshake(connection, server)
        except SSL.Error:
            return check.problem
        problem = check.verify(connection)
        self.assertEqual(check.problem, problem)
        return problem

    def hello_to(self, address: str) -> tuple[SSL.Connection, SSL.Connection, Check]:
        """A connection to ``address`` and its server, which has read the first message."""
        identity = make_identity(address)
        made = Pins(frozenset({identity.fingerprint})).leg_tls(address)
        assert made is not None
        connection, check = made
        server = identity.accepting()
        self.assertRaises(SSL.WantReadError, connection.do_handshake)
        carry(connection, server)
        self.assertRaises(SSL.WantReadError, server.do_handshake)
        return connection, server, check

    def test_a_name_is_asked_for_and_an_address_is_not(self) -> None:
        self.assertEqual(self.hello_to("xen-1")[1].get_servername(), b"xen-1")
        self.assertIsNone(self.hello_to(HOST)[1].get_servername())

    def test_the_host_hears_from_an_alert_that_its_authority_is_not_trusted(self) -> None:
        made = self.authority(self.issuer()).leg_tls(HOST)
        server = make_identity(HOST).accepting()
        assert made is not None
        self.assertRaises(SSL.Error, handshake, made[0], server)
        carry(made[0], server)
        self.assertRaises(SSL.Error, server.do_handshake)

    def test_a_check_does_not_keep_its_connection(self) -> None:
        """The verification is asked for once; it must not be what keeps a connection's memory."""
        made = self.authority(self.issuer()).leg_tls(HOST)
        assert made is not None
        self.assertNotIn(made[0], vars(made[1]).values())


class SocketTests(TrustTestsMixin, SynchronousTestCase):
    def problem_of(self, trust: Trust, identity: Identity, address: str) -> str | None:
        host = _Host(identity, self)
        try:
            secured = trust.secured(host.client, address)
        except UntrustedError as error:
            host.end()
            self.assertFalse(host.read)
            return str(error)
        with secured:
            secured.sendall(b"hello")
        host.end()
        self.assertEqual(host.read, b"hello")
        return None

    def test_a_name_is_asked_for_and_an_address_is_not(self) -> None:
        for address, asked_for in (("xen-1", "xen-1"), (HOST, None)):
            identity = make_identity(address)
            host = _Host(identity, self)
            Pins(frozenset({identity.fingerprint})).secured(host.client, address).close()
            host.end()
            self.assertEqual(host.asked_for, asked_for)

    def test_no_socket_is_left_open_when_it_is_doubted(self) -> None:
        for trust in (Pins(GONE), self.authority(self.issuer())):
            host = _Host(make_identity(HOST), self)
            self.assertRaises(UntrustedError, trust.secured, host.client, HOST)
            self.assertEqual(host.client.fileno(), -1)
            host.end()  # would wait for a socket that is still open


class KnowingTests(SynchronousTestCase):
    def test_who_may_be_a_coordinator_that_nobody_listed(self) -> None:
        pins = Pins(frozenset({"ab" * 32}), [HOST])
        self.assertFalse(pins.knows(HOST))
        pins.learn({"fd00::12": "ab" * 32})
        self.assertTrue(pins.knows("FD00:0::12"))
        self.assertFalse(pins.knows(HOST))
        self.assertFalse(Plain().knows(HOST))


class PlainTests(SynchronousTestCase):
    def test_there_is_no_tls(self) -> None:
        trust: Trust = Plain()
        self.assertIsNone(trust.leg_tls(HOST))
        with socket.socket() as connected:
            self.assertIs(trust.secured(connected, HOST), connected)


class AuthorityFileTests(SynchronousTestCase):
    def complaint(self, content: bytes | None) -> str:
        """What is said about a file with this content, after its name."""
        path = Path(self.mktemp())
        if content is not None:
            path.write_bytes(content)
        name, _, text = str(self.assertRaises(TlsError, Authority, str(path))).partition(": ")
        self.assertEqual(name, str(path))
        self.assertEqual(len(text.splitlines()), 1)
        return text

    def test_a_file_that_is_missing(self) -> None:
        self.assertEqual(self.complaint(None), "No such file or directory")

    def test_a_file_without_authorities(self) -> None:
        self.assertEqual(self.complaint(b""), "this is not a certificate in PEM form")

    def test_a_file_with_more_than_authorities(self) -> None:
        revocations = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
        self.assertIn("TLS cannot use", self.complaint(make_identity(authority=True).certificate_pem + revocations))
