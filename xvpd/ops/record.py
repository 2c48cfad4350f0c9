"""The one record that every connection to the console door leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass

from twisted.logger import Logger

from xvpd.reason import Reason


@dataclass(frozen=True, slots=True)
class Record:
    """How a connection to the console door came and went.

    The fields are an allow-list: there is none that could hold a token, an xapi session reference or a password. Those that
    are not known, because the connection never got that far, are empty.
    """

    request_id: str
    """Also the id of the console session, if one came of it."""
    outcome: Reason
    detail: str
    """For the operator alone; see `xvpd.reason.Refusal`."""
    client: str
    started_at: float
    """Seconds since the epoch."""
    seconds: float
    opened: bool = False
    """Whether the client was let through to the console."""
    grant: str = ""
    issuer: str = ""
    user: str = ""
    console_type: str = ""
    vm_uuid: str = ""
    vm_name: str = ""
    pool: str = ""
    host: str = ""
    """uuid of the hypervisor host."""
    bytes_to_client: int = 0
    bytes_to_hypervisor: int = 0


Recorder = Callable[[Record], None]
"""What takes records: the log, the metrics, a list in a test. Must not raise."""

_log = Logger()


def log_record(record: Record) -> None:
    """Write a record to the log."""
    if record.opened:
        _log.info(
            "{request_id}: console of {vm_name} ({vm_uuid}) on host {host} of pool {pool} for {client}, grant {grant}:"
            " {outcome} after {seconds:.1f} s, {to_client} bytes to the client, {to_hypervisor} to the hypervisor{detail}",
            **_fields(record),
        )
    else:
        _log.info("{request_id}: refused {client}: {outcome} after {seconds:.1f} s{about}{detail}", **_fields(record))


def _fields(record: Record) -> dict[str, object]:
    return {
        "request_id": record.request_id,
        "outcome": record.outcome.word,
        "client": record.client,
        "vm_name": record.vm_name,
        "vm_uuid": record.vm_uuid,
        "pool": record.pool,
        "host": record.host,
        "grant": record.grant,
        "seconds": record.seconds,
        "to_client": record.bytes_to_client,
        "to_hypervisor": record.bytes_to_hypervisor,
        "about": f", VM {record.vm_name} ({record.vm_uuid}), grant {record.grant}" if record.grant else "",
        "detail": f" ({record.detail})" if record.detail else "",
    }
