"""Who may have which console: what xapi's handler of ``/console`` decides, without a connection.

Source: xapi's ocaml/xapi/console.ml and xapi_http.ml.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xvpd.sim import http
from xvpd.sim.http import Request
from xvpd.sim.model import PoolState, XapiError, XapiSession

_FAILURE = "Console.Failure"
"""The exception that xapi names for every console that cannot be had."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that is granted: by whom, and for which VM's console."""

    user: str
    vm: str


class Door:
    """Decides for one host. ``connected`` has, by VM, the users whose consoles are open on it."""

    def __init__(self, state: PoolState, host: str) -> None:
        self._state = state
        self._host = host
        self.connected: dict[str, list[str]] = {}

    def vm_of(self, request: Request) -> str | None:
        """The VM that a request is about; None when there is none. A uuid wins over a reference, a VM over a console."""
        database = self._state.database
        if "uuid" in request.query:
            uuid = request.query["uuid"]
            found = database.find("VM", "uuid", uuid) or database.find("console", "uuid", uuid)
            ref = found[0] if found else ""
        else:
            ref = request.query.get("ref", "")
        if database.table_of(ref) == "console":
            return str(self._state.record("console", ref)["VM"])
        return ref if database.table_of(ref) == "VM" else None

    def console(self, request: Request, has_vnc_server: bool) -> bytes | Admitted:
        """The reply to a request for a console that is not granted, or who is admitted to what."""
        with self._session(request) as session:
            refused = _unless_operator(request, session, "connect_console")
            if refused is not None:
                return refused
            assert session is not None
            vm = self._running_here(request, session)
            if isinstance(vm, bytes):
                return vm
            if not has_vnc_server:
                return http.NO_CONSOLE
            users = self.connected.get(vm, [])
            if users and self._limited():
                return http.limit_exceeded(request.reply_version, users)
            return Admitted(session.user, vm)

    def snapshot(self, request: Request) -> bytes | Admitted:
        """The same, for a picture of the screen."""
        with self._session(request) as session:
            refused = _unless_operator(request, session, "get_vncsnapshot")
            if refused is not None:
                return refused
            assert session is not None
            vm = self._running_here(request, session)
            return vm if isinstance(vm, bytes) else Admitted(session.user, vm)

    def websocket(self, request: Request) -> bytes:
        """The reply to a WebSocket handshake, which is never granted here: there is no wsproxy."""
        with self._session(request) as session:
            refused = _unless_operator(request, session, "connect_console")
            return refused or (http.NO_WEBSOCKETS if self._limited() else http.NO_WSPROXY)

    def opened(self, admitted: Admitted) -> None:
        """A console is open."""
        self.connected.setdefault(admitted.vm, []).append(admitted.user)

    def closed(self, admitted: Admitted) -> None:
        """It no longer is."""
        users = self.connected[admitted.vm]
        users.remove(admitted.user)
        if not users:
            del self.connected[admitted.vm]

    @contextmanager
    def _session(self, request: Request) -> Iterator[XapiSession | None]:
        """The session of a request; with HTTP Basic, one for as long as the request is looked at."""
        if request.session is not None:
            yield self._state.xapi_sessions.get(request.session)
            return
        if request.credentials is None:
            yield None
            return
        try:
            session = self._state.log_in(*request.credentials, "xapi")
        except XapiError:
            yield None
            return
        try:
            yield self._state.xapi_sessions[session]
        finally:
            self._state.log_out(session)

    def _running_here(self, request: Request, session: XapiSession) -> str | bytes:
        """The VM whose graphical console is asked for, if it runs on this host; a 500 otherwise."""
        version = request.reply_version
        vm = self.vm_of(request)
        if vm is None or self._console_protocol(request, vm) not in ("rfb", "vt100"):
            return http.internal_error(version, _FAILURE)
        record = self._state.record("VM", vm)
        if record["is_control_domain"] and not session.may("pool-admin"):
            denied = "http/connect_console/host_console; No permission in user session"
            return http.internal_error(version, f"Server_error(RBAC_PERMISSION_DENIED, [ {denied} ])")
        if record["power_state"] != "Running" or record["resident_on"] != self._host:
            return http.internal_error(version, _FAILURE)
        return vm

    def _console_protocol(self, request: Request, vm: str) -> str | None:
        """The protocol of the console that was named, or of the VM's first that is graphical."""
        database = self._state.database
        ref = request.query.get("ref", "")
        if "uuid" in request.query:
            named = database.find("console", "uuid", request.query["uuid"])
            ref = named[0] if named else vm
        console = database.get("console", ref)
        if console is not None:
            return str(console["protocol"])
        protocols = [self._state.record("console", each)["protocol"] for each in self._state.record("VM", vm)["consoles"]]
        return "rfb" if "rfb" in protocols else None

    def _limited(self) -> bool:
        return bool(self._state.record("pool", self._state.pool)["limit_console_sessions"])


def _unless_operator(request: Request, session: XapiSession | None, action: str) -> bytes | None:
    if session is None:
        return http.unauthorised(request.reply_version, action)
    if not session.may("vm-operator"):
        return http.forbidden(request.reply_version)
    return None
