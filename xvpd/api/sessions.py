"""The calls about live console sessions, whichever node has them: listed, cut."""

from typing import Any

from xvpd.api.auth import Role
from xvpd.api.model import Strict, Vm, rfc3339
from xvpd.api.page import Page, page_of
from xvpd.api.query import NoQuery, read_query
from xvpd.api.reply import Problem, json_reply
from xvpd.api.revoking import revoke
from xvpd.api.route import Answer, Call, Route
from xvpd.grants.store import Activity, ITokenStore, Selector, Session
from xvpd.reason import Reason, Refusal


class ConsoleSession(Strict):
    """A live console session. What it has moved is as of a few seconds ago."""

    id: str
    grant: str
    """The console's id."""
    vm: Vm
    pool: str
    host: str
    """uuid."""
    user: str
    issuer: str
    client: str
    """The viewer's address."""
    node: str
    since: str
    """RFC 3339, UTC."""
    bytes_to_client: int
    bytes_to_hypervisor: int
    last_input: str | None
    """RFC 3339, UTC; None if nothing is known of any."""


class SessionCalls:
    """The calls about live sessions. Whoever is no operator sees and cuts its own alone."""

    def __init__(self, store: ITokenStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """All of them."""
        issuers = frozenset({Role.ISSUER})
        return [
            Route("GET", "/v1/sessions", self._get_all, issuers),
            Route("DELETE", "/v1/sessions/{id}", self._delete, issuers),
        ]

    async def _get_all(self, call: Call) -> Answer:
        query = read_query(call, Page)
        if isinstance(query, Problem):
            return query
        sessions = await self._sessions(call)
        if isinstance(sessions, Refusal):
            return sessions
        some, following = page_of(sessions, lambda entry: (entry[0].since, entry[0].id), query)
        return json_reply(200, {"sessions": [_told(*entry) for entry in some], "next": following})

    async def _delete(self, call: Call) -> Answer:
        query = read_query(call, NoQuery)
        if isinstance(query, Problem):
            return query
        sessions = await self._sessions(call)
        if isinstance(sessions, Refusal):
            return sessions
        for session, _ in sessions:
            if session.id == call.variables["id"]:
                return await revoke(self._store, call, Selector("session", session.id, session.grant.issuer))
        return Refusal(Reason.NOT_FOUND)

    async def _sessions(self, call: Call) -> list[tuple[Session, Activity]] | Refusal:
        """The sessions that the caller may know of."""
        sessions = await self._store.sessions()
        if isinstance(sessions, Refusal):
            return sessions
        return [entry for entry in sessions if call.who.domain in {None, entry[0].grant.issuer}]


def _told(session: Session, activity: Activity) -> dict[str, Any]:
    grant = session.grant
    told = ConsoleSession(
        id=session.id,
        grant=grant.id,
        vm=Vm(uuid=grant.vm_uuid, name=grant.vm_name),
        pool=session.pool,
        host=session.host,
        user=grant.user,
        issuer=grant.issuer,
        client=session.client,
        node=session.node,
        since=rfc3339(session.since),
        bytes_to_client=activity.bytes_to_client,
        bytes_to_hypervisor=activity.bytes_to_hypervisor,
        last_input=rfc3339(activity.last_input) if activity.last_input else None,
    )
    return told.model_dump()
