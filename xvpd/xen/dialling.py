"""`Dialling`: one console opened in spite of what may be the matter for a moment.

What a host's status means: xapi's ocaml/xapi/console.ml. It says 500 when the VM is not running, or not on this host any more;
404 when the VM has no VNC server yet; and 200 before it connects to that server: with an end of file behind it, the same.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.breaker import Breaker
from xvpd.xen.coordinator import Coordinator
from xvpd.xen.hypervisor import Location
from xvpd.xen.tunnel import Dialler, NotDialled
from xvpd.xen.xapi import XapiSession

REBOOT_PAUSES: Final = (0.25, 0.5, 0.75, 1.0)
"""Seconds between attempts while a VM's VNC server is away."""
_MOVES: Final = 2
"""How often a VM is followed to another host."""

Locate = Callable[[str], Coroutine[Deferred[Any], Any, Location | Refusal]]


class Dialling:
    """Opens consoles of a pool. ``locate`` asks the pool where a VM is; it raises what `Lookup` raises."""

    _log = Logger()

    def __init__(self, reactor: Any, coordinator: Coordinator, dialler: Dialler, locate: Locate, seconds: float) -> None:
        """A dial that is given up after ``seconds`` without a word from the host was too slow."""
        self._reactor = reactor
        self._coordinator = coordinator
        self._dialler = dialler
        self._locate = locate
        self._seconds = seconds
        self._breakers: dict[str, Breaker] = {}

    async def open(self, location: Location, request_id: str, moved: Callable[[Location], None] | None) -> Leg | Refusal:
        """What `IHypervisor.dial` promises, for a ``location`` that is the pool's, but without a deadline."""
        began = self._reactor.seconds()
        logged_in_again, moves, pauses = False, 0, list(REBOOT_PAUSES)
        while True:
            logged_in = await self._coordinator.logged_in()
            outcome = await self._attempt(location, logged_in.session, began)
            if not isinstance(outcome, NotDialled):
                return outcome
            match outcome.status:
                case 401 if not logged_in_again:
                    logged_in_again = True
                    self._coordinator.forget(logged_in)
                    continue
                case 500 if moves < _MOVES:
                    moves += 1
                case 404 | 200 if pauses:
                    await deferLater(self._reactor, pauses.pop(0))
                case _:
                    return outcome.refusal
            self._log.debug("{request_id}: {problem}", request_id=request_id, problem=outcome.refusal.detail)
            now = await self._locate(location.vm_uuid)
            if isinstance(now, Refusal):
                return now
            if (now.host_uuid, now.host_address) != (location.host_uuid, location.host_address):
                if moved is not None:
                    moved(now)
            elif outcome.status == 500:
                return outcome.refusal
            location = now

    async def _attempt(self, location: Location, session: XapiSession, began: float) -> Leg | NotDialled:
        """One dial, unless the host is to be left alone."""
        breaker = self._breakers.setdefault(location.host_uuid, Breaker())
        if not breaker.admits(self._reactor.seconds()):
            detail = f"{location.host_address}: not tried, as {breaker.failures} dials have failed one after the other"
            return NotDialled(Refusal(Reason.HYPERVISOR_UNREACHABLE, detail))
        heard: list[None] = []

        def hear() -> None:
            heard.append(None)
            breaker.succeeded()

        try:
            outcome = await self._dialler.dial(location.host_address, location.vm_ref, session, hear)
        except CancelledError:
            if not heard and self._reactor.seconds() - began >= self._seconds:
                breaker.failed(self._reactor.seconds())
            raise
        if isinstance(outcome, NotDialled) and outcome.refusal.reason is Reason.HYPERVISOR_UNREACHABLE:
            breaker.failed(self._reactor.seconds())
        return outcome
