"""The API's own calls, under ``/v1``."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from xvpd.api.auth import Role
from xvpd.api.body import read_body
from xvpd.api.issuer import Issuer, Order
from xvpd.api.reply import Problem, json_reply
from xvpd.api.route import Answer, Call, Route
from xvpd.fault import printable
from xvpd.reason import Reason, Refusal

_NOT_ENFORCED: Final = ("view_only", "power", "take_over", "client", "max_duration")


Text = Annotated[str, Field(max_length=255), AfterValidator(printable)]
Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(printable)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConsoleRequest(_Body):
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
    view_only: Any = None
    power: Any = None
    take_over: Any = None
    client: Any = None
    max_duration: Any = None


class Vm(_Body):
    """A virtual machine."""

    uuid: str
    name: str


class Console(_Body):
    """A console URL, as it is handed out once."""

    id: str
    type: Literal["xvpvnc", "novnc"]
    url: str
    expires_at: str
    """RFC 3339, UTC."""
    vm: Vm


class V1:
    """The calls under ``/v1``."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    def routes(self) -> list[Route]:
        """All of them."""
        return [Route("POST", "/v1/consoles", self._post_console, frozenset({Role.ISSUER}))]

    async def _post_console(self, call: Call) -> Answer:
        body = read_body(call, ConsoleRequest)
        if isinstance(body, Problem):
            return body
        problem = self._unsupported(body) or self._too_long(body)
        if problem is not None:
            return problem
        assert call.caller is not None, "not an open route"
        order = Order(vm=body.vm, console_type=body.type, user=body.user, ttl=body.ttl, uses=body.uses)
        issued = await self._issuer.issue(call.caller, order)
        if isinstance(issued, Refusal):
            return issued
        grant = issued.grant
        console = Console(
            id=grant.id,
            type=body.type,
            url=issued.url,
            expires_at=_rfc3339(grant.expires_at),
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
        if body.ttl is not None and body.ttl > self._issuer.terms.ttl:
            return Problem(Reason.BAD_REQUEST, f"ttl: must be at most {self._issuer.terms.ttl:g}")
        return None


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
