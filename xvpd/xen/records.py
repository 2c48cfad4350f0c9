"""What xapi's records say about VMs, consoles, hosts and the pool, as far as consoles are concerned. Pure.

Source: xapi's ocaml/idl/datamodel*.ml. Sets are arrays, maps are structs. What a host sends is checked here, once: a
`RecordError` names the class and the field, never the value.
"""

import re
import sys
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from xvpd.xen.syntax import is_address, is_ref, is_uuid

T = TypeVar("T")

_POWER_STATES: Final = ("Halted", "Paused", "Running", "Suspended")
_INT: Final = re.compile(r"-?[0-9]{1,18}")


class RecordError(ValueError):
    """A record that is not what the XenAPI says it is."""


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM, template, snapshot or control domain."""

    ref: str
    uuid: str
    name: str
    power_state: str
    resident_on: str
    """Reference of the host; `syntax.NULL_REF` when it runs nowhere."""
    domid: int
    """Another for every start, reboot and move; -1 when it runs nowhere."""
    consoles: tuple[str, ...]
    """References, which change when the VM moves."""
    is_template: bool
    is_snapshot: bool
    is_control_domain: bool
    without_console: bool
    """``other_config:disable_pv_vnc``: by convention, its owner wants no console."""
    tags: tuple[str, ...]
    nova_uuid: str
    """``other_config:nova_uuid``: what Nova calls it; empty when Nova does not know it."""

    @property
    def is_vm(self) -> bool:
        """Whether it can run at all."""
        return not self.is_template and not self.is_snapshot


@dataclass(frozen=True, slots=True)
class Host:
    """A member of the pool."""

    ref: str
    uuid: str
    name: str
    address: str
    """Its management address: an IP address, or a name; empty when it has none."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the pool's administrator wants of consoles. Pools before 26.1 know none of it, and want nothing."""

    limit_console_sessions: bool = False
    """One console session at a time for each VM; the hosts see to it."""
    idle_seconds: int = 0
    """Without input from the user until a console is to end; 0 is never. Hosts see to it for viewers of RFB 3.3 alone."""


def vm_record(ref: str, record: object) -> Vm:
    """The reply to ``VM.get_record`` for ``ref``."""
    fields = _Fields("VM", record)
    other_config = fields.get("other_config", dict)
    return Vm(
        ref=ref,
        uuid=fields.uuid(),
        name=fields.get("name_label", str),
        power_state=sys.intern(fields.power_state()),
        resident_on=sys.intern(fields.ref("resident_on")),
        domid=fields.integer("domid"),
        consoles=references(fields.get("consoles", list)),
        is_template=fields.get("is_a_template", bool),
        is_snapshot=fields.get("is_a_snapshot", bool),
        is_control_domain=fields.get("is_control_domain", bool),
        without_console=other_config.get("disable_pv_vnc") in ("1", "true"),
        tags=fields.texts("tags"),
        nova_uuid=str(other_config.get("nova_uuid", "")),
    )


def host_record(ref: str, record: object) -> Host:
    """The reply to ``host.get_record`` for ``ref``."""
    fields = _Fields("host", record)
    address = fields.get("address", str)
    if address and not is_address(address):
        raise RecordError("host.address is no address")
    return Host(ref, fields.uuid(), fields.get("name_label", str), address)


def console_protocol(record: object) -> str:
    """The protocol in a reply to ``console.get_record``: ``rfb``, ``vt100`` or ``rdp``."""
    return sys.intern(_Fields("console", record).get("protocol", str))


def pool_policy(record: object) -> Policy:
    """The policy in a pool's record, for its VMs. (``host.console_idle_timeout`` is for the consoles of hosts themselves,
    which are not offered.)"""
    fields = _Fields("pool", record)
    return Policy(
        limit_console_sessions=fields.has("limit_console_sessions") and fields.get("limit_console_sessions", bool),
        idle_seconds=max(fields.integer("vm_console_idle_timeout"), 0) if fields.has("vm_console_idle_timeout") else 0,
    )


def reference(value: object) -> str:
    """A reference, as ``VM.get_by_uuid`` returns it."""
    if not isinstance(value, str) or not is_ref(value):
        raise RecordError("not a reference")
    return value


def references(value: object) -> tuple[str, ...]:
    """A set of references, as ``VM.get_by_name_label`` returns it."""
    if not isinstance(value, list):
        raise RecordError("not a set of references")
    return tuple(map(reference, value))


class _Fields:
    def __init__(self, class_name: str, record: object) -> None:
        if not isinstance(record, dict):
            raise RecordError(f"the record of a {class_name} is none")
        self._class_name = class_name
        self._record: dict[Any, Any] = record

    def get(self, field: str, kind: type[T]) -> T:
        value = self._record.get(field)
        if not isinstance(value, kind):
            raise RecordError(f"{self._class_name}.{field} is not there, or of a wrong type")
        return value

    def ref(self, field: str) -> str:
        value = self.get(field, str)
        if not is_ref(value):
            raise RecordError(f"{self._class_name}.{field} is no reference")
        return value

    def has(self, field: str) -> bool:
        return field in self._record

    def integer(self, field: str) -> int:
        value = self.get(field, str)
        if _INT.fullmatch(value) is None:
            raise RecordError(f"{self._class_name}.{field} is no number")
        return int(value)

    def texts(self, field: str) -> tuple[str, ...]:
        values = self.get(field, list)
        if not all(isinstance(each, str) for each in values):
            raise RecordError(f"{self._class_name}.{field} is no set of strings")
        return tuple(values)

    def power_state(self) -> str:
        value = self.get("power_state", str)
        if value not in _POWER_STATES:
            raise RecordError(f"{self._class_name}.power_state is none")
        return value

    def uuid(self) -> str:
        value = self.get("uuid", str)
        if not is_uuid(value):
            raise RecordError(f"{self._class_name}.uuid is none")
        return value
