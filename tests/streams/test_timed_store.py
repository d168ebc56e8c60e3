"""Reads and writes are timed, and otherwise those of the store itself."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.columns import PackedBytes
from schemas.errors import FenceLost
from streams.timed_store import TimedStore
from transforms.memory_store import MemoryStore
from transforms.store import WHOLE_BLOCK, Writes

KEY = np.array([[1, 2]], np.uint64)


def test_what_is_written_is_read_and_both_are_timed() -> None:
    took: list[tuple[str, float]] = []
    store = TimedStore(MemoryStore(), lambda call, seconds: took.append((call, seconds)))
    assert store.claim("0", {}).position is None
    store.write("0", (Writes("customer", KEY, np.array([WHOLE_BLOCK]), PackedBytes.pack([b"block"])),), 7)
    assert list(store.read("0", "customer", KEY)) == [b"block"]
    assert [call for call, _ in took] == ["write", "read"]
    assert all(seconds >= 0 for _, seconds in took)
    store.release("0")
    assert store.claim("0", {}).position == 7


def test_a_call_that_fails_is_timed_as_well() -> None:
    took: list[str] = []
    store = TimedStore(MemoryStore(), lambda call, seconds: took.append(call))
    with pytest.raises(FenceLost):
        store.read("0", "customer", KEY)
    assert took == ["read"]
