"""`Link`: a connection to Redis that is made again whenever it is lost, and never waited for."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from xvpd.grants.redis_url import RedisSettings
from xvpd.grants.redis_wire import AwayError, SilentError, Wire, ask_role, within

_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 2.0
"""Seconds between attempts to connect: twice as long each time, and never longer than this."""


class Link:
    """A connection to Redis that looks after itself.

    ``dial`` makes a connection that is fit for its purpose, or raises `AwayError`. What is asked while there is none fails at
    once; and when something is not answered within the settings' deadline, and nothing else is either, that costs the
    connection, so that nothing ever waits behind a server that has gone silent.
    """

    def __init__(
        self,
        reactor: Any,
        settings: RedisSettings,
        dial: Callable[[], Coroutine[Any, Any, Wire]],
        random_bytes: Callable[[int], bytes],
        purpose: str,
    ) -> None:
        self.wire: Wire | None = None
        self.why = "not connected yet"
        """Why there is no connection, when there is none."""
        self.came: Callable[[], None] = lambda: None
        """Called whenever there is a connection again."""
        self._reactor = reactor
        self._settings = settings
        self._dial = dial
        self._random_bytes = random_bytes
        self._purpose = purpose
        self._using: Wire | None = None
        """The connection until it is gone, which it may be some time after it was given up."""
        self._tried: Deferred[None] | None = None
        self._running: Deferred[None] | None = None
        self._stopping = False
        self._waits = _Waits(self._replicated)
        self._log = Logger()

    def start(self) -> Deferred[None]:
        """Connect, and stay connected. Fires when the first attempt has succeeded or failed."""
        if self._stopping:
            return succeed(None)
        tried = self._tried = Deferred()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._stopped)
        return tried

    async def stop(self) -> None:
        """Let go. Nothing is left when this returns."""
        self._stopping = True
        if self._running is None:
            return
        if self._using is not None:
            self._using.abort()
        else:
            self._running.cancel()
        await self._running

    def drop(self, why: str) -> None:
        """Give the connection up for a new one."""
        if self.wire is not None:
            wire, self.wire, self.why = self.wire, None, why
            wire.abort()

    async def call(self, *command: str | bytes | int) -> Any:
        """The answer to a command. Raises `AwayError`."""
        wire = self._up()
        return await self._answer(wire, wire.call(*command))

    async def run(self, script: bytes, *arguments: str | bytes | int, confirm: Callable[[bytes], bool] | None = None) -> bytes:
        """The answer of a script. Raises `AwayError`.

        If ``confirm`` says of the answer that it matters, it is given only once a replica has what the script wrote, where
        there are replicas; so that it survives the master.
        """
        wire, waits = self._up(), self._waits
        answer = await self._answer(wire, wire.run(script, *arguments))
        if not isinstance(answer, bytes):
            raise AwayError("an answer that makes no sense")
        if wire.replicas and confirm is not None and confirm(answer):
            await waits.confirmed(wire)
        return answer

    async def check(self) -> None:
        """Make sure that the other end is still a master, and learn of its replicas. Raises `AwayError`."""
        wire = self._up()
        try:
            await ask_role(self._reactor, self._settings, wire)
        except AwayError as away:
            if self.wire is wire:
                self.drop(str(away))
            raise

    def _up(self) -> Wire:
        if self.wire is None:
            raise AwayError(self.why)
        return self.wire

    async def _answer(self, wire: Wire, answer: Deferred[Any]) -> Any:
        received = wire.received
        try:
            return await within(self._settings.answer_seconds, self._reactor, answer)
        except AwayError as away:
            silent = isinstance(away, SilentError) and wire.received == received
            if self.wire is wire and (silent or "READONLY" in str(away)):
                self.drop(str(away))
            raise

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping:
            began_at = self._reactor.seconds()
            try:
                wire = await self._dial()
            except AwayError as away:
                self._lost(str(away), news=str(away) != self.why)
                self._tried_once()
            else:
                await self._use(wire)
            if self._stopping:
                return
            if self._reactor.seconds() - began_at > _LAST_DELAY:
                delay = _FIRST_DELAY
            jitter = 0.5 + self._random_bytes(1)[0] / 256
            await deferLater(self._reactor, delay * jitter)
            delay = min(2 * delay, _LAST_DELAY)

    async def _use(self, wire: Wire) -> None:
        self._using = self.wire = wire
        self.why, self._waits = "", _Waits(self._replicated)
        self._log.info("Redis: connected for {purpose}", purpose=self._purpose)
        self._tried_once()
        self.came()
        why = await wire.gone
        self._using = self.wire = None
        self._lost(self.why or why, news=not self._stopping)

    def _lost(self, why: str, news: bool) -> None:
        if news:
            self._log.warn("Redis: no connection for {purpose}: {why}", purpose=self._purpose, why=why)
        self.why = why

    async def _replicated(self, wire: Wire) -> bool:
        """Whether a replica has what was written, or there is none any more."""
        count = await self._answer(wire, wire.call("WAIT", 1, round(self._settings.answer_seconds * 500)))
        if isinstance(count, int) and count > 0:
            return True
        await ask_role(self._reactor, self._settings, wire)
        return wire.replicas == 0

    def _tried_once(self) -> None:
        if self._tried is not None:
            tried, self._tried = self._tried, None
            tried.callback(None)

    def _stopped(self, failure: Failure) -> None:
        self._tried_once()
        if not (self._stopping and failure.check(CancelledError)):
            self._log.failure("Redis: the link for {purpose} broke", failure, purpose=self._purpose)
            self.why = "xvpd failed"


class _Waits:
    """Confirmations by replicas on one connection.

    A WAIT covers what was written before it was sent, and holds up the commands behind it: so there is one at a time, for all
    who asked before it.
    """

    def __init__(self, replicated: Callable[[Wire], Coroutine[Any, Any, bool]]) -> None:
        self._replicated = replicated
        self._asking: list[Deferred[AwayError | None]] = []
        self._waiting = False

    async def confirmed(self, wire: Wire) -> None:
        asking: Deferred[AwayError | None] = Deferred()
        self._asking.append(asking)
        if not self._waiting:
            self._waiting = True
            Deferred.fromCoroutine(self._confirm(wire))
        away = await asking
        if away is not None:
            raise away

    async def _confirm(self, wire: Wire) -> None:
        while self._asking:
            asked, self._asking = self._asking, []
            try:
                away = None if await self._replicated(wire) else AwayError("no replica has confirmed it")
            except AwayError as error:
                away = error
            for each in asked:
                if not each.called:
                    each.callback(away)
        self._waiting = False
