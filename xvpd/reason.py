"""The closed list of outcomes.

Every console session ends in exactly one `Reason`, and every request that xvpd turns down names one. The same
word stands in the log, in the metric's label, in the audit record and in the reply, so that a person who reads one
can find the others. This module is the only place where a reason's HTTP status, its WebSocket close code and its
sentence are written; `docs/reasons.md` is generated from it (``python -m xvpd.reason``).
"""

from dataclasses import dataclass
from enum import Enum

_CLOSE_CODE_BASE = 4400
"""RFC 6455 section 7.4.2 leaves 4000-4999 to applications."""


class Reason(Enum):
    """Why something ended or was turned down.

    ``status`` is the HTTP status of a reply that gives this reason, or None for a reason that can only come after the
    reply. ``number`` is stable for ever: it is never reused, and ``close_code`` follows from it. ``sentence`` is for
    the person at the other end: it names no user, address, certificate or text from a hypervisor, and it never says
    whether a token that was turned down had ever been good.
    """

    # How a console session came to its end. It may be cut before its client was answered; then there is a status.
    CLIENT_CLOSED = 1, None, "The viewer closed the console."
    HYPERVISOR_CLOSED = 2, None, "The hypervisor closed the console."
    CLIENT_LOST = 3, None, "The connection to the viewer was lost."
    HYPERVISOR_LOST = 4, None, "The connection to the hypervisor was lost."
    REVOKED = 5, 401, "Access to this console was revoked."
    KILLED = 6, 503, "An operator ended this console session."
    STOPPED = 7, 503, "The console proxy is stopping; open the console again."
    CLIENT_PROTOCOL = 8, None, "The viewer did not speak the RFB protocol as expected."
    CLIENT_SLOW = 9, None, "The viewer took too long to start the RFB protocol."
    CLIENT_LEFT = 10, None, "The viewer left before the console was open."
    MAX_DURATION = 11, 401, "The console was open for as long as it may be; ask for a new console URL."

    # The request itself.
    BAD_REQUEST = 20, 400, "This is not a console request."
    NO_TOKEN = 21, 400, "The address holds no token; ask for a new console URL."
    FOR_VIEWERS = 22, 400, "This address is for a VNC viewer; a browser cannot show it."
    NOT_FOUND = 23, 404, "There is nothing at this address."
    METHOD_NOT_ALLOWED = 24, 405, "This method is not allowed at this address."
    HEAD_SLOW = 25, 408, "The request took too long to arrive."
    HEAD_TOO_LARGE = 26, 431, "The request is too large."
    BODY_TOO_LARGE = 27, 413, "The body of the request is too large."
    UNSUPPORTED = 28, 400, "The request asks for something that is not enforced yet."
    LENGTH_REQUIRED = 29, 411, "The request must say how long its body is."
    NOT_JSON = 30, 415, "The body of the request must be application/json."

    # The token. One sentence for all: a stranger learns nothing about a token's past.
    TOKEN_UNKNOWN = 40, 401, "The token is not valid; ask for a new console URL."
    TOKEN_EXPIRED = 41, 401, "The token is not valid; ask for a new console URL."
    TOKEN_USED = 42, 401, "The token is not valid; ask for a new console URL."
    TOKEN_REVOKED = 43, 401, "The token is not valid; ask for a new console URL."
    TOKEN_ELSEWHERE = 44, 401, "The token is not valid; ask for a new console URL."

    # Who is asking the API.
    UNAUTHORIZED = 50, 401, "An API key is required."
    FORBIDDEN = 51, 403, "This API key may not do that."

    # The VM and its console.
    VM_NOT_FOUND = 60, 404, "The virtual machine does not exist."
    VM_AMBIGUOUS = 61, 409, "More than one virtual machine has this name; use its uuid."
    VM_NOT_RUNNING = 62, 409, "The virtual machine is not running."
    NO_CONSOLE = 63, 409, "The virtual machine has no graphical console."

    # The hypervisor.
    HYPERVISOR_REFUSED = 70, 502, "The hypervisor refused the console."
    HYPERVISOR_UNTRUSTED = 71, 502, "The hypervisor could not prove its identity."
    HYPERVISOR_UNREACHABLE = 72, 502, "The hypervisor could not be reached."
    HYPERVISOR_PROTOCOL = 73, 502, "The hypervisor did not answer as expected."
    HYPERVISOR_SLOW = 74, 504, "The hypervisor took too long to answer."
    CONSOLE_BUSY = 75, 503, "The console is in use, or the hypervisor has no room for another."

    # xvpd itself.
    STORE_AWAY = 80, 503, "The console proxy cannot check tokens at the moment; try again soon."
    DRAINING = 81, 503, "The console proxy is stopping; try again."
    TOO_MANY = 82, 429, "Too many consoles are open; close one and try again."
    INTERNAL = 83, 500, "The console proxy failed; the operator can find out why by the request id."

    def __init__(self, number: int, status: int | None, sentence: str) -> None:
        self.number = number
        self.status = status
        self.sentence = sentence

    @property
    def word(self) -> str:
        """The reason as it stands in logs, metrics, records and JSON: ``token_expired``."""
        return self.name.lower()

    @property
    def close_code(self) -> int:
        """The WebSocket close code that carries this reason."""
        return _CLOSE_CODE_BASE + self.number


@dataclass(frozen=True, slots=True)
class Refusal:
    """An expected failure, as a value: the reason, and what an operator may read about it.

    ``detail`` goes into the log beside the request id and nowhere else: it may hold addresses, fingerprints and the
    hypervisor's words. It never holds a token, a password or an xapi session reference.
    """

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.word}: {self.detail}" if self.detail else self.reason.word


def as_markdown() -> str:
    """The table of all reasons, as `docs/reasons.md` holds it."""
    rows = (f"| `{reason.word}` | {reason.status or '-'} | {reason.close_code} | {reason.sentence} |" for reason in Reason)
    return "\n".join(
        [
            "# Reasons",
            "",
            "Every console session ends in one of these words; every refusal names one. Generated by",
            "`python -m xvpd.reason`.",
            "",
            "| word | HTTP status | WebSocket close code | what a person reads |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(as_markdown(), end="")
