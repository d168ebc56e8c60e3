"""A store whose reads and writes are timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from transforms.store import Claim, Store, Writes


class TimedStore:
    """Passes everything on to a store, and tells how long `read` and `write` took; a write's time includes waiting for the one before it.

    Args:
        store: does the work.
        took: is told the call's name and its seconds, of calls that fail as well.
    """

    def __init__(self, store: Store, took: Callable[[str, float], None]) -> None:
        self._store, self._took = store, took

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        """See `Store`."""
        begun = time.perf_counter()
        try:
            return self._store.read(shard, entity, keys)
        finally:
            self._took("read", time.perf_counter() - begun)

    def write(self, shard: str, writes: tuple[Writes, ...], position: int) -> None:
        """See `Store`."""
        begun = time.perf_counter()
        try:
            self._store.write(shard, writes, position)
        finally:
            self._took("write", time.perf_counter() - begun)

    def claim(self, shard: str, notes: dict[str, str]) -> Claim:
        """See `Store`."""
        return self._store.claim(shard, notes)

    def settle(self, shard: str) -> None:
        """See `Store`."""
        self._store.settle(shard)

    def release(self, shard: str) -> None:
        """See `Store`."""
        self._store.release(shard)

    def forget(self, shard: str) -> None:
        """See `Store`."""
        self._store.forget(shard)

    def drop(self, shard: str) -> None:
        """See `Store`."""
        self._store.drop(shard)

    def close(self) -> None:
        """See `Store`."""
        self._store.close()
