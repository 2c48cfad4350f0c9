"""What the names look like that a pool gives its things, and that may stand in bytes of ours. Pure.

Nothing goes into a request to a host, and no host is dialled, unless it has passed one of these.
"""

import re
from ipaddress import IPv6Address, ip_address
from typing import Final

REF_LENGTH: Final = 80
_REF = re.compile(rf"(?=.{{1,{REF_LENGTH}}}\Z)OpaqueRef:[0-9A-Za-z-]+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[0-9A-Za-z-]{1,63}(?<!-)(\.(?!-)[0-9A-Za-z-]{1,63}(?<!-))*")

NULL_REF: Final = "OpaqueRef:NULL"
"""What xapi says where there is no object."""


def is_ref(text: str) -> bool:
    """Whether this is an object's reference, or an xapi session's: ``OpaqueRef:`` and a uuid, in all xapi releases."""
    return _REF.fullmatch(text) is not None


def is_uuid(text: str) -> bool:
    """Whether this is a uuid as xapi writes it, in lower case."""
    return _UUID.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Whether this is an IP address, or a DNS name of letters, digits and hyphens without a final dot."""
    return is_ip(text) or _NAME.fullmatch(text) is not None


def is_ip(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address. One with a zone (``fe80::1%eth0``) is none: it means nothing elsewhere."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def canonical(address: str) -> str:
    """One spelling for each address, for comparisons: ``FD00:0::1`` and ``fd00::1`` are the same host."""
    return str(ip_address(address)) if is_ip(address) else address.lower()


def bracketed(address: str) -> str:
    """The address as URLs and the Host header have it (RFC 3986 section 3.2.2)."""
    return f"[{address}]" if is_ip(address) and isinstance(ip_address(address), IPv6Address) else address
