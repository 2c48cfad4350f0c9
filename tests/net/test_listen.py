"""`xvpd.net.listen`: the backlog, and what a person sees when a port is taken."""

import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.net.legs import until
from xvpd.net.listen import CannotListen, listening, with_backlog

reactor: Any = installed_reactor

TWISTD = str(Path(sys.executable).parent / "twistd")


class BacklogTests(SynchronousTestCase):
    def test_an_endpoint_that_says_none_is_given_one(self) -> None:
        for description in (
            "tcp:6081",
            "tcp:6081:interface=127.0.0.1",
            "tcp:6081:127.0.0.1",
            r"tcp:6081:interface=\:\:1",
            "tcp6:6081",
            "unix:/run/xvpd.sock",
            "unix:/run/xvpd.sock:mode=660",
            r"unix:/run/a\:b\:c\:d\=e.sock",
            "haproxy:tcp:6081",
        ):
            self.assertEqual(with_backlog(description), f"{description}:backlog=1024")

    def test_an_endpoint_that_says_one_keeps_it(self) -> None:
        for description in (
            "tcp:6081:backlog=7",
            "tcp:6081:127.0.0.1:7",
            "tcp6:6081:7",
            "unix:/run/xvpd.sock:660:7",
            "haproxy:tcp:6081:backlog=7",
        ):
            self.assertEqual(with_backlog(description), description)

    def test_an_endpoint_that_cannot_have_one_is_left_alone(self) -> None:
        for description in ("systemd:domain=INET6:name=console", "haproxy:systemd:domain=INET:index=0", "stdio:", "nonsense"):
            self.assertEqual(with_backlog(description), description)


class ListeningTests(TestCase):
    def start(self, description: str) -> IService:
        service = listening(reactor, description, Factory.forProtocol(Protocol))
        service.privilegedStartService()
        self.addCleanup(service.stopService)
        service.startService()
        return service

    def test_the_kernel_keeps_that_many_connections(self) -> None:
        for description in ("tcp:0:interface=127.0.0.1", r"tcp6:0:interface=\:\:1", "haproxy:tcp:0:interface=127.0.0.1"):
            self.start(description)
            backlogs = [_backlog(reader) for reader in reactor.getReaders() if hasattr(reader, "backlog")]
            self.assertIn(min(1024, int(Path("/proc/sys/net/core/somaxconn").read_text())), backlogs)

    def test_clients_are_accepted(self) -> None:
        path = self.mktemp()
        self.start(f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    async def test_starting_without_privileges_binds_too(self) -> None:
        path = self.mktemp()
        service = listening(reactor, f"unix:{path}", Factory.forProtocol(Protocol))
        service.startService()
        self.assertTrue(FilePath(path).exists())
        await service.stopService()

    def test_a_port_that_is_taken_is_said_in_one_line(self) -> None:
        taken = _taken_port(self)
        service = listening(reactor, f"tcp:{taken}:interface=127.0.0.1", Factory.forProtocol(Protocol))
        error = self.assertRaises(CannotListen, service.privilegedStartService)
        self.assertEqual(error.code, f"xvpd: cannot listen on tcp:{taken}:interface=127.0.0.1: Address already in use")
        self.assertIsNone(service.stopService())

    def test_whatever_cannot_be_bound_is_said_in_one_line(self) -> None:
        for description, why in (
            ("unix:/no/such/directory/x.sock", "No such file or directory"),
            ("unix:/no/such/directory/x.sock:lockfile=0", "No such file or directory"),
            (f"unix:{'x' * 200}:lockfile=0", "AF_UNIX path too long"),
            ("tcp:0:interface=192.0.2.1", "Cannot assign requested address"),
        ):
            error = self.assertRaises(CannotListen, listening(reactor, description, Factory()).startService)
            self.assertEqual(str(error), f"cannot listen on {description}: {why}")

    def test_what_is_no_endpoint_is_said_in_one_line(self) -> None:
        for description in (
            "tcp:http",
            "tcp:1:2:3:4:5",
            "nonsense",
            "systemd:domain=INET:name=none",
            "systemd:domain=X:index=0",
        ):
            error = self.assertRaises(CannotListen, listening, reactor, description, Factory())
            self.assertTrue(str(error).startswith(f"cannot listen on {description}: this is no endpoint ("))
            self.assertEqual(len(str(error).splitlines()), 1)


class TwistdTests(TestCase):
    """What twistd makes of it, with a real one."""

    async def run_twistd(self, *options: str) -> tuple[str, str, int]:
        port = _taken_port(self)
        tac = self.mktemp()
        FilePath(tac).setContent(
            f"""
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from xvpd.net.listen import listening
application = Application("x")
listening(reactor, "tcp:{port}:interface=127.0.0.1", Factory()).setServiceParent(application)
""".encode()
        )
        self.line = f"xvpd: cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use"
        arguments = [*options, "-y", tac]
        out, err, code = await getProcessOutputAndValue(TWISTD, arguments, env={**os.environ})
        return out.decode(), err.decode(), code

    async def test_in_the_foreground_the_log_ends_with_the_line(self) -> None:
        out, err, code = await self.run_twistd("--nodaemon", "--pidfile=")
        self.assertEqual(code, 1)
        self.assertTrue(out.splitlines()[-1].endswith(self.line), out)
        self.assertEqual((out.count("cannot listen"), err), (1, ""))
        self.assertNotIn("Traceback", out)

    async def test_a_daemon_says_the_line_before_it_leaves_the_terminal(self) -> None:
        directory = FilePath(self.mktemp())
        directory.makedirs()
        pidfile, logfile = directory.child("x.pid"), directory.child("x.log")
        out, err, code = await self.run_twistd(f"--pidfile={pidfile.path}", f"--logfile={logfile.path}")
        self.assertEqual((out, code), ("", 1))
        self.assertIn(self.line, err.splitlines()[0])
        self.assertNotIn("Traceback", err)
        await until(lambda: not os.path.lexists(pidfile.path))  # the child removes it, whom nobody waits for


def _taken_port(case: TestCase) -> int:
    taken = socket.create_server(("127.0.0.1", 0))
    case.addCleanup(taken.close)
    port: int = taken.getsockname()[1]
    return port


def _backlog(port: Any) -> int:
    """What the kernel has: for a listening socket, tcpi_sacked is its backlog's limit (linux/net/ipv4/tcp.c, tcp_get_info)."""
    info = port.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    limit: int = struct.unpack_from("I", info, 28)[0]
    return limit
