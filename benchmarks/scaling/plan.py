"""What a load takes, by the model and by what no result says: workers, brokers, shards, and which of them breaks first."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from benchmarks.scaling.model import Model


@dataclass(frozen=True, slots=True)
class Assumed:
    """What no result here says: choices, and other people's figures. Change them to yours.

    Attributes:
        busy: how full a core may be on average, so that bursts and takeovers find room.
        copies: of each partition.
        broker_cores, broker_mb_per_second: of one broker; bytes written, copies included.
        shard_gb: of memory that one Redis shard should hold, so that a replica is made in minutes.
        worker_gb: of one worker's memory for state.
        miss_us: of a worker's CPU for a key that has to be read back from Redis; of an earlier trial.
    """

    busy: float = 0.6
    copies: int = 3
    broker_cores: int = 8
    broker_mb_per_second: float = 300.0
    shard_gb: float = 25.0
    worker_gb: float = 8.0
    miss_us: float = 7.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load takes.

    Attributes:
        rate, keys: what was asked about.
        workers: processes of a core each; the input has at least so many partitions.
        worker_rate: events/s of each.
        worker_gb: of state in the memory of each, if all keys are resident.
        resident_share: of keys that fit the workers' memory; the others are read back when they come.
        brokers: by whichever is more, cores or bytes.
        broker_cores: of all brokers, copies included.
        log_mb_per_second: to all brokers' logs, copies included.
        transactions_per_second: over all workers.
        redis_shards: by whichever is more, CPU or memory.
        redis_cores: of all masters.
        redis_gb: of all masters.
        redis_mb_per_second: to all masters.
    """

    rate: float
    keys: int
    workers: int
    worker_rate: float
    worker_gb: float
    resident_share: float
    brokers: int
    broker_cores: float
    log_mb_per_second: float
    transactions_per_second: float
    redis_shards: int
    redis_cores: float
    redis_gb: float
    redis_mb_per_second: float


def plan(model: Model, rate: float, keys: int, assumed: Assumed) -> Plan:
    """What so many events/s over so many keys of each entity take."""
    state_gb = keys * model.entities * model.worker_key_bytes / 1e9

    def resident(workers: int) -> float:
        return min(1.0, workers * assumed.worker_gb / state_gb)

    def carry(workers: int) -> bool:
        missed_us = (1 - resident(workers)) * assumed.miss_us * model.entities
        return workers * model.worker_rate(assumed.busy, missed_us) >= rate

    workers = bisect_left(range(1, math.ceil(rate) + 1), True, key=carry) + 1  # more workers have room for more keys, and miss fewer
    each = rate / workers
    log = rate * model.log_bytes * assumed.copies
    # A follower takes the same bytes in and writes them, without clients to serve: as a copy's cost, the part an event has.
    broker_cores = rate * (model.cpu_us("kafka", each) + (assumed.copies - 1) * model.costs["kafka"].event_us) / 1e6 / assumed.busy
    redis_cores = rate * model.cpu_us("redis", each) / 1e6 / assumed.busy
    redis_gb = keys * model.entities * model.redis_key_bytes / 1e9
    return Plan(
        rate,
        keys,
        workers,
        each,
        state_gb / workers,
        resident(workers),
        max(math.ceil(broker_cores / assumed.broker_cores), math.ceil(log / 1e6 / assumed.broker_mb_per_second), assumed.copies),
        broker_cores,
        log / 1e6,
        rate / model.batch(each),
        max(math.ceil(redis_cores), math.ceil(redis_gb / assumed.shard_gb)),
        redis_cores,
        redis_gb,
        rate * model.redis_bytes / 1e6,
    )


def breaks_first(plan: Plan, assumed: Assumed) -> str:
    """In words: what a load asks for most, beside what one unit of it gives."""
    found = []
    if plan.resident_share < 1:
        found.append(
            f"the workers' memory: all keys would be {plan.worker_gb:,.0f} GB in each worker; with {assumed.worker_gb:g} GB, "
            f"{plan.resident_share:.0%} of them are resident, and the rest costs a read from Redis each time it comes"
        )
    if plan.redis_gb / assumed.shard_gb > plan.redis_cores:
        found.append(
            f"Redis by memory, not by CPU: {plan.redis_gb:,.0f} GB are {plan.redis_shards} shards, their cores {plan.redis_cores:.0f}"
        )
    else:
        found.append(f"Redis by CPU: {plan.redis_cores:.1f} cores' worth")
    by_bytes = plan.log_mb_per_second / assumed.broker_mb_per_second > plan.broker_cores / assumed.broker_cores
    found.append(f"the brokers by {'bytes' if by_bytes else 'CPU'}: {plan.log_mb_per_second:,.0f} MB/s, {plan.broker_cores:,.0f} cores")
    return "; ".join(found)
