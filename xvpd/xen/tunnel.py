"""Opening a console: the connection to a host, its proof of identity, the CONNECT, the answer and the first RFB bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.xen.connect import Answered, AnswerReader, Malformed, compose, refusal_of
from xvpd.xen.syntax import is_ip
from xvpd.xen.trust import Check, Trust
from xvpd.xen.xapi import XapiSession

BANNER_LENGTH: Final = 12
"""``RFB 003.008`` and a line end (RFC 6143 section 7.1.1): the least that a VNC server sends by itself."""


@dataclass(frozen=True, slots=True)
class NotDialled:
    """No tunnel: why, and the host's HTTP status if it was that."""

    refusal: Refusal
    status: int | None = None


class Dialler:
    """Opens tunnels to the hosts of a pool, on one ``port``, believing in ``trust``."""

    def __init__(self, reactor: Any, trust: Trust, port: int, connect_seconds: float) -> None:
        self._reactor = reactor
        self._trust = trust
        self._port = port
        self._connect_seconds = connect_seconds

    def dial(
        self, address: str, vm_ref: str, session: XapiSession, heard: Callable[[], None] | None = None
    ) -> Deferred[Leg | NotDialled]:
        """The console of the VM ``vm_ref`` on the host at ``address``: a `Leg` on which a VNC server has begun to speak, with
        all that it said still to be read.

        xapi answers 200 before it opens the VM's VNC socket, so that a 200 alone means nothing. ``address`` is that of a
        member of the pool; whoever calls this knows that, and cancels it after a while: a host may be silent for ever.
        Cancelling leaves no connection behind. ``heard`` is called when the host, which has proved its identity, says
        something.
        """
        return Deferred.fromCoroutine(self._dial(address, compose(vm_ref, session.ref, address), heard or _unheard))

    async def _dial(self, address: str, request: bytes, heard: Callable[[], None]) -> Leg | NotDialled:
        factory = _LegFactory(self._reactor, self._trust, address)
        try:
            leg = await self._endpoint(address).connect(factory)
        except ConnectingCancelledError:
            raise CancelledError from None
        except ConnectError as error:
            return _not_dialled(Reason.HYPERVISOR_UNREACHABLE, f"{address}: {str(error).rstrip('.')}")
        except DNSLookupError:
            return _not_dialled(Reason.HYPERVISOR_UNREACHABLE, f"{address}: this name cannot be resolved")
        try:
            outcome = await _open(leg, factory.check, address, request, heard)
            if outcome is not leg:
                leg.abort()
                await leg.gone()
        except BaseException:
            leg.abort()
            raise
        return outcome

    def _endpoint(self, address: str) -> Any:
        seconds = self._connect_seconds
        if not is_ip(address):
            return HostnameEndpoint(self._reactor, address, self._port, seconds)
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return endpoint(self._reactor, address, self._port, seconds)


class _LegFactory(Factory):
    noisy = False

    def __init__(self, reactor: Any, trust: Trust, address: str) -> None:
        self.check: Check | None = None
        self._reactor = reactor
        self._trust = trust
        self._address = address

    def buildProtocol(self, addr: IAddress | None) -> Leg:
        made = self._trust.leg_tls(self._address)
        if made is None:
            return Leg(self._reactor)
        tls, self.check = made
        return Leg(self._reactor, tls, self.check.verify)


async def _open(leg: Leg, check: Check | None, address: str, request: bytes, heard: Callable[[], None]) -> Leg | NotDialled:
    if not await leg.secure():
        if check is not None and check.problem is not None:
            return _not_dialled(Reason.HYPERVISOR_UNTRUSTED, check.problem)
        return _not_dialled(Reason.HYPERVISOR_PROTOCOL, f"{address}: no TLS: {leg.end_detail or 'the host closed'}")
    leg.write(request)
    reader = AnswerReader()
    answer: Answered | Malformed | None = None
    while answer is None:
        data = await leg.read()
        if not data:
            return _not_dialled(Reason.HYPERVISOR_PROTOCOL, f"{address}: the host closed without an answer")
        heard()
        answer = reader.receive(data)
    if isinstance(answer, Malformed):
        return _not_dialled(Reason.HYPERVISOR_PROTOCOL, f"{address}: the host's answer cannot be read: {answer.detail}")
    if answer.status != 200:
        refusal = refusal_of(answer.status)
        return NotDialled(Refusal(refusal.reason, f"{address}: {refusal.detail}"), answer.status)
    banner = answer.leftover
    while len(banner) < BANNER_LENGTH:
        data = await leg.read()
        if not data:
            problem = "the host closed right after its 200: the VM's VNC server is away, or takes no more clients"
            return NotDialled(Refusal(Reason.HYPERVISOR_REFUSED, f"{address}: {problem}"), answer.status)
        banner += data
    leg.unread(banner)
    return leg


def _unheard() -> None:
    """Nobody wants to know."""


def _not_dialled(reason: Reason, detail: str) -> NotDialled:
    return NotDialled(Refusal(reason, detail))
