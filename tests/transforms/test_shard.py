"""The state of a shard as a bounded cache: what may leave, what must stay, and what a store that fails leaves behind."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.columns import Columns, Constant, Mask, Nullable, PackedBytes
from schemas.errors import StoreDown, TooManyRecords
from tests.oracles.play import SHARD, Event, assert_same_bits, columns_of, expected, play
from transforms import directory
from transforms.aggregate import Count, Distinct, Mean, Min, Std, Sum
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.memory_store import MemoryStore
from transforms.shard import Advance, ShardState
from transforms.window import Window

amount = FixedPoint("amount", 1, 1_000)
COUNTED = Entity("e", "key", (Window(1_000),), (Count(),))
OTHER = Entity("other", "shop", (Window(1_000),), (Count(),))


class Watched(MemoryStore):
    """Notes which reads happen, and fails those of one entity when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int]] = []
        self.down: str | None = None
        self.claim(SHARD, {})

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        self.reads.append((entity, len(keys)))
        if entity == self.down:
            raise StoreDown("no answer")
        return super().read(shard, entity, keys)


class Owner:
    """Sends batches and settles them when told to."""

    def __init__(self, entities: tuple[Entity, ...], max_keys: int, store: Watched | None = None) -> None:
        self.store = store or Watched()
        self.state = ShardState(SHARD, entities, self.store, "t", max_keys)
        self.position = 0

    def send(self, *events: Event, settle: bool = True) -> Advance:
        first, end = self.position, self.position + len(events)
        done = self.state.advance(columns_of(events, 1), np.ones(len(events), np.bool_), np.arange(first, end))
        self.position = end
        self.store.write(SHARD, done.writes, end)
        if settle:
            self.settle()
        return done

    def settle(self) -> None:
        self.store.settle(SHARD)
        self.state.acknowledge(self.position)


def keys(*numbers: int) -> list[Event]:
    return [Event(key, 10, key) for key in numbers]


def test_a_batch_reads_all_its_missing_keys_in_one_call_for_each_entity() -> None:
    owner = Owner((COUNTED, OTHER), 100)
    owner.send(*keys(1, 2, 3, 2, 1))
    owner.send(*keys(3, 4, 4, 5))
    owner.send(*keys(1, 5))
    assert owner.store.reads == [("e", 3), ("other", 3), ("e", 2), ("other", 2)]


def test_the_least_lately_used_keys_leave_first() -> None:
    owner = Owner((COUNTED,), 3)
    for key in (1, 2, 3, 1, 4):  # 4 drives 2 out
        owner.send(*keys(key))
    assert owner.state.resident_keys == {"e": 3}
    owner.store.reads.clear()
    owner.send(*keys(1, 3, 4))
    assert owner.store.reads == []
    assert owner.send(*keys(2)).features.tolist() == [[2.0]]
    assert owner.store.reads == [("e", 1)]


def test_keys_of_unsettled_batches_stay_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    owner = Owner((COUNTED,), 2)
    with caplog.at_level(logging.WARNING):
        for key in range(1, 6):
            owner.send(*keys(key), settle=False)
    assert owner.state.resident_keys == {"e": 5}
    assert [record.getMessage().split(" reason")[0] for record in caplog.records] == [
        "more keys than max_keys entity=e shard=s resident_keys=3 max_keys=2"
    ]
    owner.settle()
    owner.send(*keys(6))
    assert owner.state.resident_keys == {"e": 2}


def test_a_key_that_was_only_looked_at_by_an_unsettled_batch_stays_too() -> None:
    owner = Owner((COUNTED,), 1)
    owner.send(Event(1, 500, 1))
    owner.send(Event(1, 10, 1), settle=False)  # too late: writes nothing
    owner.send(Event(2, 500, 1), settle=False)
    assert owner.state.resident_keys == {"e": 2}


def test_rows_at_and_after_the_acknowledged_position_are_not_settled() -> None:
    owner = Owner((COUNTED,), 1)
    owner.send(*keys(1, 1), settle=False)
    owner.state.acknowledge(1)  # holds position 0 only; the key was touched at 1
    owner.send(*keys(2), settle=False)
    assert owner.state.resident_keys == {"e": 2}


def test_a_store_that_does_not_answer_leaves_nothing_half_done() -> None:
    owner = Owner((COUNTED, OTHER), 100)
    owner.send(*keys(1, 2))
    owner.store.down = "other"
    for _ in range(3):
        with pytest.raises(StoreDown):
            owner.send(*keys(1, 2, 3, 4, 3))
    owner.store.down = None
    assert owner.send(*keys(1, 2, 3, 4, 3)).features.tolist() == [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]


def test_an_empty_batch_is_nothing() -> None:
    done = Owner((COUNTED, OTHER), 100).send()
    assert done.features.shape == (0, 2)
    assert done.writes == ()


def test_a_key_with_more_events_than_declared_stops_by_name() -> None:
    entity = Entity("e", "key", (Window(1_000),), (Count(),), max_records=5)
    owner = Owner((entity,), 100)
    owner.send(*[Event(1, t, 0) for t in range(5)])
    with pytest.raises(TooManyRecords, match="e key 1 has more than 5 events within 1002 ms: raise max_records"):
        owner.send(Event(2, 6, 0), Event(1, 6, 0))


def test_it_is_named_too_where_there_is_nothing_but_memory() -> None:
    entity = Entity("e", "key", (Window(1_000),), (Count(),), max_records=2)
    events = [Event(key, t, 0) for t, key in enumerate((3, 2, 1, 3, 2, 1, 2, 3))]
    state = ShardState(SHARD, (entity,), None, "t", 100)
    with pytest.raises(TooManyRecords, match=r"e key [23] has more than 2 events"):
        state.advance(columns_of(events, 1), np.ones(len(events), np.bool_), np.arange(len(events)))


def test_a_stored_key_with_more_events_than_is_declared_by_now_stops_by_name_too() -> None:
    before = Owner((COUNTED,), 100)
    before.send(*[Event(1, t, 0) for t in range(500)], *keys(2))
    less = Entity("e", "key", (Window(1_000),), (Count(),), max_records=2)
    after = Owner((less,), 100, before.store)
    after.position = before.position
    assert after.send(*keys(2)).features.tolist() == [[2.0]]
    with pytest.raises(TooManyRecords, match="e key 1 has more than 2 events"):
        after.send(Event(1, 500, 0))


def test_only_events_within_reach_count_against_what_is_declared() -> None:
    entity = Entity("e", "key", (Window(10),), (Count(),), max_records=13)
    assert Owner((entity,), 100).send(*[Event(1, t, 0) for t in range(200)]).features[-1, 0] == 10.0


def test_thousands_of_keys_that_come_and_go_are_each_found_again() -> None:
    # More keys than a first table holds, a cache for a third of them, hot and cold ones, late ones, growing blocks.
    chance = random.Random(5)
    entity = Entity("e", "key", (Window(3_000), Window(9_000, 500)), (Count(), Sum(amount), Min(amount), Std(amount)), 200)
    hot = Entity("hot", "shop", (Window(4_000, grid_ms=40),), (Count(), Mean(amount)), 200)
    log = [
        Event(
            int(1_500 * chance.random() ** 3),
            t * 3 - (chance.randrange(150) if chance.random() < 0.05 else 0),
            chance.randrange(-900, 900),
        )
        for t in range(6_000)
    ]
    cuts = sorted(chance.sample(range(1, 6_000), 40))
    found, timing = play(log, (entity, hot), cuts, max_keys=400, restarts=cuts[::9])
    wanted, judged = expected(log, (entity, hot))
    assert_same_bits(found, wanted, (*entity.feature_names, *hot.feature_names))
    assert timing.tolist() == judged.tolist()
    assert len({e.key for e in log}) > 1_000


def test_calls_may_come_from_any_thread() -> None:
    owner = Owner((COUNTED,), 100)
    found = []
    for t in range(4):
        thread = threading.Thread(target=lambda t=t: found.append(owner.send(Event(1, t, 0)).features[0, 0]))
        thread.start()
        thread.join()
    assert found == [1.0, 2.0, 3.0, 4.0]


def test_columns_may_come_in_any_form() -> None:
    usable: Mask = np.array([True, False, True])
    every = Entity("e", ("key", "shop"), (Window(1_000),), (Count(), Sum(amount), Distinct("shop")))
    state = ShardState("s", (every,), Watched(), "t", 10)
    columns: Columns = {
        "key": Constant(b"k", 3),
        "shop": Nullable(PackedBytes.pack([b"a", b"", b"a"]), usable),
        "t": Nullable(np.array([5, 0, 6]), usable),
        "amount": Nullable(np.array([1.0, np.nan, 2.0], np.float32), usable),
    }
    assert state.advance(columns, usable, np.arange(3)).features.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [2.0, 3.0, 1.0]]


def test_an_event_without_its_key_has_the_declared_values_and_no_past() -> None:
    device = Entity("d", ("key", "place"), (Window(1_000),), (Count(empty=-1.0), Sum(amount)), missing_key="absent")
    owner = Owner((device,), 10)
    there = np.array([True, True, False, True, True])
    columns: Columns = {
        "key": Nullable(PackedBytes.pack([b"a", b"", b"", b"a", b"a"]), there),  # null in row 2, empty in row 1
        "place": Nullable(np.array([1, 1, 1, 1, 1]), np.array([True, True, True, True, False])),
        "t": np.array([5, 6, 7, 8, 9]),
        "amount": np.array([10, 20, 30, 40, 50]),
    }
    done = owner.state.advance(columns, np.array([True, True, True, True, True]), np.arange(5))
    assert done.features.tolist() == [[1.0, 10.0], [-1.0, 0.0], [-1.0, 0.0], [2.0, 50.0], [-1.0, 0.0]]
    assert done.timing.tolist() == [0] * 5
    assert owner.state.resident_keys == {"d": 1}
    strict = Owner((replace(device, missing_key="refuse"),), 10)
    with pytest.raises(ValueError, match="key column 'key' is null in 1 usable rows"):
        strict.state.advance(columns, np.ones(5, np.bool_), np.arange(5))


def test_entities_side_by_side_each_look_at_the_rows_that_have_their_key() -> None:
    other = replace(OTHER, missing_key="absent", aggregates=(Count(empty=-1.0),))
    owner = Owner((COUNTED, other), 10)
    columns = {**columns_of([Event(1, t, 1) for t in range(3)], 1), "shop": Nullable(Constant(b"s", 3), np.array([True, False, True]))}
    usable = np.array([True, True, False])
    assert owner.state.advance(columns, usable, np.arange(3)).features.tolist() == [[1.0, 1.0], [2.0, -1.0], [0.0, 0.0]]


def test_memory_is_given_back_to_keys_that_come_later() -> None:
    owner = Owner((COUNTED,), 50)
    sizes = []
    for turn in range(40):
        for _ in range(3):
            owner.send(*[Event(1_000 * turn + key, turn, 0) for key in range(50)])
        sizes.append(owner.state.size_bytes)
    assert sizes[-1] == sizes[5]


def test_a_directory_finds_what_is_there_and_nothing_else_after_any_removals() -> None:
    chance = random.Random(3)
    table, slots = np.zeros(64, np.int64), 31
    hashes = np.zeros((slots, 2), np.uint64)
    free, present = list(range(slots)), dict[int, int]()
    for _ in range(4_000):
        if present and chance.random() < 0.5:
            key = chance.choice(list(present))
            directory.remove(np.array([present[key]]), table, hashes)
            free.append(present.pop(key))
        elif free:
            key = chance.choice([k for k in range(80) if k not in present])
            slot_of, rows = np.empty(1, np.int64), np.empty(1, np.int64)
            # Homes crowd at the end of the table, so that chains run around it.
            word = np.array([[60 + key % 5, key]], np.uint64)
            assert directory.find_or_add(word, table, hashes, np.array(free), len(free), slot_of, rows) == 1
            present[key] = int(slot_of[0])
            free.remove(present[key])
        asked = np.array([[60 + key % 5, key] for key in present], np.uint64).reshape(-1, 2)
        slot_of, rows = np.empty(len(present), np.int64), np.empty(len(present), np.int64)
        assert directory.find_or_add(asked, table, hashes, np.empty(0, np.int64), 0, slot_of, rows) == 0
        assert slot_of.tolist() == list(present.values())
        assert np.count_nonzero(table) == len(present)
