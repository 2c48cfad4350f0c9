"""The portable relay: two legs in push mode, each of which hands its bytes to the other, in the reactor's thread.

A leg is not read while the other is full, and its end is not noticed meanwhile: it comes out when the other takes bytes again,
or is given up by the kernel (`xvpd.net.transport`).
"""

from collections.abc import Callable

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from xvpd.net.leg import End, Leg
from xvpd.reason import Reason
from xvpd.relay.relay import Guard, IRelay, IRelaying, Plan, Relayed, Totals


@implementer(IRelay)
class CopyRelay:
    """Works everywhere, and accepts every plan."""

    name = "copy"

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def accepts(self, plan: Plan) -> bool:
        return True

    def start(self, client: Leg, tunnel: Leg, plan: Plan) -> IRelaying:
        return _Copying(self._clock, client, tunnel, plan)


@implementer(IRelaying)
class _Copying:
    """One console session's bytes on their way."""

    def __init__(self, clock: IReactorTime, client: Leg, tunnel: Leg, plan: Plan) -> None:
        self.done: Deferred[Relayed] = Deferred()
        self._clock = clock
        self._legs = (client, tunnel)
        self._plan = plan
        self._reason: Reason | None = None
        self._from_client = _Direction(client, tunnel, clock, self._client_ended, plan.guard)
        self._from_tunnel = _Direction(tunnel, client, clock, self._tunnel_ended, None)
        self._next = clock.callLater(0, self._start)

    def totals(self) -> Totals:
        return Totals(bytes_to_client=self._from_tunnel.moved, bytes_to_hypervisor=self._from_client.moved)

    def last_input(self) -> float:
        return self._from_client.last_moved

    def stop(self, reason: Reason) -> None:
        if self._reason is None:
            self._reason = reason
            if self._next.active():
                self._next.cancel()
            self._close(flush_seconds=None)

    def _start(self) -> None:
        for direction in (self._from_client, self._from_tunnel):
            direction.start()

    def _client_ended(self, end: End | None) -> None:
        self._ended(Reason.CLIENT_CLOSED if end is End.CLOSED else Reason.CLIENT_LOST)

    def _tunnel_ended(self, end: End | None) -> None:
        self._ended(Reason.HYPERVISOR_CLOSED if end is End.CLOSED else Reason.HYPERVISOR_LOST)

    def _ended(self, reason: Reason) -> None:
        if self._reason is None:
            self._reason = reason
            self._next = self._clock.callLater(0, self._finish)  # the leg has not done with telling us

    def _finish(self) -> None:
        """All that the leg that ended had sent is written; so is now what the other had sent, and both are closed."""
        for leg in self._legs:
            leg.read_no_more()
        self._close(self._plan.flush_seconds)

    def _close(self, flush_seconds: float | None) -> None:
        for leg in self._legs:
            leg.close(self._plan.close_seconds, flush_seconds)
        gatherResults([leg.gone() for leg in self._legs]).addCallback(self._gone)

    def _gone(self, _: object) -> None:
        assert self._reason is not None
        self.done.callback(Relayed(self.totals(), self._reason))


class _Direction:
    """Takes what one leg receives to the other, which sets the pace."""

    def __init__(
        self, source: Leg, target: Leg, clock: IReactorTime, ended: Callable[[End | None], None], guard: Guard | None
    ) -> None:
        self.moved = 0
        self.last_moved = clock.seconds()
        self._source = source
        self._target = target
        self._clock = clock
        self._ended = ended
        self._guard = guard

    def start(self) -> None:
        self._source.push_to(self)

    def leg_received(self, data: bytes) -> None:
        self.last_moved = self._clock.seconds()
        if self._guard is not None:
            data = self._guard(data)
        self.moved += len(data)
        self._target.write(data)

    def leg_ended(self) -> None:
        self._ended(self._source.end)

    def leg_full(self) -> None:
        self._target.pause()

    def leg_drained(self) -> None:
        self._target.resume()
