"""From what was seen to figures: a drain's stretch, and latencies from stamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.columns import Floats, Ints

QUIET_SECONDS = 0.15
SEARCHED_SHARE = 0.25
WARM_UP_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at a moment of a drain."""

    at: float  # seconds, monotonic
    count: int  # answers so far
    cpu: float  # seconds of the peer so far
    kafka_cpu: float
    redis_cpu: float


@dataclass(frozen=True, slots=True)
class Drained:
    """A drain's figures."""

    events: int
    events_per_s: float
    cpu_us_per_event: float
    kafka_cpu_us_per_event: float
    redis_cpu_us_per_event: float


def drained(samples: Sequence[Sample], history: int) -> Drained | None:
    """The figures from the end of the history to the last answer; None = nothing came after the history.

    Peers that commit at intervals answer in lumps, and a cut within a lump would count some of it without its time. So the stretch ends
    when the last answer came, and begins, if there is such a moment in its first quarter, when a lump had passed.
    """
    rises = [each for place, each in enumerate(samples) if each.count >= history and (not place or each.count > samples[place - 1].count)]
    if len(rises) < 2:
        return None
    last = rises[-1]
    early = [each for each in rises[:-1] if each.count <= history + SEARCHED_SHARE * (last.count - history)]
    after = rises[1 : len(early) + 1]
    first = next((each for each, following in zip(early, after, strict=True) if following.at - each.at > QUIET_SECONDS), rises[0])
    events, seconds = last.count - first.count, last.at - first.at
    if not events:
        return None
    return Drained(
        events=events,
        events_per_s=events / seconds,
        cpu_us_per_event=(last.cpu - first.cpu) / events * 1e6,
        kafka_cpu_us_per_event=(last.kafka_cpu - first.kafka_cpu) / events * 1e6,
        redis_cpu_us_per_event=(last.redis_cpu - first.redis_cpu) / events * 1e6,
    )


def latencies_ms(numbers: Ints, seen_at: Floats, first: int, count: int, begin: float, rate: float) -> Floats:
    """How long after it was due each payment's answer was seen, the first fifth cut.

    A payment `number` was due at `begin` + (number - first) / rate, whenever it was really sent: a stalled peer, and a late feeder, are
    not forgiven. Answers to other payments are passed over.
    """
    place = numbers - first
    counted = (place >= WARM_UP_SHARE * count) & (place < count)
    return np.asarray((seen_at[counted] - (begin + place[counted] / rate)) * 1e3)


def missing_and_twice(numbers: Ints, sent: int) -> tuple[int, int]:
    """How many of the payments 0 to `sent` have no answer, and how many answers are one too many."""
    seen = np.unique(numbers)
    return sent - len(seen), len(numbers) - len(seen)
