"""`SimulatedPool`: a XenServer pool on loopback addresses, for a first run, for demonstrations and for tests.

Every host has an address of its own (127.0.0.1, 127.0.0.2, …) and all share one port, as real hosts share 443: a client dials
`host.address`, which has no port in it.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.protocols.tls import TLSMemoryBIOFactory

from xvpd.sim import jpeg
from xvpd.sim.certificate import Certificate, self_signed
from xvpd.sim.faults import Faults
from xvpd.sim.host import Console, HostServer
from xvpd.sim.model import Account, PoolState
from xvpd.sim.screen import Screen
from xvpd.sim.splice import RealVnc, vnc_endpoint
from xvpd.sim.tls import HostTls
from xvpd.sim.vnc import QEMU, VNCTERM
from xvpd.sim.xapi import Xapi

_PORT_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class SimulatedVm:
    """A VM to put into the pool.

    ``host`` counts from 0, the coordinator. A VM that is not ``hvm`` has vncterm's console, of RFB 3.3. ``vnc`` is a real VNC
    server for its screen: ``host:port`` or ``unix:path``.
    """

    name: str
    host: int = 0
    hvm: bool = True
    running: bool = True
    tags: tuple[str, ...] = ()
    other_config: dict[str, str] = field(default_factory=dict)
    vnc: str = ""


DEMO_VMS: Final = (
    SimulatedVm("web-1", host=0, tags=("web",)),
    SimulatedVm("web-2", host=1, tags=("web",)),
    SimulatedVm("db-1", host=1, tags=("database",)),
    SimulatedVm("legacy-pv", host=0, hvm=False),
    SimulatedVm("build-agent", host=1, running=False),
)


class _Member:
    """One host: its server, its certificate, and its listening port while it is up."""

    def __init__(self, server: HostServer, certificate: Certificate) -> None:
        self.server = server
        self.xapi = server.xapi
        self.certificate = certificate
        self.tls = HostTls(certificate)
        self.port: Any = None


class SimulatedPool:
    """A pool with ``hosts`` members, the coordinator first, and ``vms``.

    ``state`` may be changed at any moment by the operations of `PoolState`; streams, records and events follow. ``faults`` has
    what hosts and consoles are ordered to do wrong. With ``plain`` there is no TLS. ``certificates``, one for each host, saves
    making new ones.
    """

    username: Final = "root"

    def __init__(
        self,
        reactor: Any,
        *,
        name: str = "simulated",
        hosts: int = 2,
        vms: Sequence[SimulatedVm] = DEMO_VMS,
        password: str = "simulated",  # noqa: S107 # it guards nothing
        plain: bool = False,
        certificates: Sequence[Certificate] = (),
        rng: random.Random | None = None,
        max_connections: int = 800,
        operation_seconds: float = 0.0,
        refusal_seconds: float = 0.0,
    ) -> None:
        self._reactor = reactor
        self.plain = plain
        self.name = name
        self.password = password
        self.port = 0
        self.faults = Faults()
        self.state = PoolState(name, rng or random.SystemRandom())
        self.state.accounts[self.username] = Account(password)
        self.state.domain_ended.append(self._domain_ended)
        self._consoles: dict[str, Console] = {}
        self._unseen: dict[str, Callable[[], Console]] = {}
        """What makes the console of a VM that nobody has looked at yet: a pool may have thousands."""
        self._members: dict[str, _Member] = {}
        for index in range(hosts):
            address = f"127.0.0.{index + 1}"
            host = self.state.add_host(f"host-{index + 1}", address)
            xapi = Xapi(
                self.state,
                host,
                reactor,
                self.faults,
                self._certificate_of,
                operation_seconds=operation_seconds,
                refusal_seconds=refusal_seconds,
            )
            server = HostServer(
                self.state,
                host,
                xapi,
                self.faults,
                reactor,
                console_of=self._console_of,
                picture_of=self._picture_of,
                max_connections=max_connections,
            )
            certificate = certificates[index] if certificates else self_signed([address], self._now())
            self._members[address] = _Member(server, certificate)
        self.state.add_template("Debian Bookworm 12")
        for vm in vms:
            self.add_vm(vm)

    # What a client has to know.

    @property
    def addresses(self) -> list[str]:
        """The hosts' addresses, in the order in which they were made."""
        return list(self._members)

    @property
    def fingerprints(self) -> list[str]:
        """The SHA-256 fingerprints of the hosts' certificates, in the same order."""
        return [member.certificate.fingerprint_sha256 for member in self._members.values()]

    @property
    def certificates(self) -> Mapping[str, Certificate]:
        """Each host's own certificate, by its address."""
        return {address: member.certificate for address, member in self._members.items()}

    # Life.

    def start(self) -> None:
        """Listen, every host on the same port. `CannotListenError` when there is no such port, or no loopback network."""
        for _ in range(_PORT_TRIES - 1):
            try:
                return self._listen()
            except CannotListenError:
                continue
        return self._listen()

    def stop(self) -> Deferred[None]:
        """Stop listening and cut every connection. Fires when nothing is left."""
        closing = [self._go_down(member) for member in self._members.values()]
        closing += [console.gone() for console in self._consoles.values() if isinstance(console, RealVnc)]
        for member in self._members.values():
            member.xapi.stop()
        return DeferredList(closing, consumeErrors=True).addCallback(lambda _: None)

    def add_vm(self, vm: SimulatedVm) -> str:
        """A VM more; returns its reference."""
        ref = self.state.add_vm(vm.name, hvm=vm.hvm, tags=vm.tags, other_config=vm.other_config)
        if vm.vnc:
            self._unseen[ref] = partial(RealVnc, vnc_endpoint(self._reactor, vm.vnc), self._reactor)
        else:
            self._unseen[ref] = partial(Screen, vm.name, QEMU if vm.hvm else VNCTERM, self._reactor)
        if vm.running:
            self.state.do(ref, "start", self.state.host_at(self.addresses[vm.host]))
        return ref

    def screen(self, name: str) -> Screen:
        """The screen of the VM with this name or uuid. KeyError when there is none, or another server shows it."""
        console = self._console(self.state.vm_named(name))
        if not isinstance(console, Screen):
            raise KeyError(name)
        return console

    def vnc_server_away(self, name: str) -> None:
        """From now on the VM has no VNC server: 404 to whoever wants its console."""
        vm = self.state.vm_named(name)
        self._unseen.pop(vm, None)
        if vm in self._consoles:
            self._consoles.pop(vm).hang_up()

    # What may happen to a host.

    def lose_host(self, address: str) -> Deferred[None]:
        """A host drops off the network: it takes no connections, and those that it had are cut."""
        return self._go_down(self._members[address])

    def restore_host(self, address: str) -> None:
        """It is back, on the same port."""
        self._come_up(address, self.port)

    def present(self, address: str, certificate: Certificate) -> None:
        """A host shows a certificate to new connections that is not its own: it lies, or its own has been intercepted."""
        self._members[address].tls.present(certificate)

    def renew_certificate(self, address: str, certificate: Certificate) -> None:
        """A host gets a new certificate of its own, of which the pool knows; there is an event of the host."""
        self._members[address].certificate = certificate
        self.present(address, certificate)
        self.state.database.modify(self.state.host_at(address))

    def connections(self, address: str) -> int:
        """How many connections a host has, those that it leaves waiting included."""
        return len(self._members[address].server.connections)

    # How.

    def _listen(self) -> None:
        port = 0
        try:
            for address in self._members:
                port = self._come_up(address, port)
        except CannotListenError:
            for member in self._members.values():
                self._go_down(member)
            raise
        self.port = port

    def _come_up(self, address: str, port: int) -> int:
        member = self._members[address]
        factory = member.server if self.plain else TLSMemoryBIOFactory(member.tls, False, member.server)
        factory.noisy = False
        member.port = self._reactor.listenTCP(port, factory, backlog=128, interface=address)
        return int(member.port.getHost().port)

    def _go_down(self, member: _Member) -> Deferred[None]:
        port, member.port = member.port, None
        stopped = maybeDeferred(port.stopListening) if port is not None else succeed(None)
        member.server.abort_all()
        return stopped.addCallback(lambda _: member.server.connections.empty())

    def _console(self, vm: str) -> Console | None:
        if vm in self._unseen:
            self._consoles[vm] = self._unseen.pop(vm)()
        return self._consoles.get(vm)

    def _console_of(self, vm: str) -> Console | None:
        console = self._console(vm)
        if console is not None:
            record = self.state.record("VM", vm)
            host = self.state.database.get("host", record["resident_on"])
            console.caption(f"{host['name_label']}  {host['address']}  domain {record['domid']}" if host is not None else "")
        return console

    def _picture_of(self, vm: str) -> bytes | None:
        console = self._console_of(vm)
        if not isinstance(console, Screen):
            return None
        canvas = console.canvas
        return jpeg.encode(canvas.width, canvas.height, canvas.palette, canvas.pixels(0, 0, canvas.width, canvas.height))

    def _domain_ended(self, vm: str, lives_on: bool) -> None:
        console = self._consoles.get(vm)
        if console is not None:
            console.hang_up()
            if not lives_on:
                console.restart()

    def _certificate_of(self, host: str) -> bytes:
        address = self.state.record("host", host)["address"]
        return self._members[address].certificate.certificate_pem

    def _now(self) -> datetime:
        return datetime.now(UTC)
