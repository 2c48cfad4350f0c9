"""The configuration: the text of xvpd.toml in, a frozen `Config` or a list of faults out.

Everything that can be known to be wrong without touching the machine is found here, all of it at once, one line for each
fault. Whether files, pools and stores are really there is found by whoever opens them. Faults never quote a value: it might
be a secret.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from xvpd.fault import in_words, printable, spelt

T = TypeVar("T")


def _not_empty(entries: tuple[T, ...]) -> tuple[T, ...]:
    if not entries:
        raise ValueError("must not be empty")
    return entries


Many = Annotated[tuple[T, ...], Strict(False)]
"""A TOML array. (A strict tuple would take no list.)"""
Some = Annotated[tuple[T, ...], Strict(False), AfterValidator(_not_empty)]
"""The same, with one entry at least."""
Printable = Annotated[str, AfterValidator(printable)]
"""A text that may be empty, which is the same as absent."""
Text = Annotated[str, Field(min_length=1), AfterValidator(printable)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Deadline = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
"""How many; 0 is no limit."""

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_YEAR: Final = 366 * 86400
_REDIS: Final = re.compile(r"rediss?(\+sentinel)?://")
_FAULTS: Final = "faults"


class ConfigError(Exception):
    """The configuration cannot be used. The text has one line for each fault, naming file, key and reason."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with several keys taken together, each as a key and a reason."""
        yield from ()

    @model_validator(mode="after")
    def _together(self) -> Self:
        faults = list(self.faults())
        if faults:
            raise PydanticCustomError(_FAULTS, "keys that do not go together", {_FAULTS: faults})
        return self


class _Listener(_Section):
    listen: Some[Text]
    """Twisted endpoint strings, without TLS: that is what `certificate` is for."""
    certificate: Printable = ""
    """Path of a PEM file with the certificate and its chain; empty: no TLS."""
    private_key: Printable = ""

    @field_validator("listen")
    @classmethod
    def _plain(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        if any(each.startswith(("ssl:", "tls:")) for each in listen):
            raise ValueError("must be tcp:, tcp6:, unix: or systemd:; TLS comes from certificate and private_key")
        if any(each.startswith("haproxy:") for each in listen):
            raise ValueError("must not be haproxy: yet: nothing says whose word for a client's address is to be believed")
        return listen

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.certificate and not self.private_key:
            yield "private_key", "is missing; certificate needs it"
        if self.private_key and not self.certificate:
            yield "certificate", "is missing; private_key needs it"


class Console(_Listener):
    """The door for clients."""

    listen: Some[Text] = ("tcp:6081",)
    base_url: Printable
    """What console URLs begin with: scheme, host and always a port, no slash at the end.

    It may say https while there is no `certificate`: then something in front of xvpd ends TLS.
    """
    insecure_plain: bool = False
    """Whether clients may be spoken to in clear text."""
    handshake_timeout: Deadline = 10
    """From accept to a complete request head, TLS included."""
    max_duration: Seconds = 0
    """From when its token is first used, after which a console is over, unless its issuer wants it sooner; 0 is never."""
    drain_timeout: Seconds = 300
    max_sessions: Count = 10000
    max_sessions_per_vm: Count = 8
    max_sessions_per_host: Count = 200
    max_sessions_per_user: Count = 0
    max_pending_per_client: Count = 64
    relay: Literal["auto", "copy"] = "auto"

    @field_validator("base_url")
    @classmethod
    def _with_port(cls, base_url: str) -> str:
        try:
            url = urlsplit(base_url)
            port = url.port
        except ValueError:
            raise ValueError("must be a URL such as https://console.example.org:6081") from None
        if url.scheme not in ("http", "https") or not url.hostname or port == 0:
            raise ValueError("must be a URL such as https://console.example.org:6081")
        if url.path.rstrip("/") or "?" in base_url or "#" in base_url or "@" in url.netloc or not _is_host(url.hostname):
            raise ValueError("must be only scheme, host and port; xvpd adds the path")
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        return f"{url.scheme}://{host}:{port if port is not None else {'http': 80, 'https': 443}[url.scheme]}"

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.certificate and self.insecure_plain:
            yield "insecure_plain", "must be false when there is a certificate"
        if self.certificate and self.base_url.startswith("http:"):
            yield "base_url", "must begin with https:// when there is a certificate"
        if not self.certificate and not self.insecure_plain and not all(map(_is_unix, self.listen)):
            yield (
                "certificate",
                "is missing; without one, clients are spoken to in clear text: insecure_plain = true allows that",
            )


class Grants(_Section):
    """What tokens stand for, and for how long."""

    store: str = "memory"
    """``memory``, or the address of a Redis; see `xvpd.grants.redis_url`."""
    store_password_file: str = ""
    store_ca_file: str = ""
    """PEM file of the authorities that may vouch for a Redis with TLS; empty is the platform's."""
    ttl: Annotated[float, Field(gt=0, le=_YEAR, allow_inf_nan=False)] = 600
    """The life of a token, unless its issuer wants it shorter."""
    uses: Count = 0
    """How often a token may be redeemed, unless its issuer says otherwise; 0 is any number of times."""
    resume: Seconds = 300
    """Within which a session that ended by no fault of the client may be taken up again."""
    when_store_is_down: Literal["keep", "close"] = "keep"
    """What becomes of live sessions while the store is away; new ones are always refused."""

    @field_validator("store")
    @classmethod
    def _known(cls, store: str) -> str:
        if store != "memory" and not _REDIS.match(store):
            raise ValueError('must be "memory", or the address of a Redis such as redis://host:6379/0')
        return store

    def faults(self) -> Iterator[tuple[str, str]]:
        for key in ("store_password_file", "store_ca_file"):
            if self.store == "memory" and getattr(self, key):
                yield key, "means nothing while store is memory"
        if self.store_ca_file and not self.store.startswith("rediss"):
            yield "store_ca_file", "means nothing without TLS: rediss://"


class Api(_Listener):
    """The door for those who ask for console URLs."""

    listen: Some[Text] = ("tcp:6082:interface=127.0.0.1",)
    keys_file: Text = "/etc/xvpd/api-keys"
    issue_timeout: Deadline = 30
    """Within which a console must have been found."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if not self.certificate and not all(_is_unix(each) or _is_loopback(each) for each in self.listen):
            yield "certificate", "is missing; without one, the API may listen on loopback and unix: only"


class Pool(_Section):
    """A pool of hypervisor hosts, and how its members prove who they are."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    hosts: Some[Text]
    """Addresses, the coordinator's first."""
    username: Text
    password_file: Text
    ca_file: Printable = ""
    fingerprint_sha256: Many[str] = ()
    """SHA-256 of certificates, 64 lower-case hex digits each."""
    port: int = Field(default=443, ge=1, le=65535)
    insecure_plain: bool = False

    @field_validator("hosts")
    @classmethod
    def _addresses(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_is_host, hosts)):
            raise ValueError("must be host names or IP addresses, without port")
        return hosts

    @field_validator("fingerprint_sha256")
    @classmethod
    def _fingerprints(cls, fingerprints: tuple[str, ...]) -> tuple[str, ...]:
        plain = tuple(each.replace(":", "").lower() for each in fingerprints)
        if not all(re.fullmatch("[0-9a-f]{64}", each) for each in plain):
            raise ValueError("must be SHA-256 fingerprints: 64 hex digits each, with colons or without")
        return plain

    def faults(self) -> Iterator[tuple[str, str]]:
        given = [bool(self.ca_file), bool(self.fingerprint_sha256), self.insecure_plain]
        if not any(given):
            yield "fingerprint_sha256", "is missing; a pool needs this or ca_file (or insecure_plain = true)"
        if given.count(True) > 1:
            yield "fingerprint_sha256", "only one of ca_file, fingerprint_sha256 and insecure_plain can be used for a pool"


class State(_Section):
    """What xvpd keeps between two starts."""

    dir: Text = "/var/lib/xvpd"


class Config(_Section):
    """All of xvpd.toml. Checked whole: a `Config` that exists can be used."""

    console: Console
    grants: Grants = Field(default_factory=Grants)
    api: Api = Field(default_factory=Api)
    pools: Many[Pool] = Field(default=(), alias="pool")
    """May be empty; whether that is enough is for its reader to say."""
    state: State = Field(default_factory=State)

    def faults(self) -> Iterator[tuple[str, str]]:
        names = [pool.name for pool in self.pools]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield "pool", f"more than one is named {name}"


def load(
    text: str,
    filename: str,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The configuration that ``text`` holds, with ``overrides`` (section -> key -> value) in the place of its values.

    ``${NAME}`` in a string stands for the environment variable of that name. Raises `ConfigError`.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{filename}: {error}") from None
    raw.setdefault("console", {})
    faults: list[str] = []
    for section, values in (overrides or {}).items():
        if isinstance(raw.setdefault(section, {}), dict):
            raw[section] |= values
        else:
            faults.append(f"{_place((section,))}: is no table that a single value could be put into")
    try:
        config = Config.model_validate(_substitute(raw, environ, (), faults))
    except ValidationError as error:
        faults += [line for details in error.errors() for line in _lines(details)]
    else:
        if not faults:
            return config
    raise ConfigError("\n".join(f"{filename}: {line}" for line in faults))


def _substitute(value: Any, environ: Mapping[str, str], where: tuple[str | int, ...], faults: list[str]) -> Any:
    """``value`` with the variables in all its strings replaced; notes those that do not exist as faults."""
    if isinstance(value, dict):
        return {key: _substitute(each, environ, (*where, key), faults) for key, each in value.items()}
    if isinstance(value, list):
        return [_substitute(each, environ, (*where, index), faults) for index, each in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environ:
            faults.append(f"{_place(where)}: there is no environment variable {spelt(name)}")
        return environ.get(name, match[0])

    return _VARIABLE.sub(variable, value)


def _lines(details: ErrorDetails) -> Iterator[str]:
    """A fault in pydantic's terms, as lines for a person."""
    where = details["loc"]
    if details["type"] == _FAULTS:
        for key, reason in details["ctx"][_FAULTS]:
            yield f"{_place((*where, key))}: {reason}"
    else:
        yield f"{_place(where)}: {_reason(details, where)}"


def _reason(details: ErrorDetails, where: tuple[str | int, ...]) -> str:
    match details["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(where[-1]), _keys_beside(where), 1, 0.75)
            return f"no such key; did you mean {near[0]}?" if near else in_words(details)
        case "tuple_type" if where == ("pool",):
            return "must be tables, each headed [[pool]]"
        case "string_pattern_mismatch":
            return "must be 1 to 64 letters, digits, dots, dashes or underscores"
        case _:
            return in_words(details)


def _keys_beside(where: tuple[str | int, ...]) -> list[str]:
    """The keys that could have stood in the place of an unknown one."""
    section = Config
    if len(where) == 1:
        return [field.alias or name for name, field in section.model_fields.items()]
    models: dict[str | int, type[_Section]] = {
        "console": Console,
        "grants": Grants,
        "api": Api,
        "pool": Pool,
        "state": State,
    }
    return list(models[where[0]].model_fields)


def _place(where: tuple[str | int, ...]) -> str:
    """``("pool", 0, "hosts", 1)`` as ``[[pool]] entry 1, hosts, entry 2``: sections by name, entries counted from 1."""
    section, *rest = where
    words = [f"entry {each + 1}" if isinstance(each, int) else spelt(each) for each in rest]
    return " ".join(["[[pool]]" if section == "pool" else f"[{spelt(section)}]", ", ".join(words)]).rstrip()


def _fields(endpoint: str) -> list[str]:
    """An endpoint string's parts: separated by colons, a backslash takes a colon's meaning away."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\):", endpoint)]


def _is_unix(endpoint: str) -> bool:
    kind, *rest = _fields(endpoint)
    return kind == "unix" or (kind == "systemd" and "domain=UNIX" in rest)


def _is_loopback(endpoint: str) -> bool:
    interfaces = [part.removeprefix("interface=") for part in _fields(endpoint) if part.startswith("interface=")]
    return bool(interfaces) and all(each == "localhost" or _is_loopback_address(each) for each in interfaces)


def _is_loopback_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    """Whether ``text`` is a host's name or address. (An IPv6 zone, behind a ``%``, could hold anything: not understood.)"""
    if "%" in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True
