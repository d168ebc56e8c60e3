"""Columns: packed byte strings are a sequence of them."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.columns import PackedBytes


def test_packed_bytes_are_a_sequence() -> None:
    packed = PackedBytes.pack([b"one", b"", b"three", b"\x00\xff"])
    assert len(packed) == 4
    assert list(packed) == [b"one", b"", b"three", b"\x00\xff"]
    assert packed[2] == b"three"
    assert b"" in packed
    assert None not in packed


@pytest.mark.parametrize("rows", [slice(1, 3), slice(None, None, 2), slice(3, None), slice(0, 0)])
def test_a_slice_of_them_shares_their_buffer(rows: slice) -> None:
    values = [b"one", b"", b"three", b"\x00\xff"]
    packed = PackedBytes.pack(values)
    assert list(packed[rows]) == values[rows]
    assert np.shares_memory(packed[rows].data, packed.data)
