"""The small viewer, against simulated screens and against what is none."""

import contextlib
import io
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.sim.pools import SECONDS, PoolCase
from xvpd.sim.pool import SimulatedPool
from xvpd.sim.viewer import Viewer, ViewerError, main, write_png


def access_url(pool: SimulatedPool, vm: str, address: str = "127.0.0.1") -> str:
    """What an access URL is to xvpd, this is to a host: it opens a console."""
    session = pool.state.log_in(pool.username, pool.password, "tests")
    scheme = "http" if pool.plain else "https"
    return f"{scheme}://{address}:{pool.port}/console?ref={pool.state.vm_named(vm)}&session_id={session}"


def pixels(picture: bytes) -> tuple[int, int, bytes]:
    """Width, height and pixels of a PNG such as the viewer writes."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", picture, 16)
    start = picture.index(b"IDAT") + 4
    (length,) = struct.unpack_from(">I", picture, start - 8)
    rows = zlib.decompress(picture[start : start + length])
    step = 1 + 3 * width
    return width, height, b"".join(rows[y * step + 1 : (y + 1) * step] for y in range(height))


def saved(path: str) -> tuple[int, int, bytes]:
    return pixels(Path(path).read_bytes())


class Pictures(PoolCase):
    def trust(self, pool: SimulatedPool) -> str:
        path = Path(self.mktemp())
        path.write_bytes(b"".join(each.certificate_pem for each in pool.certificates.values()))
        return str(path)

    async def test_both_kinds_of_screen(self) -> None:
        pool = self.pool()
        cafile = self.trust(pool)

        def look(url: str) -> tuple[str, str, tuple[int, int, bytes]]:
            with Viewer.open(url, cafile=cafile) as viewer:
                return viewer.version, viewer.name, viewer.framebuffer()

        for vm, version in (("web-1", "003.008"), ("legacy-pv", "003.003")):
            pool.screen(vm)
            seen, name, (width, height, rgb) = await self.in_thread(look, access_url(pool, vm))
            canvas = pool.screen(vm).canvas
            self.assertEqual((seen, name, width, height), (version, vm, canvas.width, canvas.height))
            palette = canvas.palette
            above = canvas.pixels(0, 0, width, 180)
            self.assertEqual(rgb[: 3 * width * 180], b"".join(bytes(palette[index]) for index in above))

    async def test_keys_are_typed_and_changes_seen(self) -> None:
        pool = self.pool(plain=True)

        def work(url: str) -> tuple[bytes, bytes]:
            with Viewer.open(url) as viewer:
                before = viewer.framebuffer()[2]
                viewer.type("hello\nthere")
                return before, viewer.changes()[2]

        before, after = await self.in_thread(work, access_url(pool, "web-1"))
        self.assertNotEqual(before, after)
        await self.until(lambda: pool.screen("web-1").typed == "hello\nthere")

    async def test_the_command_writes_a_picture_and_one_line(self) -> None:
        pool = self.pool()
        picture = self.mktemp()
        arguments = ["-m", "xvpd.sim.viewer", "--cafile", self.trust(pool), access_url(pool, "web-1"), picture]
        out, err, status = await getProcessOutputAndValue(sys.executable, arguments, env=None, reactor=reactor)
        self.assertEqual((err, status), (b"", 0))
        self.assertEqual(out.decode(), f'RFB 003.008 "web-1" 640x400 -> {picture}\n')
        self.assertEqual(saved(picture)[:2], (640, 400))

    async def test_the_command_says_what_went_wrong_in_one_line_without_the_token(self) -> None:
        pool = self.pool()
        url = f"https://127.0.0.1:{pool.port}/console?token=canary"

        def run(*arguments: str) -> tuple[int, str]:
            heard = io.StringIO()
            with contextlib.redirect_stderr(heard):
                return main([*arguments, self.mktemp()]), heard.getvalue()

        status, said = await self.in_thread(run, url)
        self.assertEqual(status, 1)
        self.assertRegex(said, r"^viewer: https://127\.0\.0\.1:\d+: .*certificate.*\n$")
        self.assertNotIn("canary", said)
        status, said = await self.in_thread(run, "--cafile", self.trust(pool), url)
        self.assertEqual((status, said), (1, "viewer: the proxy said: HTTP/1.0 401 Unauthorised\n"))


class Png(TestCase):
    def test_a_picture_survives(self) -> None:
        path = Path(self.mktemp())
        rgb = bytes(range(2 * 3 * 3))
        write_png(path, 2, 3, rgb)
        self.assertEqual(pixels(path.read_bytes()), (2, 3, rgb))


_OK = b"HTTP/1.1 200 OK\r\n\r\n"
_INIT = struct.pack(">HH16sI", 2, 1, b"", 1) + b"x"


class Refusals(PoolCase):
    """What the viewer says of servers that are not as they should be."""

    def serve(self, conversation: Callable[[socket.socket], None]) -> str:
        """A server for one connection; its URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        def work() -> None:
            with listener:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    conversation(connection)

        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join)
        return f"http://127.0.0.1:{port}/console?token=canary"

    async def refused(self, *sent: bytes, timeout: float = 10.0) -> str:
        """What the viewer says when a server sends this, whatever it hears, and then ends."""

        def conversation(connection: socket.socket) -> None:
            for piece in sent:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

        url = self.serve(conversation)

        def work() -> str:
            try:
                with Viewer.open(url, timeout=timeout) as viewer:
                    viewer.framebuffer()
            except ViewerError as error:
                return str(error)
            return "seen"

        said = await self.in_thread(work)
        self.assertNotIn("canary", said)
        return said

    async def test_the_request_is_that_of_the_java_viewer(self) -> None:
        heard: list[bytes] = []

        def conversation(connection: socket.socket) -> None:
            heard.append(connection.recv(4096))

        url = self.serve(conversation)
        await self.assertFailure(self.in_thread(lambda: Viewer.open(url)), ViewerError)
        self.assertEqual(heard, [b"CONNECT /console?token=canary HTTP/1.0\r\n\r\n"])

    async def test_a_status_line_that_the_java_viewer_refuses(self) -> None:
        for line in ("HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 404 Not Found", "RFB 003.008"):
            self.assertEqual(await self.refused(f"{line}\r\n\r\n".encode()), f"the proxy said: {line}")
        self.assertEqual(await self.refused(), "the connection was closed")
        self.assertEqual(await self.refused(b"x" * 5000), "the proxy's answer has a line without an end")

    async def test_headers_and_bare_line_feeds_are_fine(self) -> None:
        update = b"\2" + struct.pack(">BxHHHHHi", 0, 1, 0, 0, 2, 1, 0) + b"\3\2\1\0\6\5\4\0"
        said = await self.refused(b"HTTP/1.1 200 Fine\nA: b\n\nRFB 003.003\n\0\0\0\1" + _INIT + update)
        self.assertEqual(said, "seen")

    async def test_servers_that_refuse_or_are_none(self) -> None:
        cases = {
            b"SSH-2.0-abcd": "this is no RFB server: b'SSH-2.0-abcd'",
            b"RFB 003.003\n\0\0\0\0\0\0\0\4busy": "the server said: busy",
            b"RFB 003.003\n\0\0\0\2": "the server wants security type 2",
            b"RFB 003.008\n\0\0\0\0\4busy": "the server said: busy",
            b"RFB 003.008\n\1\2": "the server wants one of the security types [2]",
            b"RFB 003.008\n\1\1\0\0\0\1\0\0\0\2no": "the server said: no",
            b"RFB 003.007\n\1\1" + struct.pack(">HH16sI", 2, 1, b"", 1 << 30): "the server sent a text of 1073741824 bytes",
            b"RFB 003.008\n": "the connection was closed",
        }
        for sent, expected in cases.items():
            self.assertEqual(await self.refused(_OK + sent), expected)

    async def test_messages_that_cannot_be(self) -> None:
        opening = _OK + b"RFB 003.003\n\0\0\0\1" + _INIT
        self.assertEqual(await self.refused(opening + b"\xfa"), "the server sent a message of type 250")
        outside = struct.pack(">BxHHHHHi", 0, 1, 1, 0, 2, 1, 0)
        self.assertIn("rectangle of encoding 0 at 1,0 2x1", await self.refused(opening + outside))
        tight = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 2, 1, 7)
        self.assertIn("rectangle of encoding 7", await self.refused(opening + tight))
        others = b"\1\0\0\0\0\1rrggbb" + b"\3\0\0\0\0\0\0\1x" + b"\2"
        self.assertEqual(await self.refused(opening + others), "the connection was closed")

    async def test_a_server_that_says_nothing(self) -> None:
        done = threading.Event()
        self.addCleanup(done.set)
        url = self.serve(lambda _: self.assertTrue(done.wait(SECONDS)))
        failure = await self.assertFailure(self.in_thread(lambda: Viewer.open(url, timeout=0.05)), ViewerError)
        self.assertEqual(str(failure), "nothing came for 0.05 seconds")
        done.set()

    def test_an_address_that_is_none(self) -> None:
        for url in ("", "vnc://h:1/", "https://host/console?token=t", "https://:6081/", "https://h:99999/", "https://h:x/"):
            failure = self.assertRaises(ViewerError, Viewer.open, url)
            self.assertNotIn("token", str(failure))
