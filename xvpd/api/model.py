"""What several of the API's calls take and tell: strict models and their words."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from xvpd.fault import printable

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

Text = Annotated[str, Field(max_length=255), AfterValidator(printable)]
Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(printable)]


class Strict(BaseModel):
    """Exactly these keys, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Vm(Strict):
    """A virtual machine."""

    uuid: str
    name: str


def is_id(text: str) -> bool:
    """Whether a grant or a console session could be called so: what could not, is not looked for."""
    return _ID.fullmatch(text) is not None


def rfc3339(seconds: float) -> str:
    """A moment, given in seconds since the epoch, as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
