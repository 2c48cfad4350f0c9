"""The calls about console URLs: issued, listed, revoked."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from xvpd.api.auth import Role
from xvpd.api.body import as_model, read_body
from xvpd.api.issuer import Issuer, Order
from xvpd.api.model import Name, Strict, Text, Vm, is_id, rfc3339
from xvpd.api.page import Page, page_of
from xvpd.api.query import NoQuery, read_query
from xvpd.api.reply import Problem, json_reply
from xvpd.api.revoking import revoke
from xvpd.api.route import Answer, Call, Route
from xvpd.grants.grant import Grant
from xvpd.grants.network import network
from xvpd.grants.store import ITokenStore, Selector
from xvpd.reason import Reason, Refusal
from xvpd.xen.syntax import is_uuid

_NOT_ENFORCED: Final = ("view_only", "power", "take_over")
_YEAR: Final = 31_536_000


class ConsoleRequest(Strict):
    """The body of ``POST /v1/consoles``."""

    vm: Name
    """uuid, or unique name."""
    type: Literal["xvpvnc", "novnc"]
    ttl: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds that the token is good for."""
    uses: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """How often it may be used; 0 is any number of times."""
    user: Text = ""
    """For whom, in the caller's own words."""
    client: Annotated[str, AfterValidator(network)] = ""
    """The network that the viewer must come from."""
    max_duration: Annotated[float, Field(gt=0, le=_YEAR)] | None = None
    """Seconds from when the token is first used, after which all is over."""
    view_only: Any = None
    power: Any = None
    take_over: Any = None


class IssuedConsole(Strict):
    """A console URL, as it is handed out once."""

    id: str
    type: str
    url: str
    expires_at: str
    """RFC 3339, UTC."""
    vm: Vm


class Console(Strict):
    """A console URL without its token, as it is told afterwards."""

    id: str
    type: str
    vm: Vm
    issuer: str
    user: str
    issued_at: str
    expires_at: str
    uses: int
    client: str | None
    max_duration: float | None


class _User(Strict):
    user: Name


class _OfIssuer(Strict):
    issuer: Name | None = None


class ConsoleCalls:
    """The calls about console URLs.

    Whoever is no operator sees and revokes its own alone, and cannot tell another's from one that never was.
    """

    def __init__(self, issuer: Issuer, store: ITokenStore) -> None:
        self._issuer = issuer
        self._store = store

    def routes(self) -> list[Route]:
        """All of them."""
        issuers = frozenset({Role.ISSUER})
        return [
            Route("POST", "/v1/consoles", self._post, issuers),
            Route("GET", "/v1/consoles", self._get_all, issuers),
            Route("GET", "/v1/consoles/{id}", self._get, issuers),
            Route("DELETE", "/v1/consoles/{id}", self._delete, issuers),
            Route("DELETE", "/v1/vms/{uuid}/consoles", self._delete_of_vm, issuers),
            Route("DELETE", "/v1/users/{user}/consoles", self._delete_of_user, issuers),
        ]

    # Issuing.

    async def _post(self, call: Call) -> Answer:
        body = read_body(call, ConsoleRequest)
        if isinstance(body, Problem):
            return body
        problem = self._unsupported(body) or self._too_long(body)
        if problem is not None:
            return problem
        order = Order(
            vm=body.vm,
            console_type=body.type,
            user=body.user,
            ttl=body.ttl,
            uses=body.uses,
            client=body.client,
            max_duration=body.max_duration,
        )
        issued = await self._issuer.issue(call.who, order)
        if isinstance(issued, Refusal):
            return issued
        grant = issued.grant
        console = IssuedConsole(
            id=grant.id,
            type=grant.console_type,
            url=issued.url,
            expires_at=rfc3339(grant.expires_at),
            vm=Vm(uuid=grant.vm_uuid, name=grant.vm_name),
        )
        return json_reply(201, console.model_dump(), ("Location", f"/v1/consoles/{grant.id}"))

    def _unsupported(self, body: ConsoleRequest) -> Problem | None:
        """A restriction that is not enforced is refused, never accepted and ignored."""
        for name in _NOT_ENFORCED:
            if name in body.model_fields_set:
                return Problem(Reason.UNSUPPORTED, f"{name}: is not supported yet")
        if body.type != "xvpvnc":
            return Problem(Reason.UNSUPPORTED, f"type: {body.type} is not supported yet")
        return None

    def _too_long(self, body: ConsoleRequest) -> Problem | None:
        terms = self._issuer.terms
        if body.ttl is not None and body.ttl > terms.ttl:
            return Problem(Reason.BAD_REQUEST, f"ttl: must be at most {terms.ttl:g}")
        if body.max_duration is not None and terms.max_duration and body.max_duration > terms.max_duration:
            return Problem(Reason.BAD_REQUEST, f"max_duration: must be at most {terms.max_duration:g}")
        return None

    # Listing.

    async def _get_all(self, call: Call) -> Answer:
        query = read_query(call, Page)
        if isinstance(query, Problem):
            return query
        grants = await self._store.grants(call.who.domain)
        if isinstance(grants, Refusal):
            return grants
        some, following = page_of(grants, lambda grant: (grant.issued_at, grant.id), query)
        return json_reply(200, {"consoles": [_told(grant) for grant in some], "next": following})

    async def _get(self, call: Call) -> Answer:
        query = read_query(call, NoQuery)
        if isinstance(query, Problem):
            return query
        grants = await self._store.grants(call.who.domain)
        if isinstance(grants, Refusal):
            return grants
        for grant in grants:
            if grant.id == call.variables["id"]:
                return json_reply(200, _told(grant))
        return Refusal(Reason.NOT_FOUND)

    # Revoking.

    async def _delete(self, call: Call) -> Answer:
        query = read_query(call, NoQuery)
        if isinstance(query, Problem):
            return query
        grant = call.variables["id"]
        if not is_id(grant):
            return Refusal(Reason.NOT_FOUND)
        return await revoke(self._store, call, Selector("grant", grant, call.who.domain), one_grant=True)

    async def _delete_of_vm(self, call: Call) -> Answer:
        query = read_query(call, NoQuery)
        if isinstance(query, Problem):
            return query
        uuid = call.variables["uuid"].lower()
        if not is_uuid(uuid):
            return Problem(Reason.BAD_REQUEST, "uuid: must be a virtual machine's uuid")
        return await revoke(self._store, call, Selector("vm", uuid, call.who.domain))

    async def _delete_of_user(self, call: Call) -> Answer:
        query, path = read_query(call, _OfIssuer), as_model(_User, call.variables)
        if isinstance(query, Problem):
            return query
        if isinstance(path, Problem):
            return path
        issuer = query.issuer if query.issuer is not None else call.who.domain
        if issuer is None:
            return Problem(Reason.BAD_REQUEST, "issuer: is missing; whose user is it? ?issuer=NAME says so")
        if call.who.domain not in {None, issuer}:
            return Refusal(Reason.FORBIDDEN)
        return await revoke(self._store, call, Selector.of_user(issuer, path.user))


def _told(grant: Grant) -> dict[str, Any]:
    console = Console(
        id=grant.id,
        type=grant.console_type,
        vm=Vm(uuid=grant.vm_uuid, name=grant.vm_name),
        issuer=grant.issuer,
        user=grant.user,
        issued_at=rfc3339(grant.issued_at),
        expires_at=rfc3339(grant.expires_at),
        uses=grant.uses,
        client=grant.client or None,
        max_duration=grant.max_duration or None,
    )
    return console.model_dump()
