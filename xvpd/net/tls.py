"""TLS contexts, and a server's certificate that can be changed while it runs.

No context of ours has an info, keylog or message callback, and none lets a peer renegotiate (TLS 1.2 allows it): whoever takes
a connection over from a `Leg` finds no Python in it, and no handshake that begins anew.
"""

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


class TlsError(Exception):
    """A certificate or a key that cannot be used. The text is one line, for an operator: which file, and what is wrong."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """What a listener shows its clients: a certificate with its chain, and the private key, both from PEM files.

    Raises `TlsError`, here and in `reload`.
    """

    def __init__(self, certificate_file: str, key_file: str) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._context = self._load()

    def connection(self) -> SSL.Connection:
        """A fresh connection in accept state, with the certificate that was read last."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """For what Twisted itself wraps in TLS."""
        return self.connection()

    def reload(self) -> None:
        """Read both files again, for the connections to come. Nothing changes when they cannot be used."""
        self._context = self._load()

    def _load(self) -> SSL.Context:
        leaf, *chain = read_certificates(self._certificate_file)
        key = _read_key(self._key_file)
        if key.public_key() != leaf.public_key():
            raise TlsError(f"{self._key_file}: this private key is not that of the certificate in {self._certificate_file}")
        context = _context()
        try:
            context.use_certificate(leaf)
            for each in chain:
                context.add_extra_chain_cert(each)
            context.use_privatekey(key)  # type: ignore[arg-type] # of a kind that certificates have, as it is the certificate's
        except SSL.Error as error:
            raise TlsError(f"{self._certificate_file}: TLS cannot use this certificate: {explain(error)}") from None
        return context


def client_context() -> SSL.Context:
    """A context for connections that we open. It verifies nobody: that is for whoever uses it to set."""
    return _context()


def read_certificates(filename: str) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one, in their order. Raises `TlsError`."""
    try:
        return x509.load_pem_x509_certificates(_read(filename))
    except ValueError:
        raise TlsError(f"{filename}: this is not a certificate in PEM form") from None


def explain(error: Exception) -> str:
    """OpenSSL's words for what went wrong: its errors carry a list of (library, function, reason)."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0]) or "no reason given"
    return str(error) or "no reason given"


def _context() -> SSL.Context:
    context = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    return context


def _read_key(filename: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_read(filename), password=None)
    except TypeError:
        raise TlsError(f"{filename}: this private key is encrypted; xvpd has nobody to ask for its passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"{filename}: this is not a private key in PEM form") from None


def _read(filename: str) -> bytes:
    try:
        return Path(filename).read_bytes()
    except OSError as error:
        raise TlsError(f"{filename}: {error.strerror}") from None
