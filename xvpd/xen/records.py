"""What xapi's records say about VMs, consoles and hosts, as far as consoles are concerned. Pure.

Source: xapi's ocaml/idl/datamodel*.ml. Sets are arrays, maps are structs. What a host sends is checked here, once: a
`RecordError` names the class and the field, never the value.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from xvpd.xen.syntax import is_address, is_ref, is_uuid

T = TypeVar("T")

_POWER_STATES: Final = ("Halted", "Paused", "Running", "Suspended")


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
    consoles: tuple[str, ...]
    """References, which change when the VM moves."""
    is_template: bool
    is_snapshot: bool
    is_control_domain: bool
    without_console: bool
    """``other_config:disable_pv_vnc``: by convention, its owner wants no console."""

    @property
    def is_vm(self) -> bool:
        """Whether it can run at all."""
        return not self.is_template and not self.is_snapshot


@dataclass(frozen=True, slots=True)
class Host:
    """A member of the pool."""

    ref: str
    uuid: str
    address: str
    """Its management address: an IP address, or a name; empty when it has none."""


def vm_record(ref: str, record: object) -> Vm:
    """The reply to ``VM.get_record`` for ``ref``."""
    fields = _Fields("VM", record)
    return Vm(
        ref=ref,
        uuid=fields.uuid(),
        name=fields.get("name_label", str),
        power_state=fields.power_state(),
        resident_on=fields.ref("resident_on"),
        consoles=references(fields.get("consoles", list)),
        is_template=fields.get("is_a_template", bool),
        is_snapshot=fields.get("is_a_snapshot", bool),
        is_control_domain=fields.get("is_control_domain", bool),
        without_console=fields.get("other_config", dict).get("disable_pv_vnc") in ("1", "true"),
    )


def host_record(ref: str, record: object) -> Host:
    """The reply to ``host.get_record`` for ``ref``."""
    fields = _Fields("host", record)
    address = fields.get("address", str)
    if address and not is_address(address):
        raise RecordError("host.address is no address")
    return Host(ref, fields.uuid(), address)


def console_protocol(record: object) -> str:
    """The protocol in a reply to ``console.get_record``: ``rfb``, ``vt100`` or ``rdp``."""
    return _Fields("console", record).get("protocol", str)


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
