"""How a host proves that it is the one that the operator means, before it gets a byte of ours.

A `Trust` serves two worlds: legs, whose TLS is pyOpenSSL's over memory BIOs, and the sockets of the XenAPI SDK's threads,
whose TLS is the standard library's. Both are checked by the same rules:

`Authority`
    The certificate comes from an authority in the operator's file, and its subject alternative name is the address dialled.
`Pins`
    The certificate is one of those whose fingerprints the operator wrote down, or that which the coordinator, having proved
    itself, has named as the member's own. Names and dates in it say nothing: hosts sign their own certificates.
`Plain`
    No TLS at all, as Nova did it on port 80. Anybody on the way can read the password and open every console of the pool.
"""

import socket
import ssl
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Protocol

from OpenSSL import SSL, crypto
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from xvpd.net.tls import TlsError, client_context, explain, read_certificates
from xvpd.xen.syntax import canonical, is_ip

_VERIFY_ERRORS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed, and not in the operator's file",
    19: "its authority is not in the operator's file",
    20: "its authority is not in the operator's file",
    23: "it was revoked",
    26: "it is not for servers",
}
"""X509_V_ERR_* of OpenSSL's x509_vfy.h, the frequent ones."""


class UntrustedError(Exception):
    """The peer did not prove that it is the host that was meant. The text says why, for an operator."""


class Check(Protocol):
    """The verification of one TLS leg."""

    problem: str | None
    """What was wrong with the peer, whether the handshake came to its end or not."""

    def verify(self, connection: SSL.Connection) -> str | None:
        """The problem of a peer whose handshake is complete, or None: what `Leg` asks before it sends anything."""


class Trust(Protocol):
    """How the hosts of one pool prove who they are."""

    scheme: str
    """``https``, or ``http`` when they do not have to."""

    def knows(self, address: str) -> bool:
        """Whether a host that the pool names, and not the operator, could prove at ``address`` that it is the one."""

    def leg_tls(self, address: str) -> tuple[SSL.Connection, Check] | None:
        """A fresh connection in connect state to the host at ``address``, and its verification; None for a plain leg."""

    def secured(self, connected: socket.socket, address: str) -> socket.socket:
        """The socket to read and write once the host at ``address`` has proved itself over ``connected``.

        For threads: blocks, within the socket's own timeout. Raises `UntrustedError`, and OSError as sockets do; then
        ``connected`` is closed or to be closed by the caller.
        """


class Pins:
    """The operator has written down SHA-256 fingerprints (64 hex digits, with colons or without) of the hosts at ``listed``.

    What was learnt of a host comes on top if it is listed, and takes their place if it is not. Until something is learnt of
    it, a host that is not listed may be any of those that the operator means.
    """

    scheme = "https"

    def __init__(self, fingerprints: frozenset[str], listed: Iterable[str] = ()) -> None:
        self._fingerprints = frozenset(each.replace(":", "").lower() for each in fingerprints)
        self._listed = frozenset(map(canonical, listed))
        self._learnt: Mapping[str, str] = {}
        self._context = client_context()
        self._sdk_context = _sdk_context()
        self._sdk_context.check_hostname = False
        self._sdk_context.verify_mode = ssl.CERT_NONE

    @property
    def learnt(self) -> Mapping[str, str]:
        """Fingerprints, 64 lower-case hex digits each, by address in its canonical spelling."""
        return self._learnt

    def learn(self, fingerprints: Mapping[str, str]) -> None:
        """What the coordinator says that the members show, in the place of all that was learnt before."""
        self._learnt = dict(fingerprints)  # as a whole: threads read it

    def knows(self, address: str) -> bool:
        return canonical(address) in self._learnt

    def leg_tls(self, address: str) -> tuple[SSL.Connection, Check]:
        return _connecting(self._context, address), _PinCheck(self._expected(address), address)

    def secured(self, connected: socket.socket, address: str) -> socket.socket:
        secured = self._sdk_context.wrap_socket(connected, server_hostname=address)
        problem = _pin_problem(self._expected(address), address, secured.getpeercert(binary_form=True))
        if problem is not None:
            secured.close()
            raise UntrustedError(problem)
        return secured

    def _expected(self, address: str) -> frozenset[str]:
        learnt = self._learnt.get(canonical(address))
        if learnt is None:
            return self._fingerprints
        return self._fingerprints | {learnt} if canonical(address) in self._listed else frozenset({learnt})


class Authority:
    """The operator trusts the authorities in a PEM file. Raises `TlsError` when there are none in it."""

    scheme = "https"

    def __init__(self, ca_file: str) -> None:
        read_certificates(ca_file)
        self._context = client_context()
        self._sdk_context = _sdk_context()
        try:
            self._context.load_verify_locations(ca_file)
            self._sdk_context.load_verify_locations(ca_file)
        except (SSL.Error, OSError) as error:
            raise TlsError(f"{ca_file}: TLS cannot use these certificates: {explain(error)}") from None

    def knows(self, address: str) -> bool:
        return True

    def leg_tls(self, address: str) -> tuple[SSL.Connection, Check]:
        connection, check = _connecting(self._context, address), _AuthorityCheck(address)
        connection.set_verify(SSL.VERIFY_PEER, check.judge)
        return connection, check

    def secured(self, connected: socket.socket, address: str) -> socket.socket:
        try:
            return self._sdk_context.wrap_socket(connected, server_hostname=address)
        except ssl.SSLCertVerificationError as error:
            raise UntrustedError(f"{address} showed a certificate that is not trusted: {error.verify_message}") from None


class Plain:
    """The operator wrote ``insecure_plain``."""

    scheme = "http"

    def knows(self, address: str) -> bool:
        return False

    def leg_tls(self, address: str) -> None:
        return None

    def secured(self, connected: socket.socket, address: str) -> socket.socket:
        return connected


class _PinCheck:
    def __init__(self, fingerprints: frozenset[str], address: str) -> None:
        self.problem: str | None = None
        self._fingerprints = fingerprints
        self._address = address

    def verify(self, connection: SSL.Connection) -> str | None:
        self.problem = _pin_problem(self._fingerprints, self._address, _shown(connection))
        return self.problem


class _AuthorityCheck:
    def __init__(self, address: str) -> None:
        self.problem: str | None = None
        self._address = address

    def judge(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, trusted: int) -> bool:
        """OpenSSL's question about each certificate of the chain, during the handshake. No ends it with an alert."""
        if not trusted:
            meaning = _VERIFY_ERRORS.get(error, f"OpenSSL's verification error {error}")
            shown = _readable(_der(certificate))
            self.problem = f"{self._address} showed a certificate that is not trusted: {meaning} ({shown})"
        return bool(trusted)

    def verify(self, connection: SSL.Connection) -> str | None:
        try:
            if is_ip(self._address):
                verify_ip_address(connection, self._address)
            else:
                verify_hostname(connection, self._address)
        except Exception:  # of any kind: what a certificate's parsers stumble over does not name the host either
            shown = _readable(_shown(connection))
            self.problem = f"{self._address} showed a certificate that does not name it ({shown})"
        return self.problem


def _pin_problem(expected: frozenset[str], address: str, shown: bytes | None) -> str | None:
    if shown is not None and sha256(shown).hexdigest() in expected:
        return None
    wanted = " or ".join(_with_colons(each) for each in sorted(expected)) or "none"
    return f"{address} showed {_readable(shown)}; expected was {wanted}"


def _shown(connection: SSL.Connection) -> bytes | None:
    certificate = connection.get_peer_certificate()
    return _der(certificate) if certificate is not None else None


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def _readable(shown: bytes | None) -> str:
    return (
        f"a certificate with the SHA-256 fingerprint {_with_colons(sha256(shown).hexdigest())}" if shown else "no certificate"
    )


def _with_colons(fingerprint: str) -> str:
    return ":".join(fingerprint[index : index + 2] for index in range(0, len(fingerprint), 2)).upper()


def _connecting(context: SSL.Context, address: str) -> SSL.Connection:
    connection = SSL.Connection(context, None)
    if not is_ip(address):
        connection.set_tlsext_host_name(address.encode("ascii"))  # RFC 6066 section 3: names only
    connection.set_connect_state()
    return connection


def _sdk_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = False
    return context
