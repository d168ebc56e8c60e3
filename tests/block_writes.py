"""Blocks and keys for tests of stores, spelled shortly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from transforms.store import WHOLE_BLOCK, Store, Writes


def keys_of(*numbers: int) -> NDArray[np.uint64]:
    """Shape (n, 2): 128-bit hashes, made of small numbers; both words differ from key to key."""
    low = np.array(numbers, np.uint64)
    return np.stack((low, low * np.uint64(0x9E3779B97F4A7C15)), axis=1)


def whole(entity: str, blocks: Mapping[int, bytes]) -> Writes:
    """Replace these keys' blocks."""
    return Writes(entity, keys_of(*blocks), np.full(len(blocks), WHOLE_BLOCK, np.int64), PackedBytes.pack(list(blocks.values())))


def part(entity: str, stretches: Mapping[int, tuple[int, bytes]]) -> Writes:
    """Replace a stretch of each of these keys' blocks: where, and by what."""
    at = np.array([at for at, _ in stretches.values()], np.int64)
    return Writes(entity, keys_of(*stretches), at, PackedBytes.pack([data for _, data in stretches.values()]))


def blocks(store: Store, shard: str, entity: str, *numbers: int) -> list[bytes]:
    """These keys' blocks, as the store has them."""
    return list(store.read(shard, entity, keys_of(*numbers)))
