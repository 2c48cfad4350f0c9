"""What RFB messages look like: the numbers and lengths that are needed outside of pixels.

Source: rfbproto.rst (the community's RFB specification, which continues RFC 6143); sections are named where they matter.
Integers are unsigned and big-endian.
"""

import re
from enum import Enum
from typing import Final

VERSION_LENGTH: Final = 12
"""ProtocolVersion: ``RFB xxx.yyy`` and a line feed."""
_VERSION: Final = re.compile(rb"RFB ([0-9]{3})\.([0-9]{3})\n")

U32_LENGTH: Final = 4

SECURITY_FAILED: Final = 0
"""In place of a security type (3.3) or of their number (3.7 on): a reason follows, then the end."""
SECURITY_NONE: Final = 1
RESULT_OK: Final = 0
RESULT_FAILED: Final = 1

SERVER_INIT_LENGTH: Final = 24
"""ServerInit without the name behind it: U16 width, U16 height, 16 bytes of pixel format, U32 length of the name."""

XVP: Final = -309
"""xvp Pseudo-encoding: the client knows the power extension."""
EXTENDED_MOUSE_BUTTONS: Final = -316
"""ExtendedMouseButtons Pseudo-encoding: the client can send pointer events of seven bytes, if the server can take them."""
EXTENDED_CLIPBOARD: Final = 0xC0A1E5CE - (1 << 32)
"""Extended Clipboard Pseudo-encoding: the lengths of cut texts are signed then, and a negative one marks another format."""


class Version(Enum):
    """The published protocol versions. The value is the ProtocolVersion message itself."""

    V3_3 = b"RFB 003.003\n"
    V3_7 = b"RFB 003.007\n"
    V3_8 = b"RFB 003.008\n"


def version_numbers(message: bytes) -> tuple[int, int] | None:
    """Major and minor number in a ProtocolVersion message, or None when it is none."""
    match = _VERSION.fullmatch(message)
    return (int(match[1]), int(match[2])) if match else None


def u32(number: int) -> bytes:
    """A U32 as it is sent."""
    return number.to_bytes(U32_LENGTH, "big")


def from_u32(field: bytes) -> int:
    """A U32 as it was received."""
    return int.from_bytes(field, "big")


def string(text: str) -> bytes:
    """A string as RFB sends its reasons: U32 length, then the text."""
    encoded = text.encode("utf-8")
    return u32(len(encoded)) + encoded
