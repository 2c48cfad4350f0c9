"""Grants and tokens: pure records, no clock, no store.

A *token* is 32 random bytes, URL-safe, and exists in clear only in the reply to whoever asked for it and in the request
of whoever uses it. A *grant* is what it stands for. Stores know a token by its SHA-256 digest alone, so that a copy of a
store lets nobody in (a random token of 256 bits needs neither salt nor stretching).
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

TOKEN_BYTES = 32
_ID_BYTES = 12
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token stands for.

    Times are seconds since the epoch. Everything here may be stored, listed and logged; the token may not.
    """

    id: str
    """Public name of the grant; no secret, and no help in guessing the token."""
    digest: str
    """SHA-256 of the token, in hex."""
    vm_uuid: str
    vm_name: str
    """The VM's name when the grant was issued, for people."""
    console_type: str
    """``xvpvnc`` (viewers) or ``novnc`` (browsers), in Nova's words."""
    issuer: str
    """Name of the API key that asked."""
    user: str
    """For whom, in the issuer's own words; empty when it did not say."""
    issued_at: float
    expires_at: float
    uses: int
    """How often the token may be redeemed; 0 is any number of times until it expires, as in Nova."""
    resume: float
    """Seconds within which a session that ended by no fault of the client may be taken up again."""
    client: str = ""
    """The network, in CIDR form, that the client must come from; empty: any."""
    max_duration: float = 0.0
    """Seconds, from its first redeem, after which all is over: its sessions, resumed ones too, and the token; 0: never."""


def mint_token(random_bytes: Callable[[int], bytes]) -> str:
    """A new token from a cryptographic source such as `secrets.token_bytes`."""
    return _urlsafe(random_bytes(TOKEN_BYTES))


def mint_id(random_bytes: Callable[[int], bytes]) -> str:
    """A new public name, for a grant or a console session."""
    return _urlsafe(random_bytes(_ID_BYTES))


def is_token(text: str) -> bool:
    """Whether ``text`` could be a token at all: what is not, never reaches a store."""
    return _TOKEN.fullmatch(text) is not None


def digest(token: str) -> str:
    """The form in which a token is stored and looked up: SHA-256, hex."""
    return hashlib.sha256(token.encode("utf-8")).hexdigest()


def _urlsafe(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
