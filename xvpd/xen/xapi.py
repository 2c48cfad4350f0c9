"""One host's API, called through the XenAPI SDK in threads, with Deferreds that keep their deadlines."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from xmlrpc.client import Fault, ProtocolError

import XenAPI
from twisted.internet.defer import CancelledError, Deferred

from xvpd.reason import Reason, Refusal
from xvpd.xen.records import RecordError
from xvpd.xen.sdk import WHOLE, Reading, SdkTransport, UnreachableError
from xvpd.xen.settings import Deadlines, PoolSettings, Timed, untimed
from xvpd.xen.syntax import bracketed, is_address, is_ref
from xvpd.xen.trust import UntrustedError
from xvpd.xen.workers import StoppedError, Workers

T = TypeVar("T")

ORIGINATOR: Final = "xvpd"
"""xapi keeps at most 500 sessions per originator, apart from everybody else's."""
_API_VERSION: Final = "1.0"
_KEEP_SECONDS: Final = 60.0
"""A connection that was not used for longer is not worth the doubt whether the host still knows of it."""
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,99}")

SESSION_INVALID: Final = "SESSION_INVALID"


class ApiError(Exception):
    """A call that has no result. It never leaves `xvpd.xen`: `refusal` is what becomes of it.

    ``code`` is xapi's word for what went wrong, empty when it was not xapi that said no. Of the arguments that come with it
    one is kept, ``coordinator``, which HOST_IS_SLAVE names: others hold xapi session references and user names.
    """

    def __init__(self, reason: Reason, detail: str, code: str = "", coordinator: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.code = code
        self.coordinator = coordinator

    @property
    def refusal(self) -> Refusal:
        """The same as a value."""
        return Refusal(self.reason, self.detail)


@dataclass(frozen=True, slots=True)
class XapiSession:
    """Somebody is logged in. The reference opens the whole pool: it goes into a cookie and into calls, and nowhere else."""

    ref: str = field(repr=False)


@dataclass(slots=True)
class _Line:
    """A connection of the SDK's. One thread uses it at a time."""

    sdk: Any
    transport: SdkTransport
    kept_since: float = 0.0


class Xapi:
    """The API at ``address``. Its Deferreds fail with `ApiError`, and each may be cancelled."""

    def __init__(
        self,
        reactor: Any,
        workers: Workers,
        address: str,
        settings: PoolSettings,
        deadlines: Deadlines,
        *,
        timed: Timed = untimed,
        reading: Reading = WHOLE,
    ) -> None:
        self.address = address
        self._reactor = reactor
        self._workers = workers
        self._settings = settings
        self._deadlines = deadlines
        self._timed = timed
        self._reading = reading
        self._kept: list[_Line] = []
        self._closed = False

    def log_in(self, username: str, password: str) -> Deferred[XapiSession]:
        """Log in. A wrong password takes xapi 5 seconds to refuse."""

        def work(sdk: Any) -> XapiSession:
            try:
                sdk.xenapi.login_with_password(username, password, _API_VERSION, ORIGINATOR)
                ref = sdk.handle
            finally:
                # The SDK would log in by itself again and again, and keep the password for that.
                sdk.last_login_method = sdk.last_login_params = sdk._session = None
            if not isinstance(ref, str) or not is_ref(ref):
                raise ValueError("not a reference")
            return XapiSession(ref)

        return self._ask("session.login_with_password", work, self._deadlines.login)

    def call(self, session: XapiSession, method: str, *parameters: Any) -> Deferred[Any]:
        """The value that the method ``class.name`` returns, of whatever type the host chose to send. The call may be made
        twice, when a connection that was kept turns out to be dead."""
        return self.read(session, method, parameters, _as_it_is)

    def call_once(self, session: XapiSession, method: str, *parameters: Any) -> Deferred[Any]:
        """`call`, for what must not be done twice."""
        return self._ask(method, _calling(session, method, parameters, _as_it_is), self._deadlines.call, fresh=True)

    def read(self, session: XapiSession, method: str, parameters: tuple[Any, ...], reader: Callable[[Any], T]) -> Deferred[T]:
        """`call`, and what ``reader`` makes of the value, in the thread. It may raise `RecordError`."""
        return self._ask(method, _calling(session, method, parameters, reader), self._deadlines.call)

    def log_out(self, session: XapiSession) -> Deferred[None]:
        """End the xapi session. What has been opened with it stays open."""

        def work(sdk: Any) -> None:
            sdk.session.logout(session.ref)

        return self._ask("session.logout", work, self._deadlines.logout)

    def close(self) -> None:
        """Let go of every connection that is not in use; those in use are closed when their calls end."""
        self._closed = True
        while self._kept:
            self._kept.pop().transport.close()

    # How.

    def _ask(self, method: str, work: Callable[[Any], T], seconds: float, *, fresh: bool = False) -> Deferred[T]:
        def late(_: object, __: float) -> T:
            raise ApiError(Reason.HYPERVISOR_SLOW, f"{self.address}: {method} took longer than {seconds:g} seconds")

        def over(answer: T) -> T:
            self._timed(method, self._reactor.seconds() - began)
            return answer

        began = self._reactor.seconds()
        return Deferred.fromCoroutine(self._answer(method, work, fresh)).addTimeout(seconds, self._reactor, late).addBoth(over)

    async def _answer(self, method: str, work: Callable[[Any], T], fresh: bool) -> T:
        line = self._new_line() if fresh else self._line()
        try:
            answer = await self._workers.run(partial(self._in_thread, method, work, line.sdk), line.transport.cut)
        except ApiError as error:
            if error.code:
                self._keep(line)
            else:
                line.transport.close()
            raise
        except CancelledError:
            line.transport.cut()
            raise
        except StoppedError:
            line.transport.cut()
            raise ApiError(Reason.HYPERVISOR_UNREACHABLE, f"{self.address}: not asked, xvpd is stopping") from None
        self._keep(line)
        return answer

    def _line(self) -> _Line:
        while self._kept:
            line = self._kept.pop()
            if self._reactor.seconds() - line.kept_since < _KEEP_SECONDS:
                return line
            line.transport.close()
        return self._new_line()

    def _new_line(self) -> _Line:
        silence = max(self._deadlines.call, self._deadlines.login)
        port, trust = self._settings.port, self._settings.trust
        transport = SdkTransport(self.address, port, trust, self._deadlines.connect, silence, reading=self._reading)
        uri = f"{trust.scheme}://{bracketed(self.address)}:{port}/"
        return _Line(XenAPI.Session(uri, transport=transport), transport)

    def _keep(self, line: _Line) -> None:
        """Take a line back whose host has answered."""
        if self._closed:
            line.transport.close()
        else:
            line.kept_since = self._reactor.seconds()
            self._kept.append(line)

    def _in_thread(self, method: str, work: Callable[[Any], T], sdk: Any) -> T:
        try:
            return work(sdk)
        except Exception as error:
            reason, problem, code, coordinator = _meaning(error)
        raise ApiError(reason, f"{self.address}: {method}: {problem}", code, coordinator)


def _calling(session: XapiSession, method: str, parameters: tuple[Any, ...], reader: Callable[[Any], T]) -> Callable[[Any], T]:
    def work(sdk: Any) -> T:
        sdk._session = session.ref
        try:
            value = getattr(sdk.xenapi, method)(*parameters)
        finally:
            sdk._session = None
        return reader(value)

    return work


def _as_it_is(value: Any) -> Any:
    return value


def _meaning(error: Exception) -> tuple[Reason, str, str, str]:
    """What the SDK's exception says: reason, text for an operator, xapi's code, and the coordinator's address.

    The SDK raises whatever a strange reply makes it stumble over, so that any exception but those known means a strange reply.
    No text of the host's own gets into ours but a code that looks like one: the rest may hold references and user names.
    """
    match error:
        case XenAPI.Failure(details=[str(code), *arguments]) if _CODE.fullmatch(code):
            return _refused(code, arguments)
        case Fault(faultCode=401, faultString="You must log in"):  # the SDK's own words for it, as it cannot log in again
            return _refused(SESSION_INVALID, [])
        case UntrustedError():
            return Reason.HYPERVISOR_UNTRUSTED, str(error), "", ""
        case UnreachableError():
            return Reason.HYPERVISOR_UNREACHABLE, str(error), "", ""
        case ProtocolError():
            return Reason.HYPERVISOR_PROTOCOL, f"HTTP status {error.errcode}", "", ""
        case TimeoutError():
            return Reason.HYPERVISOR_SLOW, "no answer", "", ""
        case RecordError():
            return Reason.HYPERVISOR_PROTOCOL, str(error), "", ""
        case OSError():
            return *_lost(error), "", ""
        case _:
            return Reason.HYPERVISOR_PROTOCOL, f"the answer is none of the XenAPI's ({type(error).__name__})", "", ""


def _lost(error: OSError) -> tuple[Reason, str]:
    match error:
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return Reason.HYPERVISOR_UNREACHABLE, "the connection was lost"
        case ssl.SSLError():
            return Reason.HYPERVISOR_PROTOCOL, f"TLS failed: {error.reason}"
        case _:
            return Reason.HYPERVISOR_UNREACHABLE, error.strerror or "the connection was lost"


def _refused(code: str, arguments: list[Any]) -> tuple[Reason, str, str, str]:
    match code, arguments:
        case "HOST_IS_SLAVE", [str(address)] if is_address(address):
            return Reason.HYPERVISOR_UNREACHABLE, f"this is not the coordinator, which is {address}", code, address
        case "HOST_IS_SLAVE", _:
            return Reason.HYPERVISOR_UNREACHABLE, "this is not the coordinator", code, ""
        case "HOST_STILL_BOOTING", _:
            return Reason.HYPERVISOR_UNREACHABLE, "the host is still booting", code, ""
        case "RBAC_PERMISSION_DENIED", _:
            return Reason.HYPERVISOR_REFUSED, f"{code}: the account's role does not allow it", code, ""
        case _:
            return Reason.HYPERVISOR_REFUSED, code, code, ""
