"""Where a Redis is and how to be let in: `RedisSettings`, and the address that an operator writes. Pure.

``redis://[user@]host[:port][/database]``, ``rediss://`` for TLS; with Sentinel
``redis+sentinel://[user@]host[:port],host[:port],…/master[/database]``, ``rediss+sentinel://`` for TLS to the sentinels and to
the servers that they name.
"""

import re
from dataclasses import dataclass, field
from typing import Final

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_ADDRESS = re.compile(r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/?#]+)(?:/(?P<path>[^?#]*))?")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_SCHEMES: Final = {
    "redis": (False, False),
    "rediss": (True, False),
    "redis+sentinel": (False, True),
    "rediss+sentinel": (True, True),
}
"""Scheme: whether with TLS, whether by Sentinel."""


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """All that is needed to connect to a Redis."""

    servers: tuple[tuple[str, int], ...]
    """Host and port of the server; of every sentinel, when there is a ``master``."""
    master: str = ""
    """Sentinel's name for the master; empty when ``servers`` is the server itself."""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    """PEM file of the authorities that may vouch for the server; empty is the platform's. The server's name always counts."""
    answer_seconds: float = 2.0
    """A server that has not answered for this long is not there."""


def parse_redis_url(url: str, password: str = "", ca_file: str = "") -> RedisSettings:
    """The settings that an address means. Raises `ValueError` with one line that says what is wrong; the line quotes nothing,
    as a password might have been written where none belongs."""
    match = _ADDRESS.fullmatch(url)
    if match is None or match["scheme"] not in _SCHEMES:
        raise ValueError("not an address of the form redis://host:port/database")
    user = match["user"] or ""
    if ":" in user:
        raise ValueError("a password does not belong into the address; use a password file")
    tls, sentinel = _SCHEMES[match["scheme"]]
    path = (match["path"] or "").split("/")
    hosts = match["hosts"].split(",")
    if sentinel:
        master, *path = path
        if not re.fullmatch(r"[A-Za-z0-9._-]+", master):
            raise ValueError("with Sentinel the address ends in /master or /master/database")
    else:
        master = ""
        if len(hosts) > 1:
            raise ValueError("only an address with Sentinel may name several hosts")
    return RedisSettings(
        servers=tuple(_host_and_port(host, SENTINEL_PORT if sentinel else REDIS_PORT) for host in hosts),
        master=master,
        database=_database(path),
        username=user,
        password=password,
        tls=tls,
        ca_file=ca_file,
    )


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError("a host is a name or an address, with or without :port; an IPv6 address stands in brackets")
    port = int(match["port"] or default_port)
    if not 0 < port < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return match["ipv6"] or match["name"], port


def _database(path: list[str]) -> int:
    text = "/".join(path) or "0"
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("the database is a number")
    return int(text)
