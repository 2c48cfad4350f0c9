"""The body of a request: JSON, read strictly, into a model."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from xvpd.api.reply import Problem
from xvpd.api.route import Call
from xvpd.fault import in_words, spelt
from xvpd.reason import Reason

M = TypeVar("M", bound=BaseModel)


def read_body(call: Call, model: type[M]) -> M | Problem:
    """The body of ``call`` as a ``model``, or what is wrong with it.

    It must be declared as application/json and be one JSON object in UTF-8, without duplicate keys and without the numbers
    that JSON does not have.
    """
    if not _is_json(call.content_type):
        return Problem(Reason.NOT_JSON, Reason.NOT_JSON.sentence)
    try:
        value = json.loads(call.body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except _NotStrictError as error:
        return Problem(Reason.BAD_REQUEST, str(error))
    except (ValueError, RecursionError):
        return Problem(Reason.BAD_REQUEST, "The body is not JSON.")
    if not isinstance(value, dict):
        return Problem(Reason.BAD_REQUEST, "The body must be a JSON object.")
    return as_model(model, value)


def as_model(model: type[M], value: Mapping[str, Any]) -> M | Problem:
    """What came from a caller as a ``model``, or what is wrong with it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        return Problem(Reason.BAD_REQUEST, "; ".join(map(_fault, error.errors())))


class _NotStrictError(Exception):
    """JSON of a kind that different readers understand differently. The text is for the caller."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _NotStrictError("The body has an object with the same key twice.")
    return value


def _no_number(_: str) -> NoReturn:
    raise _NotStrictError("The body has a number that is not finite.")


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    return media_type == "application/json" and all(each in {"", "charset=utf-8", 'charset="utf-8"'} for each in parameters)


def _fault(details: ErrorDetails) -> str:
    """A fault in pydantic's terms, for a person. It names the key and never quotes the value."""
    return f"{'.'.join(map(spelt, details['loc']))}: {in_words(details)}"
