"""`Demo`: all that ``--simulate`` puts around the daemon, and the words that tell a newcomer what to do with it."""

import json
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.request import Request, urlopen

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from xvpd.config import Config, ConfigError
from xvpd.daemon import Daemon
from xvpd.sim.certificate import self_signed
from xvpd.sim.pool import DEMO_VMS, SimulatedPool, SimulatedVm
from xvpd.sim.splice import vnc_endpoint

_ISSUE_SECONDS: Final = 30.0
_OWN: Final = """\
[console]
listen = ["tcp:6081:interface=127.0.0.1"]
base_url = "https://127.0.0.1:6081"
certificate = {certificate}
private_key = {private_key}
[api]
listen = ["tcp:6082:interface=127.0.0.1"]
keys_file = {keys_file}
[state]
dir = {directory}
"""
_POOL: Final = """\
[[pool]]
name = {name}
hosts = {hosts}
port = {port}
username = {username}
password_file = {password_file}
fingerprint_sha256 = {fingerprints}
"""


class Demo:
    """A simulated pool and, in a directory that goes away with it, a certificate, an API key and a configuration.

    ``screens`` shows real VNC servers, ``host:port`` or ``unix:path``, as VMs by their names; a name that the pool does not
    have becomes a VM more. Raises `ConfigError` for one that is neither.
    """

    def __init__(self, reactor: Any, screens: Mapping[str, str]) -> None:
        self._reactor = reactor
        for name, target in screens.items():
            try:
                vnc_endpoint(reactor, target)
            except ValueError as error:
                raise ConfigError(f"--simulate-vnc {name}: {error}") from None
        known = {vm.name: vm for vm in DEMO_VMS} | {name: SimulatedVm(name) for name in screens if name not in _NAMES}
        vms = [replace(vm, running=True, vnc=screens[name]) if name in screens else vm for name, vm in known.items()]
        self.shown = next(iter(screens), DEMO_VMS[0].name)
        """Name of the VM whose console a newcomer is shown first."""
        self._vms = [vm.name for vm in vms if vm.running]
        self._pool = SimulatedPool(reactor, vms=vms, password=secrets.token_urlsafe())
        self._key: str | None = None
        self._directory = TemporaryDirectory(prefix="xvpd-simulate-")

    def configuration(self, text: str) -> str:
        """``text``, or a configuration of the demo's own when there is none, with the pool added to it; it is up then."""
        self._pool.start()
        if not text:
            self._key = secrets.token_urlsafe()
            certificate = self_signed(["127.0.0.1", "localhost"], datetime.now(UTC))
            text = _filled(
                _OWN,
                certificate=self._file("cert.pem", certificate.certificate_pem),
                private_key=self._file("key.pem", certificate.private_key_pem),
                keys_file=self._file("api-keys", f"demo operator {sha256(self._key.encode()).hexdigest()}\n".encode()),
                directory=self._directory.name,
            )
            self._file("api-key", self._key.encode())
        return text + _filled(
            _POOL,
            name=self._pool.name,
            hosts=self._pool.addresses,
            port=self._pool.port,
            username=self._pool.username,
            password_file=self._file("pool.password", self._pool.password.encode()),
            fingerprints=self._pool.fingerprints,
        )

    def announce(self, config: Config) -> "Deferred[None]":
        """Ask the daemon's API for a console URL, and say on the terminal what there is to try.

        Not for a configuration that the user brought, nor when the API listens elsewhere: its keys or its place are not ours.
        """
        api = re.fullmatch(r"tcp:([1-9]\d*):interface=127\.0\.0\.1", config.api.listen[0])
        if self._key is None or api is None:
            return succeed(None)
        base = f"http://127.0.0.1:{api[1]}/v1/consoles"
        asking = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), _issue, base, self._key, self.shown)
        return asking.addCallback(lambda url: self._invite(base, str(url), config.grants.ttl))

    def _invite(self, api: str, url: str, ttl: float) -> None:
        python, directory = sys.executable, self._directory.name
        lines = [
            "",
            f"xvpd stands in front of a simulated pool with the VMs {', '.join(self._vms)}.",
            "",
            f"A console URL for {self.shown}, good for {ttl:g} seconds:",
            "",
            f"  {url}",
            "",
            f"See that it works; this takes a picture of the screen, {self.shown}.png:",
            "",
            f"  {python} -m xvpd.sim.viewer --cafile {directory}/cert.pem '{url}' {self.shown}.png",
            "",
            "Ask for another one:",
            "",
            f'  curl -H "Authorization: Bearer $(cat {directory}/api-key)" -H "Content-Type: application/json" \\',
            f'    -d \'{{"vm": "db-1", "type": "xvpvnc"}}\' {api}',
            "",
            "Ctrl-C ends it.",
            "",
        ]
        # Not the log: its lines have a time before them, and could not be copied.
        print("\n".join(lines), file=sys.__stdout__, flush=True)

    async def stop(self) -> None:
        """The pool and the directory are gone."""
        await self._pool.stop()
        self._directory.cleanup()

    def _file(self, name: str, content: bytes) -> str:
        path = Path(self._directory.name, name)
        path.touch(mode=0o600)
        path.write_bytes(content)
        return str(path)


class Demonstration(Service):
    """A daemon with its demo around it: the pool outlives the daemon that uses it."""

    def __init__(self, daemon: Daemon, demo: Demo, config: Config) -> None:
        self._daemon = daemon
        self._demo = demo
        self._config = config
        self._log = Logger()

    def privilegedStartService(self) -> None:
        self._daemon.privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self._daemon.startService()
        inviting = self._daemon.ready().addCallback(lambda _: self._demo.announce(self._config))
        inviting.addErrback(self._not_invited)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _not_invited(self, failure: Failure) -> None:
        if self.running:  # who stops it before it could be tried is told nothing
            self._log.failure("there is nothing to try", failure)

    async def _stop(self) -> None:
        await self._daemon.stopService()
        await self._demo.stop()


_NAMES: Final = frozenset(vm.name for vm in DEMO_VMS)


def _filled(template: str, **values: object) -> str:
    """TOML with values put in; of the kinds used here, JSON's notation is TOML's."""
    return template.format(**{name: json.dumps(value) for name, value in values.items()})


def _issue(api: str, key: str, vm: str) -> str:
    """A console URL from the API. Blocks."""
    body = json.dumps({"vm": vm, "type": "xvpvnc"}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urlopen(Request(api, body, headers), timeout=_ISSUE_SECONDS) as reply:
        return str(json.load(reply)["url"])
