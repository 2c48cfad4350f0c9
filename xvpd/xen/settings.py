"""What the operator says about a pool, and how long each step may take."""

from collections.abc import Callable
from dataclasses import dataclass, field

from xvpd.xen.trust import Trust


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool. What is here was checked by whoever read the configuration."""

    name: str
    hosts: tuple[str, ...]
    """Addresses of hosts that may be the coordinator, the likeliest first. xvpd logs in to no other."""
    username: str
    password: str = field(repr=False)
    trust: Trust
    port: int = 443
    """Of every member, for the API and for consoles."""
    state_dir: str = ""
    """Where learnt pins are kept; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds."""

    connect: float = 5.0
    """A TCP connection to a host, and TLS in the SDK's threads."""
    call: float = 10.0
    login: float = 15.0
    """At one host; xapi waits 5 seconds before it says that a password is wrong."""
    logout: float = 3.0
    find: float = 20.0
    """All that it takes to find a VM."""
    dial: float = 20.0
    """All that it takes to open a console, on another host at last if need be; xapi itself gives a request 60 seconds."""
    poll: float = 30.0
    """How long the pool is asked to wait for something to happen before it answers a poll for events."""
    poll_late: float = 15.0
    """How much later than that the answer may be."""
    seed: float = 60.0
    """For the first answer, which has every object of the pool."""
    stale: float = 60.0
    """The age from which on the last answer says nothing about the present."""
    stop: float = 8.0
    """For threads to come back when the pool is stopped."""


Timed = Callable[[str, float], None]
"""Told of every call, whatever came of it: the method's name, and the seconds that it took."""


def untimed(_: str, __: float) -> None:
    """A `Timed` that nobody listens to."""
