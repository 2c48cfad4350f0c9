"""`IRelay`: the seam between a console session and whatever moves its bytes.

`tests/contract/test_relay.py` holds every relay to what is written here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from xvpd.net.leg import Leg
from xvpd.reason import Reason

Guard = Callable[[bytes], bytes]
"""Is handed every piece that the client sends, in order, and returns what of it may pass to the hypervisor. Must not raise;
may stop the relay that calls it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a relay has to do for one console session."""

    flush_seconds: float = 5.0
    """After one leg has ended: how long either may take to accept what was already read for it."""
    close_seconds: float = 5.0
    """How long a leg may then take to answer our close before it is aborted."""
    guard: Guard | None = None
    """None: all that the client sends passes unread."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a relay has moved so far."""

    bytes_to_client: int
    bytes_to_hypervisor: int


@dataclass(frozen=True, slots=True)
class Relayed:
    """How a relay ended."""

    totals: Totals
    reason: Reason


class IRelaying(Interface):
    """One console session's bytes on their way."""

    done: Deferred[Relayed] = Attribute(
        """Fires once, when both legs are closed and nothing of them is left. Never fails. The reason is that of whatever
        ended it first: CLIENT_CLOSED, CLIENT_LOST, HYPERVISOR_CLOSED, HYPERVISOR_LOST, or what `stop` was told."""
    )

    def totals() -> Totals:
        """What has been moved up to now: bytes that were read on one leg and handed to the other."""

    def last_input() -> float:
        """When the client last sent anything, in the reactor's seconds."""

    def stop(reason: Reason) -> None:
        """End it now, at whatever moment: both legs are closed (and aborted after the plan's ``close_seconds``), and nothing
        that was not yet written is waited for. Without effect when the end has begun."""


class IRelay(Interface):
    """Moves bytes both ways between two legs until one of them ends.

    - Every byte read on one leg is written to the other, in order, unchanged, but for what the plan's guard makes of the
      client's. Bytes still unread in a leg's buffer count as read on it.
    - The end of either leg is the end of both: what had been read is delivered within ``flush_seconds``, then both are closed
      cleanly (close_notify, FIN), and aborted if they have not answered after ``close_seconds``.
    - A leg that does not take its bytes stops the other from being read: memory for a session is bounded.
    - Afterwards no file descriptor, timer or reference of the session is left.
    """

    name: str = Attribute("The word for it in the configuration, the log and the metric.")

    def accepts(plan: Plan) -> bool:
        """Whether this relay can do what the plan says."""

    def start(client: Leg, tunnel: Leg, plan: Plan) -> IRelaying:
        """Begin, but touch neither leg nor guard before whoever called is done. The relay owns both legs from here on."""
