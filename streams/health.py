"""A stage's health: whether it makes progress, and whether it can be given work; and the worker's, which is that of all its stages.

Liveness looks at progress alone: a worker whose Redis is away waits, and restarting it would not help. A partition that has
records to read and moves nowhere for too long is stuck, whatever its threads say. To get to the same place again and again is no progress.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from schemas.features import Json


@dataclass(slots=True)
class Progress:
    """How a partition is doing."""

    next_offset: int = 0  # the last one committed
    furthest: int = 0  # it ever came
    again_from: int = -1  # where it was taken over behind that; -1 = it is not behind
    again_to: int = -1  # how far it has come from there: to come there once more is no progress
    moved_seconds: float = 0.0  # monotonic: when it last moved, or had nothing to do
    trouble: str = ""  # why it was started over last, until it moves again


@dataclass(slots=True)
class Health:
    """Collects what the health pages tell.

    Args:
        stalled_seconds: how long a partition may stand still with records waiting.
        ends: by partition, where it ends.
        beat: when the source's thread was last seen to turn (monotonic seconds): what it says of ends is no older than that.
        clock: monotonic seconds.
    """

    stalled_seconds: float
    ends: Callable[[], Mapping[int, int]]
    beat: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.monotonic
    started: bool = False
    connected: bool = True  # to the broker
    _partitions: dict[int, Progress] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def owns(self, partition: int, next_offset: int) -> None:
        """A partition was taken over and is read from `next_offset`; if that is the same once more, it has not moved."""
        with self._lock:
            known = self._partitions.get(partition)
            if known is None or next_offset > known.furthest:
                self._partitions[partition] = Progress(next_offset, next_offset, moved_seconds=self.clock())
                return
            known.next_offset = next_offset
            if next_offset < known.furthest and next_offset != known.again_from:
                known.again_from = known.again_to = next_offset

    def lag(self) -> dict[int, int]:
        """By partition, the offsets between the committed one and the end."""
        ends = self.ends()
        with self._lock:
            return {p: max(ends[p] - progress.next_offset, 0) for p, progress in self._partitions.items() if p in ends}

    def waits(self, partition: int, why: str) -> None:
        """A partition can't be taken over yet."""
        with self._lock:
            self._partitions.setdefault(partition, Progress(furthest=-1, moved_seconds=self.clock())).trouble = why

    def held(self, partition: int) -> None:
        """A partition stands still until others have come as far: it is those that may be stuck."""
        with self._lock:
            if partition in self._partitions:
                self._partitions[partition].moved_seconds = self.clock()

    def gone(self, partition: int) -> None:
        """A partition is not ours any more."""
        with self._lock:
            self._partitions.pop(partition, None)

    def moved(self, partition: int, next_offset: int) -> None:
        """A partition's batch is final."""
        with self._lock:
            known = self._partitions.get(partition)
            if known is None:
                return
            known.next_offset = next_offset
            if next_offset > known.furthest:
                self._partitions[partition] = Progress(next_offset, next_offset, moved_seconds=self.clock())
            elif next_offset > known.again_to and known.again_from >= 0:
                known.again_to, known.moved_seconds, known.trouble = next_offset, self.clock(), ""
            elif next_offset == known.furthest:
                known.trouble = ""

    def looked(self) -> None:
        """It was just seen where the partitions end: those with nothing to do stand still for no other reason."""
        lags, now = self.lag(), self.clock()
        with self._lock:
            for partition, progress in self._partitions.items():
                if lags.get(partition, 0) == 0 and not progress.trouble:
                    progress.moved_seconds = now

    def trouble(self, partition: int, why: str) -> None:
        """A partition was started over."""
        with self._lock:
            if partition in self._partitions:
                self._partitions[partition].trouble = why

    def livez(self) -> tuple[bool, Json]:
        """Whether the source's thread turns, and every partition with records waiting has moved of late."""
        self.looked()
        with self._lock:
            still = {p: round(self.clock() - progress.moved_seconds, 1) for p, progress in self._partitions.items()}
        stalled: dict[str, Json] = {str(p): seconds for p, seconds in still.items() if seconds > self.stalled_seconds}
        silent_seconds = self.clock() - self.beat()
        if silent_seconds > self.stalled_seconds:
            stalled["source"] = round(silent_seconds, 1)
        return not stalled, {"stalled_seconds": stalled, "partitions": len(still)}

    def readyz(self) -> tuple[bool, Json]:
        """Whether the worker started, has its broker, and no partition it owns waits for something that is away."""
        with self._lock:
            waiting = {str(p): progress.trouble for p, progress in self._partitions.items() if progress.trouble}
            owned = sorted(self._partitions)
        facts: Json = {"started": self.started, "connected": self.connected, "partitions": list(owned), "waiting_for": waiting}
        return self.started and self.connected and not waiting, facts


def together(answers: Mapping[str, tuple[bool, Json]], before: bool) -> tuple[bool, Json]:
    """The answer of a worker, by what its stages say; `before` there are any, it is fixed."""
    good = all(each for each, _ in answers.values()) if answers else before
    return good, {"stages": {name: facts for name, (_, facts) in answers.items()}}


def rendered(answer: tuple[bool, Json]) -> tuple[int, str, bytes]:
    """Status, content type and body of a health page."""
    good, facts = answer
    body = {"status": "ok" if good else "failing", **(facts if isinstance(facts, dict) else {})}
    return (200 if good else 503), "application/json", json.dumps(body).encode()
