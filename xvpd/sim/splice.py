"""A VM's screen that is any real VNC server: its bytes are passed on both ways, and a slow end stops the other."""

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xvpd.sim.closing import Closing, Roster

_CONNECT_SECONDS: Final = 5.0


def vnc_endpoint(reactor: Any, where: str) -> IStreamClientEndpoint:
    """Where ``host:port`` or ``unix:path`` leads. ValueError when it is neither."""
    if where.startswith("unix:") and len(where) > len("unix:"):
        return clientFromString(reactor, "unix:" + quoteStringArgument(where.removeprefix("unix:")))  # type: ignore[no-any-return]
    host, colon, port = where.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{where!r} is neither host:port nor unix:path")
    return clientFromString(reactor, f"tcp:{quoteStringArgument(host.strip('[]'))}:{port}")  # type: ignore[no-any-return]


class RealVnc:
    """The console of a VM whose VNC server is behind ``endpoint``."""

    def __init__(self, endpoint: IStreamClientEndpoint, clock: IReactorTime) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._near: Roster[_Near] = Roster()
        self._far: Roster[_Far] = Roster()

    def buildProtocol(self, addr: IAddress | None) -> Closing | None:
        """One viewer's connection."""
        return _Near(self._endpoint, self._clock, self._near, self._far)

    def caption(self, text: str) -> None:
        """A real server's screen says for itself what it is."""

    def restart(self) -> None:
        """The real server knows nothing of the simulated VM's life."""

    def hang_up(self) -> None:
        """End every viewer's connection."""
        for near in self._near:
            near.close()

    def gone(self) -> Deferred[None]:
        """Fires when no connection to the VNC server is left."""
        return self._far.empty()


class _Near(Closing):
    """The viewer's end of a splice. It reads nothing before the VNC server is reached."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: IReactorTime, near: "Roster[_Near]", far: "Roster[_Far]"
    ) -> None:
        super().__init__(clock)
        self._endpoint = endpoint
        self._all_near = near
        self._all_far = far
        self._early = bytearray()
        self._far: _Far | None = None
        self._connecting: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        """Reach for the VNC server."""
        self._all_near.add(self)
        factory = Factory.forProtocol(lambda: _Far(self.clock, self, self._all_far))
        factory.noisy = False
        self._connecting = self._endpoint.connect(factory).addTimeout(_CONNECT_SECONDS, self.clock)
        self._connecting.addCallbacks(self._reached, lambda _: self.close())

    def _reached(self, far: "_Far") -> None:
        if self.lost or self.closing:
            far.transport.abortConnection()
            return
        self._far = far
        self.transport.registerProducer(_Flow(far.transport), True)
        far.transport.registerProducer(_Flow(self.transport), True)
        far.transport.write(bytes(self._early))
        self._early.clear()

    def dataReceived(self, data: bytes) -> None:
        """From the viewer."""
        if self._far is not None:
            self._far.transport.write(data)
        else:
            self._early += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The viewer is gone: so is the other end."""
        super().connectionLost(reason)
        self._all_near.remove(self)
        if self._far is not None:
            self._far.transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.cancel()


class _Far(Closing):
    """The VNC server's end of a splice."""

    def __init__(self, clock: IReactorTime, near: _Near, all_far: "Roster[_Far]") -> None:
        super().__init__(clock)
        self._near = near
        self._all_far = all_far

    def connectionMade(self) -> None:
        """The VNC server is reached."""
        self._all_far.add(self)

    def dataReceived(self, data: bytes) -> None:
        """From the VNC server."""
        self._near.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The VNC server is gone: so is the viewer."""
        super().connectionLost(reason)
        self._all_far.remove(self)
        self._near.close()


@implementer(IPushProducer)
class _Flow:
    """Stops and starts the reading of one end as the other end's writing demands. The end of one must not cut the other off
    before it has sent what it holds, as a transport that is the other's producer would."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def pauseProducing(self) -> None:
        """The other end holds enough."""
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The other end takes more."""
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other end is lost, of which its protocol tells."""
