"""The pool's coordinator: found among the configured hosts, and logged in to."""

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from xvpd.reason import Reason, Refusal
from xvpd.xen.settings import Deadlines, PoolSettings, Timed, untimed
from xvpd.xen.syntax import canonical
from xvpd.xen.workers import Workers
from xvpd.xen.xapi import SESSION_INVALID, ApiError, Xapi, XapiSession

T = TypeVar("T")

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts to log in that failed: doubled each time, so that neither a host that comes up is stormed nor an
account locked for a wrong password."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Where we are logged in, and how."""

    api: Xapi
    session: XapiSession


class Coordinator:
    """One pool's API, wherever it is at the moment.

    There is one xapi session for all that asks. It is opened when it is needed, once for all who wait for it; opened again
    when the pool has forgotten it or another host has become coordinator; and closed by `stop`. Deferreds fail with
    `ApiError`.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        deadlines: Deadlines,
        chance: Callable[[], float] = random.random,
        *,
        timed: Timed = untimed,
        members: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """``members`` gives the addresses of hosts that may have become coordinator though the operator did not list them: of
        the pool, as the pool itself has said, and able to prove it."""
        self._reactor = reactor
        self._settings = settings
        self._deadlines = deadlines
        self._chance = chance
        self._timed = timed
        self._members = members
        self._workers = Workers(reactor, f"xapi-{settings.name}")
        self._current: LoggedIn | None = None
        self._last_host = settings.hosts[0]
        self._attempting = False
        self._waiting: list[Deferred[LoggedIn]] = []
        self._lost: list[XapiSession] = []
        self._failed: ApiError | None = None
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self._stopped = False

    def start(self) -> None:
        """Before anything else."""
        self._workers.start()

    def logged_in(self) -> Deferred[LoggedIn]:
        """An xapi session that is believed to be good. After a failed attempt its failure is repeated for a while, without
        another attempt. Cancelling leaves the attempt to the others who wait."""
        if self._stopped:
            return fail(self._error(Reason.HYPERVISOR_UNREACHABLE, "xvpd is stopping"))
        if self._current is not None:
            return succeed(self._current)
        if self._failed is not None and self._reactor.seconds() < self._not_before:
            return fail(_copy(self._failed))
        waiting = self._wait()
        if not self._attempting:
            self._attempting = True
            Deferred.fromCoroutine(self._found()).addCallbacks(self._succeeded, self._gave_up)
        return waiting

    def ready(self) -> Refusal | None:
        """Why nobody is logged in; None if somebody is, as far as is known. Asking has it tried again when that may be."""
        if self._current is not None:
            return None
        if not self._attempting:
            self.logged_in().addErrback(lambda failure: failure.trap(ApiError) and None)
        return (self._failed or self._error(Reason.HYPERVISOR_UNREACHABLE, "not tried yet")).refusal

    def call(self, method: str, *parameters: Any) -> Deferred[Any]:
        """The value of a call that may be made twice: it is repeated once, at whichever host is the coordinator by then, when
        the xapi session has ended or the coordinator is another or away."""
        return Deferred.fromCoroutine(self._call(method, parameters))

    def in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """What ``work`` returns or raises, in a thread. It is waited for when all is stopped."""
        return self._workers.run(work, _nothing)

    def failed(self, logged_in: LoggedIn, error: ApiError) -> bool:
        """Whether a call that failed with ``error`` may go better where `logged_in` leads next: the xapi session has ended, or
        the coordinator is another or away."""
        if error.code == SESSION_INVALID:
            self.forget(logged_in)
        elif error.reason in (Reason.HYPERVISOR_UNREACHABLE, Reason.HYPERVISOR_UNTRUSTED):
            self.lose(logged_in)
        else:
            return False
        return True

    def forget(self, logged_in: LoggedIn) -> None:
        """The pool does not know this xapi session any more."""
        if self._current is logged_in:
            self._current = None
            logged_in.api.close()

    def lose(self, logged_in: LoggedIn) -> None:
        """The coordinator is away, or another. The xapi session may live on where it was made, and is ended when it can be."""
        if self._current is logged_in:
            self._lost.append(logged_in.session)
        self.forget(logged_in)

    def stop(self) -> Deferred[None]:
        """Log out and let the threads go. Whatever is under way fails."""
        self._stopped = True
        return Deferred.fromCoroutine(self._stop())

    # Calls.

    async def _call(self, method: str, parameters: tuple[Any, ...]) -> Any:
        logged_in = await self.logged_in()
        try:
            return await logged_in.api.call(logged_in.session, method, *parameters)
        except ApiError as error:
            if not self.failed(logged_in, error):
                raise
        logged_in = await self.logged_in()
        return await logged_in.api.call(logged_in.session, method, *parameters)

    # Logging in.

    async def _found(self) -> LoggedIn:
        """Ask one known host after the other, those that are configured first, until one is the coordinator.

        A host that knows who we are and refuses us speaks for the pool: the password is not tried on others.
        """
        hosts = _each_once([self._last_host, *self._settings.hosts, *self._members()])
        errors: list[ApiError] = []
        while hosts and not (self._stopped and errors):
            host = hosts.pop(0)
            api = Xapi(self._reactor, self._workers, host, self._settings, self._deadlines, timed=self._timed)
            try:
                session = await api.log_in(self._settings.username, self._settings.password)
            except ApiError as error:
                api.close()
                errors.append(error)
                if error.reason is Reason.HYPERVISOR_REFUSED:
                    break
                _put_first(hosts, error.coordinator)
                continue
            self._last_host = host
            await self._end_lost_sessions(api)
            return LoggedIn(api, session)
        telling = [error for error in errors if error.reason is not Reason.HYPERVISOR_UNREACHABLE]
        reason = telling[-1].reason if telling else Reason.HYPERVISOR_UNREACHABLE
        raise self._error(reason, "; ".join(error.detail for error in errors), errors[-1].code)

    def _succeeded(self, logged_in: LoggedIn) -> None:
        self._log.info("pool {pool}: logged in at {host}", pool=self._settings.name, host=logged_in.api.address)
        self._current = logged_in
        self._failed = None
        self._pause = FIRST_PAUSE
        self._attempting = False
        for each in self._take_waiting():
            each.callback(logged_in)

    def _gave_up(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, ApiError):
            self._log.error("{problem}", problem=error.detail)
        else:
            self._log.failure("pool {pool}: xvpd failed to log in", failure, pool=self._settings.name)
            error = self._error(Reason.INTERNAL, "xvpd failed")
        self._failed = error
        self._not_before = self._reactor.seconds() + self._pause * (0.5 + self._chance() / 2)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._attempting = False
        for each in self._take_waiting():
            each.errback(_copy(error))

    def _wait(self) -> Deferred[LoggedIn]:
        """The outcome of the attempt that is under way, or about to be."""
        waiting: Deferred[LoggedIn] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _take_waiting(self) -> list[Deferred[LoggedIn]]:
        """Whoever waits for the attempt that is over; they may ask for another at once."""
        waiting, self._waiting = self._waiting, []
        return waiting

    async def _end_lost_sessions(self, api: Xapi) -> None:
        while self._lost:
            with suppress(ApiError):
                await api.log_out(self._lost.pop())

    def _error(self, reason: Reason, detail: str, code: str = "") -> ApiError:
        return ApiError(reason, f"pool {self._settings.name}: cannot log in: {detail}", code)

    # The end.

    async def _stop(self) -> None:
        if self._attempting:
            # An answer that nobody waits for would leave an xapi session behind.
            with suppress(ApiError, TimeoutError):
                await self._wait().addTimeout(self._deadlines.logout, self._reactor)
        current, self._current = self._current, None
        self._workers.interrupt()
        if current is not None:
            current.api.close()
            self._lost.append(current.session)
            await self._end_lost_sessions(current.api)
        await self._workers.stop(self._deadlines.stop)


def _nothing() -> None:
    """What cannot be interrupted."""


def _each_once(hosts: Iterable[str]) -> list[str]:
    return list({canonical(host): host for host in reversed([*hosts])}.values())[::-1]


def _put_first(hosts: list[str], address: str) -> None:
    """If ``address`` is one of ``hosts``, make it the next. What is not among them is not dialled."""
    hosts.sort(key=lambda host: canonical(host) != canonical(address))


def _copy(error: ApiError) -> ApiError:
    """The same for somebody else: an exception that is raised again and again would gather all their tracebacks."""
    return ApiError(error.reason, error.detail, error.code)
