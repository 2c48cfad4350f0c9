"""`ITokenStore`: the seam between the proxy and whatever keeps its grants.

Every store answers with a value or a `Refusal`; a store that cannot be reached answers `Refusal(STORE_AWAY)` within its
own deadline. No method's Deferred fails for what a network or a stranger can cause, none waits for ever, and each may be
cancelled. `tests/contract/test_store.py` holds every store to what is written here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from xvpd.grants.grant import Grant
from xvpd.reason import Reason, Refusal

TOMBSTONE_SECONDS: Final = 3600.0
"""How long at least a store remembers a token that expired, was used up or was revoked, to tell it from one never issued."""
LEASE_SECONDS: Final = 30.0
"""How long a session counts among the live ones after its lease was last renewed."""
RESUMABLE: Final = frozenset({Reason.HYPERVISOR_CLOSED, Reason.HYPERVISOR_LOST, Reason.STOPPED})
"""Ends that are no fault of the client's: reboot, move, loss of the host, drain."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which grants, or which live sessions, an order is about.

    ``kind`` is ``grant`` (its id), ``digest`` (of the token), ``vm`` (uuid), ``user`` (in the issuer's words) or ``session``
    (a console session's id: it is cut, its grant stays as it is).
    """

    kind: str
    value: str
    issuer: str | None = None
    """Only what this issuer issued; None is whoever did. An issuer's user names mean nothing beside another's."""

    KINDS = ("grant", "digest", "vm", "user", "session")

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ValueError(f"no such kind of selector: {self.kind}")

    @classmethod
    def of_user(cls, issuer: str, user: str) -> "Selector":
        """One issuer's user."""
        return cls("user", user, issuer)

    @property
    def cuts_with(self) -> Reason:
        """The reason that the selected sessions end with."""
        return Reason.KILLED if self.kind == "session" else Reason.REVOKED

    def matches(self, session: "Session") -> bool:
        """Whether a live session is meant."""
        if self.kind == "session":
            return self.value == session.id and self.issuer in {None, session.grant.issuer}
        return self.matches_grant(session.grant)

    def matches_grant(self, grant: Grant) -> bool:
        """Whether a grant is meant; never by a selector of kind ``session``."""
        values = {"grant": grant.id, "digest": grant.digest, "vm": grant.vm_uuid, "user": grant.user}
        return values.get(self.kind) == self.value and self.issuer in {None, grant.issuer}


@dataclass(frozen=True, slots=True)
class Session:
    """A console session as all nodes may know it. Times are seconds since the epoch."""

    id: str
    grant: Grant
    node: str
    """Name of the xvpd process that has it."""
    host: str
    """uuid of the hypervisor host it is connected to."""
    client: str
    """The client's address, without port."""
    since: float
    pool: str = ""
    """Name of the pool that the host is in."""


@dataclass(frozen=True, slots=True)
class Activity:
    """How a live session is doing, as of its lease's last renewal."""

    bytes_to_client: int = 0
    bytes_to_hypervisor: int = 0
    last_input: float = 0.0


@dataclass(frozen=True, slots=True)
class Caps:
    """How many live sessions, counted over all nodes; 0 is no cap."""

    per_vm: int = 0
    per_host: int = 0
    per_user: int = 0


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation did: how many grants it ended, and which live nodes have not yet said that they obeyed."""

    grants: int
    silent_nodes: tuple[str, ...] = ()


class ILease(Interface):
    """A live session's place among all nodes' sessions. It lapses by itself unless it is renewed."""

    seconds_left: float | None = Attribute(
        "What was left of the grant's max_duration, if it has one, when the lease was given."
    )

    def renew(activity: Activity) -> Deferred[None]:
        """Keep the lease, or take it again if it lapsed (whatever the caps: the session is there), and say how the session is
        doing. Never fails: a store that is away is tried again next time. A session that was meant by a revocation of which
        this node did not hear is cut now. Without effect after `release`."""

    def release() -> Deferred[None]:
        """Give the place up. Safe to call more than once; never fails (a lease that could not be released lapses)."""


class ITokenStore(Interface):
    """Keeps grants, counts their uses, and tells every node what was revoked.

    - A token is known by its digest. No clear token, xapi session reference or password is ever handed to a store.
    - `redeem` is atomic: of any number of simultaneous redeems of a token with n uses left, over all nodes, exactly n
      succeed. A redeem whose answer is lost counts as refused.
    - What was revoked stays revoked, whatever happens to `give_back`, `ended`, a lease or the clock.
    - A grant that the store has kept is not lost before its end; the grant of a live session is kept while the session's
      lease is renewed, so that it can be resumed although its token has expired meanwhile.
    - There is one clock, the store's. A grant lives for ``expires_at - issued_at`` seconds from the moment the store keeps it:
      a node whose own clock is wrong neither shortens nor stretches it.
    - Nothing outlives its purpose: a grant and all that points to it are gone `TOMBSTONE_SECONDS` after the last moment at
      which they mattered, or soon after.

    A session that is revoked between its redeem and its lease is caught if its node does these in this order: redeem; note
    the session where `watch`'s ``cut`` finds it; `lease`. A revocation before the lease is the lease's refusal, a later one
    is cut.
    """

    lease_seconds: float = Attribute("A lease that was not renewed for this long has lapsed.")

    def issue(grant: Grant) -> Deferred[Refusal | None]:
        """Keep a new grant. A grant whose digest or id the store knows already is refused with INTERNAL (random names do not
        collide, and a token that was revoked must not be issued back to life)."""

    def redeem(digest: str, session_id: str, client: str) -> Deferred[Grant | Refusal]:
        """Take one use of a token for the session ``session_id`` of the client at address ``client``.

        Refusals: TOKEN_UNKNOWN, TOKEN_EXPIRED (its max_duration is over, too), TOKEN_USED, TOKEN_REVOKED (told apart for
        `TOMBSTONE_SECONDS`; one that was used up before it expired is TOKEN_USED), TOKEN_ELSEWHERE (``client`` is not in the
        grant's network), STORE_AWAY. A session that has redeemed already is refused with TOKEN_USED.

        A token that has sessions to resume (see `ended`) is redeemed though it has expired or is used up, once for each such
        session. A token whose uses are counted spends a right to resume before it spends a use.
        """

    def give_back(grant: Grant, session_id: str) -> Deferred[None]:
        """Undo ``session_id``'s redeem: its console could not be opened. At most once for a session; a session that did
        not redeem, or has ended, gives nothing back. A right to resume that was taken is given back as that, with what is left
        of its time. A grant whose only redeem is undone has all its max_duration again. Never fails: a use that could not be
        given back stays taken."""

    def ended(grant: Grant, session_id: str, reason: Reason) -> Deferred[None]:
        """``session_id``'s console session, which had been opened, is over.

        After a `Reason` in `RESUMABLE` the token may be redeemed once more within ``grant.resume`` seconds, unless it was
        revoked or its max_duration is over by then. A session that did not redeem, or has ended or given back before, changes
        nothing. Never fails.
        """

    def revoke(selector: Selector) -> Deferred[Revoked | Refusal]:
        """End the grants that ``selector`` means, for good, and have every node cut their live sessions.

        Answers once every live node has obeyed, or a short while later naming those that are silent. A selector of kind
        ``session`` ends no grant. Revoking what does not exist, or has ended, is no error: it ends 0 grants. STORE_AWAY says
        that the order may or may not have been carried out: give it again.
        """

    def grants(issuer: str | None) -> Deferred[list[Grant] | Refusal]:
        """The grants that can be redeemed now, oldest first; of one issuer, or of all. Not one moment's picture: what is
        issued or ends while it is drawn may or may not be in it."""

    def sessions() -> Deferred[list[tuple[Session, Activity]] | Refusal]:
        """The live sessions of every node, oldest first; as little one moment's picture as `grants`."""

    def lease(session: Session, caps: Caps) -> Deferred[ILease | Refusal]:
        """Count a session among the live ones. Its VM, host and, when it has one, its issuer's user count from here on; none
        of them changes while the session lives.

        Refusals: TOO_MANY (a cap is reached; ``detail`` says which), TOKEN_REVOKED or KILLED (since the session redeemed),
        STORE_AWAY.
        """

    def watch(cut: Callable[[Selector, Reason], None]) -> None:
        """Have ``cut`` called on this node for every revocation, whichever node it was made on: with REVOKED, or KILLED for
        a selector of kind ``session``. ``cut`` returns when this node's sessions are being closed, and must not raise. It may
        be called for what was cut before."""

    def reconcile(live: Callable[[], list[Session]]) -> None:
        """Tell the store how to learn this node's live sessions: after it may have missed a revocation it asks, and calls the
        watcher for each one that a revocation had meant."""

    def ready() -> Refusal | None:
        """Whether the store can be used now, and hears of revocations in time; why not, otherwise."""

    def start() -> Deferred[None]:
        """Begin work. Fires when the store has been tried once, whether or not it could be reached."""

    def stop() -> Deferred[None]:
        """Let go of every connection and timer. Fires when none is left."""
