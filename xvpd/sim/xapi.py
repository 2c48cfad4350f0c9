"""XML-RPC as xapi answers it on ``POST /``: every reply is a struct, ``{Status: Success, Value}`` or ``{Status: Failure,
ErrorDescription}``.

Source: xapi's ocaml/idl/datamodel*.ml and ocaml/xapi/api_server.ml. Members other than the coordinator answer every call with
HOST_IS_SLAVE.
"""

import xmlrpc.client
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from xml.parsers.expat import ExpatError

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from xvpd.sim import records
from xvpd.sim.database import Record
from xvpd.sim.events import event_from
from xvpd.sim.faults import Faults
from xvpd.sim.model import OPERATIONS, PoolState, XapiError, XapiSession

_TABLES: Final = {"pool": "pool", "host": "host", "VM": "VM", "console": "console", "task": "task"}
_OPERATION_ROLE: Final = {"destroy": "pool-admin"}
"""What a VM operation needs beyond vm-operator."""
_TO_A_HOST: Final = frozenset({"pool_migrate", "start_on", "resume_on"})
_MORE: Final[dict[str, tuple[tuple[str, type], ...]]] = {
    "pool_migrate": (("options", dict),),
    **dict.fromkeys(("start", "start_on", "resume", "resume_on"), (("start_paused", bool), ("force", bool))),
}
"""What an operation's arguments are beyond the VM, and the host that it goes to."""


class MalformedCallError(Exception):
    """The body of a request is no XML-RPC call."""


class Xapi:
    """The calls that one host answers.

    ``host_certificate`` gives the PEM form of any member's certificate. A VM operation takes ``operation_seconds``; a wrong
    password is refused after ``refusal_seconds`` (5 on a real host).
    """

    def __init__(
        self,
        state: PoolState,
        host: str,
        clock: IReactorTime,
        faults: Faults,
        host_certificate: Callable[[str], bytes],
        *,
        operation_seconds: float = 0.0,
        refusal_seconds: float = 0.0,
    ) -> None:
        self._state = state
        self._host = host
        self._clock = clock
        self._faults = faults
        self._host_certificate = host_certificate
        self._operation_seconds = operation_seconds
        self._refusal_seconds = refusal_seconds
        self._under_way: set[Deferred[str]] = set()

    def stop(self) -> None:
        """Leave every VM operation that is under way unfinished."""
        for work in list(self._under_way):
            work.cancel()

    def answer(self, body: bytes) -> Deferred[bytes]:
        """The reply's body. Fails with `MalformedCallError`; cancelling ends a long poll."""
        try:
            params, method = xmlrpc.client.loads(body, use_datetime=False)
        except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            raise MalformedCallError(str(error)) from error
        if method is None:
            raise MalformedCallError("a call has no method name")
        return maybeDeferred(self._ordered, method, list(params)).addCallbacks(_success, _failure)

    def _ordered(self, method: str, params: list[Any]) -> Any:
        """The call as the faults that were ordered let it be."""
        address = self._state.record("host", self._host)["address"]
        fault = self._faults.take_api(address, method)
        if fault is None:
            return self._call(method, params)
        if fault.hang:
            return Deferred()
        if fault.failure:
            raise XapiError(*fault.failure)
        return deferLater(self._clock, fault.delay, self._call, method, params)

    def _call(self, method: str, params: list[Any]) -> Any:
        state = self._state
        if state.coordinator != self._host:
            raise XapiError("HOST_IS_SLAVE", state.record("host", state.coordinator)["address"])
        if method == "session.login_with_password":
            return self._log_in(params)
        session = params[0] if params else ""
        if not isinstance(session, str) or session not in state.xapi_sessions:
            raise XapiError("SESSION_INVALID", session if isinstance(session, str) else "")
        if method == "session.logout":
            state.log_out(session)
            return ""
        if method == "event.from":
            classes, token, timeout = _typed(method, params[1:], ("classes", list), ("token", str), ("timeout", float))
            return event_from(
                state, self._clock, session, classes=[str(each) for each in classes], token=token, timeout=timeout
            )
        return self._object_call(state.xapi_sessions[session], method, params[1:])

    def _log_in(self, params: list[Any]) -> Any:
        if not 2 <= len(params) <= 4:
            raise XapiError("MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password", "4", str(len(params)))
        user, password, _, originator = [str(each) for each in [*params, "", ""][:4]]
        try:
            return self._state.log_in(user, password, originator)
        except XapiError as refused:
            if not self._refusal_seconds:
                raise
            return deferLater(self._clock, self._refusal_seconds, _raise, refused)

    def _object_call(self, session: XapiSession, method: str, args: list[Any]) -> Any:
        parts = method.split(".")
        in_background = parts[0] == "Async"
        if in_background:
            parts = parts[1:]
        if len(parts) != 2 or parts[0] not in _TABLES:
            raise XapiError("MESSAGE_METHOD_UNKNOWN", method)
        table, name = parts
        if table == "VM" and name in OPERATIONS:
            return self._operate(session, method, name, args, in_background)
        if in_background:
            raise XapiError("MESSAGE_METHOD_UNKNOWN", method)
        if method == "host.get_server_certificate":
            (host,) = _typed(method, args, ("host", str))
            self._state.record("host", host)
            return self._host_certificate(host).decode("ascii")
        if method == "task.destroy":
            (task,) = _typed(method, args, ("self", str))
            self._state.record("task", task)
            self._state.database.destroy(task)
            return ""
        return self._get(table, name, method, args)

    def _get(self, table: str, name: str, method: str, args: list[Any]) -> Any:
        """Getters, of which every class has the same."""
        database = self._state.database
        if name == "get_all":
            _typed(method, args)
            return [ref for ref, _ in database.rows(table)]
        if name in ("get_all_records", "get_all_records_where"):
            _typed(method, args, *([("expr", str)] if name.endswith("where") else []))
            return {ref: dict(record) for ref, record in database.rows(table)}
        if name == "get_by_uuid":
            (uuid,) = _typed(method, args, ("uuid", str))
            found = database.find(table, "uuid", uuid)
            if not found:
                raise XapiError("UUID_INVALID", table, uuid)
            return found[0]
        if name == "get_by_name_label" and table != "console":
            (label,) = _typed(method, args, ("label", str))
            return database.find(table, "name_label", label)
        field = name.removeprefix("get_")
        if field == name:
            raise XapiError("MESSAGE_METHOD_UNKNOWN", method)
        (ref,) = _typed(method, args, ("self", str))
        record = self._state.record(table, ref)
        if field == "record":
            return dict(record)
        if field not in record:
            raise XapiError("MESSAGE_METHOD_UNKNOWN", method)
        return record[field]

    def _operate(self, session: XapiSession, method: str, operation: str, args: list[Any], in_background: bool) -> Any:
        """A VM operation. It comes to its end whether or not its caller waits."""
        role = _OPERATION_ROLE.get(operation, "vm-operator")
        if not session.may(role):
            raise XapiError("RBAC_PERMISSION_DENIED", f"vm.{operation}", "No permission in user session")
        wanted = [("vm", str), *([("host", str)] if operation in _TO_A_HOST else []), *_MORE.get(operation, ())]
        vm, *rest = _typed(method, args, *wanted)
        host = rest[0] if operation in _TO_A_HOST else None
        if host is not None:
            self._state.record("host", host)
        if not in_background:
            self._state.check(vm, operation)
        label = f"Async.VM.{operation}" if in_background else f"VM.{operation}"
        task = self._state.database.create("task", records.task(label, self._now()))
        work = maybeDeferred(self._work, vm, operation, host, task)
        self._under_way.add(work)
        work.addBoth(self._worked, work)
        if in_background:
            work.addCallback(lambda _: self._end_task(task, "success", []))
            work.addErrback(self._fail_task, task)
            return task
        waiting: Deferred[str] = Deferred()
        work.addBoth(self._drop_task, task)
        work.addBoth(_pass_on, waiting)
        return waiting

    def _worked(self, result: Any, work: Deferred[str]) -> Any:
        self._under_way.discard(work)
        return result

    def _work(self, vm: str, operation: str, host: str | None, task: str) -> Any:
        self._state.check(vm, operation)
        if not self._operation_seconds:
            return self._finish(vm, operation, host)
        self._state.begin(vm, operation, task)
        return deferLater(self._clock, self._operation_seconds, self._finish, vm, operation, host)

    def _finish(self, vm: str, operation: str, host: str | None) -> str:
        self._state.perform(vm, operation, host)
        return ""

    def _fail_task(self, why: Failure, task: str) -> None:
        if why.trap(XapiError, CancelledError) is CancelledError:
            return
        assert isinstance(why.value, XapiError)
        self._end_task(task, "failure", why.value.description)

    def _end_task(self, task: str, status: str, error_info: list[str]) -> None:
        finished = xmlrpc.client.DateTime(self._now().strftime("%Y%m%dT%H:%M:%SZ"))
        if self._state.database.get("task", task) is not None:
            self._state.database.modify(task, status=status, error_info=error_info, progress=1.0, finished=finished)

    def _drop_task(self, result: Any, task: str) -> Any:
        if self._state.database.get("task", task) is not None:
            self._state.database.destroy(task)
        return result

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.seconds(), UTC)


def _typed(method: str, args: list[Any], *wanted: tuple[str, type]) -> list[Any]:
    """The arguments, when there are as many as wanted, and of those types."""
    if len(args) != len(wanted):
        raise XapiError("MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(len(wanted) + 1), str(len(args) + 1))
    for value, (name, kind) in zip(args, wanted, strict=True):
        if type(value) is not kind:
            raise XapiError("FIELD_TYPE_ERROR", name)
    return args


def _success(value: Any) -> bytes:
    return _reply({"Status": "Success", "Value": value})


def _failure(why: Failure) -> bytes:
    why.trap(XapiError)
    assert isinstance(why.value, XapiError)
    return _reply({"Status": "Failure", "ErrorDescription": why.value.description})


def _reply(struct: Record) -> bytes:
    return xmlrpc.client.dumps((struct,), methodresponse=True).encode("utf-8")


def _raise(error: XapiError) -> None:
    raise error


def _pass_on(result: Any, waiting: Deferred[str]) -> None:
    """Give a result to whoever still waits for it."""
    if isinstance(result, Failure) and result.check(CancelledError):
        waiting.cancel()
    elif not waiting.called:
        waiting.callback(result)
