"""`xvpd.net.tls`: certificates from files, and what every context has in common."""

import contextlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Identity, carry, handshake, make_identity
from xvpd.net.tls import ServerTls, TlsError, client_context, explain, read_certificates


def _client() -> SSL.Connection:
    connection = SSL.Connection(client_context(), None)
    connection.set_connect_state()
    return connection


def _shown_by(server: SSL.Connection) -> str:
    """The common name of the certificate that a client sees."""
    client = _client()
    handshake(client, server)
    certificate = client.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate.subject.rfc4514_string()


class ServerTlsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.identity = make_identity("console.example.org", common_name="first")
        self.certificate_file, self.key_file = self.identity.write(self.mktemp())

    def make(self) -> ServerTls:
        return ServerTls(self.certificate_file, self.key_file)

    def replace(self, identity: Identity) -> None:
        Path(self.certificate_file).write_bytes(identity.certificate_pem)
        Path(self.key_file).write_bytes(identity.key_pem)

    def complaint(self) -> str:
        text = str(self.assertRaises(TlsError, self.make))
        self.assertEqual(len(text.splitlines()), 1)
        return text

    def test_shows_the_certificate(self) -> None:
        self.assertEqual(_shown_by(self.make().connection()), "CN=first")

    def test_shows_the_chain_behind_the_certificate(self) -> None:
        authority = make_identity(common_name="authority", authority=True)
        signed = make_identity("console.example.org", issuer=authority)
        self.replace(signed)
        Path(self.certificate_file).write_bytes(signed.certificate_pem + authority.certificate_pem)
        client = _client()
        handshake(client, self.make().connection())
        chain = client.get_peer_cert_chain(as_cryptography=True)
        self.assertEqual(chain, [signed.certificate, authority.certificate])

    def test_reload_changes_the_connections_to_come(self) -> None:
        server = self.make()
        before = server.connection()
        self.replace(make_identity("console.example.org", common_name="second"))
        server.reload()
        self.assertEqual(_shown_by(before), "CN=first")
        self.assertEqual(_shown_by(server.connection()), "CN=second")

    def test_reload_of_a_bad_file_changes_nothing(self) -> None:
        server = self.make()
        Path(self.certificate_file).write_bytes(b"half of a certif")
        self.assertRaises(TlsError, server.reload)
        self.assertEqual(_shown_by(server.connection()), "CN=first")

    def test_refuses_renegotiation(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client, server = SSL.Connection(context, None), self.make().connection()
        client.set_connect_state()
        handshake(client, server)
        client.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        self.assertTrue(client.renegotiate_pending())
        carry(client, server)
        self.assertRaises(SSL.WantReadError, server.recv, 1)
        carry(server, client)  # a warning, no_renegotiation, which is the end for the client
        error = self.assertRaises(SSL.Error, client.do_handshake)
        self.assertEqual(explain(error), "no renegotiation")

    def test_refuses_what_is_older_than_tls_1_2(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        client = SSL.Connection(context, None)
        client.set_connect_state()
        self.assertRaises(SSL.Error, handshake, client, self.make().connection())

    def test_a_missing_file_is_named(self) -> None:
        Path(self.key_file).unlink()
        self.assertEqual(self.complaint(), f"{self.key_file}: No such file or directory")

    def test_an_unreadable_file_is_named(self) -> None:
        Path(self.certificate_file).unlink()
        os.mkdir(self.certificate_file)  # permissions do not stop root, under which tests may run
        self.assertEqual(self.complaint(), f"{self.certificate_file}: Is a directory")

    def test_a_certificate_that_is_none_is_named(self) -> None:
        Path(self.certificate_file).write_bytes(self.identity.key_pem)
        self.assertEqual(self.complaint(), f"{self.certificate_file}: this is not a certificate in PEM form")

    def test_a_key_that_is_none_is_named(self) -> None:
        Path(self.key_file).write_bytes(self.identity.certificate_pem)
        self.assertEqual(self.complaint(), f"{self.key_file}: this is not a private key in PEM form")

    def test_an_encrypted_key_is_named(self) -> None:
        Path(self.key_file).write_bytes(self.identity.encoded_key(BestAvailableEncryption(b"secret")))
        self.assertIn(f"{self.key_file}: this private key is encrypted", self.complaint())

    def test_a_key_of_another_certificate_is_named(self) -> None:
        Path(self.key_file).write_bytes(make_identity().key_pem)
        self.assertIn(self.key_file, self.complaint())
        self.assertIn("is not that of the certificate", self.complaint())

    def test_a_key_that_is_too_small_is_named(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # below what OpenSSL takes for secure
        self.replace(make_identity(key=key))
        self.assertIn(f"{self.certificate_file}: TLS cannot use this certificate: ", self.complaint())

    def test_a_key_of_another_kind_is_named(self) -> None:
        other = ed25519.Ed25519PrivateKey.generate()
        Path(self.key_file).write_bytes(Identity(self.identity.certificate, other).key_pem)  # type: ignore[arg-type]
        self.assertIn("is not that of the certificate", self.complaint())


class ClientContextTests(SynchronousTestCase):
    def test_refuses_renegotiation(self) -> None:
        context = client_context()
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client, server = SSL.Connection(context, None), make_identity().accepting()
        client.set_connect_state()
        handshake(client, server)
        server.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            server.do_handshake()
        carry(server, client)  # HelloRequest
        self.assertRaises(SSL.WantReadError, client.recv, 1)
        carry(client, server)  # a warning, no_renegotiation, which is the end for the server
        error = self.assertRaises(SSL.Error, server.recv, 1)
        self.assertEqual(explain(error), "no renegotiation")

    def test_speaks_what_a_host_speaks(self) -> None:
        """stunnel on a host takes TLS 1.2, ECDHE with AES-GCM and P-384, and nothing else."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"ECDHE-ECDSA-AES256-GCM-SHA384")
        identity = make_identity()
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        server = SSL.Connection(context, None)
        server.set_accept_state()
        client = _client()
        handshake(client, server)
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.2")


class ReadCertificatesTests(SynchronousTestCase):
    def test_reads_all_in_order(self) -> None:
        identities = [make_identity(), make_identity()]
        path = Path(self.mktemp())
        path.write_bytes(b"".join(each.certificate_pem for each in identities))
        self.assertEqual(read_certificates(str(path)), [each.certificate for each in identities])

    def test_an_empty_file_is_named(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"")
        self.assertEqual(
            str(self.assertRaises(TlsError, read_certificates, str(path))), f"{path}: this is not a certificate in PEM form"
        )
