"""The source: what it makes of what the client brings."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, cast

import pytest

from streams.batch import Batch
from streams.kafka import KafkaError
from streams.ownership import InFlight, Ownership
from streams.reading import Reading
from streams.source import Source
from tests.streams.batches import batch_of


@dataclass(frozen=True)
class Brought:
    """A record as the client gives it."""

    at: int

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class Ended(Brought):
    """The end of a partition, as the client gives it."""

    def error(self) -> Any:
        return KafkaError(KafkaError._PARTITION_EOF)


def batches_of(source: Source, offsets: list[int]) -> list[Batch]:
    return list(source._batches(cast(Any, [Brought(at) for at in offsets])))


@pytest.fixture
def source() -> Source:
    nobody = cast(Any, None)
    made = Source("payments", nobody, nobody, Ownership(), InFlight(3), nobody, 100, 1.0, nobody)
    made._ownership.grant(0)
    made.reading[0] = Reading(position=5, live_from=5, committed=-1)
    return made


def test_records_before_the_position_are_not_read_again(source: Source) -> None:
    (batch,) = batches_of(source, [3, 4, 5, 6, 9])
    assert batch.offsets.tolist() == [5, 6, 9]
    assert source.reading[0].position == 10


def test_an_end_behind_markers_goes_along_with_records_or_alone_when_nothing_comes(source: Source) -> None:
    def spans(*messages: Brought) -> list[tuple[int, int]]:
        return [(len(batch), batch.spans[0].next_offset) for batch in source._batches(cast(Any, list(messages)))]

    assert spans(Brought(5), Brought(6)) == [(2, 7)]
    assert spans(Ended(8)) == [], "a transaction for a marker alone"
    assert spans(Brought(8), Ended(10)) == [(1, 10)]
    assert spans(Ended(12)) == []
    assert spans() == [(0, 12)], "the marker would look like lag for ever"
    assert spans() == []


def test_a_small_batch_with_none_under_way_is_alone_and_the_next_waits_until_it_has_ended(source: Source) -> None:
    handed: list[tuple[int, bool]] = []
    source._hand_on = lambda batch, alone: handed.append((len(batch), alone))
    small, large = batch_of([b"v"] * 24), batch_of([b"v"] * 25)  # a quarter of the most records is large
    source._send_on(small)
    assert not source._in_flight.room(0.0, 1), "nobody else may begin"
    source._in_flight.leave()
    source._send_on(large)
    source._send_on(small)
    source._in_flight.leave()
    source._send_on(small)
    assert handed == [(24, True), (25, False), (24, False), (24, False)], "one that others are under way before goes after them"


def test_the_next_of_a_small_batch_finds_no_room_before_it_has_ended(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.source.ROOM_SECONDS", 0.05)
    source._hand_on = lambda batch, alone: None
    source._send_on(batch_of([b"v"] * 25))
    assert source._room(), "a large one leaves room beside it"
    source._send_on(batch_of([b"v"]))
    source._in_flight.leave()
    assert not source._room()
    source._in_flight.leave()
    assert source._room()


def test_an_empty_partition_is_committed_so_that_others_know_that_it_is_read(source: Source) -> None:
    source.reading[0] = Reading(position=0, live_from=0, committed=-1)
    assert list(source._batches(cast(Any, [Ended(0)]))) == []
    (batch,) = source._batches([])
    assert (len(batch), batch.spans[0].next_offset) == (0, 0)
    assert list(source._batches([])) == []


def test_the_end_of_a_quiet_partition_goes_along_with_the_records_of_another(source: Source) -> None:
    source._ownership.grant(1)
    source.reading[1] = Reading(position=3, live_from=3, committed=3)

    @dataclass(frozen=True)
    class Other(Ended):
        def partition(self) -> int:
            return 1

    assert list(source._batches(cast(Any, [Other(4)]))) == []
    (batch,) = source._batches(cast(Any, [Brought(5)]))
    assert {span.partition: span.next_offset for span in batch.spans} == {0: 6, 1: 4}


@pytest.mark.parametrize("offsets", [[5, 6, 7, 8, 5, 6], [7, 8, 5, 6], [5, 6, 6, 7]])
def test_a_client_that_goes_back_within_a_poll_has_the_partition_taken_over_again(source: Source, offsets: list[int]) -> None:
    assert batches_of(source, offsets) == []
    assert source._ownership.tokens() == {}, "what is under way of it is void"
    assert list(source._faults) == [0]
    assert source.reading[0].position == 5


def test_a_partition_that_can_not_be_read_waits_for_a_commit_that_asks_the_source_something(source: Source) -> None:
    """As under at_least_once, whose offsets are committed by the source's thread, while the commit holds the partitions."""
    source._consumer = cast(Any, "the client")
    holds = threading.Event()
    answers: list[object] = []

    def commit() -> None:
        with source._ownership.holding({0: 1}):
            holds.set()
            answers.append(source.ask(lambda consumer: consumer))

    committing = threading.Thread(target=commit, daemon=True)
    committing.start()
    assert holds.wait(10)
    reading = threading.Thread(target=lambda: source._read_error(KafkaError(KafkaError.OFFSET_OUT_OF_RANGE), 0), daemon=True)
    reading.start()
    reading.join(10)
    assert not reading.is_alive(), "each waits for the other"
    assert answers == ["the client"]
    assert list(source._faults) == [0]
