"""The opening, held over the two legs of a console session."""

from xvpd.net.leg import End, Leg
from xvpd.reason import Reason, Refusal
from xvpd.rfb.opening import ClientOpening, HypervisorOpening


async def open_hypervisor(tunnel: Leg) -> HypervisorOpening | Refusal:
    """Hold the opening with the hypervisor up to where ClientInit may be sent."""
    opening = HypervisorOpening()
    while not opening.ready:
        data = await tunnel.read()
        if not data:
            return Refusal(Reason.HYPERVISOR_REFUSED, f"{tunnel.end_detail or 'closed'}, waiting for {opening.waiting_for}")
        answer = opening.receive(data)
        if isinstance(answer, Refusal):
            return answer
        tunnel.write(answer)
    return opening


async def open_client(leg: Leg, tunnel: Leg, hypervisor: HypervisorOpening, shared: bool) -> Refusal | None:
    """Hold the opening with the client, and end it on both legs: ClientInit to the hypervisor, its ServerInit to the client.

    ``shared`` is what the hypervisor is told, whatever the client asks for: viewers are not thrown out by other viewers.
    What either side sent behind its opening is left on its leg for the relay.
    """
    client = ClientOpening()
    leg.write(client.greeting)
    while client.shared is None:
        data = await leg.read()
        if not data:
            return Refusal(Reason.CLIENT_LOST if leg.end is End.LOST else Reason.CLIENT_LEFT, "in the opening")
        answer = client.receive(data)
        if isinstance(answer, Refusal):
            leg.write(client.farewell(answer.reason.sentence))
            return answer
        leg.write(answer)
    leg.unread(client.trailing)
    tunnel.write(hypervisor.client_init(shared))
    while hypervisor.server_init is None:
        data = await tunnel.read()
        if not data:
            return Refusal(Reason.HYPERVISOR_LOST if tunnel.end is End.LOST else Reason.HYPERVISOR_CLOSED, "in the opening")
        answer = hypervisor.receive(data)
        if isinstance(answer, Refusal):
            return answer
    tunnel.unread(hypervisor.trailing)
    leg.write(hypervisor.server_init)
    return None
