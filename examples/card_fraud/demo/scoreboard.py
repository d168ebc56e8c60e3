"""The scoreboard: what the live view shows, kept from what was read lately."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.demo.counters import Counters
from examples.card_fraud.demo.records import FRAUDS, Kind
from schemas.columns import Floats, Ints, Mask

LATELY_SECONDS = 5.0  # what rates and latencies are taken over
ALERT_SECONDS = 10.0  # how long an alert may be among the highest scores lately
KEPT_LETTERS = KEPT_ALERTS = 100  # more than a terminal has lines


@dataclass(frozen=True, slots=True)
class Alert:
    """A scored event at or above the threshold, with the numbers that say why."""

    read_at: float
    score: float
    event_ms: int
    customer: str
    amount: float
    ratio: float  # of the amount to the customer's mean of 7 days
    counts: tuple[int, int, int]  # of the customer's payments in 1, 7 and 30 days
    terminal_count: int  # of the terminal's payments in 7 days, a week ago
    terminal_frauds: int  # those of them that were reported as frauds
    kind: Kind


@dataclass(frozen=True, slots=True)
class Sample:
    """How far everything was at a moment."""

    at: float
    sent: int
    answered: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is shown at a moment of the live stream."""

    elapsed_seconds: float
    seconds: float
    sent: int
    scored: int
    refused: int
    sent_rate: float
    answered_rate: float
    p50_ms: float  # NaN before the first answer
    p99_ms: float
    cpu_us: float  # of the worker, for a record; NaN before the first
    event_ms: int  # where the simulated time stands
    speed_up: float  # how much faster than life it runs
    alerts: int
    planted: int
    caught: int
    timings: dict[str, int]
    reasons: dict[str, int]
    highest: Sequence[Alert]
    letters: Sequence[str]
    reported: int  # frauds, history and repeats included
    counters: Counters

    @property
    def waiting(self) -> int:
        """Records sent and not answered yet."""
        return self.sent - self.scored - self.refused


@dataclass
class Scoreboard:
    """Collects what was read; the reader's thread writes, the view's reads.

    Args:
        capacity: how many records the live stream will have.
        clock: seconds since the epoch.
    """

    capacity: int
    clock: Callable[[], float]
    scored: int = 0
    refused: int = 0
    alerts: int = 0
    caught: int = 0
    timings: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.latency_seconds: Floats = np.full(self.capacity, np.nan)  # by number of the live record
        self._lately: deque[tuple[float, Floats]] = deque()
        self._alerts: deque[Alert] = deque(maxlen=1_000)
        self._letters: deque[str] = deque(maxlen=KEPT_LETTERS)
        self._samples: deque[Sample] = deque()
        self._lock = threading.Lock()

    def add_scored(self, numbers: Ints, latency_seconds: Floats, timings: dict[str, int], alerts: Sequence[Alert], fraud: Mask) -> None:
        """Take scored events of the live stream.

        Args:
            numbers: shape (n,): theirs in the live stream.
            latency_seconds: shape (n,): from being sent to being read.
            timings: how many of them were on time, late, too late.
            alerts: those at or above the threshold.
            fraud: which of the alerts were planted frauds.
        """
        with self._lock:
            self.scored += len(numbers)
            self.alerts += len(alerts)
            self.caught += int(np.count_nonzero(fraud))
            self.latency_seconds[numbers] = latency_seconds
            self._lately.append((self.clock(), latency_seconds))
            self._alerts.extend(alerts)
            for name, count in timings.items():
                self.timings[name] = self.timings.get(name, 0) + count

    def add_letter(self, reason: str, words: str) -> None:
        """Take a dead letter of the live stream."""
        with self._lock:
            self.refused += 1
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            self._letters.append(words)

    def snapshot(
        self,
        elapsed_seconds: float,
        seconds: float,
        kinds: NDArray[np.int8],
        event_ms: Ints,
        cpu_seconds: float,
        reported: int,
        counters: Counters,
    ) -> Snapshot:
        """How things stand.

        Args:
            elapsed_seconds: since the live stream began.
            seconds: how long it will last.
            kinds: shape (sent,): what was sent so far.
            event_ms: shape (sent,): with which event times.
            cpu_seconds: what the worker's process has used since it started.
            reported: how many reports were sent.
            counters: what the worker says of itself.
        """
        with self._lock:
            now, sent = self.clock(), len(kinds)
            rates = self._rates(Sample(now, sent, self.scored + self.refused, cpu_seconds))
            p50, p99 = self._latencies(now)
            latest = int(event_ms.max()) if sent else 0
            simulated = (latest - int(event_ms[0])) / 1_000 if sent else 0.0
            return Snapshot(
                elapsed_seconds=elapsed_seconds,
                seconds=seconds,
                sent=sent,
                scored=self.scored,
                refused=self.refused,
                sent_rate=rates[0],
                answered_rate=rates[1],
                p50_ms=p50,
                p99_ms=p99,
                cpu_us=rates[2],
                event_ms=latest,
                speed_up=simulated / elapsed_seconds if elapsed_seconds > 0 else 0.0,
                alerts=self.alerts,
                planted=int(np.isin(kinds, FRAUDS).sum()),
                caught=self.caught,
                timings=dict(self.timings),
                reasons=dict(sorted(self.reasons.items(), key=lambda each: -each[1])),
                highest=self._highest(now),
                letters=tuple(reversed(self._letters)),
                reported=reported,
                counters=counters,
            )

    def _rates(self, sample: Sample) -> tuple[float, float, float]:
        """Records sent and answered a second, and the worker's microseconds for an answer, lately."""
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].at <= sample.at - LATELY_SECONDS:
            self._samples.popleft()
        first = self._samples[0]
        seconds, answered = sample.at - first.at, sample.answered - first.answered
        if seconds <= 0:
            return 0.0, 0.0, float("nan")
        cpu_us = (sample.cpu_seconds - first.cpu_seconds) / answered * 1e6 if answered else float("nan")
        return (sample.sent - first.sent) / seconds, answered / seconds, cpu_us

    def _latencies(self, now: float) -> tuple[float, float]:
        while self._lately and self._lately[0][0] < now - LATELY_SECONDS:
            self._lately.popleft()
        lately = np.concatenate([each for _, each in self._lately] or [np.empty(0)])
        if not len(lately):
            return float("nan"), float("nan")
        p50, p99 = np.quantile(lately, (0.5, 0.99)) * 1e3
        return float(p50), float(p99)

    def _highest(self, now: float) -> tuple[Alert, ...]:
        """The highest scores lately."""
        while self._alerts and self._alerts[0].read_at < now - ALERT_SECONDS:
            self._alerts.popleft()
        return tuple(sorted(self._alerts, key=lambda each: -each.score)[:KEPT_ALERTS])
