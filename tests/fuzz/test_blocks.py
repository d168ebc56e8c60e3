"""Blocks that aren't what was written are found by whoever reads them. (`tests/live/test_lost_state.py`: and built again from the log.)"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import LostBlock
from tests.oracles.blocks import Shape
from tests.oracles.play import Event
from tests.transforms.test_block import LONG, Kept
from transforms.block import HEADER_BYTES
from transforms.past import past_of
from transforms.window import days

EVENTS = 4  # and room for more
STEPS_MS = {"narrow": 1, "wide": days(20)}
WIDEST = {"narrow": 7, "wide": 2**38}


def block_of(key: int, kind: str = "narrow") -> tuple[Kept, bytes]:
    """The block of a key with four events, and whoever keeps it."""
    kept = Kept(LONG)
    kept.send([Event(key, 1_000 + t * STEPS_MS[kind], (-1) ** t * (t + 1) * WIDEST[kind]) for t in range(EVENTS)])
    return kept, bytes(kept.only)


def flipped(block: bytes, bits: Sequence[int]) -> bytes:
    damaged = bytearray(block)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def is_found(kept: Kept, damaged: bytes) -> bool:
    """Whether its owner notices as soon as the block is read."""
    kept.only[:] = damaged
    kept.restart()
    try:
        kept.send([Event(1, 2_000 + days(80), 1)])
    except LostBlock:
        return True
    return False


def is_told(damaged: bytes) -> bool:
    """Whether somebody who looks at it beside its owner, without knowing the key, is told."""
    try:
        past_of(damaged, LONG)
    except LostBlock:
        return True
    return False


@pytest.mark.parametrize("kind", STEPS_MS)
def test_a_block_that_was_left_alone_is_no_trouble(kind: str) -> None:
    kept, block = block_of(1, kind)
    assert Shape.of(block).sizes == {"narrow": (3, 4, 1, 8), "wide": (3, 5, 6, 8)}[kind]
    assert not is_told(block)
    assert not is_found(kept, block)


@pytest.mark.parametrize("kind", STEPS_MS)
def test_any_bit_that_flips_in_a_block_is_found(kind: str) -> None:
    kept, block = block_of(1, kind)
    bits = range(8 * len(block))
    assert [bit for bit in bits if not is_found(kept, flipped(block, [bit]))] == []
    assert [bit for bit in bits if not is_told(flipped(block, [bit]))] == []


@settings(max_examples=150)
@given(kind=st.sampled_from(list(STEPS_MS)), data=st.data())
def test_two_or_three_bits_that_flip_in_a_record_or_the_header_are_found(kind: str, data: st.DataObject) -> None:
    _, block = block_of(1, kind)
    size = Shape.of(block).record_bytes
    row = data.draw(st.integers(0, EVENTS - 1))
    record = range(8 * (HEADER_BYTES + row * size), 8 * (HEADER_BYTES + (row + 1) * size))
    bits = data.draw(st.lists(st.sampled_from([*range(8 * 16, 8 * HEADER_BYTES), *record]), min_size=2, max_size=3, unique=True))
    assert is_told(flipped(block, bits))


@settings(max_examples=150)
@given(kind=st.sampled_from(list(STEPS_MS)), place=st.integers(0), burst=st.integers(1, 2**16 - 1))
def test_a_burst_of_sixteen_bits_is_found(kind: str, place: int, burst: int) -> None:
    _, block = block_of(1, kind)
    end = 8 * (HEADER_BYTES + EVENTS * Shape.of(block).record_bytes)
    at = 8 * 16 + place % (end - 8 * 16 - 16)
    assert is_told(flipped(block, [at + bit for bit in range(16) if burst >> bit & 1]))


@pytest.mark.parametrize("row", range(EVENTS))
def test_a_record_of_another_key_is_found_though_it_was_written_by_a_worker(row: int) -> None:
    kept, block = block_of(1)
    _, other = block_of(2)
    size = Shape.of(block).record_bytes
    place = slice(HEADER_BYTES + row * size, HEADER_BYTES + (row + 1) * size)
    assert other[place] != block[place]
    assert is_found(kept, block[: place.start] + other[place] + block[place.stop :])


def test_a_record_that_was_counted_from_elsewhere_is_found_though_it_was_written_by_a_worker() -> None:
    kept, block = block_of(1)
    late = Kept(LONG)
    late.position = 5
    late.send([Event(1, 900 + t, (-1) ** t * (t + 1) * 7) for t in range(EVENTS)])
    other = bytes(late.only)
    assert Shape.of(other).sizes == Shape.of(block).sizes
    assert is_found(kept, other[:HEADER_BYTES] + block[HEADER_BYTES:])
    assert not is_found(kept, block)


@settings(max_examples=100)
@given(st.binary(max_size=HEADER_BYTES + 60))
def test_any_bytes_in_a_blocks_place_are_found(garbage: bytes) -> None:
    kept, block = block_of(1)
    size = Shape.of(block).record_bytes
    if garbage:
        assert is_found(kept, garbage)
        assert is_found(kept, block[:HEADER_BYTES] + garbage[: len(garbage) // size * size] + b"x" * size)
