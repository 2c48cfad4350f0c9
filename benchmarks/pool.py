"""``python -m benchmarks.pool``: a simulated pool in a process of its own, so that its CPU time is not the daemon's.

Writes what a configuration has to know of it as one line of JSON, and runs until it is told to stop.
"""

import json
import sys
from typing import Any, Final

from twisted.internet import reactor as global_reactor

from xvpd.sim.pool import SimulatedPool, SimulatedVm

VMS: Final = ("vm-1", "vm-2", "vm-3", "vm-4")
"""By name, on the pool's two hosts by turns. A VM's VNC server takes 32 clients, as QEMU's does."""


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    reactor: Any = global_reactor
    pool = SimulatedPool(reactor, hosts=2, vms=[SimulatedVm(name, host=number % 2) for number, name in enumerate(VMS)])
    reactor.callWhenRunning(_start, pool)
    reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
    reactor.run()
    return 0


def _start(pool: SimulatedPool) -> None:
    pool.start()
    known = {
        "hosts": pool.addresses,
        "port": pool.port,
        "username": pool.username,
        "password": pool.password,
        "fingerprints": pool.fingerprints,
    }
    print(json.dumps(known), flush=True)


if __name__ == "__main__":
    sys.exit(main())
