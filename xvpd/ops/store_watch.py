"""`StoreWatch`: what becomes of live sessions while the store is away."""

from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from xvpd.grants.store import ITokenStore
from xvpd.ops.sessions import Sessions
from xvpd.reason import Reason, Refusal

LOOK_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 20.0
"""How long the store may be away before sessions are closed for it.

Less than a lease, with time to close: nodes that still have the store stop waiting for this one to obey revocations when it
was not heard of for as long as a lease lasts, and by then it has no session left that they might mean.
"""


class StoreWatch(Service):
    """Looks at the store every second, and says in the log when it goes and when it is back.

    With ``close``, this process's live sessions are ended with STORE_AWAY once the store has been away for `GRACE_SECONDS`:
    nobody could revoke them. Otherwise they go on, and what was revoked meanwhile is cut when the store is back.
    """

    def __init__(self, clock: IReactorTime, store: ITokenStore, sessions: Sessions, *, close: bool) -> None:
        self._clock = clock
        self._store = store
        self._sessions = sessions
        self._close = close
        self._away_since: float | None = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._log = Logger()

    def startService(self) -> None:
        super().startService()
        self._looking.start(LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        super().stopService()
        self._looking.stop()

    def _look(self) -> None:
        away = self._store.ready()
        if away is None:
            self._back()
        else:
            self._away(away)

    def _back(self) -> None:
        if self._away_since is not None:
            seconds = self._clock.seconds() - self._away_since
            self._log.info("the store can be used again, after {seconds:.0f} s", seconds=seconds)
            self._away_since = None

    def _away(self, refusal: Refusal) -> None:
        now = self._clock.seconds()
        if self._away_since is None:
            self._away_since = now
            self._log.warn(
                "the store cannot be used, no console can be opened, and live ones {fate}: {refusal}",
                fate=f"are closed in {GRACE_SECONDS:g} s" if self._close else "go on",
                refusal=refusal,
            )
        if self._close and now - self._away_since >= GRACE_SECONDS and len(self._sessions):
            # Again with every look: a session may have redeemed its token just before the store went.
            self._sessions.cut_all(Reason.STORE_AWAY)
