"""A child process that sends as much as it can over a connection that it inherits.

``python -m tests.relay.sender FD TLS ROLE SIZE``: TLS is a word that `tests.net.peers.TLS` knows, or ``plain``; ROLE is
``server`` or ``client``. After each piece it writes a line with the number of bytes sent so far.
"""

import hashlib
import socket
import sys
from collections.abc import Iterator
from random import Random

from tests.net.peers import their_context

PIECE = 65536


def stream(size: int) -> Iterator[bytes]:
    """``size`` bytes that cannot be told from noise, the same ones every time."""
    noise = Random(size)
    while size:
        piece = noise.randbytes(min(size, PIECE))
        size -= len(piece)
        yield piece


def stream_hash(size: int) -> bytes:
    """SHA-256 of `stream`."""
    digest = hashlib.sha256()
    for piece in stream(size):
        digest.update(piece)
    return digest.digest()


def main(fd: str, tls: str, role: str, size: str) -> None:
    sock = socket.socket(fileno=int(fd))
    sock.setblocking(True)
    if tls != "plain":
        sock = their_context(tls, role == "server").wrap_socket(sock, server_side=role == "server")
    sent = 0
    for piece in stream(int(size)):
        sock.sendall(piece)
        sent += len(piece)
        print(sent, flush=True)
    sys.stdin.read()  # until the test is over


if __name__ == "__main__":
    main(*sys.argv[1:])
