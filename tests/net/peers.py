"""Who is at the other end of a leg: blocking sockets of the standard library, each call in a thread of the reactor's pool.

No peer waits for ever: a socket that nothing comes from for `PATIENCE` seconds raises `TimeoutError`.
"""

import datetime
import functools
import hashlib
import select
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.certificates import make_identity

T = TypeVar("T")

PATIENCE = 30.0
TLS = {
    "tls1.2": (SSL.TLS1_2_VERSION, ssl.TLSVersion.TLSv1_2),
    "tls1.3": (SSL.TLS1_3_VERSION, ssl.TLSVersion.TLSv1_3),
    "xapi": (SSL.TLS1_2_VERSION, ssl.TLSVersion.TLSv1_2),
}
"""What is spoken: one version, or 1.2 as xapi offers it (ECDHE-RSA-AES256-GCM-SHA384, P-384, RSA-2048)."""


@functools.cache
def certificate() -> str:
    """A PEM file with a key on P-256 and its certificate."""
    identity = make_identity("localhost")
    return _file("p256.pem", identity.key_pem + identity.certificate_pem)


@functools.cache
def rsa_certificate() -> str:
    """A PEM file with an RSA key of 2048 bits and its self-signed certificate, as hosts of a pool have them."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return _file("rsa.pem", pem + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _file(name: str, content: bytes) -> str:
    path = Path(tempfile.mkdtemp(dir=".")).absolute() / name
    path.write_bytes(content)
    return str(path)


@functools.cache
def our_context(version: str, server: bool) -> SSL.Context:
    """What a leg's connection is made from."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_min_proto_version(TLS[version][0])
    context.set_max_proto_version(TLS[version][0])
    if server:
        context.use_certificate_file(certificate())
        context.use_privatekey_file(certificate())
    return context


def our_connection(version: str | None, server: bool) -> SSL.Connection | None:
    """A fresh connection for a leg; None for a plain one."""
    if version is None:
        return None
    connection = SSL.Connection(our_context(version, server), None)
    if server:
        connection.set_accept_state()
    else:
        connection.set_connect_state()
    return connection


@functools.cache
def their_context(version: str, server: bool) -> ssl.SSLContext:
    """What a peer's connection is made from."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = TLS[version][1]
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # set by some versions of Python: it takes a truncation for an end
    if version == "xapi":
        context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
        context.set_ecdh_curve("secp384r1")
    if server:
        context.load_cert_chain(rsa_certificate() if version == "xapi" else certificate())
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Peer:
    """One connected peer. How its stream of bytes ends is told in one word: see `receive_all`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    def start_tls(self, context: ssl.SSLContext, server: bool) -> "Deferred[None]":
        """Hold the TLS handshake."""
        return deferToThread(self._start_tls, context, server)

    def _start_tls(self, context: ssl.SSLContext, server: bool) -> None:
        self.sock = context.wrap_socket(self.sock, server_side=server, suppress_ragged_eofs=False)

    def send(self, data: bytes) -> "Deferred[None]":
        """Send all of it."""
        return deferToThread(self.sock.sendall, data)

    def exchange(self, data: bytes, size: int) -> "Deferred[bytes]":
        """Send ``data`` in pieces of all sizes and receive ``size`` bytes, both at once; less when the stream ends before."""
        return deferToThread(self._exchange, data, size)

    def _exchange(self, data: bytes, size: int) -> bytes:
        # One thread for both: OpenSSL's state is not for two at a time.
        received, sent, sizes = bytearray(), 0, Random(len(data))
        piece = b""
        self.sock.setblocking(False)
        while sent < len(data) or len(received) < size:
            piece = piece or data[sent : sent + sizes.choice((1, 17, 1400, 16384, 100_000))]
            writing = [self.sock] if piece else []
            pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
            ready = select.select([self.sock], writing, [], 0 if pending else PATIENCE)
            if not (pending or any(ready)):
                raise TimeoutError
            if pending or ready[0]:
                with suppress(ssl.SSLWantReadError, BlockingIOError):
                    more = self.sock.recv(65536)
                    if not more:
                        break
                    received += more
            if ready[1]:
                with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    written = self.sock.send(piece)
                    sent, piece = sent + written, piece[written:]
        self.sock.settimeout(PATIENCE)
        return bytes(received)

    def receive(self, size: int) -> "Deferred[bytes]":
        """Exactly so many bytes; fewer when the stream ends before."""
        return deferToThread(self._receive, size)

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := self.sock.recv(min(65536, size - len(data)))):
            data += piece
        return bytes(data)

    def receive_hash(self, size: int) -> "Deferred[bytes]":
        """SHA-256 of so many bytes, none of which is kept."""
        return deferToThread(self._receive_hash, size)

    def _receive_hash(self, size: int) -> bytes:
        digest = hashlib.sha256()
        while size and (piece := self.sock.recv(min(65536, size))):
            digest.update(piece)
            size -= len(piece)
        return digest.digest()

    def receive_all(self) -> "Deferred[tuple[bytes, str]]":
        """Everything up to the end, and how it ended: ``clean`` (FIN; with TLS, close_notify), ``truncated`` (FIN without
        close_notify) or ``reset``."""
        return deferToThread(self._receive_all)

    def _receive_all(self) -> tuple[bytes, str]:
        data = bytearray()
        try:
            while piece := self.sock.recv(65536):
                data += piece
        except ConnectionResetError:
            return bytes(data), "reset"
        except ssl.SSLEOFError:
            return bytes(data), "truncated"
        except ssl.SSLError as error:
            if error.reason == "UNEXPECTED_EOF_WHILE_READING":  # the same, from a Python before 3.11.4
                return bytes(data), "truncated"
            raise
        return bytes(data), "clean"

    def goodbye(self) -> "Deferred[None]":
        """End as a good peer does: with TLS, close_notify both ways; then close."""
        return deferToThread(self._goodbye)

    def _goodbye(self) -> None:
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock = self.sock.unwrap()
        self.sock.close()

    def finish(self) -> None:
        """Send no more, and say nothing of it in TLS: a bare FIN."""
        self.bare.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Be gone as a crashed machine is: RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Let go of the socket."""
        self.sock.close()

    @property
    def bare(self) -> socket.socket:
        """The socket below TLS, on a file descriptor of its own."""
        return socket.socket(fileno=socket.dup(self.sock.fileno()))


def in_thread(function: Callable[..., T], *args: Any) -> "Deferred[T]":
    """`deferToThread`, typed."""
    return deferToThread(function, *args)
