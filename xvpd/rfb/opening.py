"""The opening: what is said over RFB before pixels and keys, from the versions to ServerInit.

xvpd holds one opening with the hypervisor, as a client, and one with the client, as a server. They know nothing of each other,
so each settles on a version of its own: from ServerInit on, all versions are the same. ServerInit is passed on as it came.

Both are sans-io: bytes go into `receive`, bytes to send come out. A script (a generator) writes the dialogue down in the order
in which it is spoken, and yields for what it wants to hear next. A peer that speaks ahead is heard when its turn comes; one
that breaks the rules ends the opening with a `Refusal`, which every later `receive` gives again.
"""

from collections.abc import Generator
from typing import Final, NamedTuple, TypeAlias

from xvpd.reason import Reason, Refusal
from xvpd.rfb.messages import (
    RESULT_FAILED,
    RESULT_OK,
    SECURITY_FAILED,
    SECURITY_NONE,
    SERVER_INIT_LENGTH,
    U32_LENGTH,
    VERSION_LENGTH,
    Version,
    from_u32,
    string,
    u32,
    version_numbers,
)

REASON_LIMIT: Final = 256
"""The bytes that are read of a reason for failure, however many are announced."""
NAME_LIMIT: Final = 4096
"""The longest desktop name, in bytes."""
_TYPES_SHOWN: Final = 16


class _Wanted(NamedTuple):
    """So many bytes, and what they are, for `_Opening.waiting_for`."""

    length: int
    what: str


_Script: TypeAlias = Generator[_Wanted, bytes, Refusal | None]


class _Opening:
    """Hands a peer's bytes to a script, in the lengths that it asks for."""

    def __init__(self, script: _Script) -> None:
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._refusal: Refusal | None = None
        self._script = script
        self._wanted: _Wanted | None = next(script)

    @property
    def waiting_for(self) -> str:
        """What the peer has to say next, for the log of an opening that stopped there. Empty at the opening's end."""
        return self._wanted.what if self._wanted else ""

    @property
    def trailing(self) -> bytes:
        """At the opening's end: what was received behind it, for the next reader."""
        return bytes(self._inbox)

    def receive(self, data: bytes) -> bytes | Refusal:
        """Take bytes from the peer; the answer is to be sent to it, and may be empty."""
        self._inbox += data
        while self._wanted is not None and len(self._inbox) >= self._wanted.length:
            heard = bytes(self._inbox[: self._wanted.length])
            del self._inbox[: self._wanted.length]
            try:
                self._wanted = self._script.send(heard)
            except StopIteration as end:
                self._wanted = None
                self._refusal = end.value
        if self._refusal is not None:
            return self._refusal
        answer = bytes(self._outbox)
        self._outbox.clear()
        return answer

    def _follow(self, script: _Script) -> None:
        self._script = script
        self._wanted = next(script)

    def _say(self, data: bytes) -> None:
        self._outbox += data


class HypervisorOpening(_Opening):
    """xvpd as a VNC client, with security type None only: a hypervisor is trusted for its TLS certificate.

    First the versions and security, up to `ready`; then, after `client_init`, ServerInit.
    """

    def __init__(self) -> None:
        super().__init__(self._security())
        self.ready = False
        """Whether it is time for `client_init`."""
        self.server_init: bytes | None = None
        """ServerInit with its name, once it is complete; the opening is over then."""

    def client_init(self, shared: bool) -> bytes:
        """The ClientInit to send: `shared` leaves other viewers connected. Once, and only when `ready`."""
        if not self.ready:
            raise RuntimeError("ClientInit has its place after security, once")
        self.ready = False
        self._follow(self._initialisation())
        return bytes([shared])

    def _security(self) -> _Script:
        message = yield _Wanted(VERSION_LENGTH, "the RFB version")
        version = _version_of_server(message)
        if version is None:
            return Refusal(Reason.HYPERVISOR_PROTOCOL, f"no RFB version that xvpd speaks: {message!r}")
        self._say(version.value)
        if version is Version.V3_3:
            security_type = from_u32((yield _Wanted(U32_LENGTH, "the security type")))
            if security_type == SECURITY_FAILED:
                return (yield from self._failed("the console"))
            if security_type != SECURITY_NONE:
                return Refusal(Reason.HYPERVISOR_PROTOCOL, f"wants security type {security_type}, not None")
        else:
            count = (yield _Wanted(1, "the number of security types"))[0]
            if count == SECURITY_FAILED:
                return (yield from self._failed("the console"))
            types = yield _Wanted(count, "the security types")
            if SECURITY_NONE not in types:
                return Refusal(Reason.HYPERVISOR_PROTOCOL, f"offers security types {list(types[:_TYPES_SHOWN])}, not None")
            self._say(bytes([SECURITY_NONE]))
        if version is Version.V3_8:
            result = from_u32((yield _Wanted(U32_LENGTH, "the security result")))
            if result != RESULT_OK:
                return (yield from self._failed("security type None"))
        self.ready = True
        yield _Wanted(1, "nothing")
        self.ready = False
        return Refusal(Reason.HYPERVISOR_PROTOCOL, "sent something ahead of ClientInit")

    def _failed(self, what: str) -> _Script:
        """Read the reason that follows a failure. It is text from elsewhere: the log gets it quoted, and not all of it."""
        length = from_u32((yield _Wanted(U32_LENGTH, "the length of a reason")))
        reason = yield _Wanted(min(length, REASON_LIMIT), "a reason")
        return Refusal(Reason.HYPERVISOR_REFUSED, f"refused {what}: {reason.decode('utf-8', 'replace')!r}")

    def _initialisation(self) -> _Script:
        fixed = yield _Wanted(SERVER_INIT_LENGTH, "ServerInit")
        length = from_u32(fixed[-U32_LENGTH:])
        if length > NAME_LIMIT:
            return Refusal(Reason.HYPERVISOR_PROTOCOL, f"announces a desktop name of {length} bytes")
        name = yield _Wanted(length, "the desktop name")
        self.server_init = fixed + name
        return None


class ClientOpening(_Opening):
    """xvpd as a VNC server, with security type None only: a client is trusted for its token.

    Send `greeting` first. The opening is over when `shared` is known; ServerInit is the answer to that.
    """

    greeting: Final = Version.V3_8.value

    def __init__(self) -> None:
        super().__init__(self._dialogue())
        self.shared: bool | None = None
        """What the client asks for in ClientInit: whether other viewers may stay. None until then."""
        self._owes_result = False

    def farewell(self, sentence: str) -> bytes:
        """What tells the viewer why the opening ends here. Empty unless the protocol has a place for it now, which is 3.8's
        SecurityResult."""
        return bytes(self._outbox) + u32(RESULT_FAILED) + string(sentence) if self._owes_result else b""

    def _dialogue(self) -> _Script:
        message = yield _Wanted(VERSION_LENGTH, "the RFB version")
        version = _version_of_client(message)
        if version is None:
            return Refusal(Reason.CLIENT_PROTOCOL, f"no RFB version that was offered: {message!r}")
        if version is Version.V3_3:
            self._say(u32(SECURITY_NONE))
        else:
            self._say(bytes([1, SECURITY_NONE]))
            self._owes_result = version is Version.V3_8
            chosen = (yield _Wanted(1, "the choice of a security type"))[0]
            if chosen != SECURITY_NONE:
                return Refusal(Reason.CLIENT_PROTOCOL, f"chose security type {chosen}, which was not offered")
        if self._owes_result:
            self._say(u32(RESULT_OK))
            self._owes_result = False
        flag = yield _Wanted(1, "ClientInit")
        self.shared = flag != b"\0"
        return None


def _version_of_server(message: bytes) -> Version | None:
    """The highest version that is not above what a server names; None when it is no RFB server, or one before 3.3.

    Servers that call themselves something above 3.8 (Apple's 3.889, RealVNC's 4 and 5) speak 3.8 when asked to. Between the
    published versions the older one is meant (ProtocolVersion: 3.5 is to be interpreted as 3.3).
    """
    numbers = version_numbers(message)
    if numbers is None or numbers < (3, 3):
        return None
    if numbers >= (3, 8):
        return Version.V3_8
    return Version.V3_7 if numbers == (3, 7) else Version.V3_3


def _version_of_client(message: bytes) -> Version | None:
    """The version that a client chose from 3.8 down; None when it is none of them. "A client should never request a protocol
    version higher than that offered by the server" (ProtocolVersion)."""
    numbers = version_numbers(message)
    return _version_of_server(message) if numbers is not None and numbers <= (3, 8) else None
