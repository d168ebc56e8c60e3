"""The local services: an Apache Kafka and a Redis on 127.0.0.1, started together, waited for until they answer, ended by pid.

Everything about them is in one folder, the state directory: ``kafka/`` and ``redis/`` each with its record (pid, start time, ports), its
settings, its data and its log. A process is ours if it has the recorded pid and start time; no other is ever ended.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from schemas.errors import LocalServiceError
from streams.local import kafka as local_kafka
from streams.local import redis as local_redis
from streams.local.process import Service, recall

STATE_DIR = Path(".millrace")
START_SECONDS = 60.0
ANSWER_SECONDS = 5.0
STOP_SECONDS = 10.0
TRIES = 3

State = Literal["running", "silent", "stopped"]
Say = Callable[[str], None]


class Kind(Protocol):
    """What the module of a service knows how to do, in the service's own folder."""

    def begin(self, folder: Path, port: int | None, say: Say) -> Service: ...

    def address(self, service: Service) -> str: ...

    def answers(self, service: Service, folder: Path, timeout_seconds: float) -> bool: ...

    def warm_up(self, service: Service, timeout_seconds: float) -> None: ...


# In the order they are begun; Kafka is the one to wait for.
KINDS: dict[str, Kind] = {"kafka": local_kafka, "redis": local_redis}


@dataclass(frozen=True, slots=True)
class Services:
    """Where the services answer."""

    state_dir: Path
    bootstrap_servers: str
    redis_url: str
    redis_socket_url: str | None  # the same Redis without TCP; None = the path of its socket would be too long
    started: tuple[str, ...]  # by this call; the others ran already


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What became of a service: it answers, it runs without an answer, or it doesn't run."""

    name: str
    state: State
    address: str
    pid: int | None
    began_seconds: float  # since the epoch
    log: str


def up(
    state_dir: str | Path = STATE_DIR,
    *,
    kafka_port: int | None = None,
    redis_port: int | None = None,
    say: Say = lambda words: None,
) -> Services:
    """Start what does not run yet, and wait until both answer. To repeat it is safe: what runs is left as it is.

    Args:
        state_dir: where their data, logs and records are kept.
        kafka_port: None = the one it had before, else any that is free.
        redis_port: likewise.
        say: told what is waited for.

    Raises:
        MissingProgram: Java, Maven or Redis is needed and not there; the message says how to get it.
        LocalServiceError: a port is taken, or a service doesn't start or answer. What this call started is ended again.
    """
    folder = Path(state_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"kafka": kafka_port, "redis": redis_port}
    started: list[str] = []
    with _alone(folder):
        try:
            for name, kind in KINDS.items():
                if not _runs(folder / name, wanted[name]):
                    started.append(name)
                    kind.begin(folder / name, wanted[name], say)
            for name in reversed(KINDS):  # Redis is the quicker one, and its troubles the simpler ones
                _await(name, folder / name, wanted[name], say, fresh=name in started)
        except BaseException:
            for name in started:
                _end(folder / name, STOP_SECONDS)
            raise
    return _services(folder, tuple(started))


def down(state_dir: str | Path = STATE_DIR, *, budget_seconds: float = STOP_SECONDS, erase: bool = False) -> tuple[str, ...]:
    """End the services that were started here, and return the names of those that ran.

    Args:
        state_dir: as given to `up`.
        budget_seconds: how long each may take to end before it is ended by force.
        erase: remove the state directory as well, data and all.
    """
    folder = Path(state_dir).resolve()
    if not folder.is_dir():
        return ()
    with _alone(folder):
        ended = tuple(name for name in KINDS if _end(folder / name, budget_seconds))
        if erase:
            shutil.rmtree(folder)
    return ended


def status(state_dir: str | Path = STATE_DIR) -> tuple[ServiceStatus, ...]:
    """The services that were ever started here, and whether they answer."""
    folder = Path(state_dir).resolve()
    found = []
    for name, kind in KINDS.items():
        service = recall(folder / name)
        if service is None:
            continue
        alive = service.alive
        state: State = "stopped" if not alive else "running" if kind.answers(service, folder / name, ANSWER_SECONDS) else "silent"
        pid = service.pid if alive else None
        found.append(ServiceStatus(name, state, kind.address(service), pid, service.began_seconds, service.log))
    return tuple(found)


def running(state_dir: str | Path = STATE_DIR) -> Services | None:
    """Where the services answer, if both run; looks at processes only, and asks them nothing."""
    folder = Path(state_dir).resolve()
    records = [recall(folder / name) for name in KINDS]
    return _services(folder, ()) if all(record is not None and record.alive for record in records) else None


def _services(folder: Path, started: tuple[str, ...]) -> Services:
    kafka, redis = recall(folder / "kafka"), recall(folder / "redis")
    assert kafka is not None and redis is not None
    socket_path = local_redis.unix_socket(folder / "redis")
    return Services(
        state_dir=folder,
        bootstrap_servers=local_kafka.address(kafka),
        redis_url=local_redis.address(redis),
        redis_socket_url=f"unix://{socket_path}" if socket_path else None,
        started=started,
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One at a time: a second `up` waits for the first, and finds its work done."""
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _runs(folder: Path, port: int | None) -> bool:
    """Whether the service runs already, and where it is wanted."""
    service = recall(folder)
    if service is None or not service.alive:
        return False
    if port is not None and port != service.port:
        raise LocalServiceError(f"{service.name} already runs on port {service.port}; end it first to start it on {port} (`millrace down`)")
    return True


def _await(name: str, folder: Path, port: int | None, say: Say, *, fresh: bool) -> None:
    """Wait until a service answers; one that lost its port to another process while it started gets a new one."""
    kind = KINDS[name]
    deadline = time.monotonic() + START_SECONDS
    for left in reversed(range(TRIES)):
        service = recall(folder)
        assert service is not None
        if kind.answers(service, folder, max(deadline - time.monotonic(), 1.0)):
            if fresh:
                say(f"{name} listens on {kind.address(service)}")
                kind.warm_up(service, max(deadline - time.monotonic(), 5.0))
            return
        if service.alive:
            raise LocalServiceError(f"{name} (pid {service.pid}) does not answer on {kind.address(service)}; its log: {service.log}")
        if not (left and fresh and port is None and "Address already in use" in service.log_tail()):
            raise LocalServiceError(f"{name} ended as it started; its log, {service.log}, ends with:\n{service.log_tail()}")
        kind.begin(folder, None, say)


def _end(folder: Path, budget_seconds: float) -> bool:
    service = recall(folder)
    return service is not None and service.end(folder, budget_seconds)
