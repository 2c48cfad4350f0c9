"""A whole xvpd in this process, in front of a simulated pool, for tests that play a client."""

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from tests.canary import Canary
from tests.sim.pools import PoolCase, certificates
from xvpd.api.auth import digest_of
from xvpd.config import load
from xvpd.daemon import Daemon
from xvpd.sim.pool import DEMO_VMS, SimulatedPool
from xvpd.sim.viewer import Viewer
from xvpd.tap import compose

KEY: Final = "the-api-key-is-a-canary"
PASSWORD: Final = "the-pools-password-is-a-canary"
_CREATED: Final = 201
SECONDS: Final = 20.0
"""How long a client here waits for what should come at once."""


class StageCase(PoolCase):
    """A test with a daemon of its own: `raise_curtain` starts it.

    At the end of every test, all that was logged and all that was answered is searched for its secrets: the tokens that were
    issued, the xapi sessions that were opened, the password, the API key.
    """

    def setUp(self) -> None:
        self.canary = Canary()
        self._secrets = [KEY, PASSWORD]
        self.addCleanup(lambda: self.canary.assert_no_secret(*self._secrets))
        self.canary.watch_log(self)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.said: list[LogEvent] = []
        observer = cast(ILogObserver, self.said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    async def raise_curtain(self, **options: Any) -> SimulatedPool:
        """Start a pool (``vms`` and its other options) and a daemon (``console``, ``grants``: more keys of these sections)."""
        self._sections = {"console": {"drain_timeout": 0, **options.pop("console", {})}, "grants": options.pop("grants", {})}
        options.setdefault("vms", DEMO_VMS)
        self._pool = pool = self.pool(password=PASSWORD, **options)
        pool.state.session_ended.append(self._secrets.append)
        self.console_port, self.api_port, self.daemon = await self.another_node()
        return pool

    async def another_node(self) -> tuple[int, int, Daemon]:
        """Start a daemon with the same configuration on ports of its own: the console door's, and the API's."""
        console_port, api_port, door = free_port(), free_port(), certificates()[0]
        self.cafile = self.write("door.pem", door.certificate_pem.decode())
        text = f"""
            [console]
            listen = ["tcp:{console_port}:interface=127.0.0.1"]
            base_url = "https://127.0.0.1:{console_port}"
            certificate = "{self.cafile}"
            private_key = "{self.write("door.key", door.private_key_pem.decode())}"
            [api]
            listen = ["tcp:{api_port}:interface=127.0.0.1"]
            keys_file = "{self.write("keys", f"portal issuer {digest_of(KEY)}")}"
            [state]
            dir = "{self.directory}"
            [[pool]]
            name = "lab"
            hosts = {json.dumps(self._pool.addresses)}
            port = {self._pool.port}
            username = "{self._pool.username}"
            password_file = "{self.write("password", PASSWORD)}"
            fingerprint_sha256 = {json.dumps(self._pool.fingerprints)}
            """
        daemon = compose(reactor, load(text, "xvpd.toml", self._sections))
        daemon.privilegedStartService()
        ready = daemon.ready()
        daemon.startService()
        self.addCleanup(lambda: daemon.running and maybeDeferred(daemon.stopService))
        await ready
        return console_port, api_port, daemon

    def write(self, name: str, text: str) -> str:
        """A file in the test's directory; returns its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)

    # Clients.

    async def issue(self, vm: str, **more: Any) -> str:
        """A console URL, asked for as a portal does."""
        status, body = await self.ask({"vm": vm, "type": "xvpvnc", **more})
        self.assertEqual(status, 201, body)
        return str(body["url"])

    def ask(self, body: dict[str, Any], key: str = KEY) -> "Deferred[tuple[int, Any]]":
        """The API's answer to a request for a console URL."""
        return self.call("POST", "/v1/consoles", body, key)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, key: str = KEY) -> "Deferred[tuple[int, Any]]":
        """The API's answer: its status, and what its body says, if anything."""

        def calling() -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=SECONDS)
            try:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                text = response.read()
                answer: Any = json.loads(text) if text else None
                if response.status == _CREATED:
                    self._secrets.append(token_of(answer["url"]))
                else:
                    self.canary.keep("an answer of the API", text)
                return response.status, answer
            finally:
                connection.close()

        return self.in_thread(calling)

    def view(self, url: str) -> "Deferred[Viewer]":
        """A viewer that has opened a console URL."""
        return self.in_thread(lambda: Viewer.open(url, cafile=self.cafile, timeout=SECONDS))

    def say(self, *pieces: bytes, close: bool = False) -> "Deferred[bytes]":
        """All that the console door answers to some bytes, until it closes; ``close`` ends our half first."""

        def saying() -> bytes:
            with self.connect() as client:
                for piece in pieces:
                    client.sendall(piece)
                if close:
                    client.unwrap()
                answer = read_to_end(client)
                self.canary.keep("an answer of the door", answer)
                return answer

        return self.in_thread(saying)

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection to the console door. Blocks."""
        plain = socket.create_connection(("127.0.0.1", self.console_port), SECONDS)
        return ssl.create_default_context(cafile=self.cafile).wrap_socket(plain, server_hostname="127.0.0.1")

    # What was said.

    def outcomes(self) -> list[str]:
        """The outcome of each connection that the door has recorded."""
        return [event["outcome"] for event in self.said if "outcome" in event]


def console_request(url: str) -> bytes:
    """The OpenStack project's Java viewer's request for a console URL, byte for byte."""
    parts = urlsplit(url)
    return f"CONNECT {parts.path}?{parts.query} HTTP/1.0\r\n\r\n".encode("ascii")


def token_of(url: str) -> str:
    """The token in a console URL."""
    return url.partition("token=")[2]


def read_to_end(client: socket.socket) -> bytes:
    """Everything until the other side closes; a reset counts as that."""
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def read_exactly(client: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer if the other side closes before."""
    data = b""
    while len(data) < count and (piece := client.recv(count - len(data))):
        data += piece
    return data


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
