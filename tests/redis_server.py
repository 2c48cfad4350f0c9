"""A real redis-server for one test: started on a free port, in a directory of its own, and killed when the test is over."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

START_SECONDS = 20.0


class RedisServer:
    """A redis-server, or a sentinel. ``options`` are lines of its configuration."""

    def __init__(
        self, case: TestCase, *options: str, port: int | None = None, sentinel: bool = False, password: str = ""
    ) -> None:
        binary = shutil.which("redis-server")
        assert binary, "redis-server is missing: install the package redis-server"
        self.port = port if port is not None else free_port()
        self._password = password
        directory = Path(case.mktemp())
        directory.mkdir()
        self._log = directory / "log"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {directory.absolute()}", *options]
        if not sentinel:
            lines += ['save ""', "appendonly no", "repl-diskless-sync-delay 0"]
        if password:
            lines.append(f"requirepass {password}")
        configuration = directory / "redis.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self._command = [binary, str(configuration), *(["--sentinel"] if sentinel else [])]
        self._process: subprocess.Popen[bytes] | None = None
        case.addCleanup(self.kill)

    async def start(self) -> None:
        """Start it, again if need be, and wait until it answers."""
        self._launch()
        await until(self._answers, f"redis-server did not start: {self._log}", START_SECONDS)

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: its port accepts, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it work again after `pause`."""
        self._signal(signal.SIGCONT)

    def ask(self, *command: str | bytes | int) -> Any:
        """The answer to a command; an error is raised as a RuntimeError."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection, connection.makefile("rwb") as wire:
            if self._password:
                _ask(wire, ("AUTH", self._password))
            return _ask(wire, command)

    def ask_many(self, *conversations: list[tuple[str | bytes | int, ...]]) -> list[list[Any]]:
        """The answers to many commands, sent over as many connections as there are lists, all at once."""
        with ExitStack() as stack:
            wires = []
            for _ in conversations:
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=60))
                wires.append(stack.enter_context(connection.makefile("rwb")))
            senders = [
                Thread(target=_send, args=(wire, *commands)) for wire, commands in zip(wires, conversations, strict=True)
            ]
            for sender in senders:
                sender.start()
            answers = [[_read(wire) for _ in commands] for wire, commands in zip(wires, conversations, strict=True)]
            for sender in senders:
                sender.join()
            return answers

    def asked(self, *command: str | bytes | int) -> bool:
        """Whether the server could be asked."""
        try:
            self.ask(*command)
        except (OSError, EOFError, RuntimeError):
            return False
        return True

    @contextmanager
    def held_connection(self) -> Iterator[None]:
        """One client more, that says nothing."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection, connection.makefile("rwb") as wire:
            _ask(wire, ("PING",))
            yield

    def _answers(self) -> bool:
        try:
            return self.ask("PING") in {"PONG", None}
        except (OSError, EOFError, RuntimeError):
            assert self._process is not None
            assert self._process.poll() is None, f"redis-server ended: {self._log.read_text()}"
            return False

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


async def until(condition: Callable[[], bool], complaint: str, seconds: float = 15.0) -> None:
    """Return once ``condition`` is true; fail with ``complaint`` when it does not come true in time."""
    give_up_at = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < give_up_at, complaint
        await deferLater(reactor, 0.01)


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _ask(wire: Any, command: tuple[str | bytes | int, ...]) -> Any:
    _send(wire, command)
    return _read(wire)


def _send(wire: Any, *commands: tuple[str | bytes | int, ...]) -> None:
    for command in commands:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        wire.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    wire.flush()


def _read(wire: Any) -> Any:
    line = wire.readline()
    if not line:
        raise EOFError
    kind, rest = line[:1], line[1:].rstrip(b"\r\n")
    match kind:
        case b"+":
            return rest.decode()
        case b":":
            return int(rest)
        case b"$":
            return None if rest == b"-1" else wire.read(int(rest) + 2)[:-2]
        case b"*":
            return [_read(wire) for _ in range(int(rest))]
    raise RuntimeError(rest.decode())


AGE = """
local by = tonumber(ARGV[1])
local function sooner(text) return (string.gsub(text, '%d+', function(number) return tonumber(number) - by end)) end
for _, key in ipairs(redis.call('KEYS', 'xvpd:*')) do
  local kind = redis.call('TYPE', key)['ok']
  if key ~= 'xvpd:nodes' then
    if kind == 'zset' then
      for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -by, member) end
    elseif kind == 'hash' then
      for _, field in ipairs(redis.call('HKEYS', key)) do
        local value = redis.call('HGET', key, field)
        local moment = field == 'expires' or field == 'rights' or field == 'began'
        if moment or (string.sub(field, 1, 5) == 'open:' and value ~= 'use') then
          redis.call('HSET', key, field, sooner(value))
        end
      end
    end
    local left = redis.call('PTTL', key)
    if left < 0 then return redis.error_reply(key .. ' has no end') end
    redis.call('PEXPIRE', key, left - by)
  end
end
"""


def age(server: RedisServer, seconds: float, database: int = 0) -> None:
    """Make what the store keeps so many seconds older, as if time had passed; but not the nodes, which are alive."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection, connection.makefile("rwb") as wire:
        _ask(wire, ("SELECT", database))
        _ask(wire, ("EVAL", AGE, 0, round(seconds * 1000)))
