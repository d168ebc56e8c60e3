"""Labels: what they set, what they leave alone, and that the definition says the same of any log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import Columns, Constant, Nullable, PackedBytes, Symbols
from schemas.errors import TooManyRecords
from tests.oracles.blocks import Shape, block_of_format_2, records_of
from tests.oracles.labelled_logs import entities, labelled_logs
from tests.oracles.play import SHARD, Event, assert_same, columns_of, expected_labels, labels_of, play_labels
from transforms.aggregate import Count, Distinct, LabelCount, LabelRate
from transforms.block import HEADER_BYTES
from transforms.entity import Entity
from transforms.label import LabelRows, event_id_hashes
from transforms.memory_store import MemoryStore
from transforms.shard import Advance, ShardState
from transforms.store import WHOLE_BLOCK, Writes
from transforms.window import Window

RISK = Entity("shop", "key", (Window(10, delay_ms=7),), (Count(), LabelCount(), LabelRate(empty=-1.0)), lateness_ms=5)


def event(event_id: int, t: int, key: int | None = 1) -> Event:
    return Event(key, t, 0, id=event_id)


def label(event_id: int, t: int, value: int, key: int | None = 1) -> Event:
    return Event(key, t, 0, id=event_id, label=value)


def seen(log: Sequence[Event], entity: Entity = RISK) -> tuple[list[list[float]], list[int], list[int]]:
    """The features of the events of a log, and which rows are unmatched and repeated labels."""
    played = play_labels(log, (entity,), range(len(log)))
    events = [row for row, each in enumerate(log) if each.label is None]
    return played.features[events].tolist(), np.flatnonzero(played.unmatched).tolist(), np.flatnonzero(played.repeated).tolist()


def last_seen(*log: Event) -> list[float]:
    return seen(log)[0][-1]


# Where labels fall. One key; numbers are ids of events, L1 a label of 1 for event 1, x the event that looks.


def test_an_event_sees_the_labels_that_came_before_it_in_the_log() -> None:
    #   0   1   2   ...   8
    #   1   2   3   L2    x     (8-7-10, 8-7] holds 1 and 2
    assert last_seen(event(1, 0), event(2, 1), event(3, 2), label(2, 1, 1), event(4, 8)) == [2.0, 1.0, 0.5]


def test_a_label_that_comes_after_an_event_is_seen_by_later_events_only() -> None:
    features, unmatched, repeated = seen([event(1, 0), event(2, 7), label(1, 0, 1), event(3, 7)])
    assert features == [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert (unmatched, repeated) == ([], [])


def test_a_label_on_an_event_within_the_delay_is_not_seen_yet() -> None:
    assert last_seen(event(1, 2), label(1, 2, 1), event(2, 8)) == [0.0, 0.0, -1.0]
    assert last_seen(event(1, 1), label(1, 1, 1), event(2, 8)) == [1.0, 1.0, 1.0]


def test_the_last_label_in_the_log_wins() -> None:
    log = [event(1, 0), label(1, 0, 1), event(2, 7), label(1, 0, 0), event(3, 7), label(1, 0, 1), event(4, 7)]
    features, unmatched, repeated = seen(log)
    assert [row[1] for row in features] == [0.0, 1.0, 0.0, 1.0]
    assert (unmatched, repeated) == ([], [])


def test_a_first_label_of_0_is_not_repeated_and_a_second_is() -> None:
    assert seen([event(1, 0), label(1, 0, 0), label(1, 0, 0), label(1, 0, 1), label(1, 0, 1)])[1:] == ([], [2, 4])


def test_a_label_that_finds_no_event_changes_nothing() -> None:
    log = [
        label(1, 0, 1),  # nothing of the key is known
        event(1, 0),
        label(2, 0, 1),  # before its event
        event(2, 0),
        label(1, 0, 1, key=2),  # of another key
        label(9, 0, 1),  # of no event
        event(3, 7),
    ]
    features, unmatched, repeated = seen(log)
    assert features[-1] == [2.0, 0.0, 0.0]
    assert (unmatched, repeated) == ([0, 2, 4, 5], [])


def test_a_label_for_an_event_that_was_too_late_finds_nothing() -> None:
    assert seen([event(1, 10), event(2, 4), label(2, 4, 1)])[1] == [2]  # a lateness of 5: 4 is not remembered


def test_a_late_event_is_labelled_like_any_other() -> None:
    assert last_seen(event(1, 10), event(2, 5), label(2, 5, 1), event(3, 17)) == [2.0, 1.0, 0.5]


def test_a_label_finds_its_event_as_long_as_some_window_may_see_it() -> None:
    # The newest event is at 30; one at 25 may still come, and sees (25-17, 25-7].
    assert seen([event(1, 9), event(2, 30), label(1, 9, 1)])[1] == []
    assert seen([event(1, 8), event(2, 30), label(1, 8, 1)])[1] == [2]


def test_whether_an_old_event_is_found_does_not_depend_on_what_is_in_memory() -> None:
    # Event 1 is passed over in memory; in the store it still stands at the beginning of the block.
    log = [event(1, 8), event(2, 30), label(1, 8, 1)]
    for restarts in ([], [2]):
        assert np.flatnonzero(play_labels(log, (RISK,), range(3), restarts=restarts).unmatched).tolist() == [2]


def test_labels_are_not_counted_and_do_not_move_time() -> None:
    log = [event(1, 0), *[label(9, 500, 1)] * 20, event(2, 7)]
    played = play_labels(log, (RISK,), ())
    assert played.features[-1].tolist() == [1.0, 0.0, 0.0]
    assert played.timing.tolist() == [0] * len(log)  # nothing came late, and labels have no timing
    assert not played.features[1:-1].any()


def test_labels_do_not_count_against_the_records_that_are_declared() -> None:
    few = Entity("e", "key", (Window(10),), (LabelCount(),), max_records=2)
    assert seen([event(1, 0), event(2, 0), *[label(1, 0, n % 2) for n in range(9)]], few)[2] == []
    with pytest.raises(TooManyRecords):
        seen([event(1, 0), event(2, 0), label(1, 0, 1), event(3, 0)], few)


def test_an_event_sent_twice_is_two_events_and_both_are_labelled() -> None:
    assert last_seen(event(1, 0), event(1, 0), event(2, 0), label(1, 0, 1), event(3, 7)) == [3.0, 2.0, 2.0 / 3.0]


def test_of_events_with_one_id_those_at_the_labels_time_are_meant() -> None:
    assert last_seen(event(1, 0), event(1, 1), label(1, 1, 1), event(3, 8)) == [2.0, 1.0, 0.5]
    # None is at that time: all are.
    assert last_seen(event(1, 0), event(1, 1), label(1, 5, 1), event(3, 8)) == [2.0, 2.0, 1.0]


def test_without_a_delay_an_event_is_in_its_own_window_and_has_no_label_yet() -> None:
    now = Entity("e", "key", (Window(10), Window(10, include_self=False)), (LabelRate(),))
    assert seen([event(1, 0), label(1, 0, 1), event(2, 1)], now)[0] == [[0.0, 0.0], [0.5, 1.0]]


def test_on_a_grid_labels_are_counted_in_whole_cells() -> None:
    #   cells of 5: [0..4] [5..9] [10..14]; length 10, delay 3: at 12 the last whole cell before 10 is [5..9], at 11 it is [0..4]
    cells = Entity("e", "key", (Window(10, 3, 5),), (Count(), LabelCount()), lateness_ms=9)
    log = [event(1, 4), event(2, 5), event(3, 9), label(2, 5, 1), label(3, 9, 1), event(4, 11), event(5, 12)]
    assert seen(log, cells)[0][-2:] == [[1.0, 0.0], [3.0, 2.0]]


def test_an_entity_without_labels_does_not_see_them() -> None:
    plain = Entity("plain", "key", (Window(100),), (Count(), Distinct("shop")))
    log = [event(1, 0), label(1, 0, 1), label(5, 50, 0), event(2, 7)]
    played = play_labels(log, (plain, RISK), (1, 2, 3))
    assert played.features.tolist() == [[1.0, 1.0, 0.0, 0.0, -1.0], [0.0] * 5, [0.0] * 5, [2.0, 1.0, 1.0, 1.0, 1.0]]
    assert np.flatnonzero(played.unmatched).tolist() == [2]


def test_a_label_that_one_of_two_entities_has_an_event_for_is_matched() -> None:
    short = Entity("short", "key", (Window(1),), (LabelCount(),))
    log = [event(1, 0), event(2, 10), label(1, 0, 1), label(1, 0, 1), event(3, 10)]
    played = play_labels(log, (short, RISK), ())
    assert not played.unmatched.any()
    assert np.flatnonzero(played.repeated).tolist() == [3]
    assert played.features[-1].tolist() == [0.0, 1.0, 1.0, 1.0]


# What labels write.


class Owner:
    """Passes logs through a state over a store, and shows what was written."""

    def __init__(self, entity: Entity = RISK) -> None:
        self.store = MemoryStore()
        self.store.claim(SHARD, {})
        self.state = ShardState(SHARD, (entity,), self.store, "t", 100)
        self.position = 0

    def send(self, *log: Event) -> Advance:
        first, self.position = self.position, self.position + len(log)
        done = self.state.advance(
            columns_of(log, 1), np.array([e.usable for e in log]), np.arange(first, self.position), labels=labels_of(log)
        )
        self.store.write(SHARD, done.writes, self.position)
        return done

    def written(self, *log: Event) -> list[tuple[int, list[list[int]]]]:
        """By write: which record it begins with (or WHOLE_BLOCK), and the records."""
        found = []
        for writes in self.send(*log).writes:
            for at, data in zip(writes.at.tolist(), writes.data, strict=True):
                shape = Shape.of(self.store.read(SHARD, writes.entity, writes.keys)[0])
                body = data[HEADER_BYTES:] if at == WHOLE_BLOCK else data
                place = at if at == WHOLE_BLOCK else (at - HEADER_BYTES) // shape.record_bytes
                found.append((place, shape.records(body)))
        return found


def id_of(number: int) -> int:
    return int(event_id_hashes(PackedBytes.pack([f"event {number}".encode()]))[0])


def test_a_record_keeps_the_hash_of_its_events_id_and_its_label() -> None:
    owner = Owner()
    assert owner.written(event(1, 0), event(2, 3)) == [(WHOLE_BLOCK, [[1, 0, id_of(1), 0], [2, 3, id_of(2), 0]])]
    assert owner.written(label(2, 3, 1), label(1, 0, 0)) == [(1, [[2, 3, id_of(2), 1]]), (0, [[1, 0, id_of(1), 2]])]


def test_a_label_is_one_small_write_of_its_record_beside_the_new_ones() -> None:
    owner = Owner()
    owner.send(*[event(n, n) for n in range(8)])
    assert owner.written(label(3, 3, 1), event(8, 8)) == [(8, [[10, 8, id_of(8), 0]]), (3, [[4, 3, id_of(3), 1]])]


def test_a_label_on_an_event_of_the_same_batch_goes_with_it() -> None:
    owner = Owner()
    owner.send(event(1, 1))
    assert owner.written(event(2, 2), label(2, 2, 1)) == [(1, [[2, 2, id_of(2), 1]])]


def test_a_label_before_the_place_of_a_late_event_is_not_written_twice() -> None:
    owner = Owner()
    owner.send(*[event(n, n) for n in (1, 2, 3, 5)])
    (first, second) = owner.written(label(2, 2, 1), label(5, 5, 1), event(4, 4))
    assert [first[0], second[0]] == [3, 1]
    assert [record[1] for record in first[1]] == [4, 5]
    assert [record[3] for record in first[1]] == [0, 1]
    assert second[1] == [[2, 2, id_of(2), 1]]


def test_a_label_in_a_block_that_is_written_whole_goes_with_it() -> None:
    owner = Owner()
    owner.send(*[event(n, n) for n in range(3)])
    owner.send(*[event(n, n) for n in range(3, 7)])
    ((place, records),) = owner.written(label(1, 1, 1), event(7, 7))  # its room is used up
    assert place == WHOLE_BLOCK
    assert [record[3] for record in records] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_a_label_in_a_block_of_the_format_before_has_it_written_whole() -> None:
    owner = Owner()
    owner.send(event(1, 1), event(2, 2))
    (key,) = owner.store.dump(SHARD).keys["shop"]  # type: ignore[union-attr]
    before = block_of_format_2(key.tobytes(), b"", records_of(owner.store.read(SHARD, "shop", key[None])[0]))
    owner.store.write(SHARD, (Writes.whole("shop", key[None], PackedBytes.pack([before])),), owner.position)
    owner.state = ShardState(SHARD, (RISK,), owner.store, "t", 100)
    assert owner.written(label(1, 1, 1)) == [(WHOLE_BLOCK, [[1, 1, id_of(1), 1], [2, 2, id_of(2), 0]])]


def test_a_label_of_an_event_sent_twice_is_one_write_of_both() -> None:
    owner = Owner()
    owner.send(event(1, 0), event(2, 0), event(1, 0), event(3, 0))
    ((place, records),) = owner.written(label(1, 0, 1))
    assert (place, [record[3] for record in records]) == (0, [1, 0, 1])


def test_unmatched_and_repeated_labels_write_nothing() -> None:
    owner = Owner()
    owner.send(event(1, 1), label(1, 1, 1))
    assert owner.send(label(1, 1, 1), label(7, 1, 1), label(1, 1, 1, key=9)).writes == ()


def test_a_key_whose_label_is_not_in_the_store_yet_stays_in_memory() -> None:
    owner = Owner()
    state = ShardState(SHARD, (RISK,), owner.store, "t", 1)
    owner.state = state
    owner.send(event(1, 1))
    state.acknowledge(1)
    owner.send(label(1, 1, 1))
    owner.send(event(2, 1, key=2))
    assert state.resident_keys == {"shop": 2}
    state.acknowledge(3)
    owner.send(event(3, 1, key=3))
    assert state.resident_keys == {"shop": 1}


# Any log.


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_the_kernel_agrees_with_the_definition_of_labels(data: st.DataObject) -> None:
    asked = data.draw(entities())
    log = data.draw(labelled_logs(asked))
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=12))
    restarts = data.draw(st.lists(st.sampled_from([0, *cuts]), max_size=3))
    max_keys = data.draw(st.sampled_from([1, 2, 100]))
    found = play_labels(log, asked, cuts, max_keys=max_keys, restarts=restarts, held=data.draw(st.integers(0, 2)))
    wanted, names = expected_labels(log, asked), [name for entity in asked for name in entity.feature_names]
    assert_same(found, wanted, names)
    assert_same(play_labels(log, asked, cuts, in_memory=True), wanted, names)


def test_a_hot_keys_labels_are_exact_through_growing_blocks() -> None:
    chance = np.random.default_rng(11)
    risk = Entity("e", "key", (Window(400, 70), Window(900, 70, 30)), (Count(), LabelCount(), LabelRate()), lateness_ms=40)
    log: list[Event] = []
    for n in range(1_500):
        t = n - int(chance.integers(0, 60)) * int(chance.random() < 0.05)
        log.append(event(n, t, int(chance.random() < 0.1)))
        if chance.random() < 0.6:
            about = log[int(chance.integers(max(0, len(log) - 900), len(log)))]
            log.append(label(about.id, about.t, int(chance.random() < 0.4), about.key))
    cuts = sorted(chance.integers(1, len(log), 60).tolist())
    found = play_labels(log, (risk,), cuts, max_keys=1, restarts=cuts[::7], held=2)
    assert_same(found, expected_labels(log, (risk,)), risk.feature_names)
    assert found.repeated.any()
    assert found.unmatched.any()


# What the caller hands over.


def test_ids_are_alike_in_whatever_column_they_come() -> None:
    text = PackedBytes.pack([b"one", b"two"])
    hashes = event_id_hashes(text).tolist()
    assert event_id_hashes(Symbols(np.array([1, 0], np.int32), ("two", "one"))).tolist() == hashes
    assert event_id_hashes(Constant(b"two", 2)).tolist() == [hashes[1]] * 2
    assert event_id_hashes(Nullable(text, np.array([False, True]))).tolist() == [0, hashes[1]]
    assert event_id_hashes(np.array([7], np.int32)).tolist() == event_id_hashes(np.array([7], np.int64)).tolist()
    with pytest.raises(TypeError, match="'event id' can't be a key"):
        event_id_hashes(np.array([0.5]))


def test_an_entity_that_keeps_labels_needs_the_ids_of_events() -> None:
    state = ShardState(SHARD, (RISK,), MemoryStore(), "t", 10)
    with pytest.raises(ValueError, match="entity 'shop' keeps labels: wanted `labels`"):
        state.advance(columns_of([event(1, 0)], 1), np.array([True]), np.array([0]))


def test_a_label_that_is_neither_0_nor_1_is_refused_before_anything_changes() -> None:
    owner = Owner()
    with pytest.raises(ValueError, match=r"a label should be 0 or 1, not 1 \.\. 2"):
        owner.send(event(1, 0), label(1, 0, 1), label(1, 0, 2))
    unusable = Event(1, 0, 0, id=1, label=2, usable=False)
    assert owner.send(event(1, 0), unusable).unmatched.tolist() == [False, False]  # type: ignore[union-attr]


def test_nothing_but_key_and_time_is_read_of_a_label() -> None:
    distinct = Entity("e", "key", (Window(10),), (Distinct("shop"), LabelCount()))
    store = MemoryStore()
    store.claim(SHARD, {})
    state = ShardState(SHARD, (distinct,), store, "t", 10)
    rows = np.array([False, True])
    columns: Columns = {
        "key": Constant(b"k", 2),
        "t": np.array([1, 1]),
        "shop": Nullable(PackedBytes.pack([b"a", b""]), ~rows),  # a label has no shop
    }
    ids = event_id_hashes(Constant(b"id", 2))
    done = state.advance(columns, np.ones(2, np.bool_), np.arange(2), labels=LabelRows(rows, np.array([-5, 1]), ids))
    assert done.features.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert done.unmatched is not None
    assert not done.unmatched.any()
