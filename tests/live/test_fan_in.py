"""Sixty-four partitions: one transaction a turn for all that were polled, and results that depend on the log alone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from streams.kafka import TopicPartition, plain_consumer
from tests.live.conftest import SetUp
from tests.live.scene import CUSTOMERS_ONLY, at_ms, payment, wait_for
from tests.oracles.payments import HOUR_MS, Record
from tests.redis_server import RedisServer

PARTITIONS = 64
RECORDS, MORE = 1_500, 600
START_MS = 1_704_067_200_000


def wave(first: int, count: int) -> list[dict[str, object]]:
    """Payments of three hundred customers, some of them late, a few too late."""
    made = [payment(n, customer_id=f"C{n * 37 % 311}") for n in range(first, first + count)]
    for n, each in enumerate(made, first):
        if n % 11 == 0:
            each["event_time"] = at_ms(START_MS + n * 60_000 - (n % 5) * HOUR_MS)
    return made


def by_partition(records: list[Record], skip: dict[int, int]) -> dict[int, list[tuple[bytes | None, bytes | None]]]:
    """Keys and values in each partition, in its order, from a place on."""
    found: dict[int, list[tuple[bytes | None, bytes | None]]] = defaultdict(list)
    for record in records:
        found[record.partition].append((record.key, record.value))
    return {partition: each[skip.get(partition, 0) :] for partition, each in found.items()}


def test_results_depend_on_the_log_alone_however_it_is_shared_out_and_cut(set_up: SetUp, own_redis: RedisServer) -> None:
    scene = set_up(partitions=PARTITIONS, changes=CUSTOMERS_ONLY)
    scene.send_payments(wave(0, RECORDS))
    alone = scene.worker("alone", WORKER__BATCH_RECORDS="2000")
    scene.drained(alone)

    commits, batches = (alone.metric(f"millrace_{what}_count") for what in ("commit_seconds", "batch_records"))
    scene.send_payments(wave(RECORDS, MORE))
    scene.drained(alone)
    turns = alone.metric("millrace_commit_seconds_count") - commits
    assert turns <= alone.metric("millrace_batch_records_count") - batches, "one transaction for each batch"
    assert turns < PARTITIONS, "and a batch for all partitions polled"
    assert alone.stop() == 0
    assert scene.faults() == []
    first = by_partition(scene.outputs(), {})
    assert len(first) == PARTITIONS

    # The same log once more, by another group into a state of its own: two workers, other batches, another assignment half-way.
    again: dict[str, Any] = {"KAFKA__GROUP": f"{scene.name}-again", "REDIS__URL": own_redis.url, "WORKER__BATCH_RECORDS": "70"}
    pair = [scene.worker(name, **again) for name in ("left", "right")]
    for worker in pair:
        worker.says("taken_over", PARTITIONS // 4)
    assert pair[0].stop() == 0
    ends, asks = scene.ends(), plain_consumer(scene.settings.kafka, again["KAFKA__GROUP"])
    places = [TopicPartition(scene.bound.input.name, partition) for partition in ends]
    wait_for("all of it again", lambda: all(tp.offset >= ends[tp.partition] for tp in asks.committed(places, 10.0)))
    asks.close()
    assert pair[1].stop() == 0
    second = by_partition(scene.outputs(), {partition: len(each) for partition, each in first.items()})
    assert second == first
