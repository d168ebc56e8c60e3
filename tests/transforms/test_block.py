"""Blocks: what is written is what is read, in as few bytes as it takes, and what isn't whole is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, LostBlock
from tests.oracles.blocks import Shape, block_of_format_2, records_of
from tests.oracles.play import Event, columns_of
from transforms import kernel
from transforms.aggregate import Count, Distinct, Sum
from transforms.block import HEADER_BYTES, headers
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.keys import key_hashes, key_ids
from transforms.memory_store import MemoryStore
from transforms.pack import pack
from transforms.past import past_of
from transforms.shard import Advance, ShardState
from transforms.store import WHOLE_BLOCK
from transforms.unpack import records_of as read_records
from transforms.window import Window, days

ENTITY = Entity("e", "key", (Window(100),), (Count(), Sum(FixedPoint("amount", 1, 1_000))), lateness_ms=50)
RECORD_BYTES = 3 + 4 + 1 + 2  # position, time, a small amount, seal
KEY_PARTS = (slice(8), slice(16, 32), slice(48, 62))  # of a header: what does not change while its records do
LONG = Entity(
    "e", "key", (Window(days(90)),), (Count(), Sum(FixedPoint("amount", 1, 2**40)), Distinct("shop")), lateness_ms=days(80), max_records=500
)


class Kept(MemoryStore):
    """A state over blocks that a test can see and damage."""

    def __init__(self, entity: Entity = ENTITY) -> None:
        super().__init__()
        self.entity = entity
        self.blocks: dict[bytes, bytearray] = {}
        self.position = 0
        self.restart()

    def restart(self) -> None:
        self.state = ShardState("s", (self.entity,), self, "t", 100)

    def send(self, events: Sequence[Event]) -> Advance:
        done = self.state.advance(
            columns_of(events, 1), np.ones(len(events), np.bool_), np.arange(self.position, self.position + len(events))
        )
        self.position += len(events)
        for writes in done.writes:
            for key, at, data in zip(writes.keys, writes.at.tolist(), writes.data, strict=True):
                block = self.blocks.setdefault(key.tobytes(), bytearray())
                if at == WHOLE_BLOCK:
                    block[:] = data
                else:
                    block.extend(bytes(max(0, at - len(block))))
                    block[at : at + len(data)] = data
        return done

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        return PackedBytes.pack([bytes(self.blocks.get(key.tobytes(), b"")) for key in keys])

    @property
    def only(self) -> bytearray:
        (block,) = self.blocks.values()
        return block


def written(kept: Kept, *events: Event) -> list[tuple[int, list[list[int]]]]:
    """By write: which record it begins with (or WHOLE_BLOCK), and the records."""
    found = []
    for writes in kept.send(events).writes:
        for key, at, data in zip(writes.keys, writes.at.tolist(), writes.data, strict=True):
            shape = Shape.of(kept.blocks[key.tobytes()])
            whole = at == WHOLE_BLOCK
            place = WHOLE_BLOCK if whole else (at - HEADER_BYTES) // shape.record_bytes
            found.append((place, shape.records(data[HEADER_BYTES:] if whole else data)))
    return found


def test_a_block_is_a_header_and_its_records_and_room_for_more() -> None:
    kept = Kept()
    kept.send([Event(7, 1_000, 11), Event(7, 1_001, -12)])
    ids = key_ids(["key"], [PackedBytes.pack([b"key 7"])])
    assert len(kept.only) == HEADER_BYTES + 6 * RECORD_BYTES
    shape = Shape.of(kept.only)
    assert (shape.sizes, shape.position, shape.time_ms) == ((3, 4, 1), 0, 999)
    assert bytes(kept.only[16:32]) == key_hashes(ids)[0].tobytes()
    assert bytes(kept.only[48:62]) == ids[0].ljust(14, b"\0")
    assert records_of(kept.only) == [[1, 1_000, 11], [2, 1_001, -12]]
    assert not any(kept.only[-4 * RECORD_BYTES :])


def test_a_further_event_of_a_key_is_one_small_write_behind_its_records() -> None:
    kept = Kept()
    assert [place for place, _ in written(kept, Event(1, 0, 1), Event(2, 0, 1))] == [WHOLE_BLOCK, WHOLE_BLOCK]
    size = len(next(iter(kept.blocks.values())))
    assert written(kept, Event(2, 1, 5), Event(2, 2, 6), Event(1, 3, 7)) == [(1, [[3, 1, 5], [4, 2, 6]]), (1, [[5, 3, 7]])]
    assert {len(each) for each in kept.blocks.values()} == {size}, "a block that grows would take twice what it needs"


def test_a_late_event_rewrites_its_block_from_its_place_on() -> None:
    kept = Kept()
    kept.send([Event(1, 0, 1), Event(1, 10, 2), Event(1, 20, 3)])
    assert written(kept, Event(1, 15, 4)) == [(2, [[4, 15, 4], [3, 20, 3]])]
    assert records_of(kept.only) == [[1, 0, 1], [2, 10, 2], [4, 15, 4], [3, 20, 3]]


def test_a_full_block_is_written_whole_without_what_no_window_can_see() -> None:
    kept = Kept()
    for t in range(0, 4_000, 10):
        kept.send([Event(1, t, 1)])
    # 16 to 17 records are within reach (100 + 50 + 2); memory has room for half as many again, and the block for a quarter of these.
    assert len(kept.only) <= HEADER_BYTES + 39 * RECORD_BYTES
    before = bytes(kept.only)
    features = kept.send([Event(1, 4_000, 1)]).features
    kept.restart()
    assert features.tolist() == [[10.0, 10.0]]
    assert kept.send([Event(1, 4_001, 1)]).features.tolist() == [[11.0, 11.0]]
    after = bytes(kept.only)
    assert [before[part] for part in KEY_PARTS] == [after[part] for part in KEY_PARTS]


def test_a_block_whose_room_is_used_up_is_written_whole_with_new_room() -> None:
    kept = Kept()
    places = [written(kept, Event(1, t, 1))[0][0] for t in range(40)]
    assert [count + 1 for count, place in enumerate(places) if place == WHOLE_BLOCK] == [1, 6, 12, 20, 30]
    assert [count for count, place in enumerate(places) if place not in (WHOLE_BLOCK, count)] == []
    assert len(kept.only) == HEADER_BYTES + (30 + 30 // 4 + 4) * RECORD_BYTES
    assert records_of(kept.only) == [[t + 1, t, 1] for t in range(40)]


def test_a_worker_that_reads_a_block_goes_on_in_its_room() -> None:
    kept = Kept()
    kept.send([Event(1, 0, 1)])
    for t in (1, 2, 3, 4):
        kept.restart()
        assert written(kept, Event(1, t, 1))[0][0] == t
    kept.restart()
    assert written(kept, Event(1, 5, 1))[0][0] == WHOLE_BLOCK


def test_a_block_gets_wide_for_what_does_not_fit_and_narrow_again_when_that_is_gone() -> None:
    kept = Kept(replace(LONG, windows=(Window(100),), aggregates=(Sum(FixedPoint("amount", 1, 2**40)),), lateness_ms=0))
    kept.send([Event(1, 0, 100)])
    assert Shape.of(kept.only).sizes == (3, 4, 1)
    for event, sizes in [
        (Event(1, 1, 127), (3, 4, 1)),
        (Event(1, 2, 128), (3, 4, 2)),
        (Event(1, 3, -(2**40)), (3, 4, 6)),
    ]:
        before = Shape.of(kept.only).sizes
        ((place, _),) = written(kept, event)
        assert (place == WHOLE_BLOCK) == (sizes != before)
        assert Shape.of(kept.only).sizes == sizes
    kept.position = 2**33
    assert written(kept, Event(1, 4, 1))[0][0] == WHOLE_BLOCK
    assert Shape.of(kept.only).sizes == (5, 4, 6)
    assert [record[0] for record in records_of(kept.only)] == [1, 2, 3, 4, 2**33 + 1]
    for t in range(100, 300, 5):
        kept.send([Event(1, t, 1)])
    assert Shape.of(kept.only).sizes == (3, 4, 1)
    kept.restart()
    assert kept.send([Event(1, 300, 1)]).features.tolist() == [[20.0]]


def test_events_before_the_first_one_and_far_apart_in_time_get_a_block_of_their_own_measure() -> None:
    kept = Kept(replace(LONG, aggregates=(Count(),)))
    for t, sizes in [(0, (3, 4)), (days(30), (3, 4)), (days(62), (3, 5)), (-days(10), (3, 5)), (-days(10) - 1, (3, 5))]:
        written(kept, Event(1, t, 1))
        assert Shape.of(kept.only).sizes == sizes
        kept.restart()
    assert [record[:2] for record in records_of(kept.only)] == [
        [5, -days(10) - 1],
        [4, -days(10)],
        [1, 0],
        [2, days(30)],
        [3, days(62)],
    ]
    assert Shape.of(kept.only).time_ms == -days(10) - 2


def test_a_too_late_event_writes_nothing() -> None:
    kept = Kept()
    kept.send([Event(1, 1_000, 1)])
    assert kept.send([Event(1, 0, 1)]).writes == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-60, 30), st.integers(-9, 9)), min_size=1, max_size=80), st.integers(1, 9))
def test_what_was_written_is_what_is_read(steps: list[tuple[int, int, int]], batch: int) -> None:
    whole, halved, now = Kept(), Kept(), 0
    for first in range(0, len(steps), batch):
        events = []
        for key, step, units in steps[first : first + batch]:
            now = max(now + step, 0)
            events.append(Event(key, now, units))
        halved.restart()
        assert whole.send(events).features.tolist() == halved.send(events).features.tolist()


far = st.integers(-200, 200) | st.sampled_from([-(2**32), -(2**31), days(1), days(30), 2**31, 2**32, 2**33])
edges = [sign * (2**bits) + near for bits in (7, 15, 23, 31, 39) for sign in (1, -1) for near in (-1, 0, 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), far, st.sampled_from(edges) | st.integers(-9, 9)), min_size=1, max_size=40),
    st.lists(st.sampled_from([0, 0, 0, 1, 2**16, 2**24, 2**32, 2**40]), min_size=40, max_size=40),
    st.integers(1, 5),
)
def test_what_was_written_is_what_is_read_however_far_apart_it_is(steps: list[tuple[int, int, int]], gaps: list[int], batch: int) -> None:
    whole, halved, now = Kept(LONG), Kept(LONG), 0
    for first in range(0, len(steps), batch):
        events = []
        for key, step, units in steps[first : first + batch]:
            now = min(max(now + step, -(2**44)), 2**47)
            events.append(Event(key, now, units))
        halved.restart()
        assert whole.send(events).features.tolist() == halved.send(events).features.tolist()
        for one, other in zip(whole.blocks.values(), halved.blocks.values(), strict=True):
            told = past_of(bytes(other), LONG)
            here = records_of(other)
            assert [[p + 1, t, *v] for p, t, v in zip(told.positions, told.times, told.values.tolist(), strict=True)] == here
            assert records_of(one)[-len(here) :] == here[-len(records_of(one)) :]
        whole.position = halved.position = whole.position + gaps[first]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 15), st.integers(1, 30))
def test_any_records_are_what_is_read(data: st.DataObject, values: int, count: int) -> None:
    number = st.integers(-(2**63), 2**63 - 1)
    near_an_edge = st.builds(
        lambda bits, near, sign: sign * (2**bits + near), st.integers(0, 62), st.integers(-2, 1), st.sampled_from([1, -1])
    )
    value = near_an_edge | number | st.integers(-3, 3)
    position, time_ms = st.integers(1, 50) | st.integers(1, 2**50), st.integers(-50, 50) | st.integers(-(2**46), 2**48)
    rows = st.tuples(position, time_ms, *[value] * values)
    records = np.array(sorted(data.draw(st.lists(rows, min_size=count, max_size=count)), key=lambda row: row[1]), np.int64)
    cut = data.draw(st.integers(1, count))

    slots, found = np.zeros((1, kernel.SLOT_FIELDS), np.int64), bytearray()
    ids = key_ids(["key"], [PackedBytes.pack([b"a rather long name"])])
    head = headers(ids, key_hashes(ids), 2 + values)
    for first, end in ((0, cut), (cut, count)):
        slots[0, kernel.END] = end
        slots[0, kernel.WRITE_FROM] = first or -1
        _, at, writes = pack(np.zeros(1, np.int64), np.empty((0, 3), np.int64), head, records, slots)
        for place, octets in zip(at.tolist(), writes, strict=True):
            found[max(place, 0) : len(found) if place == WHOLE_BLOCK else place + len(octets)] = octets
    assert records_of(found) == records.tolist()
    records[:, 0] -= 1
    assert read_records(bytes(found), 2 + values, "e").tolist() == records.tolist()


def test_a_write_on_a_lost_block_is_found_as_a_hole() -> None:
    kept = Kept()
    kept.send([Event(1, 0, 1)])
    kept.blocks.clear()
    kept.send([Event(1, 1, 2)])  # a small write: zeros appear before it
    kept.restart()
    with pytest.raises(LostBlock, match=r"block of e [0-9a-f]{32} \(key 1\) has a hole of zeros"):
        kept.send([Event(1, 2, 3)])


def test_a_write_on_a_block_that_lost_its_end_is_found_as_a_hole() -> None:
    kept = Kept()
    kept.send([Event(1, t, 1) for t in range(5)])
    del kept.only[HEADER_BYTES + 2 * RECORD_BYTES :]
    kept.send([Event(1, 6, 2)])
    kept.restart()
    with pytest.raises(LostBlock, match="hole of zeros"):
        kept.send([Event(1, 7, 3)])


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (7, 99, "another format: it begins with 4d494c4c524300630300, wanted 4d494c4c524300030300"),
        (8, 4, "another format: it begins with 4d494c4c524300030400, wanted 4d494c4c524300030300"),
        (10, 0x44, "seal is broken"),
        (16, 1, "another key"),
        (32, 1, "seal is broken"),
        (40, 1, "seal is broken"),
        (62, 1, "seal is broken"),
        (57, 50, "seal is broken"),
        (HEADER_BYTES + RECORD_BYTES + 5, 255, "seal is broken"),
        (HEADER_BYTES + 2 * RECORD_BYTES, 1, "hole of zeros"),
        (HEADER_BYTES + 2 * RECORD_BYTES + 5, 1, "hole of zeros"),
        (HEADER_BYTES + 4 * RECORD_BYTES - 1, 1, "hole of zeros"),
    ],
)
def test_a_damaged_block_is_refused(at: int, value: int, words: str) -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1), Event(1, 11, 1)])
    kept.only[at] = value
    kept.restart()
    with pytest.raises(LostBlock, match=words):
        kept.send([Event(1, 12, 1)])


def test_a_block_with_records_out_of_order_is_refused() -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1), Event(1, 11, 1)])
    first, second = slice(HEADER_BYTES, HEADER_BYTES + RECORD_BYTES), slice(HEADER_BYTES + RECORD_BYTES, HEADER_BYTES + 2 * RECORD_BYTES)
    kept.only[first], kept.only[second] = kept.only[second], kept.only[first]
    kept.restart()
    with pytest.raises(LostBlock, match="out of order"):
        kept.send([Event(1, 12, 1)])


def test_a_block_that_holds_what_is_still_to_come_is_refused() -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1), Event(1, 11, 1)])
    kept.restart()
    kept.position = 1  # the state is said to be at 1, and the block has 0 and 1
    with pytest.raises(LostBlock, match="still to come"):
        kept.send([Event(1, 11, 1)])
    kept.position = 2
    assert kept.send([Event(1, 12, 1)]).features.tolist() == [[3.0, 3.0]]


def test_a_block_cut_within_a_record_is_refused() -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1)])
    kept.only.pop()
    kept.restart()
    with pytest.raises(LostBlock, match="has 113 bytes: no header and whole records"):
        kept.send([Event(1, 12, 1)])


def test_a_lost_block_says_which_shard_is_to_be_rebuilt() -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1)])
    for damaged in (b"7 bytes", bytes(HEADER_BYTES)):
        kept.only[:] = damaged
        kept.restart()
        with pytest.raises(LostBlock) as caught:
            kept.send([Event(1, 12, 1)])
        assert caught.value.shard == "s"


def test_a_lost_block_is_a_lost_fence() -> None:
    assert issubclass(LostBlock, FenceLost)


def test_written_bytes_do_not_change_when_later_batches_pass() -> None:
    kept = Kept()
    first = kept.send([Event(1, 0, 1), Event(1, 5, 2)]).writes[0]
    frozen = first.data.data.tobytes(), first.keys.tobytes(), first.at.tobytes()
    for t in range(6, 500):
        kept.send([Event(1, t, 9), Event(t, t, 9)])
    assert (first.data.data.tobytes(), first.keys.tobytes(), first.at.tobytes()) == frozen


# Blocks of format 2, which a worker before this one left.


def of_format_2(kept: Kept) -> bytes:
    """The only block, as it would have been."""
    identity = key_ids(["key"], [PackedBytes.pack([b"key 1"])])[0]
    return block_of_format_2(bytes(kept.only[16:32]), identity, records_of(kept.only))


def test_a_block_of_format_2_is_read_and_its_next_write_is_whole() -> None:
    kept = Kept()
    events = [Event(1, t, t - 1) for t in (10, 11, 12)]
    kept.send(events)
    kept.only[:] = of_format_2(kept)
    assert past_of(bytes(kept.only), ENTITY).identity == "key 1"
    assert past_of(bytes(kept.only), ENTITY).values.tolist() == [[9], [10], [11]]
    kept.restart()
    done = kept.send([Event(1, 13, 5)])
    assert done.features.tolist() == [[4.0, 35.0]]
    assert done.writes[0].at.tolist() == [WHOLE_BLOCK]
    assert records_of(kept.only) == [[1, 10, 9], [2, 11, 10], [3, 12, 11], [4, 13, 5]]


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (7, 1, "another format"),
        (7, 3, "another key|another format|seal is broken"),
        (8, 4, "another format"),
        (10, 1, "another format"),
        (16, 1, "another key"),
        (HEADER_BYTES + 24, 7, "seal is broken"),
        (HEADER_BYTES + 24 + 15, 255, "seal is broken"),
    ],
)
def test_a_damaged_block_of_format_2_is_refused(at: int, value: int, words: str) -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1), Event(1, 11, 1)])
    kept.only[:] = of_format_2(kept)
    kept.only[at] = value
    kept.restart()
    with pytest.raises(LostBlock, match=words):
        kept.send([Event(1, 12, 1)])


def test_zeros_in_a_block_of_format_2_are_a_hole_wherever_they_are() -> None:
    for first in (0, 1):
        kept = Kept()
        kept.send([Event(1, 10, 1), Event(1, 11, 1)])
        kept.only[:] = of_format_2(kept)
        kept.only[HEADER_BYTES + 24 * first : HEADER_BYTES + 24 * (first + 1)] = bytes(24)
        kept.restart()
        with pytest.raises(LostBlock, match="hole of zeros"):
            kept.send([Event(1, 12, 1)])
