"""The xvp extension: power operations that a viewer asks for inside RFB.

Source: rfbproto.rst, xvp Client Message and xvp Server Message. A client that lists `messages.XVP` among its encodings and is
answered `INIT` may send requests of four bytes: the type, padding, the extension's version, a code.
"""

from enum import Enum
from typing import Final

_TYPE: Final = 250
_VERSION: Final = 1

INIT: Final = bytes([_TYPE, 0, _VERSION, 1])
"""Server to client: requests are welcome."""
FAIL: Final = bytes([_TYPE, 0, _VERSION, 0])
"""Server to client: what was requested will not happen."""


class PowerRequest(Enum):
    """What a viewer may ask for. The value is the code on the wire."""

    SHUTDOWN = 2
    REBOOT = 3
    RESET = 4


_REQUESTS: Final = {(_VERSION, request.value): request for request in PowerRequest}


def request_in(message: bytes) -> PowerRequest | None:
    """What a client's message of type 250 asks for; None when it is nothing that version 1 knows."""
    return _REQUESTS.get((message[2], message[3]))
