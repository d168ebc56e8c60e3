"""Blocks: what is written is what is read, and what isn't whole is noticed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, LostBlock
from tests.oracles.play import Event, columns_of
from transforms.aggregate import Count, Sum
from transforms.block import HEADER_BYTES, MAGIC, POSITION_MASK
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.keys import key_hashes, key_ids
from transforms.memory_store import MemoryStore
from transforms.shard import Advance, ShardState
from transforms.store import WHOLE_BLOCK
from transforms.window import Window

ENTITY = Entity("e", "key", (Window(100),), (Count(), Sum(FixedPoint("amount", 1, 1_000))), lateness_ms=50)
RECORD_BYTES = 24


class Kept(MemoryStore):
    """A state over blocks that a test can see and damage."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[bytes, bytearray] = {}
        self.position = 0
        self.restart()

    def restart(self) -> None:
        self.state = ShardState("s", (ENTITY,), self, "t", 100)

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


def records_of(data: bytes) -> list[list[int]]:
    """Position + 1, time and value of each record, the seals taken off."""
    words = np.frombuffer(data, np.int64).reshape(-1, RECORD_BYTES // 8).copy()
    words[:, 0] &= POSITION_MASK
    found: list[list[int]] = words.tolist()
    return found


def test_a_block_is_a_header_and_its_records_and_nothing_else() -> None:
    kept = Kept()
    kept.send([Event(7, 1_000, 11), Event(7, 1_001, -12)])
    ids = key_ids(["key"], [PackedBytes.pack([b"key 7"])])
    words = np.frombuffer(bytes(kept.only), np.int64)
    assert len(kept.only) == HEADER_BYTES + 2 * RECORD_BYTES
    assert words[0] == MAGIC
    assert words[1] == 3 | len(ids[0]) << 32
    assert words[2:4].view(np.uint64).tolist() == key_hashes(ids)[0].tolist()
    assert bytes(kept.only[32:64]) == ids[0].ljust(32, b"\0")
    assert records_of(bytes(kept.only[HEADER_BYTES:])) == [[1, 1_000, 11], [2, 1_001, -12]]


def test_a_further_event_of_a_key_is_one_small_write_at_the_end_of_its_block() -> None:
    kept = Kept()
    assert kept.send([Event(1, 0, 1), Event(2, 0, 1)]).writes[0].at.tolist() == [WHOLE_BLOCK, WHOLE_BLOCK]
    (writes,) = kept.send([Event(2, 1, 5), Event(2, 2, 6), Event(1, 3, 7)]).writes
    assert writes.at.tolist() == [HEADER_BYTES + RECORD_BYTES] * 2
    assert [records_of(data) for data in writes.data] == [[[3, 1, 5], [4, 2, 6]], [[5, 3, 7]]]


def test_a_late_event_rewrites_its_block_from_its_place_on() -> None:
    kept = Kept()
    kept.send([Event(1, 0, 1), Event(1, 10, 2), Event(1, 20, 3)])
    (writes,) = kept.send([Event(1, 15, 4)]).writes
    assert writes.at.tolist() == [HEADER_BYTES + 2 * RECORD_BYTES]
    assert records_of(bytes(kept.only[HEADER_BYTES:])) == [[1, 0, 1], [2, 10, 2], [4, 15, 4], [3, 20, 3]]


def test_a_full_block_is_written_whole_without_what_no_window_can_see() -> None:
    kept = Kept()
    for t in range(0, 4_000, 10):
        kept.send([Event(1, t, 1)])
    # 16 to 17 records are within reach (100 + 50 + 2); a block has room for half as many again.
    assert len(kept.only) <= HEADER_BYTES + 28 * RECORD_BYTES
    before = bytes(kept.only)
    features = kept.send([Event(1, 4_000, 1)]).features
    kept.restart()
    assert features.tolist() == [[10.0, 10.0]]
    assert kept.send([Event(1, 4_001, 1)]).features.tolist() == [[11.0, 11.0]]
    assert before[:HEADER_BYTES] == kept.only[:HEADER_BYTES]


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
        (7, 99, "another format"),
        (8, 4, "another format|another key"),
        (12, 1, "another key|another format"),
        (16, 1, "another key"),
        (40, 1, "another key"),
        (HEADER_BYTES + RECORD_BYTES + 15, 255, "seal is broken"),
    ],
)
def test_a_damaged_block_is_refused(at: int, value: int, words: str) -> None:
    kept = Kept()
    kept.send([Event(1, 10, 1), Event(1, 11, 1)])
    kept.only[at] = value
    kept.restart()
    with pytest.raises(LostBlock, match=words):
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
    with pytest.raises(LostBlock, match="has 87 bytes"):
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
