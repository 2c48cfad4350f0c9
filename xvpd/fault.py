"""What is wrong with a value that came from outside, in plain words: for the configuration and for the API's bodies.

None of the words is taken from the value itself, which might be a secret.
"""

from typing import Final

from pydantic_core import ErrorDetails

_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "no such key",
    "string_type": "must be a string",
    "string_unicode": "must be a string",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
}
"""Where pydantic's own words are not plain enough, by its type of fault."""


def printable(text: str) -> str:
    """``text``, or a `ValueError` if it could make a mess of a log or a terminal. A validator."""
    if not text.isprintable():
        raise ValueError("must have no control characters")
    return text


def in_words(details: ErrorDetails) -> str:
    """What a person reads about a fault that pydantic found, behind the name of the key."""
    kind = details["type"]
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind == "string_too_long":
        return f"must be at most {details['ctx']['max_length']} characters long"
    return _WORDS.get(kind) or details["msg"].replace("Input should be", "must be").replace("a valid ", "a ")


def spelt(key: str | int) -> str:
    """A key as it can be shown on a line, whatever it was made of."""
    return ascii(key)[1:-1] if isinstance(key, str) else str(key)
