"""Twisted's reactor for figures that need one in this process."""

from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, TypeVar, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

T = TypeVar("T")


def in_reactor(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """What ``work(reactor)`` returns. The reactor runs in a thread, so that Ctrl-C is the caller's; it can do so only once."""
    reactor: Any = global_reactor
    thread = Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    try:
        result: Any = blockingCallFromThread(reactor, _started, work, reactor)
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join()
    return cast(T, result)


def _started(work: Callable[[Any], Coroutine[Any, Any, T]], reactor: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(work(reactor))
