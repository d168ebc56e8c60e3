"""Blocks that aren't what was written are found by whoever reads them. (`tests/live/test_lost_state.py`: and built again from the log.)"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import LostBlock
from tests.oracles.play import Event
from tests.transforms.test_block import ENTITY, RECORD_BYTES, Kept
from transforms.block import HEADER_BYTES
from transforms.past import past_of

BITS = 8 * (HEADER_BYTES + 4 * RECORD_BYTES)


def block_of(key: int) -> tuple[Kept, bytes]:
    """The block of a key with four events, and whoever keeps it."""
    kept = Kept()
    kept.send([Event(key, 1_000 + t, (-1) ** t * (t + 1) * 7) for t in range(4)])
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
        kept.send([Event(1, 2_000, 1)])
    except LostBlock:
        return True
    return False


def is_told(damaged: bytes) -> bool:
    """Whether somebody who looks at it beside its owner, without knowing the key, is told."""
    try:
        past_of(damaged, ENTITY)
    except LostBlock:
        return True
    return False


def test_a_block_that_was_left_alone_is_no_trouble() -> None:
    kept, block = block_of(1)
    assert not is_told(block)
    assert not is_found(kept, block)


def test_any_bit_that_flips_in_a_block_is_found() -> None:
    kept, block = block_of(1)
    assert [bit for bit in range(BITS) if not is_found(kept, flipped(block, [bit]))] == []
    records = range(8 * HEADER_BYTES, BITS)
    assert [bit for bit in records if not is_told(flipped(block, [bit]))] == []


@settings(max_examples=150)
@given(first=st.integers(8 * HEADER_BYTES, BITS - 1), others=st.lists(st.integers(0, 8 * RECORD_BYTES - 1), min_size=1, max_size=2))
def test_two_or_three_bits_that_flip_in_a_record_are_found(first: int, others: list[int]) -> None:
    _, block = block_of(1)
    begin = first - (first - 8 * HEADER_BYTES) % (8 * RECORD_BYTES)
    bits = {first, *(begin + other for other in others)}
    assert is_told(flipped(block, list(bits)))


@settings(max_examples=150)
@given(at=st.integers(8 * HEADER_BYTES, BITS - 16), burst=st.integers(1, 2**16 - 1))
def test_a_burst_of_sixteen_bits_is_found(at: int, burst: int) -> None:
    _, block = block_of(1)
    assert is_told(flipped(block, [at + bit for bit in range(16) if burst >> bit & 1]))


@pytest.mark.parametrize("row", range(4))
def test_a_record_of_another_key_is_found_though_it_was_written_by_a_worker(row: int) -> None:
    kept, block = block_of(1)
    _, other = block_of(2)
    place = slice(HEADER_BYTES + row * RECORD_BYTES, HEADER_BYTES + (row + 1) * RECORD_BYTES)
    assert other[place] != block[place]
    assert is_found(kept, block[: place.start] + other[place] + block[place.stop :])


@settings(max_examples=100)
@given(st.binary(max_size=HEADER_BYTES + 3 * RECORD_BYTES))
def test_any_bytes_in_a_blocks_place_are_found(garbage: bytes) -> None:
    kept, block = block_of(1)
    if garbage:
        assert is_found(kept, garbage)
        assert is_found(kept, block[:HEADER_BYTES] + garbage[: len(garbage) // RECORD_BYTES * RECORD_BYTES] + b"x" * RECORD_BYTES)
