"""Certificates for tests: an authority, and what it signs. Keys are on P-256 by default, which cost nothing to make."""

import contextlib
import datetime
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.encoded_key(serialization.NoEncryption())

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex, lower case."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def encoded_key(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def write(self, directory: str) -> tuple[str, str]:
        """Put both into a new directory, and name the files: certificate, key."""
        Path(directory).mkdir()
        certificate, key = Path(directory) / "cert.pem", Path(directory) / "key.pem"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem)
        return str(certificate), str(key)

    def accepting(self) -> SSL.Connection:
        """A fresh connection in accept state that shows this certificate."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        return connection


def make_identity(
    *names: str,
    common_name: str = "test",
    issuer: Identity | None = None,
    authority: bool = False,
    days: int = 1,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    key: Key | None = None,
) -> Identity:
    """A certificate for ``names`` (DNS names and IP addresses alike; none: no subject alternative name at all), signed by
    ``issuer`` or by itself. Negative ``days`` make one that has expired."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=abs(days)) - _HOUR)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def handshake(ours: SSL.Connection, theirs: SSL.Connection) -> None:
    """Let two connections without sockets finish their handshake, or raise what either of them raises."""
    unfinished = {ours, theirs}
    while unfinished:
        for this, other in ((ours, theirs), (theirs, ours)):
            try:
                this.do_handshake()
                unfinished.discard(this)
            except SSL.WantReadError:
                pass
            finally:
                carry(this, other)


def carry(source: SSL.Connection, target: SSL.Connection) -> None:
    """Give ``target`` what ``source`` has to send."""
    with contextlib.suppress(SSL.WantReadError):
        target.bio_write(source.bio_read(65536))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
