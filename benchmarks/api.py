"""`Api`: one connection to a daemon's API, kept alive."""

import json
import socket
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

from benchmarks.child import BenchmarkError

_SECONDS: Final = 30.0


class Api:
    """Sends requests, each as one segment, and reads their answers, one after the other. Blocks."""

    def __init__(self, port: int, key: str) -> None:
        self._key = key
        self._socket = socket.create_connection(("127.0.0.1", port), _SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, status: int = 200) -> bytes:
        """The body of the answer, which must have this status."""
        self.send(method, path, body)
        return self.answer(status)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """Ask, and do not wait."""
        content = b"" if body is None else json.dumps(body).encode("ascii")
        head = [
            f"{method} {path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self._key}",
            *(["Content-Type: application/json", f"Content-Length: {len(content)}"] if content else []),
        ]
        self._socket.sendall("\r\n".join([*head, "", ""]).encode("ascii") + content)

    def answer(self, status: int) -> bytes:
        """Wait for the answer to what was sent."""
        response = HTTPResponse(self._socket)
        try:
            response.begin()
            body = response.read()
        except (HTTPException, OSError) as error:
            raise BenchmarkError(f"the API did not answer: {error or type(error).__name__}") from None
        finally:
            response.close()
        if response.status != status:
            raise BenchmarkError(f"the API answered {response.status} in the place of {status}: {body!r}")
        return body

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
