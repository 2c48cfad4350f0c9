"""`Certificates`: what the members of a pool show, learnt from the coordinator, which has proved itself.

`host.get_server_certificate` gives the PEM form of any member's certificate; every role may ask for it (xapi:
ocaml/idl/datamodel_host.ml).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from xvpd.xen.coordinator import Coordinator
from xvpd.xen.pins import PinFile, PinFileError
from xvpd.xen.records import Host, RecordError
from xvpd.xen.settings import PoolSettings
from xvpd.xen.syntax import canonical
from xvpd.xen.trust import Pins, Plain
from xvpd.xen.xapi import ApiError

EVERY: Final = 3600.0
"""Seconds between two looks at all members."""
SPACING: Final = 10.0
"""At least so many when something makes another look worthwhile."""

Expires = Callable[[str, Mapping[str, float]], None]
"""Told, of a pool, when each member's certificate expires: seconds since the epoch, by the hosts' names."""


def unheeded(_: str, __: Mapping[str, float]) -> None:
    """An `Expires` that nobody listens to."""


class Certificates:
    """The certificates of one pool's members.

    Where the operator has pinned certificates, the members' own are pinned as well, and kept in the state directory. Where an
    authority vouches for the hosts nothing is learnt but when their certificates expire; and nothing at all where there is no
    TLS. ``hosts`` gives the members, once there are any.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        coordinator: Coordinator,
        hosts: Callable[[], Iterable[Host]],
        expires: Expires,
    ) -> None:
        self._reactor = reactor
        self._pool = settings.name
        self._trust = settings.trust
        self._file = PinFile(settings.state_dir, settings.name) if settings.state_dir else None
        self._coordinator = coordinator
        self._hosts = hosts
        self._expires = expires
        self._saved: dict[str, str] = {}
        self._warned = False
        self._addresses: set[str] = set()
        self._timer: Any = None
        self._looking: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Believe what was learnt before the last stop."""
        if not isinstance(self._trust, Pins) or self._file is None:
            return
        try:
            self._saved = self._file.load()
        except PinFileError as error:
            self._warn(error)
        else:
            self._trust.learn(self._saved)

    def addresses(self) -> Iterable[str]:
        """Of members, as known now or before the last stop, that can prove who they are, whether or not they are listed."""
        known = {*self._saved, *(host.address for host in self._hosts() if host.address)}
        return [address for address in sorted(known) if self._trust.knows(address)]

    def look(self) -> None:
        """The members may be others, or show others than before."""
        addresses = {host.address for host in self._hosts()}
        unknown, self._addresses = addresses - self._addresses, addresses
        self._schedule(0 if unknown else SPACING)

    def doubted(self) -> None:
        """A member has shown a certificate that was not expected: perhaps it has got another."""
        self._schedule(SPACING)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    # How.

    def _schedule(self, seconds: float) -> None:
        """Look in so many seconds, if that is not due before."""
        if self._stopped or isinstance(self._trust, Plain):
            return
        if self._timer is None or not self._timer.active():
            self._timer = self._reactor.callLater(seconds, self._due)
        elif self._timer.getTime() > self._reactor.seconds() + seconds:
            self._timer.reset(seconds)

    def _due(self) -> None:
        if self._looking is not None:
            self._schedule(SPACING)
            return
        self._looking = Deferred.fromCoroutine(self._look())
        self._looking.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._looking.addErrback(lambda failure: self._log.failure("pool {pool}: certificates", failure, pool=self._pool))
        self._looking.addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._looking = None
        self._schedule(EVERY)

    async def _look(self) -> None:
        learnt: dict[str, str] = {}
        expiry: dict[str, float] = {}
        for host in list(self._hosts()):
            if not host.address:
                continue
            try:
                certificate = _certificate(await self._coordinator.call("host.get_server_certificate", host.ref))
            except (ApiError, RecordError) as error:
                self._log.debug("pool {pool}: {host}: {problem}", pool=self._pool, host=host.address, problem=str(error))
                learnt.update(self._as_before(host))
            else:
                learnt[canonical(host.address)] = certificate.fingerprint(SHA256()).hex()
                expiry[host.name] = certificate.not_valid_after_utc.timestamp()
        self._expires(self._pool, expiry)
        if isinstance(self._trust, Pins) and learnt:
            self._trust.learn(learnt)
            await self._save(learnt)

    def _as_before(self, host: Host) -> dict[str, str]:
        address = canonical(host.address)
        return {address: self._saved[address]} if address in self._saved else {}

    async def _save(self, learnt: dict[str, str]) -> None:
        if learnt == self._saved:
            return
        for address in sorted(learnt.keys() & self._saved.keys()):
            if learnt[address] != self._saved[address]:
                self._log.info(
                    "pool {pool}: {host} has another certificate, with the SHA-256 fingerprint {fingerprint}",
                    pool=self._pool,
                    host=address,
                    fingerprint=learnt[address],
                )
        self._saved = learnt
        if self._file is None:
            return
        try:
            await self._coordinator.in_thread(partial(self._file.save, learnt))
        except PinFileError as error:
            self._warn(error)

    def _warn(self, error: PinFileError) -> None:
        if not self._warned:
            self._warned = True
            self._log.warn("pool {pool}: certificates of members: {problem}", pool=self._pool, problem=str(error))


def _certificate(pem: object) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii") if isinstance(pem, str) else b"")
    except ValueError:
        raise RecordError("what host.get_server_certificate returned is no certificate") from None
