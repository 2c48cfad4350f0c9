"""The query of a request, read strictly, into a model."""

from typing import TypeVar

from pydantic import BaseModel

from xvpd.api.body import as_model
from xvpd.api.model import Strict
from xvpd.api.reply import Problem
from xvpd.api.route import Call, unescape
from xvpd.fault import spelt
from xvpd.reason import Reason

M = TypeVar("M", bound=BaseModel)


class NoQuery(Strict):
    """None: of what a call does not know, it must not be thought that it had an effect."""


def read_query(call: Call, model: type[M]) -> M | Problem:
    """The query of ``call`` as a ``model``, all of whose values come as text, or what is wrong with it.

    It must be ``name=value`` pairs between ampersands (``+`` is a space, as in forms), with no name twice.
    """
    values: dict[str, str] = {}
    for pair in call.query.split("&") if call.query else ():
        name, equals, value = (unescape(part.replace("+", " ")) for part in pair.partition("="))
        if not name or not equals or value is None:
            return Problem(Reason.BAD_REQUEST, "The query must be name=value pairs, percent-encoded.")
        if name in values:
            return Problem(Reason.BAD_REQUEST, f"{spelt(name)}: is there twice")
        values[name] = value
    return as_model(model, values)
