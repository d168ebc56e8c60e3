"""What a run takes: CPU and memory by process, a second at a time; bytes to Redis and Kafka; what others took of the same machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis

from schemas.errors import Refused
from streams.local.process import recall

PERIOD_SECONDS = 1.0
LEAST_FREE_BYTES = 500_000_000  # then a run is ended, while there is room to say so


class DiskFull(Refused):
    """There is too little room left for the broker's log."""


@dataclass(frozen=True, slots=True)
class Look:
    """One moment: what every process has used so far."""

    at: float  # seconds since the epoch
    cpu_seconds: Mapping[str, float]
    rss_bytes: Mapping[str, int]
    machine_cpu_seconds: float  # of all processes of the machine
    behind: int  # events sent, and not answered yet


@dataclass
class Watch:
    """Looks at processes once a second, in a thread of its own.

    Attributes:
        processes: by the name their numbers go under; several may share one.
        behind: says how many events wait for their answer.
        folder: of which the disk must not fill.
    """

    processes: Mapping[str, Sequence[psutil.Process]]
    behind: Callable[[], int]
    folder: Path
    looks: list[Look] = field(default_factory=list)
    free_bytes: Callable[[Path], int] = lambda folder: psutil.disk_usage(str(folder)).free
    period_seconds: float = PERIOD_SECONDS

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._full = False

    def __enter__(self) -> Watch:
        self.looks.append(self.look())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.looks.append(self.look())

    def check(self) -> None:
        """See that there is room.

        Raises:
            DiskFull: there is not.
        """
        if self._full:
            raise DiskFull(room_words(self.folder, self.free_bytes(self.folder), LEAST_FREE_BYTES))

    def look(self) -> Look:
        """This moment."""
        cpu, rss = {}, {}
        for name, group in self.processes.items():
            cpu[name], rss[name] = 0.0, 0
            for process in group:
                try:
                    times = process.cpu_times()
                    cpu[name] += times.user + times.system
                    rss[name] += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # whoever needs it finds out
        all_times = psutil.cpu_times()
        busy = sum(all_times) - all_times.idle - getattr(all_times, "iowait", 0.0) - getattr(all_times, "guest", 0.0)
        return Look(time.time(), cpu, rss, float(busy), self.behind())

    def _run(self) -> None:
        while not self._stop.wait(self.period_seconds):
            self.looks.append(self.look())
            self._full = self._full or self.free_bytes(self.folder) < LEAST_FREE_BYTES


def taken(looks: Sequence[Look], begin: float, end: float, events: int) -> dict[str, Any]:
    """What was used between two moments, from the looks nearest to them.

    Args:
        looks: in the order of time.
        begin: in seconds since the epoch.
        end: likewise.
        events: how many were due in between.
    """
    first = min(looks, key=lambda look: abs(look.at - begin))
    last = min(looks, key=lambda look: abs(look.at - end))
    seconds = max(last.at - first.at, 1e-9)
    # The events of the stretch that was looked at: its edges are at most half a second away.
    events_seen = max(events * seconds / max(end - begin, 1e-9), 1.0)
    used = {name: last.cpu_seconds[name] - first.cpu_seconds[name] for name in last.cpu_seconds}
    ours = sum(used.values())
    others = max(last.machine_cpu_seconds - first.machine_cpu_seconds - ours, 0.0)
    return {
        "cpu_us_per_event": {name: round(each / events_seen * 1e6, 3) for name, each in used.items()},
        "cores": {name: round(each / seconds, 3) for name, each in used.items()},
        "cores_of_others": round(others / seconds, 3),
        "rss_mb": {name: round(max(look.rss_bytes[name] for look in looks) / 1e6, 1) for name in last.rss_bytes},
    }


def room_words(folder: Path, free_bytes: int, wanted_bytes: int) -> str:
    """That there is too little room."""
    return f"the disk of {folder} has {free_bytes / 1e6:,.0f} MB left, wanted {wanted_bytes / 1e6:,.0f}; make room, or send less"


def service_process(folder: Path) -> psutil.Process | None:
    """The process of a local service; None = nothing of ours runs there."""
    service = recall(folder)
    return psutil.Process(service.pid) if service is not None and service.alive and service.pid is not None else None


@dataclass(frozen=True, slots=True)
class Wire:
    """Counters of what went over the wire so far."""

    redis_bytes: int
    redis_commands: int
    redis_memory_bytes: int
    log_bytes: Mapping[str, int] | None  # by topic, on the broker's disk; None = it is not ours to look at

    def since(self, before: Wire, events: int) -> dict[str, Any]:
        """What one event cost."""
        found: dict[str, Any] = {
            "redis_bytes_per_event": round((self.redis_bytes - before.redis_bytes) / events, 1),
            "redis_commands_per_event": round((self.redis_commands - before.redis_commands) / events, 3),
            "redis_memory_mb": round(self.redis_memory_bytes / 1e6, 1),
        }
        if self.log_bytes is not None and before.log_bytes is not None:
            grown = {topic: size - before.log_bytes.get(topic, 0) for topic, size in self.log_bytes.items()}
            found["kafka_log_bytes_per_event"] = {topic: round(size / events, 1) for topic, size in sorted(grown.items()) if size > 0}
        return found


def wire(client: redis.Redis, kafka_data: Path | None) -> Wire:
    """The counters now."""
    facts: Any = client.info("all")
    sizes: dict[str, int] | None = None
    if kafka_data is not None:
        by_topic: dict[str, list[int]] = {}
        for file in kafka_data.glob("*/*.log"):
            topic, dash, number = file.parent.name.rpartition("-")
            if dash and number.isdigit():
                by_topic.setdefault(topic, []).append(file.stat().st_size)
        sizes = {topic: int(np.sum(found)) for topic, found in by_topic.items()}
    return Wire(int(facts["total_net_input_bytes"]), int(facts["total_commands_processed"]), int(facts["used_memory"]), sizes)
