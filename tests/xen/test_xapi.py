"""`xvpd.xen.xapi`: one host's API over the SDK, and what becomes of everything that can go wrong with it."""

import threading
import xmlrpc.client
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.certificates import Identity, make_identity
from tests.xen.stub import ADDRESS, SESSION_REF, Answer, StubConnection, StubHost
from xvpd.reason import Reason
from xvpd.xen import sdk, xapi
from xvpd.xen.sdk import WHOLE, Reading
from xvpd.xen.settings import Deadlines, PoolSettings
from xvpd.xen.trust import Authority, Pins, Plain, Trust
from xvpd.xen.workers import COUNT, Workers
from xvpd.xen.xapi import SESSION_INVALID, ApiError, Xapi, XapiSession

PASSWORD = "canary-password"
SESSION = XapiSession(SESSION_REF)
VM = "OpaqueRef:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


def says(value: Any) -> Answer:
    return lambda connection, method, parameters: connection.say(value)


def refuses(*description: Any) -> Answer:
    return lambda connection, method, parameters: connection.refuse(*description)


def hangs(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
    """Never answer."""


class XapiCase(TestCase):
    timeout = 30

    reading = WHOLE

    def setUp(self) -> None:
        self.workers = Workers(reactor, "xapi-under-test")
        self.workers.start()
        self.addCleanup(self.workers.stop, 10)

    def xapi(self, port: int, trust: Trust | None = None, address: str = ADDRESS, deadlines: Deadlines | None = None) -> Xapi:
        settings = PoolSettings("lab", (address,), "xvpd", PASSWORD, trust or Plain(), port)
        api = Xapi(reactor, self.workers, address, settings, deadlines or Deadlines(), reading=self.reading)
        self.addCleanup(api.close)
        return api

    def answered(self, answer: Answer, **deadlines: float) -> tuple[Xapi, StubHost]:
        """The API of a host without TLS that does so."""
        host = StubHost(self, answer)
        return self.xapi(host.port, deadlines=Deadlines(**deadlines)), host

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so; the test's own timeout is the deadline."""
        while not condition():
            await deferLater(reactor, 0.001)

    async def left_alone(self, host: StubHost) -> None:
        """Wait until the host has no connection any more."""
        await self.until(lambda: not host.live)

    async def failure(self, asking: Deferred[Any], reason: Reason, *words: str) -> ApiError:
        """The error that this fails with: it names the host, and no secret."""
        with self.assertRaises(ApiError) as raised:
            await asking
        error: ApiError = raised.exception
        self.assertEqual(error.reason, reason, error.detail)
        self.assertEqual((error.refusal.reason, error.refusal.detail), (reason, error.detail))
        for word in (ADDRESS, *words):
            self.assertIn(word, error.detail)
        for text in (str(error), repr(error), repr(vars(error)), repr(error.__context__), repr(error.__cause__)):
            self.assertNotIn(PASSWORD, text)
            self.assertNotIn(SESSION_REF, text)
        return error


class CallTests(XapiCase):
    async def test_a_call_carries_the_xapi_session_and_its_parameters(self) -> None:
        seen = []

        def answer(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            seen.append((method, parameters))
            connection.say({"uuid": "x"})

        api, _ = self.answered(answer)
        self.assertEqual(await api.call(SESSION, "VM.get_record", VM), {"uuid": "x"})
        self.assertEqual(seen, [("VM.get_record", (SESSION_REF, VM))])

    async def test_a_connection_is_used_again(self) -> None:
        api, host = self.answered(says(1))
        for _ in range(3):
            await api.call(SESSION, "pool.get_all")
        self.assertEqual(host.connections, 1)

    async def test_calls_at_once_have_connections_of_their_own(self) -> None:
        waiting: list[StubConnection] = []

        def answer(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            waiting.append(connection)
            if len(waiting) == 3:
                for index, each in enumerate(waiting):
                    each.say(index)

        api, host = self.answered(answer)
        calls = [api.call(SESSION, "pool.get_all") for _ in range(3)]
        self.assertEqual({await call for call in calls}, {0, 1, 2})
        self.assertEqual(host.connections, 3)

    async def test_a_kept_connection_that_the_host_has_closed_is_replaced(self) -> None:
        api, host = self.answered(says(1))
        await api.call(SESSION, "pool.get_all")
        host.hang_up()
        self.assertEqual(await api.call(SESSION, "pool.get_all"), 1)
        self.assertEqual(host.connections, 2)

    async def test_a_connection_that_was_not_used_for_long_is_replaced(self) -> None:
        self.patch(xapi, "_KEEP_SECONDS", 0.0)
        api, host = self.answered(says(1))
        for _ in range(3):
            await api.call(SESSION, "pool.get_all")
        self.assertEqual(host.connections, 3)

    async def test_a_connection_that_the_host_wants_closed_is_closed(self) -> None:
        def answer(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            connection.reply({"Status": "Success", "Value": 1}, b"Connection: close\r\n")

        api, host = self.answered(answer)
        await api.call(SESSION, "pool.get_all")
        await self.left_alone(host)
        self.assertEqual(await api.call(SESSION, "pool.get_all"), 1)
        self.assertEqual(host.connections, 2)

    async def test_close_leaves_no_connection(self) -> None:
        api, host = self.answered(says(1))
        await api.call(SESSION, "pool.get_all")
        api.close()
        await self.left_alone(host)

    async def test_a_call_that_ends_after_close_leaves_no_connection(self) -> None:
        api, host = self.answered(hangs)
        calling = api.call(SESSION, "pool.get_all")
        await self.until(lambda: host.calls)
        api.close()
        (connection,) = host.live
        assert isinstance(connection, StubConnection)
        connection.say(1)
        self.assertEqual(await calling, 1)
        await self.left_alone(host)

    async def test_the_address_may_be_ipv6(self) -> None:
        host = StubHost(self, says(1), address="::1")
        self.assertEqual(await self.xapi(host.port, address="::1").call(SESSION, "pool.get_all"), 1)
        self.assertIn(b"\r\nHost: [::1]:%d\r\n" % host.port, host.received)


class TimingTests(XapiCase):
    async def test_every_call_is_told_of_by_its_method_whatever_comes_of_it(self) -> None:
        told: list[tuple[str, float]] = []

        def answer(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            if method == "pool.get_all":
                connection.say(1)
            elif method == "VM.get_record":
                connection.refuse("HANDLE_INVALID")

        host = StubHost(self, answer)
        settings = PoolSettings("lab", (ADDRESS,), "xvpd", PASSWORD, Plain(), host.port)
        deadlines = Deadlines(call=0.05)
        api = Xapi(reactor, self.workers, ADDRESS, settings, deadlines, timed=lambda *call: told.append(call))
        self.addCleanup(api.close)
        await api.call(SESSION, "pool.get_all")
        await self.failure(api.call(SESSION, "VM.get_record", VM), Reason.HYPERVISOR_REFUSED)
        await self.failure(api.call(SESSION, "host.get_record", VM), Reason.HYPERVISOR_SLOW)
        self.assertEqual([method for method, _ in told], ["pool.get_all", "VM.get_record", "host.get_record"])
        self.assertTrue(all(0 <= seconds < 30 for _, seconds in told))


class FailureTests(XapiCase):
    async def test_a_refusal_of_xapi_keeps_its_code_and_nothing_else(self) -> None:
        api, host = self.answered(refuses("HANDLE_INVALID", "VM", SESSION_REF))
        error = await self.failure(api.call(SESSION, "VM.get_record", VM), Reason.HYPERVISOR_REFUSED, "HANDLE_INVALID")
        self.assertEqual(error.code, "HANDLE_INVALID")
        await self.failure(api.call(SESSION, "VM.get_record", VM), Reason.HYPERVISOR_REFUSED)
        self.assertEqual(host.connections, 1)

    async def test_an_xapi_session_that_has_ended_is_not_opened_again_behind_our_back(self) -> None:
        api, host = self.answered(refuses("SESSION_INVALID", SESSION_REF))
        error = await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_REFUSED)
        self.assertEqual(error.code, SESSION_INVALID)
        self.assertEqual(host.calls, ["pool.get_all"])

    async def test_who_is_not_the_coordinator_names_it(self) -> None:
        api, _ = self.answered(refuses("HOST_IS_SLAVE", "10.0.0.12"))
        error = await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNREACHABLE, "10.0.0.12")
        self.assertEqual(error.coordinator, "10.0.0.12")

    async def test_a_coordinator_that_is_no_address_is_not_named(self) -> None:
        for arguments in (("10.0.0.12/@evil",), (), (7,), ("10.0.0.12", "10.0.0.13"), (SESSION_REF,)):
            api, _ = self.answered(refuses("HOST_IS_SLAVE", *arguments))
            error = await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNREACHABLE)
            self.assertEqual(error.coordinator, "")

    async def test_a_host_that_boots_is_not_reachable_yet(self) -> None:
        api, _ = self.answered(refuses("HOST_STILL_BOOTING"))
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNREACHABLE, "booting")

    async def test_a_role_that_does_not_suffice_is_named(self) -> None:
        api, _ = self.answered(refuses("RBAC_PERMISSION_DENIED", "vm.get_record", "No permission"))
        await self.failure(api.call(SESSION, "VM.get_record", VM), Reason.HYPERVISOR_REFUSED, "role")

    async def test_nobody_listens(self) -> None:
        host = StubHost(self, hangs)
        port = host.port
        await host.stop()
        await self.failure(self.xapi(port).call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNREACHABLE, "refused")

    async def test_a_name_that_does_not_resolve(self) -> None:
        asking = self.xapi(443, address="xen.invalid").call(SESSION, "pool.get_all")
        with self.assertRaises(ApiError) as raised:
            await asking
        self.assertEqual(raised.exception.reason, Reason.HYPERVISOR_UNREACHABLE)

    async def test_a_host_that_never_answers_is_left_after_the_deadline(self) -> None:
        api, host = self.answered(hangs, call=0.05)
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_SLOW, "pool.get_all", "0.05")
        await self.left_alone(host)

    async def test_a_host_that_answers_byte_by_byte_for_ever_is_left_after_the_deadline(self) -> None:
        def drip(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            connection.transport.write(b"H")
            dropping = deferLater(reactor, 0.01, drip, connection, method, parameters)
            dropping.addErrback(lambda failure: failure.trap(CancelledError))
            self.addCleanup(dropping.cancel)

        api, host = self.answered(drip, call=0.2)
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_SLOW)
        await self.left_alone(host)

    async def test_a_thread_does_not_wait_for_a_silent_host_even_when_nobody_interrupts_it(self) -> None:
        host = StubHost(self, hangs)
        transport = sdk.SdkTransport(ADDRESS, host.port, Plain(), connect_seconds=5, call_seconds=0.05)
        body = xmlrpc.client.dumps((), "pool.get_all").encode()
        with self.assertRaises(TimeoutError):
            await self.workers.run(lambda: transport.request("", "/", body), lambda: None)

    async def test_cancelling_ends_the_call_and_its_connection(self) -> None:
        api, host = self.answered(hangs)
        calling = api.call(SESSION, "pool.get_all")
        await self.until(lambda: host.calls)
        calling.cancel()
        await self.assertFailure(calling, CancelledError)
        await self.left_alone(host)
        self.assertEqual(host.connections, 1)

    async def test_a_call_that_waits_for_a_thread_leaves_no_connection_when_it_is_cancelled(self) -> None:
        api, host = self.answered(says(1))
        await api.call(SESSION, "pool.get_all")
        other, _ = self.answered(hangs)
        hanging = [other.call(SESSION, "pool.get_all") for _ in range(COUNT)]
        waiting = api.call(SESSION, "pool.get_all")
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        await self.left_alone(host)
        for each in hanging:
            each.cancel()
            await self.assertFailure(each, CancelledError)
        self.assertEqual(host.calls, ["pool.get_all"])

    async def test_a_host_that_closes_instead_of_answering(self) -> None:
        api, host = self.answered(lambda connection, *_: connection.transport.loseConnection())
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNREACHABLE)
        self.assertEqual(host.connections, 1)

    async def test_strange_answers_are_the_hosts_fault(self) -> None:
        def raw(body: bytes) -> Answer:
            return lambda connection, *_: connection.http(body)

        strange: dict[str, Answer] = {
            "not HTTP": lambda connection, *_: connection.transport.write(b"RFB 003.008\n\r\n\r\n"),
            "not XML": raw(b"<html><body>" + SESSION_REF.encode()),
            "empty": raw(b""),
            "XML of another kind": raw(b"<methodResponse><params></params></methodResponse>"),
            "a number that is none": raw(b"<methodResponse><params><param><int>x</int></param></params></methodResponse>"),
            "no struct": lambda connection, *_: connection.reply([SESSION_REF]),
            "a struct without status": lambda connection, *_: connection.reply({"Value": SESSION_REF}),
            "success without a value": lambda connection, *_: connection.reply({"Status": "Success"}),
            "failure without a description": lambda connection, *_: connection.reply({"Status": "Failure"}),
            "failure with an empty description": refuses(),
            "failure with a code that is none": refuses(SESSION_REF),
            "failure with a code that is no string": refuses(7),
        }
        for name, answer in strange.items():
            api, _ = self.answered(answer)
            error = await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_PROTOCOL)
            self.assertEqual(error.code, "", name)

    async def test_an_http_error_is_named_by_its_status(self) -> None:
        def unavailable(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            connection.transport.write(b"HTTP/1.1 503 " + SESSION_REF.encode() + b"\r\nContent-Length: 1000000000\r\n\r\n")

        api, _ = self.answered(unavailable)
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_PROTOCOL, "503")

    async def test_an_answer_beyond_the_cap_is_not_read(self) -> None:
        self.reading = Reading(cap=100_000)
        api, _ = self.answered(says("x" * 200_000))
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_PROTOCOL)
        api, _ = self.answered(says("x" * 50_000))
        self.assertEqual(await api.call(SESSION, "pool.get_all"), "x" * 50_000)

    async def test_calls_are_refused_when_the_workers_have_stopped(self) -> None:
        api, host = self.answered(says(1))
        await self.workers.stop(10)
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNREACHABLE, "stopping")
        self.assertEqual(host.connections, 0)


class LoginTests(XapiCase):
    async def test_logs_in_and_out(self) -> None:
        seen = []

        def answer(connection: StubConnection, method: str, parameters: tuple[Any, ...]) -> None:
            seen.append((method, parameters))
            connection.say(SESSION_REF if method == "session.login_with_password" else "")

        api, _ = self.answered(answer)
        session = await api.log_in("xvpd", PASSWORD)
        self.assertEqual(session, SESSION)
        self.assertNotIn(SESSION_REF, repr(session))
        await api.log_out(session)
        self.assertEqual(
            seen,
            [("session.login_with_password", ("xvpd", PASSWORD, "1.0", "xvpd")), ("session.logout", (SESSION_REF,))],
        )

    async def test_a_wrong_password_is_a_refusal(self) -> None:
        api, _ = self.answered(refuses("SESSION_AUTHENTICATION_FAILED", "xvpd", f"wrong: {PASSWORD}"))
        error = await self.failure(api.log_in("xvpd", PASSWORD), Reason.HYPERVISOR_REFUSED, "SESSION_AUTHENTICATION_FAILED")
        self.assertEqual(error.code, "SESSION_AUTHENTICATION_FAILED")

    async def test_a_reference_that_is_none_is_no_login(self) -> None:
        for value in (f"{SESSION_REF}\r\nCookie: x", 7, "", None, [SESSION_REF]):
            api, _ = self.answered(says(value))
            await self.failure(api.log_in("xvpd", PASSWORD), Reason.HYPERVISOR_PROTOCOL)

    async def test_the_sdk_forgets_password_and_session(self) -> None:
        api, _ = self.answered(says(SESSION_REF))
        await api.log_in("xvpd", PASSWORD)
        await api.call(SESSION, "pool.get_all")
        for line in api._kept:
            self.assertNotIn(PASSWORD, repr(vars(line.sdk)))
            self.assertNotIn(SESSION_REF, repr(vars(line.sdk)))

    async def test_a_login_has_a_deadline_of_its_own(self) -> None:
        api, _ = self.answered(hangs, login=0.05)
        await self.failure(api.log_in("xvpd", PASSWORD), Reason.HYPERVISOR_SLOW, "session.login_with_password")


class TrustTests(XapiCase):
    def trusting(self, identity: Identity) -> list[Trust]:
        """Both ways to trust in one certificate."""
        certificate_file, _ = identity.write(self.mktemp())
        return [Pins(frozenset({identity.fingerprint})), Authority(certificate_file)]

    async def test_a_host_that_is_trusted_is_called_over_tls(self) -> None:
        identity = make_identity(ADDRESS)
        host = StubHost(self, says(1), identity)
        for trust in self.trusting(identity):
            self.assertEqual(await self.xapi(host.port, trust).call(SESSION, "pool.get_all"), 1)

    async def test_a_host_that_is_not_trusted_gets_not_a_byte(self) -> None:
        identity, other = make_identity(ADDRESS), make_identity(ADDRESS)
        for trust in self.trusting(other):
            host = StubHost(self, says(1), identity)
            await self.failure(self.xapi(host.port, trust).log_in("xvpd", PASSWORD), Reason.HYPERVISOR_UNTRUSTED)
            self.assertEqual(host.received, b"")

    async def test_a_changed_certificate_is_noticed_on_the_next_connection(self) -> None:
        identity = make_identity(ADDRESS)
        host = StubHost(self, says(1), identity)
        api = self.xapi(host.port, Pins(frozenset({identity.fingerprint})))
        await api.call(SESSION, "pool.get_all")
        received = host.received
        host.present(make_identity(ADDRESS))
        host.hang_up()
        await self.failure(api.call(SESSION, "pool.get_all"), Reason.HYPERVISOR_UNTRUSTED)
        self.assertEqual(host.received, received)

    async def test_a_host_that_does_not_speak_tls(self) -> None:
        host = StubHost(self, says(1))
        host.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        asking = self.xapi(host.port, Pins(frozenset({"ab" * 32}))).call(SESSION, "pool.get_all")
        await self.failure(asking, Reason.HYPERVISOR_PROTOCOL, "TLS")

    async def test_a_host_that_is_silent_during_the_handshake(self) -> None:
        host = StubHost(self, says(1))
        trust = Pins(frozenset({"ab" * 32}))
        await self.failure(
            self.xapi(host.port, trust, deadlines=Deadlines(connect=0.05)).call(SESSION, "pool.get_all"),
            Reason.HYPERVISOR_SLOW,
        )


class ThreadTests(XapiCase):
    async def test_no_thread_is_left(self) -> None:
        api, _ = self.answered(hangs)
        calling = api.call(SESSION, "pool.get_all")
        await self.workers.stop(10)
        await self.failure(calling, Reason.HYPERVISOR_UNREACHABLE)
        self.assertEqual([thread for thread in threading.enumerate() if "xapi-under-test" in thread.name], [])
