"""What the API answers: a `Reply`, and a `Problem` in the place of one."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from xvpd.reason import Reason


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, complete but for the headers that all answers have."""

    status: int
    body: bytes
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()


NO_CONTENT: Final = Reply(204, b"", "")
"""It is done, and there is nothing to say about it (RFC 9110 section 8.6: not even how long nothing is)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was turned down. Unlike a `Refusal`'s, this detail is written for the caller to read."""

    reason: Reason
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


def json_reply(status: int, value: Any, *headers: tuple[str, str]) -> Reply:
    """``value`` as JSON."""
    return Reply(status, _encode(value), "application/json", headers)


def problem_reply(problem: Problem, request_id: str) -> Reply:
    """A problem as `RFC 9457 <https://www.rfc-editor.org/rfc/rfc9457>`_ has it, with two members more: ``reason``, the word to
    decide by, and ``request_id``."""
    status = problem.reason.status
    assert status is not None, "a reason that no request is turned down for"
    value = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": problem.detail,
        "reason": problem.reason.word,
        "request_id": request_id,
    }
    return Reply(status, _encode(value), "application/problem+json", problem.headers)


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
