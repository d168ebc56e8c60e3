"""What a worker that did not leave cleanly may have left open is ended by whoever takes its partitions, once and as often as it dies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from streams import takeover
from streams.kafka import Consumer, KafkaDown, KafkaError, KafkaException, TopicPartition
from streams.refusals import Refusals
from streams.takeover import PartitionTakeover
from transforms.memory_store import Memory, MemoryStore


class Log:
    """Partitions of five records, all committed."""

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition, 5) for place in places]

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, 5


class Workers:
    """Some on one store, and the names of producers that were ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.is_away = False
        self._memory = Memory()

    def worker(self, name: str) -> PartitionTakeover:
        return PartitionTakeover(
            topic="payments",
            store=MemoryStore(self._memory),
            state="state",
            pipeline="pipeline",
            refusals=Refusals(),
            declared="earliest",
            on_conflict="rebuild",
            producers=(f"{name}-0", f"{name}-1"),
            fence=self._fence,
        )

    def _fence(self, names: Iterable[str]) -> None:
        if self.is_away:
            raise KafkaDown("nobody answers")
        self.ended += names


def take(worker: PartitionTakeover, *partitions: int) -> None:
    for partition in partitions:
        worker.take(cast(Consumer, Log()), partition)


def test_a_dead_workers_producers_are_ended_once_for_all_the_partitions_it_leaves() -> None:
    workers = Workers()
    take(workers.worker("dead"), 0, 1, 2)
    assert workers.ended == []
    take(workers.worker("successor"), 0, 1, 2)
    assert workers.ended == ["dead-0", "dead-1"]


def test_who_left_cleanly_and_who_came_back_under_its_own_name_is_let_be() -> None:
    workers = Workers()
    left = workers.worker("left")
    take(left, 0)
    left.release(0)
    take(workers.worker("successor"), 0)
    take(workers.worker("successor"), 0)
    assert workers.ended == []


def test_one_that_came_back_and_died_again_is_ended_again_however_soon() -> None:
    workers = Workers()
    successor = workers.worker("successor")
    for deaths in (1, 2, 3):
        take(workers.worker("dead"), 0, 1)
        take(successor, 0, 1)
        assert workers.ended == ["dead-0", "dead-1"] * deaths
        successor.release(0)
        successor.release(1)


def test_on_another_partition_it_is_ended_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers()
    successor = workers.worker("successor")
    take(workers.worker("dead"), 0, 1)
    take(successor, 0)
    monkeypatch.setattr(takeover, "ENDED_SECONDS", -1.0)  # it is longer ago than that
    take(successor, 1)
    assert workers.ended == ["dead-0", "dead-1"] * 2


def test_names_are_remembered_until_their_producers_could_be_ended() -> None:
    workers = Workers()
    take(workers.worker("dead"), 0)
    successor = workers.worker("successor")
    workers.is_away = True
    for _ in range(2):
        with pytest.raises(KafkaDown):
            take(successor, 0)
    workers.is_away = False
    take(successor, 0)
    assert workers.ended == ["dead-0", "dead-1"]


def test_one_whose_open_transaction_is_waited_for_is_ended_and_asked_again() -> None:
    class Open(Log):
        answers = 0

        def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            self.answers += 1
            if self.answers == 1:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "an open transaction"))
            assert workers.ended == ["dead-0", "dead-1"]
            return super().committed(places, timeout)

    workers = Workers()
    take(workers.worker("dead"), 0)
    found = workers.worker("successor").take(cast(Consumer, Open()), 0)
    assert found.live_from == 5
