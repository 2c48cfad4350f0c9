"""A small VNC viewer for first runs and tests: it opens an access URL and takes a picture of the screen.

    python -m xvpd.sim.viewer [--cafile FILE] URL PICTURE.png

It blocks, and asks for the console as the OpenStack project's Java viewer does: one line, HTTP/1.0, no header, content with
nothing but a status line that begins ``HTTP/1.1 200`` and a blank. RFB 3.3, 3.7 and 3.8, security None, Raw (RFC 6143).
"""

import argparse
import socket
import ssl
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_MAX_LINE: Final = 4096
_MAX_TEXT: Final = 65536
_MAX_PIXELS: Final = 1 << 26
_RAW: Final = 0


class ViewerError(Exception):
    """The console could not be seen; the text says why."""


class Viewer:
    """One open console. Every wait ends after ``timeout`` seconds with `ViewerError`."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self.version = ""
        """The server's version, as it said it: ``003.008``."""
        self.name = ""
        self.width = 0
        self.height = 0
        self._picture = bytearray()

    # Opening.

    @classmethod
    def open(cls, url: str, *, cafile: str | None = None, timeout: float = 10.0) -> "Viewer":
        """Open an access URL, which must say its port. With ``https``, the certificate must be vouched for by ``cafile``, or
        else by the system's authorities, and be for the host in the URL."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise ViewerError(f"{_where(url)}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
            raise ViewerError("the address must be of the form https://host:port/path?query")
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection: socket.socket | None = None
        try:
            connection = socket.create_connection((parts.hostname, port), timeout)
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=cafile)
                connection = context.wrap_socket(connection, server_hostname=parts.hostname)
            viewer = cls(connection, timeout)
            viewer.request(target)
            viewer.greet()
        except (OSError, ViewerError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, ViewerError):
                raise
            raise ViewerError(f"{_where(url)}: {error or 'timed out'}") from error
        return viewer

    def request(self, target: str) -> None:
        """Ask for the console at ``target`` (path and query) and read the answer up to its blank line."""
        self._connection.sendall(f"CONNECT {target} HTTP/1.0\r\n\r\n".encode("ascii"))
        deadline = time.monotonic() + self._timeout
        status = self._line(deadline)
        if not status.startswith("HTTP/1.1 200 "):
            raise ViewerError(f"the proxy said: {status or 'nothing'}")
        while self._line(deadline):
            pass

    def greet(self) -> None:
        """The opening of RFB, up to ServerInit."""
        deadline = time.monotonic() + self._timeout
        banner = self._read(12, deadline)
        if not banner.startswith(b"RFB ") or not banner.endswith(b"\n"):
            raise ViewerError(f"this is no RFB server: {banner!r}")
        self.version = banner[4:11].decode("latin-1")
        minor = {"003.008": 8, "003.007": 7}.get(self.version, 3)
        self._connection.sendall(f"RFB 003.{minor:03d}\n".encode("ascii"))
        if minor == 3:
            (security,) = struct.unpack(">I", self._read(4, deadline))
            if security == 0:
                raise ViewerError(f"the server said: {self._text(deadline)}")
            if security != 1:
                raise ViewerError(f"the server wants security type {security}")
        else:
            offered = self._read(self._read(1, deadline)[0], deadline)
            if not offered:
                raise ViewerError(f"the server said: {self._text(deadline)}")
            if 1 not in offered:
                raise ViewerError(f"the server wants one of the security types {list(offered)}")
            self._connection.sendall(b"\1")
            if minor == 8 and self._read(4, deadline) != b"\0\0\0\0":
                raise ViewerError(f"the server said: {self._text(deadline)}")
        self._connection.sendall(b"\1")
        self.width, self.height, _ = struct.unpack(">HH16s", self._read(20, deadline))
        self.name = self._text(deadline)
        self._picture = bytearray(3 * self.width * self.height)
        wanted = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        self._connection.sendall(b"\0\0\0\0" + wanted + struct.pack(">BxHi", 2, 1, _RAW))

    # Looking and typing.

    def framebuffer(self) -> tuple[int, int, bytes]:
        """Width, height and the pixels of the whole screen, three bytes (red, green, blue) each, row by row."""
        return self._update(incremental=False)

    def changes(self) -> tuple[int, int, bytes]:
        """The same, once something has changed since it was last asked for."""
        return self._update(incremental=True)

    def type(self, text: str) -> None:
        """Press and release the key of each character; a newline is Return."""
        for character in text:
            self.press(0xFF0D if character == "\n" else ord(character))

    def press(self, keysym: int) -> None:
        """Press and release one key."""
        self._connection.sendall(struct.pack(">BBxxI", 4, 1, keysym) + struct.pack(">BBxxI", 4, 0, keysym))

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How.

    def _update(self, incremental: bool) -> tuple[int, int, bytes]:
        self._connection.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))
        deadline = time.monotonic() + self._timeout
        while not self._message(deadline):
            pass
        return self.width, self.height, bytes(self._picture)

    def _message(self, deadline: float) -> bool:
        """Read one message of the server's; whether it was an update of the picture."""
        (number,) = self._read(1, deadline)
        if number == 0:
            (count,) = struct.unpack(">xH", self._read(3, deadline))
            for _ in range(count):
                self._rectangle(deadline)
            return bool(count)
        if number == 1:
            (count,) = struct.unpack(">xHH", self._read(5, deadline))[1:]
            self._read(6 * count, deadline)
        elif number == 3:
            self._read(3, deadline)
            self._text(deadline)
        elif number != 2:
            raise ViewerError(f"the server sent a message of type {number}")
        return False

    def _rectangle(self, deadline: float) -> None:
        x, y, width, height, encoding = struct.unpack(">HHHHi", self._read(12, deadline))
        if encoding != _RAW or x + width > self.width or y + height > self.height:
            raise ViewerError(f"the server sent a rectangle of encoding {encoding} at {x},{y} {width}x{height}")
        pixels = self._read(4 * width * height, deadline)
        rgb = bytearray(3 * width * height)
        rgb[0::3], rgb[1::3], rgb[2::3] = pixels[2::4], pixels[1::4], pixels[0::4]
        for line in range(height):
            start = 3 * ((y + line) * self.width + x)
            self._picture[start : start + 3 * width] = rgb[3 * width * line : 3 * width * (line + 1)]

    def _text(self, deadline: float) -> str:
        (length,) = struct.unpack(">I", self._read(4, deadline))
        if length > _MAX_TEXT:
            raise ViewerError(f"the server sent a text of {length} bytes")
        return self._read(length, deadline).decode("utf-8", "replace")

    def _line(self, deadline: float) -> str:
        line = bytearray()
        while not line.endswith(b"\n"):
            if len(line) > _MAX_LINE:
                raise ViewerError("the proxy's answer has a line without an end")
            line += self._read(1, deadline)
        return line.decode("latin-1").rstrip("\r\n")

    def _read(self, count: int, deadline: float) -> bytes:
        if count > 4 * _MAX_PIXELS:
            raise ViewerError(f"the server wants to send {count} bytes at once")
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._connection.settimeout(left)
                piece = self._connection.recv(min(count - len(data), 1 << 20))
            except TimeoutError as error:
                raise ViewerError(f"nothing came for {self._timeout:g} seconds") from error
            except OSError as error:
                raise ViewerError(f"the connection was lost: {error}") from error
            if not piece:
                raise ViewerError("the connection was closed")
            data += piece
        return bytes(data)


def write_png(path: Path, width: int, height: int, rgb: bytes) -> None:
    """Write pixels, three bytes each, as a PNG file."""
    rows = b"".join(b"\0" + rgb[3 * width * y : 3 * width * (y + 1)] for y in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def main(arguments: list[str]) -> int:
    """Take the picture, and say in one line what it is of, or what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m xvpd.sim.viewer", description="Take a picture of a console.")
    parser.add_argument("--cafile", help="a PEM file with the certificate, or its authority, that is trusted")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds that any step may take")
    parser.add_argument("url", metavar="URL", help="the access URL")
    parser.add_argument("picture", metavar="PICTURE.png", type=Path)
    options = parser.parse_args(arguments)
    try:
        with Viewer.open(options.url, cafile=options.cafile, timeout=options.timeout) as viewer:
            width, height, rgb = viewer.framebuffer()
        write_png(options.picture, width, height, rgb)
    except (ViewerError, OSError) as error:
        print(f"viewer: {error}", file=sys.stderr)
        return 1
    print(f'RFB {viewer.version} "{viewer.name}" {width}x{height} -> {options.picture}')
    return 0


def _where(url: str) -> str:
    """The part of an access URL that may be shown: its token may not."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
