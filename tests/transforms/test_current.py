"""What keys look like from outside is what the definition says of a time: the windows without an event of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import PackedBytes
from schemas.errors import LostBlock
from tests.oracles.play import SHARD, Event, assert_same_bits, expected_labels, play_labels
from transforms.aggregate import Count, Distinct, LabelCount, LabelRate, Last, Max, Mean, Min, RatePerDay, RatioToMean, Std, Sum
from transforms.current import Looking
from transforms.entity import Entity, Guard
from transforms.fixed_point import FixedPoint
from transforms.keys import key_hashes, key_ids
from transforms.memory_store import MemoryStore
from transforms.window import Window

AMOUNT = FixedPoint("amount", 100, 1000)
EXACT = (
    Count(),
    Sum(AMOUNT),
    Mean(AMOUNT),
    Std(AMOUNT, -1.0),
    Min(AMOUNT),
    Max(AMOUNT),
    Last(AMOUNT),
    Distinct("shop"),
    RatioToMean(AMOUNT, 7.0),
)
COARSE = (Count(), RatePerDay(), Mean(AMOUNT), Max(AMOUNT, -2.0))
LABELLED = (Count(), Sum(AMOUNT), LabelCount(), LabelRate(-1.0))

events = st.builds(Event, st.integers(0, 3), st.integers(0, 60), st.integers(-500, 500), arrived=st.just(30), id=st.integers(0, 9))
labels = st.builds(Event, st.integers(0, 3), st.integers(0, 60), st.just(0), id=st.integers(0, 9), label=st.integers(0, 1))
spans = st.lists(
    st.builds(lambda length, delay, own: Window(length, delay, 1, own), st.integers(1, 40), st.just(0) | st.integers(1, 20), st.booleans()),
    min_size=1,
    max_size=3,
    unique_by=lambda window: window.suffix,
)


def asked(numbers: list[int]) -> PackedBytes:
    return key_ids(["key"], [PackedBytes.pack([f"key {number}".encode() for number in numbers])])


def hold_to_the_oracle(log: list[Event], entity: Entity, at: int) -> None:
    store = MemoryStore()
    play_labels(log, [entity], [], scale=100, store=store)
    ids = asked([3, 0, 1, 2])
    hashes = key_hashes(ids)
    looking = Looking(entity)
    outside = replace(entity, windows=tuple(dict.fromkeys(replace(window, include_self=False) for window in entity.windows)))
    names = [f.name for f in outside.features]
    for _ in range(2):  # nothing stays behind from one question to the next
        found = looking.at(ids, hashes, store.read(SHARD, entity.name, hashes), at)
        for row, key in enumerate((3, 0, 1, 2)):
            wanted = expected_labels([*log, Event(key, at, 0, arrived=at)], [outside]).features[-1]
            by_name = dict(zip(names, wanted, strict=True))
            row_wanted = []
            for window in entity.windows:
                for place, aggregate in enumerate(entity.aggregates):
                    name = outside.features[
                        outside.windows.index(replace(window, include_self=False)) * len(entity.aggregates) + place
                    ].name
                    row_wanted.append(aggregate.empty if isinstance(aggregate, RatioToMean) else by_name[name])
            assert_same_bits(found.features[row : row + 1], np.array([row_wanted]), entity.feature_names)


@settings(max_examples=60)
@given(st.lists(events, max_size=30), spans, st.integers(0, 15), st.integers(0, 80), st.none() | st.builds(Guard, st.just(20), st.just(20)))
def test_exact_windows(log: list[Event], windows: list[Window], lateness: int, at: int, guard: Guard | None) -> None:
    hold_to_the_oracle(log, Entity("e", "key", tuple(windows), EXACT, lateness, guard=guard), at)


@settings(max_examples=30)
@given(st.lists(events, max_size=30), st.integers(0, 15), st.integers(0, 80))
def test_windows_on_a_grid(log: list[Event], lateness: int, at: int) -> None:
    windows = (Window(20, grid_ms=5), Window(20, grid_ms=5, include_self=False), Window(30, 10, 10))
    hold_to_the_oracle(log, Entity("e", "key", windows, COARSE, lateness), at)


@settings(max_examples=40)
@given(st.lists(events | labels, max_size=30), spans, st.integers(0, 80))
def test_windows_over_labels(log: list[Event], windows: list[Window], at: int) -> None:
    hold_to_the_oracle(log, Entity("e", "key", tuple(windows), LABELLED, 5), at)


def test_how_much_is_remembered_and_from_when_it_is_looked_at() -> None:
    entity = Entity("e", "key", (Window(100),), (Count(),), lateness_ms=10)
    store = MemoryStore()
    play_labels([Event(1, 50, 1), Event(1, 80, 1), Event(1, 75, 1)], [entity], [], scale=100, store=store)
    ids = asked([1, 9])
    found = Looking(entity).at(ids, key_hashes(ids), store.read(SHARD, "e", key_hashes(ids)), 60)
    assert found.events.tolist() == [3, 0]
    assert found.newest_ms[0] == 80
    assert found.evaluated_ms.tolist() == [70, 60], "a key does not look back further than its lateness"
    assert found.features.tolist() == [[1.0], [0.0]]


def test_a_key_that_is_full_can_be_looked_at() -> None:
    entity = Entity("e", "key", (Window(100),), (Count(), Distinct("shop")), max_records=3)
    store = MemoryStore()
    play_labels([Event(1, n, n) for n in range(3)], [entity], [], scale=100, store=store)
    ids = asked([1])
    assert Looking(entity).at(ids, key_hashes(ids), store.read(SHARD, "e", key_hashes(ids)), 5).features.tolist() == [[3.0, 3.0]]


def test_a_block_of_another_format_is_refused_and_nothing_of_it_stays() -> None:
    entity = Entity("e", "key", (Window(100),), (Count(),))
    store = MemoryStore()
    play_labels([Event(1, 50, 1)], [entity], [], scale=100, store=store)
    ids = asked([1])
    (block,) = store.read(SHARD, "e", key_hashes(ids))
    looking = Looking(entity)
    with pytest.raises(LostBlock, match="another format"):
        looking.at(ids, key_hashes(ids), PackedBytes.pack([b"MILLRC\0\xff" + block[8:]]), 60)
    assert looking.at(ids, key_hashes(ids), PackedBytes.pack([block]), 60).features.tolist() == [[1.0]]
