"""What a client sees of hosts, VMs, consoles, pools and tasks: the fields of real records, in XML-RPC's shapes.

Source: the datamodel of xapi 26.1 (ocaml/idl/datamodel*.ml). Fields that no client of a console cares for may be missing.
"""

from datetime import datetime
from xmlrpc.client import DateTime

from xvpd.sim.database import NULL, Record

_VERSION = {
    "product_brand": "XenServer",
    "product_version": "9.0.0",
    "platform_name": "XCP",
    "platform_version": "4.0.0",
    "xapi": "26.1",
    "xapi_build": "26.1.0",
    "hostname": "localhost",
}

ALLOWED_OPERATIONS = {
    "Halted": ["changing_dynamic_range", "clone", "copy", "destroy", "export", "provision", "snapshot", "start", "start_on"],
    "Running": [
        "clean_reboot",
        "clean_shutdown",
        "hard_reboot",
        "hard_shutdown",
        "pause",
        "pool_migrate",
        "snapshot",
        "suspend",
    ],
    "Paused": ["hard_reboot", "hard_shutdown", "snapshot", "unpause"],
    "Suspended": ["export", "hard_shutdown", "resume", "resume_on", "snapshot"],
}
"""What may be done with a VM in each power state."""


def host(name: str, address: str) -> Record:
    """A host that is enabled and answers at ``address``, a bare IP address."""
    return {
        "name_label": name,
        "name_description": "Default install",
        "address": address,
        "hostname": name,
        "enabled": True,
        "https_only": True,
        "console_idle_timeout": "0",
        "API_version_major": "2",
        "API_version_minor": "21",
        "API_version_vendor": "XenSource",
        "allowed_operations": ["evacuate", "provision", "shutdown", "vm_migrate", "vm_resume", "vm_start"],
        "capabilities": ["xen-3.0-x86_64", "hvm-3.0-x86_64"],
        "cpu_info": {"cpu_count": "16", "socket_count": "2", "vendor": "GenuineIntel"},
        "current_operations": {},
        "edition": "trial",
        "logging": {},
        "memory_overhead": "0",
        "metrics": NULL,
        "other_config": {},
        "resident_VMs": [],
        "control_domain": NULL,
        "sched_policy": "credit",
        "software_version": dict(_VERSION),
        "tags": [],
        "tls_verification_enabled": True,
    }


def pool(name: str, master: str) -> Record:
    """A pool whose coordinator is the host ``master``."""
    return {
        "name_label": name,
        "name_description": "",
        "master": master,
        "default_SR": NULL,
        "ha_enabled": False,
        "other_config": {},
        "tags": [],
        "tls_verification_enabled": True,
        "limit_console_sessions": False,
        "vm_console_idle_timeout": "0",
    }


def vm(name: str, hvm: bool) -> Record:
    """A halted VM."""
    return {
        "name_label": name,
        "name_description": "",
        "power_state": "Halted",
        "resident_on": NULL,
        "affinity": NULL,
        "scheduled_to_be_resident_on": NULL,
        "domid": "-1",
        "domarch": "",
        "consoles": [],
        "is_a_template": False,
        "is_default_template": False,
        "is_a_snapshot": False,
        "is_control_domain": False,
        "is_vmss_snapshot": False,
        "domain_type": "hvm" if hvm else "pv",
        "HVM_boot_policy": "BIOS order" if hvm else "",
        "PV_bootloader": "" if hvm else "pygrub",
        "VCPUs_max": "2",
        "VCPUs_at_startup": "2",
        "memory_static_max": "2147483648",
        "memory_dynamic_max": "2147483648",
        "allowed_operations": list(ALLOWED_OPERATIONS["Halted"]),
        "current_operations": {},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "guest_metrics": NULL,
        "metrics": NULL,
        "other_config": {},
        "platform": {"vga": "std", "videoram": "8"},
        "tags": [],
        "VIFs": [],
        "VBDs": [],
        "snapshots": [],
        "snapshot_of": NULL,
        "parent": NULL,
        "suspend_VDI": NULL,
        "ha_restart_priority": "",
        "is_snapshot_from_vmpp": False,
        "user_version": "1",
    }


def console(vm_ref: str, protocol: str) -> Record:
    """A console without a location yet; ``protocol`` is ``rfb``, ``vt100`` or ``rdp``."""
    return {"protocol": protocol, "location": "", "VM": vm_ref, "other_config": {}}


def task(label: str, created: datetime) -> Record:
    """A task that has begun."""
    return {
        "name_label": label,
        "name_description": "",
        "status": "pending",
        "progress": 0.0,
        "created": DateTime(created.strftime("%Y%m%dT%H:%M:%SZ")),
        "finished": DateTime("19700101T00:00:00Z"),
        "type": "<none/>",
        "result": "",
        "error_info": [],
        "allowed_operations": [],
        "current_operations": {},
        "other_config": {},
        "subtask_of": NULL,
        "subtasks": [],
        "resident_on": NULL,
    }
