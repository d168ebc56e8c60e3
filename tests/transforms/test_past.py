"""What a block tells people is what the kernel counted: the same members, whatever the window."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import Columns, PackedBytes
from schemas.errors import LostBlock
from tests.oracles.blocks import block_of_format_2, crc16
from transforms.aggregate import Count, LabelCount, Last, Sum
from transforms.entity import Entity, Guard
from transforms.fixed_point import FixedPoint
from transforms.keys import key_hashes, key_ids
from transforms.label import LabelRows
from transforms.memory_store import MemoryStore
from transforms.past import edges, evaluated_at, past_of
from transforms.shard import ShardState
from transforms.window import Window

AMOUNT = FixedPoint("amount", 100, 1000)
KEY = key_hashes(key_ids(["key"], [PackedBytes.pack([b"a"])]))
windows = st.builds(
    lambda grid, cells, delay, own: Window(grid * cells, delay, grid, own),
    st.just(1) | st.just(5),
    st.integers(1, 20),
    st.just(0) | st.integers(1, 30),
    st.booleans(),
)


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=25),
    st.lists(windows, min_size=1, max_size=3, unique_by=lambda window: window.suffix),
    st.integers(0, 10),
    st.none() | st.builds(Guard, st.integers(0, 50), st.integers(0, 50)),
)
def test_the_members_shown_are_those_the_kernel_counted(times: list[int], spans: list[Window], lateness: int, guard: Guard | None) -> None:
    entity = Entity("e", "key", tuple(spans), (Count(), Sum(AMOUNT)), lateness, guard=guard)
    store = MemoryStore()
    store.claim("0", {})
    state = ShardState("0", (entity,), store, "t", 100)
    for position, time in enumerate(times):
        columns: Columns = {"key": PackedBytes.pack([b"a"]), "t": np.array([time]), "amount": np.array([float(position)])}
        before = past_of(store.read("0", "e", KEY)[0], entity)
        assert (before.positions < position).all()
        done = state.advance(columns, np.ones(1, np.bool_), np.array([position]), np.array([30]))
        store.write("0", done.writes, position + 1)
        at_ms = evaluated_at(entity, before.newest_ms, time, 30)
        for place, window in enumerate(entity.windows):
            inside = edges(window, at_ms).members(before)
            count, total = done.features[0, 2 * place : 2 * place + 2]
            assert inside.stop - inside.start + window.holds_self == count
            assert before.values[inside, 0].sum() + window.holds_self * position * 100 == round(total * 100)


def test_a_block_tells_labels_and_events_and_can_be_cut_at_a_position() -> None:
    entity = Entity("e", "key", (Window(100),), (Last(AMOUNT), LabelCount()))
    store = MemoryStore()
    store.claim("0", {})
    state = ShardState("0", (entity,), store, "t", 100)
    columns: Columns = {"key": PackedBytes.pack([b"a"] * 4), "t": np.array([1, 2, 3, 2]), "amount": np.array([1.5, 2.5, 3.5, 0.0])}
    labels = LabelRows(np.array([False, False, False, True]), np.array([0, 0, 0, 1]), np.array([11, 12, 13, 12]))
    done = state.advance(columns, np.ones(4, np.bool_), np.arange(4), labels=labels)
    store.write("0", done.writes, 4)
    past = past_of(store.read("0", "e", KEY)[0], entity)
    assert past.identity == "a"
    assert past.values[:, 0].tolist() == [150, 250, 350]
    assert past.event_ids is not None
    assert past.labels is not None
    assert (past.event_ids.tolist(), past.labels.tolist()) == ([11, 12, 13], [-1, 1, -1])
    early = past.before(2)
    assert (early.positions.tolist(), early.newest_ms, len(early)) == ([0, 1], 2, 2)


def test_a_key_without_a_block_has_no_past() -> None:
    past = past_of(b"", Entity("e", "key", (Window(100),), (Last(AMOUNT),)))
    assert (len(past), past.newest_ms, past.values.shape) == (0, None, (0, 1))


def with_header(fields: int, sizes: bytes) -> bytes:
    """A header whose seal is right."""
    head = struct.pack("<8sH6s46x", b"MILLRC\0\3", fields, sizes)
    return head + struct.pack("<H", crc16(head))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"MILLRC", "has 6 bytes: no header and whole records"),
        (b"MILLRC\x00\xff" + b"\3\0\0\0" + bytes(52), "was written in another format: it begins with 4d494c4c524300ff"),
        (with_header(4, b"\x11\x11") + bytes(6), "was written in another format"),
        (with_header(3, b"\x11\1")[:-1] + b"\0", "isn't what was written: its seal is broken"),
        (with_header(3, b"\x11\1") + b"\0\0\0\0\0\1\2\3\4\5", "has a hole of zeros"),
        (with_header(3, b"\x11\1") + b"\1\1\0\0", "has 68 bytes: no header and whole records"),
        (b"MILLRC\0\2" + b"\3\0\0\0" + bytes(52 + 24), "has a hole of zeros"),
    ],
)
def test_bytes_that_no_worker_of_this_version_wrote_are_refused(block: bytes, words: str) -> None:
    with pytest.raises(LostBlock, match=words):
        past_of(block, Entity("e", "key", (Window(100),), (Last(AMOUNT),)))


def test_a_block_is_laid_out_as_the_page_for_readers_in_other_languages_says() -> None:
    entity = Entity("e", "key", (Window(100),), (Last(AMOUNT), LabelCount()), lateness_ms=9)
    store = MemoryStore()
    store.claim("0", {})
    columns: Columns = {"key": PackedBytes.pack([b"a", b"a"]), "t": np.array([5, 3]), "amount": np.array([1.5, -2.5])}
    labels = LabelRows(np.zeros(2, np.bool_), np.zeros(2, np.int64), np.array([11, 12]) << 56)
    state = ShardState("0", (entity,), store, "t", 100)
    done = state.advance(columns, np.ones(2, np.bool_), np.array([70, 71]), labels=labels)
    store.write("0", done.writes, 72)
    block = store.read("0", "e", KEY)[0]
    magic, fields, sizes, hashed, first, begin_ms, identity, seal = struct.unpack_from("<8sH6s16sqq14sH", block)
    assert (magic, fields, sizes.hex()) == (b"MILLRC\0\3", 5, "438201000000"), "3 bytes, 4, 2, 8 and 1"
    assert (hashed, identity) == (KEY.tobytes(), (b"s" + struct.pack("<I", 1) + b"a").ljust(14, b"\0"))
    assert (first, begin_ms, seal) == (70, 2, crc16(block[:62]))
    records = [block[64 + 20 * row : 84 + 20 * row] for row in range(2)]
    assert [struct.unpack_from("<hqb", record, 7) for record in records] == [(-250, 12 << 56, 0), (150, 11 << 56, 0)]
    for record, position, time_ms in zip(records, (71, 70), (3, 5), strict=True):
        assert int.from_bytes(record[:3], "little") == position + 1 - first
        assert int.from_bytes(record[3:7], "little") == time_ms - begin_ms
        assert int.from_bytes(record[18:], "little") == crc16(block[:62] + record[:18])
    assert block[104:] == bytes(80), "room for four more"


def test_a_block_of_format_2_tells_the_same() -> None:
    entity = Entity("e", "key", (Window(100),), (Last(AMOUNT), LabelCount()))
    block = block_of_format_2(
        KEY.tobytes(), b"s" + struct.pack("<I", 20) + b"a name of 20 letters", [[71, 3, -250, 12, 0], [72, 5, 150, 11, 2]]
    )
    past = past_of(block, entity)
    assert past.identity == "a name of 20 letters"
    assert (past.positions.tolist(), past.times.tolist(), past.values.tolist()) == ([70, 71], [3, 5], [[-250], [150]])
    assert past.event_ids is not None
    assert past.labels is not None
    assert (past.event_ids.tolist(), past.labels.tolist()) == ([12, 11], [-1, 0])
