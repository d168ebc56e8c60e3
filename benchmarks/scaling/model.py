"""The model: what an event, a batch and a key cost, solved from results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.report.read import Result
from schemas.errors import Refused

PROCESSES = ("worker", "kafka", "redis")
MOST_RECORDS = 10_000  # `worker.batch_records`
RECORDS_A_KEY = 60


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU: for an event, and for a batch."""

    event_us: float
    batch_us: float

    def of(self, records: float) -> float:
        """For an event, in a batch of so many."""
        return self.event_us + self.batch_us / records


@dataclass(frozen=True, slots=True)
class Model:
    """What was measured.

    Attributes:
        costs: of each process.
        cycle_seconds: of a batch, if it is small.
        log_bytes: of an event, to the broker's log, one copy.
        redis_bytes: of an event, to Redis.
        redis_key_bytes, worker_key_bytes: of a key with 60 records.
        entities: of the pipeline.
    """

    costs: Mapping[str, Cost]
    cycle_seconds: float
    log_bytes: float
    redis_bytes: float
    redis_key_bytes: float
    worker_key_bytes: float
    entities: int

    def batch(self, worker_rate: float) -> float:
        """Records in a batch of a worker that is given so many events a second."""
        return min(max(worker_rate * self.cycle_seconds, 1.0), MOST_RECORDS)

    def cpu_us(self, process: str, worker_rate: float) -> float:
        """Of an event."""
        return self.costs[process].of(self.batch(worker_rate))

    def worker_rate(self, busy: float, extra_us: float = 0.0) -> float:
        """Events/s of a worker that fills so much of a core; `extra_us` is what an event costs beside what was measured.

        Where small batches alone would fill it, they have to become large ones, at the price of latency.
        """
        cost = self.costs["worker"]
        if cost.batch_us / self.cycle_seconds / 1e6 >= busy:
            return busy * 1e6 / (cost.of(MOST_RECORDS) + extra_us)
        low, high = 1.0, 1e7
        for _ in range(200):
            middle = math.sqrt(low * high)
            used = middle * (self.cpu_us("worker", middle) + extra_us) / 1e6
            low, high = (middle, high) if used <= busy else (low, middle)
        return low


def fit(results: Mapping[str, Result]) -> Model:
    """Make the model of the results.

    Raises:
        Refused: one that it is made of is missing; says which, and how to have it.
    """
    load, growth = _needed(results, "load-constant"), _needed(results, "growth")
    drain, run = load["drain"], load["run"]
    try:
        large, small = drain["records_per_batch"], run["records_per_batch"]
        costs = {name: _solve(drain[f"cpu_us_per_event {name}"], large, run["cpu_us_per_event"][name], small) for name in PROCESSES}
        log = sum(run["kafka_log_bytes_per_event"].values())
    except (KeyError, TypeError) as error:
        raise Refused(f"the newest load-constant result lacks {error}: it needs services of its own, and a drain of some length") from error
    case = next(case for case in growth["cases"] if case["records_a_key"] == RECORDS_A_KEY)
    return Model(
        costs,
        small / run["rate"],
        log,
        run["redis_bytes_per_event"],
        case["redis_bytes_a_key"],
        case["worker_bytes_a_key"],
        load["entities"],
    )


def _needed(results: Mapping[str, Result], kind: str) -> dict[str, Any]:
    if kind not in results:
        raise Refused(f"the model is made of a {kind} result, and there is none; `make bench` makes one")
    return results[kind].data


def _solve(large_us: float, large: float, small_us: float, small: float) -> Cost:
    """Event and batch from two measurements; neither is below zero, whatever noise there was."""
    if large <= small:
        raise Refused(
            f"the drain's batches have {large:g} records, the steady run's {small:g}: wanted larger ones, to tell the parts apart"
        )
    batch = max((small_us - large_us) / (1 / small - 1 / large), 0.0)
    return Cost(max(large_us - batch / large, 0.0), batch)
