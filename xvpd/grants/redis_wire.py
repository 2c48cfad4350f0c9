"""Connections to Redis servers: dialled, verified, authenticated, and known to be to a master.

The only module that knows txredisapi, whose protocols speak Redis's language here. Its connection pools are not used: one that
is reset during AUTH, or told that there are too many clients, gives up for ever; commands wait without end while it is
reconnecting; a subscription is not taken up again; and what Sentinel names is dialled without TLS. `redis_link` looks after
connections instead. txredisapi imports the global reactor; nothing of what is used here runs on it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import txredisapi
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, TLSVersion, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure

from xvpd.grants.redis_url import RedisSettings
from xvpd.net.tls import TlsError, explain, read_certificates

_LARGEST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes that a server may announce for one string: far more than any answer to us, far less than 512 MB."""
_UNASKED: Final = 8
"""Answers to nothing that a server may send."""
_PLAIN: Final[dict[str, Any]] = {"charset": None, "convertNumbers": False}
"""Bytes stay bytes: by default txredisapi makes numbers of what looks like them."""


class AwayError(Exception):
    """There is no working connection, or no answer that is of use. The text is for an operator, on one line."""


class SilentError(AwayError):
    """There was no answer in time. What was asked may have been done, or may yet be."""


class Wire:
    """One connection to one server, usable from the moment that `dial` gives it out until `gone`."""

    def __init__(self, protocol: Any, server: tuple[str, int], gone: Deferred[str]) -> None:
        self.server = server
        self.gone = gone
        """Fires once, with the reason, when the connection is lost."""
        self.replicas = 0
        """How many replicas the server had when it was last asked."""
        self._protocol = protocol

    @property
    def received(self) -> int:
        """How often something has come: while this grows the server is there, however long its answers take."""
        received: int = self._protocol.received
        return received

    def call(self, *command: str | bytes | int) -> Deferred[Any]:
        """Send a command. Fails with `AwayError` when the connection is lost or the server answers with an error."""
        return self._send(lambda: self._protocol.execute_command(*command))

    def run(self, script: bytes, *arguments: str | bytes | int) -> Deferred[Any]:
        """Run a script: by its digest once the server is known to have it."""
        return self._send(lambda: self._protocol.eval(script, [], arguments))

    def subscribe(self, channels: list[str], heard: Callable[[bytes, bytes], None]) -> Deferred[Any]:
        """Hear messages (channel, text) from now on; fires when the server has said that it will send them."""
        self._protocol.heard = heard
        return self._send(lambda: self._protocol.subscribe(channels))

    def abort(self) -> None:
        """Be gone at once."""
        self._protocol.transport.abortConnection()

    def _send(self, command: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._answer(command))

    async def _answer(self, command: Callable[[], Deferred[Any]]) -> Any:
        try:
            return await command()
        except txredisapi.ConnectionError:
            raise AwayError(self._protocol.why or "the connection is lost") from None
        except txredisapi.RedisError as error:
            raise AwayError(_line(error)) from None


async def dial(reactor: Any, settings: RedisSettings, subscriber: bool = False) -> Wire:
    """A connection to the master, for commands or for a subscription. Raises `AwayError`. The deadline of the settings is each
    step's, not the whole's."""
    server = await master(reactor, settings)
    with _naming(server):
        credentials = {"username": settings.username or None, "password": settings.password or None}
        if subscriber:
            return await _connect(reactor, settings, server, _Subscriber(**_PLAIN, **credentials))
        wire = await _connect(reactor, settings, server, _Commander(**_PLAIN, **credentials, dbid=settings.database or None))
        try:
            await ask_role(reactor, settings, wire)
        except BaseException:
            wire.abort()
            raise
        return wire


async def master(reactor: Any, settings: RedisSettings) -> tuple[str, int]:
    """Where the server to be used is: the only one, or whichever the first sentinel that answers names. Raises `AwayError`."""
    if not settings.master:
        return settings.servers[0]
    complaints = []
    for sentinel in settings.servers:
        try:
            with _naming(sentinel):
                return await _ask_sentinel(reactor, settings, sentinel)
        except AwayError as away:
            complaints.append(str(away))
    raise AwayError("no sentinel knows the master: " + "; ".join(complaints))


async def ask_role(reactor: Any, settings: RedisSettings, wire: Wire) -> None:
    """Make sure that the server is a master, and note how many replicas it has. Raises `AwayError`."""
    match await within(settings.answer_seconds, reactor, wire.call("ROLE")):
        case [b"master", _, [*replicas]]:
            wire.replicas = len(replicas)
        case [b"slave", *_]:
            raise AwayError("the server is a read-only replica")
        case _:
            raise AwayError("the server says nothing of its role")


async def within(seconds: float, clock: Any, answer: Deferred[Any]) -> Any:
    """``answer``, or `SilentError` when it takes longer. Whatever ``answer`` makes of being cancelled, this is cancelled: an
    endpoint that is looking a name up calls that a failed look-up."""

    late = given_up = False

    def give_up(_: Deferred[Any]) -> None:
        nonlocal given_up
        given_up = True
        answer.cancel()

    def expire() -> None:
        nonlocal late
        late = True
        outcome.cancel()

    def settle(result: Any) -> None:
        if not given_up:
            outcome.callback(result)

    outcome: Deferred[Any] = Deferred(give_up)
    answer.addBoth(settle)
    timer = clock.callLater(seconds, expire)
    try:
        return await outcome
    except CancelledError:
        if late:
            raise SilentError(f"no answer within {seconds:g} s") from None
        raise
    finally:
        if timer.active():
            timer.cancel()


async def _ask_sentinel(reactor: Any, settings: RedisSettings, sentinel: tuple[str, int]) -> tuple[str, int]:
    wire = await _connect(reactor, settings, sentinel, _Commander(**_PLAIN))
    try:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.master)
        try:
            answer = await within(settings.answer_seconds, reactor, wire.call(*question))
        except AwayError as away:
            if not str(away).startswith("NOAUTH"):
                raise
            credentials = [settings.username, settings.password] if settings.username else [settings.password]
            await within(settings.answer_seconds, reactor, wire.call("AUTH", *credentials))
            answer = await within(settings.answer_seconds, reactor, wire.call(*question))
    finally:
        wire.abort()
    match answer:
        case [bytes(host), bytes(port)] if port.isdigit():
            return host.decode("utf-8", "replace"), int(port)
    raise AwayError(f"knows no master of the name {settings.master}")


async def _connect(reactor: Any, settings: RedisSettings, server: tuple[str, int], protocol: Any) -> Wire:
    factory = _Factory(protocol)
    try:
        await within(settings.answer_seconds, reactor, _endpoint(reactor, settings, server).connect(factory))
        await within(settings.answer_seconds, reactor, factory.usable())
    except BaseException as error:
        factory.abort()
        if isinstance(error, AwayError | ConnectError | ConnectionClosed | DNSLookupError | TlsError):
            raise AwayError(_line(error).replace(settings.password or "?", "?")) from None
        raise
    return Wire(protocol, server, factory.gone)


def _endpoint(reactor: Any, settings: RedisSettings, server: tuple[str, int]) -> IStreamClientEndpoint:
    host, port = server
    endpoint = HostnameEndpoint(reactor, host, port, timeout=settings.answer_seconds)
    if not settings.tls:
        return endpoint
    trust = platformTrust()
    if settings.ca_file:
        authorities = read_certificates(settings.ca_file)
        trust = trustRootFromCertificates([Certificate.loadPEM(each.public_bytes(Encoding.PEM)) for each in authorities])
    options = optionsForClientTLS(host, trust, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2})
    return wrapClientTLS(options, endpoint)


class _Factory(Factory):
    """Has one protocol for one connection, and hears what txredisapi tells its factories."""

    noisy = False
    isLazy = False  # noqa: N815 # txredisapi asks for it

    def __init__(self, protocol: Any) -> None:
        self.gone: Deferred[str] = Deferred()
        self._protocol = protocol
        self._protocol.factory = self
        self._taken = False
        self._complaint = ""
        self._decided: Deferred[None] = Deferred()
        protocol.whenConnected().addCallback(self._decide)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        # A name's addresses are tried at the same time: the first to connect gets it.
        taken, self._taken = self._taken, True
        return None if taken else self._protocol

    async def _usable(self) -> None:
        await self._decided
        if self._complaint:
            raise AwayError(self._complaint)

    def usable(self) -> Deferred[None]:
        """Fires when the server has let us in; fails with `AwayError` when it did not."""
        return Deferred.fromCoroutine(self._usable())

    def abort(self) -> None:
        if self._protocol.transport is not None:
            self._protocol.transport.abortConnection()

    def lost(self, why: str) -> None:
        self._decide(why)
        self.gone.callback(why)

    def stopTrying(self) -> None:
        """Whether to try again is not for txredisapi to say."""

    def connectionError(self, why: str) -> None:
        """Authentication or the choice of the database failed, or the connection was lost meanwhile."""
        self._decide(self._protocol.why or why)

    def _decide(self, outcome: object) -> None:
        if not self._decided.called:
            self._complaint = outcome if isinstance(outcome, str) else ""
            self._decided.callback(None)


class _Guarded:
    """What both of txredisapi's protocols lack: sense in the face of nonsense, the reason why a connection was lost, and no
    turn of the (global) reactor for every string that is received."""

    why = ""
    received = 0

    def dataReceived(self: Any, data: bytes) -> None:
        self.received += 1
        self.rest = data
        try:
            while self.rest:
                some, self.rest = self.rest, b""
                super().dataReceived(some)  # type: ignore[misc] # of the protocol that this is mixed into
        except Exception as error:  # whatever a parser may stumble over in what is not Redis's language
            self.give_up(_line(error))
        if self.bulk_length > _LARGEST_ANSWER or len(self.replyQueue.pending) > _UNASKED:
            self.give_up("it answers without end")

    def setLineMode(self: Any, extra: bytes = b"") -> None:
        self.line_mode = 1
        self.rest = extra

    def give_up(self: Any, why: str) -> None:
        self.why = f"not a Redis server: {why}"
        self.rest = b""
        self.transport.abortConnection()

    def connectionLost(self: Any, why: Failure) -> None:
        self.why = self.why or _explain(why)
        super().connectionLost(why)  # type: ignore[misc]
        self.factory.lost(self.why)


class _Commander(_Guarded, txredisapi.RedisProtocol):
    """Sends commands."""


class _Subscriber(_Guarded, txredisapi.SubscriberProtocol):
    """Hears messages."""

    heard: Callable[[bytes, bytes], None]

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self.heard(channel, message)


def _explain(why: Failure) -> str:
    error = why.value
    return explain(error) if isinstance(error, SSL.Error) else _line(error)


def _line(error: BaseException | None) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


@contextmanager
def _naming(server: tuple[str, int]) -> Iterator[None]:
    """Says of which server a complaint is."""
    try:
        yield
    except AwayError as away:
        host, port = server
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise type(away)(f"{name}: {away}") from None
