"""How records read are sorted into those to replay and those to score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from streams.kafka import Record
from streams.reading import Reading, Taken


@dataclass(frozen=True)
class At:
    at: int

    def offset(self) -> int:
        return self.at


def read(reading: Reading, offsets: list[int], end: int | None = None) -> tuple[list[int] | None, int | None, list[int] | None, int | None]:
    """Offsets and next offset to replay, then those to score; None where there is no such batch."""
    old, new = Taken(), Taken()
    reading.end = end
    reading.take(0, cast(list[Record], [At(offset) for offset in offsets]), old, new)
    found = []
    for taken in (old, new):
        records = cast("list[At] | None", taken.records.get(0))
        found += [None if records is None else [record.at for record in records], taken.next_offsets.get(0)]
    return tuple(found)  # type: ignore[return-value]


def test_live_records_are_scored_and_the_next_offset_is_one_further() -> None:
    reading = Reading(position=5, live_from=5, committed=5)
    assert read(reading, [5, 6, 9]) == (None, None, [5, 6, 9], 10)
    assert reading.position == 10


def test_a_poll_across_the_committed_offset_is_cut_there() -> None:
    reading = Reading(position=3, live_from=5, committed=5)
    assert read(reading, [3, 4, 5, 6]) == ([3, 4], 5, [5, 6], 7)


def test_a_replay_that_has_not_arrived_yet_scores_nothing() -> None:
    reading = Reading(position=3, live_from=9, committed=9)
    assert read(reading, [3, 4]) == ([3, 4], 5, None, None)


def test_transaction_markers_before_the_committed_offset_end_a_replay_too() -> None:
    reading = Reading(position=3, live_from=9, committed=9)
    assert read(reading, [3, 4]) == ([3, 4], 5, None, None)
    assert read(reading, [], end=9) == ([], 9, None, None)
    assert read(reading, [], end=9) == (None, None, None, None)


def test_the_end_behind_transaction_markers_is_committed_once_so_that_lag_reaches_zero() -> None:
    reading = Reading(position=5, live_from=5, committed=5)
    assert read(reading, [5], end=7) == (None, None, [5], 7)
    assert read(reading, [], end=7) == (None, None, None, None)
    assert read(reading, [], end=8) == (None, None, [], 8)


def test_a_declared_start_is_committed_although_nothing_came() -> None:
    reading = Reading(position=900, live_from=900, committed=-1)
    assert read(reading, [], end=900) == (None, None, [], 900)
    assert read(reading, [], end=900) == (None, None, None, None)
