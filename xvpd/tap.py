"""``twistd xvpd``: the command line, and the composition root.

This is the only place that names concrete classes, and the only one that knows the global reactor.
"""

import os
import secrets
import socket
import tomllib
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from xvpd import __version__, config
from xvpd.api.auth import KeysFile, KeysFileError
from xvpd.api.consoles import ConsoleCalls
from xvpd.api.health import Health
from xvpd.api.issuer import Issuer, Terms
from xvpd.api.sessions import SessionCalls
from xvpd.api.site import ApiSite
from xvpd.config import Config, ConfigError, load
from xvpd.console.door import Door, Limits
from xvpd.daemon import Daemon
from xvpd.grants.memory import MemoryStore
from xvpd.grants.redis import RedisStore
from xvpd.grants.redis_url import parse_redis_url
from xvpd.grants.store import Caps, ITokenStore
from xvpd.net.listen import listening
from xvpd.net.tls import ServerTls, TlsError
from xvpd.ops.metrics import Metrics
from xvpd.ops.record import log_record
from xvpd.ops.sessions import Sessions
from xvpd.ops.store_watch import StoreWatch
from xvpd.ops.timed_store import TimedStore
from xvpd.relay.copy import CopyRelay
from xvpd.sim.demo import Demo, Demonstration
from xvpd.xen.pool import Pool
from xvpd.xen.pools import Pools
from xvpd.xen.settings import PoolSettings
from xvpd.xen.trust import Authority, Pins, Plain, Trust


class Options(UsageOptions):
    """The command line. Whatever is wrong with it, or with the configuration, ends the process with one line and status 1."""

    synopsis = "twistd [options] xvpd (--config FILE | --simulate)"
    longdesc = "A console proxy daemon for XenServer and XCP-ng."
    optFlags = [["simulate", None, "Put a simulated pool behind the proxy, and issue a console URL to try it with."]]
    optParameters = [["config", "c", None, "The configuration file, such as /etc/xvpd/xvpd.toml."]]

    def __init__(self) -> None:
        super().__init__()
        self.overrides: dict[str, dict[str, Any]] = {}
        self.screens: dict[str, str] = {}
        self.configuration: Config
        self.demo: Demo | None = None

    def opt_set(self, assignment: str) -> None:
        """SECTION.KEY=VALUE, in TOML: takes the place of the file's value. Any number of times."""
        try:
            parsed = tomllib.loads(assignment)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"--set {assignment.partition('=')[0]}: {error}") from None
        for section, values in parsed.items():
            if not isinstance(values, dict):
                raise UsageError(f"--set {section}: name a section and a key, such as console.listen=…")
            self.overrides.setdefault(section, {}).update(values)

    def opt_simulate_vnc(self, screen: str) -> None:
        """VM=TARGET: show a real VNC server, host:port or unix:path, as the screen of the simulated VM of that name."""
        vm, _, target = screen.partition("=")
        if not vm or not target:
            raise UsageError("--simulate-vnc: write VM=host:port or VM=unix:path")
        self.screens[vm] = target

    def opt_version(self) -> None:
        """Print xvpd's version, and exit."""
        print(f"xvpd {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except UsageError as error:
            raise SystemExit(f"xvpd: {error}; 'twistd xvpd --help' lists the options") from None

    def postOptions(self) -> None:
        if not self["config"] and not self["simulate"]:
            raise UsageError("where is the configuration? --config FILE, or --simulate for a trial")
        if self.screens and not self["simulate"]:
            raise UsageError("--simulate-vnc goes with --simulate")
        try:
            text = self._read()
            if self["simulate"]:
                text = self._simulate(text)
            self.configuration = load(text, self["config"] or "--simulate", self.overrides)
            if not self.configuration.pools:
                raise ConfigError(f"{self['config']}: there is no [[pool]]")
        except ConfigError as error:
            raise SystemExit("\n".join(f"xvpd: {line}" for line in str(error).splitlines())) from None

    def _simulate(self, text: str) -> str:
        from twisted.internet import reactor

        if _has_pools(text):
            raise ConfigError(
                f"{self['config']}: has a [[pool]]; --simulate brings its own, and must not be mixed with real ones"
            )
        self.demo = Demo(reactor, self.screens)
        return self.demo.configuration(text)

    def _read(self) -> str:
        if not self["config"]:
            return ""
        try:
            return Path(self["config"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self['config']}: {_unreadable(error)}") from None


def makeService(options: Options) -> IService:
    """The daemon that the command line asks for."""
    from twisted.internet import reactor

    try:
        daemon = compose(reactor, options.configuration)
    except (ConfigError, KeysFileError, TlsError) as error:
        raise SystemExit(f"xvpd: {error}") from None
    reactor.callWhenRunning(daemon.take_signals)
    return Demonstration(daemon, options.demo, options.configuration) if options.demo is not None else daemon


def compose(reactor: Any, settings: Config) -> Daemon:
    """Everything that ``settings`` asks for, connected but not started.

    Raises `ConfigError`, `KeysFileError` and `TlsError` for files that cannot be used.
    """
    metrics = Metrics()
    node = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    store = TimedStore(reactor, _store(reactor, settings.grants, node), metrics.time_store)
    pools = [
        Pool(
            reactor,
            _pool_settings(pool, settings.state.dir),
            timed=metrics.time_xapi_call,
            expires=metrics.certificates_expire,
        )
        for pool in settings.pools
    ]
    hypervisor = Pools(pools)
    sessions = Sessions(reactor, store)
    relay = CopyRelay(reactor)
    metrics.relay_info.labels(relay=relay.name).set(1)
    door = Door(
        clock=reactor,
        hypervisor=hypervisor,
        store=store,
        relays=[relay],
        sessions=sessions,
        metrics=metrics,
        recorders=[log_record, metrics.record],
        random_bytes=secrets.token_bytes,
        node=node,
        limits=_limits(settings.console),
        server_tls=ServerTls(settings.console.certificate, settings.console.private_key).connection
        if settings.console.certificate
        else None,
    )
    issuer = Issuer(
        reactor,
        hypervisor,
        store,
        metrics=metrics,
        random_bytes=secrets.token_bytes,
        base_url=settings.console.base_url,
        terms=Terms(
            settings.grants.ttl, settings.grants.uses, settings.grants.resume, max_duration=settings.console.max_duration
        ),
        locate_seconds=settings.api.issue_timeout,
        draining=lambda: door.draining,
    )
    health = Health(
        draining=lambda: door.draining, store=store.ready, pools={pool.name: pool.ready for pool in pools}, metrics=metrics
    )
    routes = [*ConsoleCalls(issuer, store).routes(), *SessionCalls(store).routes(), *health.routes()]
    api = ApiSite(reactor, KeysFile(settings.api.keys_file), routes, secrets.token_bytes)

    return Daemon(
        reactor,
        console_listeners=[listening(reactor, each, door) for each in settings.console.listen],
        api_listeners=[listening(reactor, each, _api_factory(settings, api)) for each in settings.api.listen],
        door=door,
        sessions=sessions,
        store=store,
        store_watch=StoreWatch(reactor, store, sessions, close=settings.grants.when_store_is_down == "close"),
        hypervisor=hypervisor,
        drain_seconds=settings.console.drain_timeout,
    )


def _api_factory(settings: Config, api: ApiSite) -> IProtocolFactory:
    if not settings.api.certificate:
        return api
    return TLSMemoryBIOFactory(ServerTls(settings.api.certificate, settings.api.private_key), False, api)


def _store(reactor: Any, grants: config.Grants, node: str) -> ITokenStore:
    if grants.store == "memory":
        return MemoryStore(reactor)
    password = _secret("[grants] store_password_file", grants.store_password_file) if grants.store_password_file else ""
    try:
        settings = parse_redis_url(grants.store, password, grants.store_ca_file)
    except ValueError as error:
        raise ConfigError(f"[grants] store: {error}") from None
    return RedisStore(reactor, settings, node, secrets.token_bytes)


def _pool_settings(pool: config.Pool, state_dir: str) -> PoolSettings:
    return PoolSettings(
        pool.name,
        pool.hosts,
        pool.username,
        _secret(f"[[pool]] {pool.name}, password_file", pool.password_file),
        _trust(pool),
        pool.port,
        state_dir,
    )


def _trust(pool: config.Pool) -> Trust:
    if pool.insecure_plain:
        return Plain()
    return Authority(pool.ca_file) if pool.ca_file else Pins(frozenset(pool.fingerprint_sha256), pool.hosts)


def _secret(key: str, filename: str) -> str:
    """The password in the file that ``key`` of the configuration names; its line end is not part of it."""
    try:
        return Path(filename).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {filename}: {_unreadable(error)}") from None


def _limits(console: config.Console) -> Limits:
    caps = Caps(console.max_sessions_per_vm, console.max_sessions_per_host, console.max_sessions_per_user)
    return Limits(console.handshake_timeout, console.max_sessions, console.max_pending_per_client, caps)


def _unreadable(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else "is not UTF-8"


def _has_pools(text: str) -> bool:
    try:
        return "pool" in tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False  # of which `load` will say more
