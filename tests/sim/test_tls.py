"""Certificates and TLS as real hosts have them."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.sim.pools import SECONDS, PoolCase, trusting
from xvpd.sim.certificate import self_signed
from xvpd.sim.pool import SimulatedPool


def hello(pool: SimulatedPool, context: ssl.SSLContext) -> tuple[str, str, bytes]:
    """Version, cipher and certificate of a handshake. For threads."""
    plain = socket.create_connection(("127.0.0.1", pool.port), SECONDS)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        cipher = connection.cipher()
        assert cipher is not None
        return connection.version() or "", cipher[0], connection.getpeercert(binary_form=True) or b""


class Tls(PoolCase):
    async def test_the_parameters_are_those_of_a_real_host(self) -> None:
        pool = self.pool()
        version, cipher, certificate = await self.in_thread(hello, pool, trusting(pool))
        self.assertEqual((version, cipher), ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"))
        pinned = x509.load_pem_x509_certificate(pool.certificates["127.0.0.1"].certificate_pem)
        self.assertEqual(x509.load_der_x509_certificate(certificate), pinned)

    async def test_the_smaller_cipher_is_there_for_whoever_has_no_other(self) -> None:
        pool = self.pool()
        context = trusting(pool)
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        self.assertEqual((await self.in_thread(hello, pool, context))[1], "ECDHE-RSA-AES128-GCM-SHA256")

    async def test_the_host_chooses_the_cipher(self) -> None:
        pool = self.pool()
        context = trusting(pool)
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384")
        self.assertEqual((await self.in_thread(hello, pool, context))[1], "ECDHE-RSA-AES256-GCM-SHA384")

    async def test_tls_1_3_alone_is_refused(self) -> None:
        pool = self.pool()
        context = trusting(pool)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        await self.assertFailure(self.in_thread(hello, pool, context), ssl.SSLError)

    async def test_p_256_alone_is_refused(self) -> None:
        pool = self.pool()
        context = trusting(pool)
        context.set_ecdh_curve("prime256v1")
        await self.assertFailure(self.in_thread(hello, pool, context), ssl.SSLError)
        context.set_ecdh_curve("secp384r1")
        await self.in_thread(hello, pool, context)

    async def test_other_ciphers_are_refused(self) -> None:
        pool = self.pool()
        context = trusting(pool)
        context.set_ciphers("ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES256-GCM-SHA384:AES256-GCM-SHA384")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        await self.assertFailure(self.in_thread(hello, pool, context), ssl.SSLError)

    async def test_a_host_may_show_a_certificate_that_is_not_its_own(self) -> None:
        pool = self.pool()
        context = trusting(pool)
        pool.present("127.0.0.1", self_signed(["127.0.0.1"], datetime.now(UTC)))
        await self.assertFailure(self.in_thread(hello, pool, context), ssl.SSLCertVerificationError)
        pool.present("127.0.0.1", pool.certificates["127.0.0.1"])
        await self.in_thread(hello, pool, context)

    async def test_a_host_may_get_a_new_certificate(self) -> None:
        pool = self.pool()
        before = pool.fingerprints
        pool.renew_certificate("127.0.0.1", self_signed(["127.0.0.1"], datetime.now(UTC)))
        self.assertNotEqual(pool.fingerprints[0], before[0])
        self.assertEqual(pool.fingerprints[1], before[1])
        await self.in_thread(hello, pool, trusting(pool))

    async def test_an_expired_certificate_is_told_as_that(self) -> None:
        pool = self.pool()
        pool.renew_certificate("127.0.0.1", self_signed(["127.0.0.1"], datetime.now(UTC), days=-1))
        failure = await self.assertFailure(self.in_thread(hello, pool, trusting(pool)), ssl.SSLCertVerificationError)
        self.assertIn("expired", str(failure))


class Certificates(PoolCase):
    def test_it_is_what_a_host_makes_for_itself(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        made = self_signed(["10.0.0.1", "host.example"], now)
        certificate = x509.load_pem_x509_certificate(made.certificate_pem)
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        self.assertEqual((key.key_size, certificate.issuer), (2048, certificate.subject))
        self.assertEqual(certificate.subject.rfc4514_string(), "CN=10.0.0.1")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.IPAddress), [ip_address("10.0.0.1")])
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["host.example"])
        self.assertEqual(certificate.not_valid_after_utc - now, timedelta(days=3650))
        self.assertTrue(certificate.not_valid_before_utc < now)

    def test_the_fingerprint_is_printed_as_elsewhere(self) -> None:
        made = self_signed(["10.0.0.1"], datetime.now(UTC))
        self.assertRegex(made.fingerprint_sha256, r"^([0-9A-F]{2}:){31}[0-9A-F]{2}$")

    def test_the_key_is_not_shown(self) -> None:
        self.assertNotIn("PRIVATE", repr(self_signed(["10.0.0.1"], datetime.now(UTC))))
