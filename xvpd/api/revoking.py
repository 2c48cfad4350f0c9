"""Revocations, and what their caller is told of the nodes that have to obey."""

from twisted.logger import Logger

from xvpd.api.reply import NO_CONTENT, json_reply
from xvpd.api.route import Answer, Call
from xvpd.grants.store import ITokenStore, Selector
from xvpd.reason import Reason, Refusal

_log = Logger()


async def revoke(store: ITokenStore, call: Call, selector: Selector, *, one_grant: bool = False) -> Answer:
    """Revoke what ``selector`` means.

    204 once every live node has obeyed; 202 with the names of those that have not said so, which may be asked for again; 503
    when the store is away, and the order may or may not have been carried out. ``one_grant``, which was named, must be there
    to be ended: 404, but not while a node is silent, as an order given again ends nothing and still matters.
    """
    _log.info(
        "{request_id}: {caller} revokes by {kind} {value}, issued by {issuer}",
        request_id=call.request_id,
        caller=call.who.name,
        kind=selector.kind,
        value=selector.value,
        issuer="anyone" if selector.issuer is None else selector.issuer,
    )
    revoked = await store.revoke(selector)
    if isinstance(revoked, Refusal):
        return revoked
    if revoked.silent_nodes:
        return json_reply(202, {"silent_nodes": revoked.silent_nodes})
    if one_grant and not revoked.grants:
        return Refusal(Reason.NOT_FOUND)
    return NO_CONTENT
