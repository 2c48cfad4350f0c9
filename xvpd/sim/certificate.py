"""Self-signed certificates such as XenServer's hosts make for themselves: RSA of 2048 bits, ten years, the management address
as common name and, since xapi 22.6, as subject alternative name."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, both PEM."""

    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)

    @property
    def fingerprint_sha256(self) -> str:
        """SHA-256 over the DER form: ``AB:CD:…``, as browsers and openssl print it."""
        digest = x509.load_pem_x509_certificate(self.certificate_pem).fingerprint(hashes.SHA256())
        return ":".join(f"{byte:02X}" for byte in digest)


def self_signed(names: list[str], now: datetime, days: int = 3650) -> Certificate:
    """A new key, and a certificate for it that names each of ``names``, DNS names and IP addresses alike.

    Valid from an hour before ``now`` (aware) until ``days`` after it. Negative days make a certificate that has expired.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    ends = now + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends - timedelta(days=1)) - timedelta(hours=1))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
