"""Grants, sessions and selectors as JSON, for stores outside this process. Pure.

A record is read back only if it says exactly what this version knows: of a grant with a restriction that came later, a node
that does not know of it must let nobody in. Everything is ASCII and on one line.
"""

import json
from dataclasses import asdict, fields
from typing import Any, Final, TypeVar

from xvpd.grants.grant import Grant
from xvpd.grants.store import Activity, Selector, Session

T = TypeVar("T", Grant, Session, Activity, Selector)

_ALLOWED: Final[dict[Any, Any]] = {float: (int, float)}
"""What may stand for a type in JSON, where it is not the type itself."""


def grant_to_json(grant: Grant) -> str:
    """A grant, to be kept."""
    return _dump(asdict(grant))


def grant_from_json(text: bytes) -> Grant | None:
    """A grant that was kept; None if this version cannot know what it means."""
    return _read(Grant, _load(text))


def session_to_json(session: Session, activity: Activity) -> str:
    """A live session, to be kept."""
    return _dump({"session": asdict(session), "activity": asdict(activity)})


def session_from_json(text: bytes) -> tuple[Session, Activity] | None:
    """A live session that was kept; None if this version cannot know what it means."""
    whole = _load(text)
    told = whole.get("session")
    if not isinstance(told, dict):
        return None
    grant = _read(Grant, told.get("grant"))
    activity = _read(Activity, whole.get("activity"))
    session = _read(Session, told | {"grant": grant})
    return None if session is None or activity is None else (session, activity)


def selector_to_json(selector: Selector) -> dict[str, Any]:
    """A selector, as part of a message."""
    return asdict(selector)


def selector_from_json(told: object) -> Selector | None:
    """A selector from a message; None if this version cannot know what it means."""
    try:
        return _read(Selector, told)
    except ValueError:
        return None


def message(**said: Any) -> str:
    """What one node tells others."""
    return _dump(said)


def message_from(text: bytes) -> dict[str, Any]:
    """What another node said; empty if it makes no sense."""
    return _load(text)


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _load(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read(of: type[T], told: object) -> T | None:
    """A record with exactly the fields that it has; those with a default may be missing."""
    if not isinstance(told, dict):
        return None
    known = {each.name: each for each in fields(of)}
    for name, value in told.items():
        if name not in known or not isinstance(value, _ALLOWED.get(known[name].type, known[name].type)):
            return None
    try:
        return of(**told)
    except TypeError:
        return None
