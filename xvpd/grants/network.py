"""Networks that clients may have to come from, in a form that any store can compare. Pure.

An address is in a network when its bits begin with the network's: text, so that a store's script needs no arithmetic.
IPv4 addresses that are mapped into IPv6 (RFC 4291 section 2.5.5.2), as a listener for both shows them, are IPv4 addresses.
"""

import ipaddress
import re
from typing import Final

_LENGTH: Final = re.compile(r"[0-9]{1,3}")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def network(text: str) -> str:
    """A network in CIDR form, ``10.0.0.0/8``, spelt as everywhere; an address alone is a network of one. Raises `ValueError`,
    whose text says what is wrong."""
    _, slash, length = text.partition("/")
    if "%" in text or (slash and not _LENGTH.fullmatch(length)):
        raise ValueError("must be a network such as 192.0.2.0/24, or an address")
    try:
        given = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24, or an address") from None
    if given.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise ValueError(f"must have no bits set behind the first {given.prefixlen}; {given} would do")
    if isinstance(given, ipaddress.IPv6Network) and given.subnet_of(_MAPPED):
        given = ipaddress.IPv4Network((int(given.network_address) & 0xFFFF_FFFF, given.prefixlen - _MAPPED.prefixlen))
    return str(given)


def network_bits(network: str) -> str:
    """What the bits of every address in a network begin with. Those of no network at all, which is "", are any address's."""
    if not network:
        return ""
    given = ipaddress.ip_network(network)
    return address_bits(str(given.network_address))[: 1 + given.prefixlen]


def address_bits(address: str) -> str:
    """``4`` or ``6`` and the address's bits, as ones and zeros; nothing for what is no IP address."""
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(given, ipaddress.IPv6Address) and given.ipv4_mapped is not None:
        given = given.ipv4_mapped
    return f"{given.version}{int(given):0{given.max_prefixlen}b}"
