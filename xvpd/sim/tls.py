"""TLS as a XenServer host's stunnel does it: version 1.2, ECDHE-RSA-AES-GCM, the curve P-384, and nothing else.

Source: xapi's ocaml/libs/stunnel and scripts/ (``tls_policy``): these very parameters refuse a client that offers TLS 1.3
alone, or P-256 alone.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from xvpd.sim.certificate import Certificate

_CIPHERS = b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"


@implementer(IOpenSSLServerConnectionCreator)
class HostTls:
    """Makes a host's TLS connections; `present` changes the certificate for those to come."""

    def __init__(self, certificate: Certificate) -> None:
        self.present(certificate)

    def present(self, certificate: Certificate) -> None:
        """Show this certificate from now on."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_tmp_ecdh(ec.SECP384R1())
        context.use_certificate(x509.load_pem_x509_certificate(certificate.certificate_pem))
        key = load_pem_private_key(certificate.private_key_pem, None, unsafe_skip_rsa_key_validation=True)  # it is our own
        context.use_privatekey(key)  # type: ignore[arg-type] # an RSA key, as the type of a PEM file cannot say
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        """A fresh connection in accept state."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection
