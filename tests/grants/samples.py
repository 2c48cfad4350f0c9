"""Grants and sessions to test with."""

from typing import Any

from xvpd.grants.grant import Grant, digest
from xvpd.grants.store import Session

TTL = 600.0
RESUME = 300.0


def a_grant(token: str = "token", **fields: Any) -> Grant:
    """A grant that ``token`` stands for, counted zero times and good for `TTL` seconds."""
    given: dict[str, Any] = {
        "id": f"grant-of-{token}",
        "digest": digest(token),
        "vm_uuid": "5f1e9c6e-0000-4000-8000-000000000001",
        "vm_name": "web-1",
        "console_type": "xvpvnc",
        "issuer": "portal",
        "user": "ann",
        "issued_at": 1_000_000.0,
        "uses": 0,
        "resume": RESUME,
    }
    given |= fields
    given.setdefault("expires_at", given["issued_at"] + TTL)
    return Grant(**given)


def a_session(session_id: str, grant: Grant, **fields: Any) -> Session:
    """A console session that ``grant`` let in."""
    given: dict[str, Any] = {"node": "a", "host": "host-1", "client": "192.0.2.7", "since": 1_000_000.0}
    return Session(session_id, grant, **(given | fields))
