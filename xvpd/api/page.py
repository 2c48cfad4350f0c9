"""Long lists, a page at a time.

A cursor says what the last item of a page was sorted by, and not where it stood: what appears or vanishes between two pages
shifts nothing, and nothing that stays is left out or told twice.
"""

import base64
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from xvpd.api.model import Strict, is_id

T = TypeVar("T")

Place = tuple[float, str]
"""What items are sorted by: a moment, in seconds since the epoch, and an id."""

MOST: Final = 1000
"""Items on a page."""
_CURSOR_LENGTH: Final = 200


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise ValueError(f"must be a whole number from 1 to {MOST}")
    return int(text)


def _cursor(text: str) -> str:
    if _place_of(text) is None:
        raise ValueError("must be what another page had as next")
    return text


class Page(Strict):
    """The query of a call that answers with a list."""

    limit: Annotated[int, BeforeValidator(_count)] = 100
    after: Annotated[str, Field(max_length=_CURSOR_LENGTH), AfterValidator(_cursor)] | None = None


def page_of(items: Iterable[T], place: Callable[[T], Place], page: Page) -> tuple[list[T], str | None]:
    """The items of a page, in the order of their places, and the cursor of the next page if there is one."""
    after = _place_of(page.after) if page.after is not None else None
    rest = sorted((item for item in items if after is None or place(item) > after), key=place)
    some = rest[: page.limit]
    return some, _cursor_of(place(some[-1])) if len(rest) > len(some) else None


def _cursor_of(place: Place) -> str:
    moment, name = place
    return base64.urlsafe_b64encode(f"{float(moment)!r} {name}".encode("ascii")).rstrip(b"=").decode("ascii")


def _place_of(cursor: str) -> Place | None:
    """What a cursor says; None if it is none of ours."""
    try:
        moment, _, name = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii").partition(" ")
        )
        place = float(moment), name
    except ValueError:
        return None
    return place if math.isfinite(place[0]) and is_id(name) and _cursor_of(place) == cursor else None
