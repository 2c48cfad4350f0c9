"""A few threads for calls that block, which nobody waits for longer than they want to."""

from collections.abc import Callable
from threading import Thread
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")

COUNT: Final = 4
"""Calls that one pool's xapi is asked at once."""


class StoppedError(Exception):
    """The workers have been stopped."""


class Workers:
    """Threads that work for one pool.

    A blocked thread cannot be ended from outside. So whoever gives it work says how to interrupt it (shut its socket down,
    say): that is done when the one who asked gives up or the workers stop, and the thread is free again once its work has
    ended.
    """

    def __init__(self, reactor: Any, name: str, count: int = COUNT) -> None:
        self._reactor = reactor
        self._threads = ThreadPool(minthreads=0, maxthreads=count, name=name)
        self._threads.threadFactory = _DaemonThread
        self._free = DeferredSemaphore(count)
        self._busy: dict[Deferred[Any], Callable[[], None]] = {}
        self._when_idle: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Before the first `run`."""
        self._threads.start()

    def run(self, work: Callable[[], T], interrupt: Callable[[], None]) -> Deferred[T]:
        """What ``work`` returns or raises, in a thread, when one is free.

        Cancelling calls ``interrupt`` if ``work`` has begun, from the reactor's thread; then the outcome is dropped. It is
        called, too, when the workers stop. Fails with `StoppedError` when they have.
        """
        return Deferred.fromCoroutine(self._run(work, interrupt))

    def interrupt(self) -> None:
        """Interrupt all work that has begun."""
        for interrupt in list(self._busy.values()):
            interrupt()

    def stop(self, seconds: float) -> Deferred[None]:
        """Interrupt what has begun, take nothing more, and let the threads go. One that does not end within ``seconds`` is
        left behind, and does not keep the process from ending."""
        if self._stopped:
            return succeed(None)
        self._stopped = True
        return Deferred.fromCoroutine(self._stop(seconds))

    async def _run(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        await self._free.acquire()
        if self._stopped:
            self._free.release()
            raise StoppedError
        working: Deferred[T] = deferToThreadPool(self._reactor, self._threads, work)
        self._busy[working] = interrupt
        working.addBoth(self._ended, working)
        outcome: Deferred[T] = Deferred()
        working.addCallbacks(outcome.callback, outcome.errback)
        try:
            return await outcome
        except CancelledError:
            interrupt()
            raise

    def _ended(self, result: T, working: Deferred[Any]) -> T:
        del self._busy[working]
        self._free.release()
        if not self._busy and self._when_idle is not None:
            self._when_idle.callback(None)
        return result

    async def _stop(self, seconds: float) -> None:
        self.interrupt()
        if self._busy:
            self._when_idle = Deferred()
            try:
                await self._when_idle.addTimeout(seconds, self._reactor)
            except TimeoutError:
                self._when_idle = None
                _DaemonThread(target=self._threads.stop).start()  # joins, some day
                return
        self._threads.stop()


class _DaemonThread(Thread):
    """A thread that the interpreter does not wait for when it exits."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, daemon=True, **keywords)
