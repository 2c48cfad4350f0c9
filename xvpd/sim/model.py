"""The pool itself, without a network: hosts, VMs and their consoles, accounts, xapi sessions, and what may be done to them.

What happens to console records, domids and residence is what xapi does (ocaml/xapi/xapi_xenops.ml): a migration, a suspend
or a shutdown destroys the console records, whose successors have new references and uuids; every new domain has a new domid.
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from xvpd.sim import records
from xvpd.sim.database import NULL, Database, Record

ROLES: Final = ("read-only", "vm-operator", "pool-admin")
"""The roles that make a difference here, each including those before it."""

_FROM: Final = {
    "start": ("Halted",),
    "start_on": ("Halted",),
    "destroy": ("Halted",),
    "clean_shutdown": ("Running",),
    "hard_shutdown": ("Running", "Paused", "Suspended"),
    "clean_reboot": ("Running",),
    "hard_reboot": ("Running", "Paused"),
    "pause": ("Running",),
    "suspend": ("Running",),
    "pool_migrate": ("Running",),
    "unpause": ("Paused",),
    "resume": ("Suspended",),
    "resume_on": ("Suspended",),
}
"""The power states that each operation starts from, the one that xapi says it expects first."""
OPERATIONS: Final = frozenset(_FROM)


class XapiError(Exception):
    """What xapi answers instead of a value: a code and its arguments, all strings."""

    def __init__(self, code: str, *arguments: str) -> None:
        super().__init__(code)
        self.description = [code, *arguments]


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in."""

    password: str = field(repr=False)
    role: str = "pool-admin"


@dataclass(frozen=True, slots=True)
class XapiSession:
    """Somebody who has logged in."""

    user: str
    originator: str
    role: str

    def may(self, role: str) -> bool:
        """Whether the session's role includes ``role``."""
        return ROLES.index(self.role) >= ROLES.index(role)


class PoolState:
    """One pool. Hosts and VMs are named by reference throughout.

    ``domain_ended`` has callbacks ``(vm, lives_on)``, told of each VM whose domain has ended, and its console streams with it;
    ``lives_on`` when its memory outlives the domain, as in a migration. ``session_ended`` has callbacks for xapi sessions.
    """

    def __init__(self, name: str, rng: random.Random) -> None:
        self._rng = rng
        self.database = Database(self._new_uuid)
        self.accounts: dict[str, Account] = {}
        self.xapi_sessions: dict[str, XapiSession] = {}
        self.domain_ended: list[Callable[[str, bool], None]] = []
        self.session_ended: list[Callable[[str], None]] = []
        self._last_domid: dict[str, int] = {}
        self.pool = self.database.create("pool", records.pool(name, NULL))

    # What there is.

    @property
    def coordinator(self) -> str:
        """The host whose xapi answers for the pool."""
        return str(self.record("pool", self.pool)["master"])

    def record(self, table: str, ref: str) -> Record:
        """An object's record; HANDLE_INVALID when there is none."""
        record = self.database.get(table, ref)
        if record is None:
            raise XapiError("HANDLE_INVALID", table, ref)
        return record

    def vm_named(self, name: str) -> str:
        """The one VM with this name or uuid; KeyError when there is not exactly one."""
        found = self.database.find("VM", "uuid", name) or self.database.find("VM", "name_label", name)
        if len(found) != 1:
            raise KeyError(name)
        return found[0]

    def host_at(self, address: str) -> str:
        """The host with this address; KeyError when there is none."""
        for ref in self.database.find("host", "address", address):
            return ref
        raise KeyError(address)

    def add_host(self, name: str, address: str) -> str:
        """A new member with its control domain; the first is the coordinator."""
        host = self.database.create("host", records.host(name, address))
        if self.coordinator == NULL:
            self.database.modify(self.pool, master=host)
        dom0 = records.vm(f"Control domain on host: {name}", hvm=False)
        dom0.update(is_control_domain=True, power_state="Running", resident_on=host, domid="0", allowed_operations=[])
        dom0_ref = self.database.create("VM", dom0)
        self._last_domid[host] = 0
        self.database.modify(host, control_domain=dom0_ref, resident_VMs=[dom0_ref])
        self._create_consoles(dom0_ref, ("rfb", "vt100"))
        return host

    def add_vm(
        self,
        name: str,
        *,
        hvm: bool = True,
        tags: tuple[str, ...] = (),
        other_config: dict[str, str] | None = None,
    ) -> str:
        """A new halted VM. A guest without hardware virtualisation (``hvm=False``) has vncterm's console."""
        record = records.vm(name, hvm)
        record.update(tags=list(tags), other_config=dict(other_config or {}))
        return self.database.create("VM", record)

    def add_template(self, name: str) -> str:
        """A template, as every pool has dozens."""
        record = records.vm(name, hvm=True)
        record.update(is_a_template=True, is_default_template=True, other_config={"default_template": "true"})
        return self.database.create("VM", record)

    # Who is logged in.

    def log_in(self, user: str, password: str, originator: str) -> str:
        """A new xapi session's reference; SESSION_AUTHENTICATION_FAILED."""
        account = self.accounts.get(user)
        if account is None or account.password != password:
            raise XapiError("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
        ref = f"OpaqueRef:{self._new_uuid()}"
        self.xapi_sessions[ref] = XapiSession(user, originator, account.role)
        return ref

    def log_out(self, session: str) -> None:
        """End an xapi session. Streams that it opened go on."""
        if self.xapi_sessions.pop(session, None) is not None:
            for callback in list(self.session_ended):
                callback(session)

    def expire_sessions(self) -> None:
        """Forget every xapi session, as after 24 hours without use."""
        for session in list(self.xapi_sessions):
            self.log_out(session)

    # What an administrator may set.

    def set_policy(self, *, limit_console_sessions: bool, vm_console_idle_timeout: int = 0) -> None:
        """One console at a time for each VM, or any number; seconds without input until a console is to end, 0 for never.

        The idle time is for a client to read: no host here closes a console for it, as none does for a viewer of RFB 3.8.
        """
        self.database.modify(
            self.pool,
            limit_console_sessions=limit_console_sessions,
            vm_console_idle_timeout=str(vm_console_idle_timeout),
        )

    # What may be done to VMs.

    def check(self, vm: str, operation: str) -> None:
        """Raise the `XapiError` that the operation meets in the VM's present state, if any."""
        record = self.record("VM", vm)
        if record["is_a_template"]:
            raise XapiError("VM_IS_TEMPLATE", vm)
        if record["is_control_domain"]:
            raise XapiError("OPERATION_NOT_ALLOWED", "This operation is not allowed on a control domain")
        actual, expected = record["power_state"], _FROM[operation]
        if actual not in expected:
            raise XapiError("VM_BAD_POWER_STATE", vm, expected[0].lower(), actual.lower())
        for task, running in record["current_operations"].items():
            raise XapiError("OTHER_OPERATION_IN_PROGRESS", "VM", vm, running, task)

    def begin(self, vm: str, operation: str, task: str) -> None:
        """Show in the VM's record that an operation, which `check` has passed, is under way."""
        self.database.modify(vm, current_operations={task: operation}, allowed_operations=[])

    def perform(self, vm: str, operation: str, host: str | None = None) -> None:
        """Do it: whatever was under way has come to its end. ``host`` is where the VM starts, resumes or moves to; without it,
        where it was before, or the coordinator."""
        record = self.record("VM", vm)
        self.database.modify(vm, current_operations={})
        there = host or self._home(record)
        match operation:
            case "start" | "start_on" | "resume" | "resume_on":
                self._new_domain(vm, there)
            case "clean_reboot" | "hard_reboot":
                self._end_domain(vm, "Halted")
                self._new_domain(vm, record["affinity"])
            case "pool_migrate":
                self._end_domain(vm, "Suspended")
                self._new_domain(vm, there)
            case "clean_shutdown" | "hard_shutdown":
                self._end_domain(vm, "Halted")
            case "suspend":
                self._end_domain(vm, "Suspended")
            case "pause" | "unpause":
                self._set_power(vm, "Paused" if operation == "pause" else "Running")
            case "destroy":
                self.database.destroy(vm)
            case _:
                raise ValueError(operation)

    def do(self, vm: str, operation: str, host: str | None = None) -> None:
        """`check`, then `perform`."""
        self.check(vm, operation)
        self.perform(vm, operation, host)

    # What may happen to hosts.

    def fail_over(self, host: str) -> None:
        """Make another member the coordinator."""
        self.record("host", host)
        self.database.modify(self.pool, master=host)

    def declare_dead(self, host: str) -> None:
        """A host is gone for good: it is disabled, and its VMs are halted."""
        self.database.modify(host, enabled=False)
        for vm, record in self.database.rows("VM"):
            if record["resident_on"] == host and not record["is_control_domain"]:
                self._end_domain(vm, "Halted")

    # How.

    def _home(self, record: Record) -> str:
        return str(record["affinity"]) if record["affinity"] != NULL else self.coordinator

    def _new_domain(self, vm: str, host: str) -> None:
        self.record("host", host)
        self._last_domid[host] += 1
        self.database.modify(vm, resident_on=host, affinity=host, domid=str(self._last_domid[host]), domarch="x64")
        self._live_on(host, vm, True)
        self._create_consoles(vm, ("rfb",) if self.record("VM", vm)["domain_type"] == "hvm" else ("rfb", "vt100"))
        self._set_power(vm, "Running")

    def _end_domain(self, vm: str, power_state: str) -> None:
        record = self.record("VM", vm)
        if record["resident_on"] != NULL:
            self._live_on(record["resident_on"], vm, False)
        for console in record["consoles"]:
            self.database.destroy(console)
        self.database.modify(vm, resident_on=NULL, domid="-1", consoles=[])
        self._set_power(vm, power_state)
        for callback in list(self.domain_ended):
            callback(vm, power_state == "Suspended")

    def _set_power(self, vm: str, power_state: str) -> None:
        self.database.modify(vm, power_state=power_state, allowed_operations=list(records.ALLOWED_OPERATIONS[power_state]))

    def _live_on(self, host: str, vm: str, here: bool) -> None:
        resident = [ref for ref in self.record("host", host)["resident_VMs"] if ref != vm]
        self.database.modify(host, resident_VMs=[*resident, vm] if here else resident)

    def _create_consoles(self, vm: str, protocols: tuple[str, ...]) -> None:
        record = self.record("VM", vm)
        address = self.record("host", record["resident_on"])["address"]
        consoles = []
        for protocol in protocols:
            ref = self.database.create("console", records.console(vm, protocol))
            name = f"ref={ref}" if record["is_control_domain"] else f"uuid={self.record('console', ref)['uuid']}"
            self.database.modify(ref, location=f"https://{address}/console?{name}")
            consoles.append(ref)
        self.database.modify(vm, consoles=consoles)

    def _new_uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
