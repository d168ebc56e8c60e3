"""A service's process on this machine: started apart from us, known by pid and start time, ended within a budget.

The record of a process outlives it: a pid alone may have been given to somebody else's process since, so ours is the one that has
the pid *and* began when the record says.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from schemas.errors import LocalServiceError

RECORD = "process.json"
# Below the ports that systems hand out to outgoing connections: a free port stays free until its server has started.
PORTS = range(20_000, 32_000)
START_TIME_SLACK_SECONDS = 1.0
LOG_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Service:
    """A process of ours, as its record says; with no pid it was ended, and the record keeps its ports for the next start."""

    name: str
    ports: tuple[int, ...]  # the first is the clients'
    pid: int | None
    began_seconds: float  # since the epoch, as the system says of the process
    log: str  # where it writes what it has to say

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self.ports[0]

    @property
    def alive(self) -> bool:
        """Whether the very process that was started still runs."""
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        if self.pid is None:
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.began_seconds) < START_TIME_SLACK_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def end(self, folder: Path, budget_seconds: float) -> bool:
        """Ask the process to end, and end it by force when the budget is spent; False = it wasn't running."""
        process = self._process()
        if process is not None:
            try:
                process.terminate()
                try:
                    process.wait(budget_seconds)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait(budget_seconds)
            except psutil.NoSuchProcess:
                pass  # it ended by itself meanwhile
        replace(self, pid=None).remember(folder)
        return process is not None

    def kill(self) -> None:
        """End the process as a crash would; its record stays as it is."""
        process = self._process()
        if process is not None:
            process.kill()
            process.wait()

    def remember(self, folder: Path) -> None:
        """Write the record; a reader sees the old one or this one, never half of it."""
        new = folder / f"{RECORD}.new"
        new.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        new.replace(folder / RECORD)

    def log_tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = Path(self.log).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


def recall(folder: Path) -> Service | None:
    """The service that was started in the folder; None = none ever was."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Service(str(found["name"]), tuple(found["ports"]), found["pid"], float(found["began_seconds"]), str(found["log"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LocalServiceError(
            f"{folder / RECORD} is damaged ({error!r}); end the process it was about by hand, then remove {folder}"
        ) from error


def start(
    name: str,
    argv: Sequence[str],
    folder: Path,
    ports: Sequence[int],
    log: Path,
    output: Path,
    environment: Mapping[str, str] | None = None,
) -> Service:
    """Start a process in a session of its own, so that Ctrl-C here does not reach it, and write its record.

    Args:
        name: what it is called.
        argv: the program's full path and its arguments.
        folder: where the record goes.
        ports: those it will listen on, the clients' first.
        log: the file it writes its log to.
        output: the file that its standard output and error are added to.
        environment: variables of its own, beside those that are set here.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(argv[0], list(argv), {**(environment or {}), **os.environ}, file_actions=actions, setsid=True)
    service = Service(name, tuple(ports), pid, psutil.Process(pid).create_time(), str(log))
    service.remember(folder)
    return service


def choose_port(wanted: int | None, before: int | None = None) -> int:
    """The port asked for, else the one used before, else any that is free.

    Raises:
        LocalServiceError: the port asked for is taken.
    """
    if wanted is not None:
        if not _is_free(wanted):
            raise LocalServiceError(f"port {wanted} on 127.0.0.1 is taken by another process; choose another, or none for any that is free")
        return wanted
    for port in ((before,) if before else ()) + tuple(random.sample(PORTS, 50)):
        if _is_free(port):
            return port
    raise LocalServiceError(f"no free port among {PORTS.start}..{PORTS.stop - 1} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still winding down is free to them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Whether anything takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def await_listening(service: Service, deadline: float) -> bool:
    """Wait until something listens on the service's port, it ends, or `time.monotonic` reaches the deadline; whether it listens."""
    while service.alive and time.monotonic() < deadline:
        if listens(service.port):
            return True
        time.sleep(0.02)
    return False


def find_program(name: str, home: str | None = None) -> str | None:
    """The full path of a program: in the ``bin`` of the home folder if one is given and has it, else where PATH leads."""
    if home:
        candidate = Path(home) / "bin" / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    return shutil.which(name)
