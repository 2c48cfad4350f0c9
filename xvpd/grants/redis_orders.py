"""`Orders`: how nodes tell each other through Redis what to cut, and know that they were heard.

Every node subscribes to one channel for all, on which revocations are published, and to one of its own, on which the others'
acknowledgements come back, and its own heartbeat. The beat goes out by the connection for commands and comes back by the
subscription: while it does, both work, on the same server, and a revocation arrives as fast. When it does not, `Orders.ready`
says so. Once it comes back the node reconciles: what it may have missed meanwhile, it asks for.

Channels are not bound to a database as keys are, so their names are.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from xvpd.grants.grant import mint_id
from xvpd.grants.records import message, message_from, selector_from_json, selector_to_json
from xvpd.grants.redis_link import Link
from xvpd.grants.redis_scripts import BEAT, REVOKE, STANDING
from xvpd.grants.redis_url import RedisSettings
from xvpd.grants.redis_wire import AwayError, SilentError, Wire, dial, master, within
from xvpd.grants.store import LEASE_SECONDS, TOMBSTONE_SECONDS, Revoked, Selector, Session
from xvpd.reason import Reason, Refusal

BEAT_SECONDS: Final = 1.0
DEAF_SECONDS: Final = 3.0
"""Without a beat for this long, the subscription is not believed any more."""
MASTER_SECONDS: Final = 5.0
"""How often the sentinels are asked whether the master is still the one that we use."""
_ANSWER_SECONDS: Final = 1.0
"""How long a revocation waits for the nodes' acknowledgements before it names those that are silent."""
_AT_ONCE: Final = 200
"""How many sessions one script looks up."""

Cut = Callable[[Selector, Reason], None]


class Orders:
    """One node's ear and voice."""

    def __init__(
        self,
        reactor: Any,
        settings: RedisSettings,
        node: str,
        random_bytes: Callable[[int], bytes],
        commands: Link,
    ) -> None:
        self.watchers: list[Cut] = []
        self.live: Callable[[], list[Session]] = list
        self.caught_up: Callable[[], None] = _nothing
        """Called with every beat that is heard while nothing is amiss."""
        self._reactor = reactor
        self._settings = settings
        self._node = node
        self._random_bytes = random_bytes
        self._commands = commands
        self._everyone = f"xvpd:{settings.database}:orders"
        self._subscription = Link(reactor, settings, self._subscribe, random_bytes, "revocations")
        self._subscription.came = self.beat
        self._loops = [(LoopingCall(lambda: self._do(self._beat())), BEAT_SECONDS)]
        if settings.master:
            self._loops.append((LoopingCall(lambda: self._do(self._ask_for_master())), MASTER_SECONDS))
        for loop, _ in self._loops:
            loop.clock = reactor
        self._heard_at = reactor.seconds()
        """When the last beat was heard, or the subscription made."""
        self._deaf_seconds = 0.0
        """For how long nothing had been heard when the subscription was made."""
        self._reconciled = False
        self._reconciling = False
        self._ready: Deferred[None] = Deferred()
        self._doing: set[Deferred[None]] = set()
        self._stopping = False
        self._given: dict[str, _Order] = {}
        self._obeyed: deque[str] = deque(maxlen=1024)
        self._log = Logger()

    async def start(self) -> None:
        """Subscribe and begin to beat. Returns once a beat was heard, or cannot be."""
        await self._subscription.start()
        if self._stopping:
            return
        for loop, seconds in self._loops:
            loop.start(seconds, now=True).addErrback(self._broke)
        if self._commands.wire is not None and self._subscription.wire is not None:
            try:
                await within(self._settings.answer_seconds, self._reactor, self._ready)
            except SilentError as silent:
                self._log.warn("Redis: revocations are not heard: {why}", why=str(silent))

    async def stop(self) -> None:
        """Be counted among the nodes no more, and let go."""
        self._stopping = True
        self.watchers.clear()
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        for each in list(self._doing):
            each.cancel()
        with suppress(AwayError):  # then the others will notice soon
            await self._commands.call("ZREM", "xvpd:nodes", self._node)
        await self._subscription.stop()

    def ready(self) -> Refusal | None:
        """Whether revocations are heard in time; why not, otherwise."""
        if self._subscription.wire is None:
            return Refusal(Reason.STORE_AWAY, f"revocations are not heard: {self._subscription.why}")
        if not self._reconciled:
            return Refusal(Reason.STORE_AWAY, "revocations that may have been missed are not known yet")
        deaf = self._reactor.seconds() - self._heard_at
        if deaf > DEAF_SECONDS:
            return Refusal(Reason.STORE_AWAY, f"revocations are not heard: nothing has come for {deaf:.0f} s")
        return None

    def beat(self) -> None:
        """Beat now, rather than when it is time."""
        self._do(self._beat())

    def cut(self, selector: Selector, reason: Reason) -> None:
        """Have this node's sessions cut."""
        for watcher in list(self.watchers):
            try:
                watcher(selector, reason)
            except Exception:
                self._log.failure("a watcher of revocations failed")

    async def revoke(self, selector: Selector) -> Revoked:
        """Revoke in Redis, cut here, and wait for the other nodes to say that they have. Raises `AwayError`."""
        name = mint_id(self._random_bytes)
        order = self._given[name] = _Order()
        text = message(order=name, by=self._node, selector=selector_to_json(selector))
        issuer = ("1", "") if selector.issuer is None else ("0", selector.issuer)
        tombstone = round(TOMBSTONE_SECONDS * 1000)
        try:
            answer = await self._commands.run(
                REVOKE, selector.kind, selector.value, *issuer, tombstone, self._everyone, text, confirm=lambda _: True
            )
            ended, *nodes = answer.decode().split("\n")
            self._obey(name, selector)
            order.expect({node for node in nodes if node not in {"", self._node}})
            try:
                await within(_ANSWER_SECONDS, self._reactor, order.obeyed)
            except SilentError:
                self._log.warn("a revocation was not acknowledged by {nodes}", nodes=", ".join(order.silent()))
            return Revoked(int(ended), order.silent())
        finally:
            del self._given[name]

    # Hearing.

    async def _subscribe(self) -> Wire:
        wire = await dial(self._reactor, self._settings, subscriber=True)
        try:
            channels = [self._everyone, self._channel_of(self._node)]
            await within(self._settings.answer_seconds, self._reactor, wire.subscribe(channels, self._heard))
        except BaseException:
            wire.abort()
            raise
        now = self._reactor.seconds()
        self._deaf_seconds = max(self._deaf_seconds, now - self._heard_at)
        self._heard_at = now
        self._reconciled = False
        return wire

    def _channel_of(self, node: str) -> str:
        return f"xvpd:{self._settings.database}:node:{node}"

    def _heard(self, channel: bytes, text: bytes) -> None:
        match message_from(text):
            case {"beat": node} if node == self._node:
                self._heard_at = self._reactor.seconds()
                self._do(self._reconcile())
            case {"obeyed": str(name), "by": str(node)} if name in self._given:
                self._given[name].obeyed_by(node)
            case {"order": str(name), "by": str(node), "selector": told}:
                selector = selector_from_json(told)
                if selector is not None:
                    self._obey(name, selector)
                    self._do(self._acknowledge(name, node))

    def _obey(self, name: str, selector: Selector) -> None:
        if name not in self._obeyed:
            self._obeyed.append(name)
            self.cut(selector, selector.cuts_with)

    async def _acknowledge(self, name: str, node: str) -> None:
        if node == self._node:
            return
        with suppress(AwayError):  # then whoever gave the order will name this node as silent
            await self._commands.call("PUBLISH", self._channel_of(node), message(obeyed=name, by=self._node))

    # Beating, and catching up.

    async def _beat(self) -> None:
        deaf = self._reactor.seconds() - self._heard_at
        try:
            await self._commands.check()
            life = round(LEASE_SECONDS * 1000)
            await self._commands.run(BEAT, self._node, life, self._channel_of(self._node), message(beat=self._node))
        except AwayError:
            return  # without a connection for commands there is no telling whether the subscription works
        if deaf > DEAF_SECONDS:
            self._subscription.drop(f"nothing has come for {deaf:.0f} s")

    async def _ask_for_master(self) -> None:
        """A master that was replaced while it was cut off from everyone but us does not know that it was."""
        try:
            server = await master(self._reactor, self._settings)
        except AwayError:
            return
        for link in (self._commands, self._subscription):
            if link.wire is not None and link.wire.server != server:
                link.drop("the sentinels name another master")

    async def _reconcile(self) -> None:
        if not self._reconciled and not self._reconciling:
            self._reconciling = True
            try:
                await self._cut_what_was_missed()
            except AwayError:
                return  # the next beat tries again
            finally:
                self._reconciling = False
            self._deaf_seconds = 0.0
            self._reconciled = True
        if self._reconciled:
            if not self._ready.called:
                self._ready.callback(None)
            self.caught_up()

    async def _cut_what_was_missed(self) -> None:
        # What was revoked so long ago that even its tombstone is gone, looks like what was never issued.
        unknown_is_revoked = self._deaf_seconds > TOMBSTONE_SECONDS
        reasons = {"r": Reason.REVOKED, "k": Reason.KILLED} | ({"?": Reason.REVOKED} if unknown_is_revoked else {})
        sessions = self.live()
        for start in range(0, len(sessions), _AT_ONCE):
            some = sessions[start : start + _AT_ONCE]
            asked = [name for session in some for name in (session.id, session.grant.digest)]
            standings = (await self._commands.run(STANDING, *asked)).decode("ascii", "replace")
            for session, standing in zip(some, standings, strict=False):
                if standing in reasons:
                    self.cut(Selector("session", session.id), reasons[standing])

    def _do(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Do what nobody waits for, until `stop`."""
        doing = Deferred.fromCoroutine(work)
        self._doing.add(doing)
        doing.addErrback(lambda failure: failure.trap(CancelledError) and None).addErrback(self._broke)
        return doing.addBoth(lambda _: self._doing.discard(doing))

    def _broke(self, failure: Failure) -> None:
        self._log.failure("Redis: xvpd failed", failure)


class _Order:
    """A revocation that this node gave, and who has obeyed it. Answers may come before it is known who is to answer."""

    def __init__(self) -> None:
        self.obeyed: Deferred[None] = Deferred()
        self._answered: set[str] = set()
        self._expected: set[str] | None = None

    def expect(self, nodes: set[str]) -> None:
        self._expected = nodes
        self._look()

    def obeyed_by(self, node: str) -> None:
        self._answered.add(node)
        self._look()

    def silent(self) -> tuple[str, ...]:
        return tuple(sorted((self._expected or set()) - self._answered))

    def _look(self) -> None:
        if self._expected is not None and not self.silent() and not self.obeyed.called:
            self.obeyed.callback(None)


def _nothing() -> None:
    pass
