"""`Daemon`: what is started, in which order, and how it stops again."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.logger import Logger

from xvpd.console.door import Door
from xvpd.grants.store import ITokenStore
from xvpd.ops.sessions import Sessions
from xvpd.ops.store_watch import StoreWatch
from xvpd.reason import Reason
from xvpd.xen.hypervisor import IHypervisor

FINAL_SECONDS: Final = 15.0
"""How long sessions that were cut may take until they are closed: more than a relay's own deadlines add up to."""


class Daemon(Service):
    """The whole of a running xvpd.

    Starting binds every listener, or raises; then the store and the pools are tried. Stopping closes the console listeners and
    drains: live sessions go on for at most ``drain_seconds``. SIGTERM stops so; a second one, or SIGINT, cuts what is live.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        console_listeners: Sequence[IService],
        api_listeners: Sequence[IService],
        door: Door,
        sessions: Sessions,
        store: ITokenStore,
        store_watch: StoreWatch,
        hypervisor: IHypervisor,
        drain_seconds: float,
    ) -> None:
        self._reactor = reactor
        self._console_listeners = console_listeners
        self._api_listeners = api_listeners
        self._door = door
        self.sessions = sessions
        self._store = store
        self._store_watch = store_watch
        self._hypervisor = hypervisor
        self._drain_seconds = drain_seconds
        self._ready: list[Deferred[None]] = []
        self._log = Logger()

    def privilegedStartService(self) -> None:
        for listener in (*self._console_listeners, *self._api_listeners):
            listener.privilegedStartService()

    def startService(self) -> None:
        super().startService()
        for listener in (*self._console_listeners, *self._api_listeners):
            listener.startService()
        self.sessions.startService()
        self._store_watch.startService()
        tried = gatherResults([self._store.start(), self._hypervisor.start()])
        tried.addCallback(self._tried)
        tried.addErrback(lambda failure: self._log.failure("xvpd did not start as it should", failure))

    def ready(self) -> Deferred[None]:
        """Fires when every listener is bound and the store and the pools were tried. To be asked for before that."""
        ready: Deferred[None] = Deferred()
        self._ready.append(ready)
        return ready

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _tried(self, _: object) -> None:
        self._log.info("xvpd is ready")
        waiting, self._ready = self._ready, []
        for each in waiting:
            each.callback(None)

    async def _stop(self) -> None:
        self._door.draining = True
        for listener in self._console_listeners:
            await _finished(listener)
        if len(self.sessions):
            self._log.info(
                "draining {count} console sessions for at most {seconds} s",
                count=len(self.sessions),
                seconds=self._drain_seconds,
            )
        await self._drained(self._drain_seconds)
        self.sessions.cut_all(Reason.STOPPED)
        await self._drained(FINAL_SECONDS)
        await self._door.stop()
        for listener in self._api_listeners:
            await _finished(listener)
        self.sessions.stopService()
        self._store_watch.stopService()
        await self._store.stop()
        await self._hypervisor.stop()

    async def _drained(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await self.sessions.empty().addTimeout(seconds, self._reactor)

    def take_signals(self) -> None:
        """Handle SIGTERM and SIGINT in place of the reactor, to which they are the same: who presses Ctrl-C does not want to
        wait for a drain. For when the reactor runs."""
        signal.signal(signal.SIGTERM, self._signalled)
        signal.signal(signal.SIGINT, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._asked_to_stop, number == signal.SIGINT)

    def _asked_to_stop(self, at_once: bool) -> None:
        stopping = not self.running
        if at_once or stopping:
            self._door.draining = True
            self.sessions.cut_all(Reason.STOPPED)
        if not stopping:
            self._reactor.stop()


async def _finished(listener: IService) -> None:
    stopped = listener.stopService()
    if stopped is not None:
        await stopped
