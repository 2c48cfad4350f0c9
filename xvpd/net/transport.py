"""What a leg needs of Twisted's transports beyond their interfaces. Nothing else here knows what is inside them."""

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import alsoProvides, implementer

_KEEPALIVE_IDLE: Final = 60
_KEEPALIVE_INTERVAL: Final = 15
_KEEPALIVE_COUNT: Final = 4
_USER_TIMEOUT_MS: Final = 1000 * (_KEEPALIVE_IDLE + _KEEPALIVE_INTERVAL * _KEEPALIVE_COUNT)
"""Unanswered for this long, idle or not, and the kernel gives the peer up (tcp(7), TCP_USER_TIMEOUT)."""


def bottom_of(transport: Any, protocol: Any) -> Any:
    """The transport that has the socket, under what a listener may have wrapped it in (``haproxy:``).

    ``protocol`` hears of half-closes through the wrappers, which would take them for the end of the connection.
    """
    while isinstance(transport, ProtocolWrapper):
        wrapper: Any = transport
        alsoProvides(wrapper, IHalfCloseableProtocol)
        wrapper.readConnectionLost = protocol.readConnectionLost
        wrapper.writeConnectionLost = protocol.writeConnectionLost
        transport = wrapper.transport
    return transport


def tune(bottom: Any) -> None:
    """Have a TCP connection send at once, and notice a peer that is away."""
    handle: socket.socket = bottom.socket
    if handle.family == socket.AF_UNIX:
        return
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def watch_room(transport: Any, room: Callable[[bool], None]) -> None:
    """Have ``room`` called with False when ``transport`` holds enough unsent bytes, with True when it takes more."""
    transport.registerProducer(_Watching(room), True)


def when_flushed(bottom: Any, flushed: Callable[[], None]) -> None:
    """Have ``flushed`` called, later, when everything written to the transport has been sent. Ends `watch_room`."""
    bottom.unregisterProducer()
    bottom.registerProducer(_Flushing(flushed), False)
    bottom.startWriting()


def take_socket(bottom: Any) -> int:
    """Take the connected socket away from its transport, which unwinds as if the peer had closed. Whoever calls owns the file
    descriptor."""
    bottom.unregisterProducer()
    bottom.stopReading()
    bottom.stopWriting()
    fd: int = bottom.socket.detach()
    bottom.connectionLost(connectionDone)  # finds no socket that it could shut down and close
    return fd


@implementer(IPushProducer)
class _Watching:
    """Produces nothing: a transport tells its producer whether it takes more bytes."""

    def __init__(self, room: Callable[[bool], None]) -> None:
        self._room = room

    def pauseProducing(self) -> None:
        self._room(False)

    def resumeProducing(self) -> None:
        self._room(True)

    def stopProducing(self) -> None:
        """The connection is lost, of which its protocol hears by itself."""


@implementer(IPullProducer)
class _Flushing:
    """Produces nothing: a transport asks its pull producer for more when all is sent."""

    def __init__(self, flushed: Callable[[], None]) -> None:
        self._flushed = flushed
        self._registered = False

    def resumeProducing(self) -> None:
        if self._registered:
            self._flushed()
        self._registered = True  # registering asks once, whether or not there is anything left to send

    def stopProducing(self) -> None:
        """The connection is lost, of which its protocol hears by itself."""
