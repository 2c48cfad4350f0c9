"""What a host or a VM's console is ordered to do wrong. Every fault is a record; a test, or a demonstration, orders it and the
simulated pool obeys.

Certificates that lie, hosts that are away and full hosts are not in here: see `xvpd.sim.pool.SimulatedPool`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

EVERYWHERE: Final = "*"


@dataclass(frozen=True, slots=True)
class ConsoleFault:
    """How a request for a console is answered, though all is well with it.

    First ``delay`` seconds pass. Then comes ``reply``, or what the host would truly say when it is None, in pieces of
    ``piece`` bytes when that is not 0, each a TCP segment of its own. ``then`` is what comes next: ``serve`` opens the console
    if the reply was a 200, ``close`` ends the connection, ``reset`` ends it by RST, ``silence`` leaves it as it is. With
    ``banner_in_segment`` the console is opened at once, so that its banner comes in the segment of the reply.
    """

    delay: float = 0.0
    reply: bytes | None = None
    piece: int = 0
    then: str = "serve"
    banner_in_segment: bool = False
    times: int = 0
    """How many requests it meets; 0 is all until it is lifted."""

    def __post_init__(self) -> None:
        if self.then not in ("serve", "close", "reset", "silence"):
            raise ValueError(f"a host cannot {self.then}")


@dataclass(frozen=True, slots=True)
class ApiFault:
    """How an XML-RPC call is answered: never (``hang``), with a ``failure`` (a code and its arguments), or after ``delay``
    seconds."""

    method: str = EVERYWHERE
    hang: bool = False
    failure: tuple[str, ...] = ()
    delay: float = 0.0
    times: int = 0


_Place = TypeVar("_Place", str, tuple[str, str])
_Fault = TypeVar("_Fault", ConsoleFault, ApiFault)


class Faults:
    """The faults in force. A ``place`` is a host's address, a VM's uuid or `EVERYWHERE`; the last fault ordered for a place is
    the one that counts."""

    def __init__(self) -> None:
        self._console: dict[str, ConsoleFault] = {}
        self._api: dict[tuple[str, str], ApiFault] = {}

    def order_console(self, place: str, fault: ConsoleFault) -> None:
        """Meet requests for consoles of a VM, or on a host, with this fault."""
        self._console[place] = fault

    def order_api(self, place: str, fault: ApiFault) -> None:
        """Meet calls of ``fault.method`` to a host with this fault."""
        self._api[place, fault.method] = fault

    def lift(self) -> None:
        """All is well again. What has already been met by a fault stays as it is."""
        self._console.clear()
        self._api.clear()

    def take_console(self, host: str, vm: str) -> ConsoleFault | None:
        """The fault that a request for a console meets, and one time less of it; VM before host before everywhere."""
        return _take(self._console, (vm, host, EVERYWHERE))

    def take_api(self, host: str, method: str) -> ApiFault | None:
        """The fault that a call meets, and one time less of it."""
        return _take(self._api, ((host, method), (host, EVERYWHERE), (EVERYWHERE, method), (EVERYWHERE, EVERYWHERE)))


def _take(ordered: dict[_Place, _Fault], places: Iterable[_Place]) -> _Fault | None:
    for place in places:
        fault = ordered.get(place)
        if fault is None:
            continue
        if fault.times == 1:
            del ordered[place]
        elif fault.times:
            ordered[place] = replace(fault, times=fault.times - 1)
        return fault
    return None
