"""The directory: which slot a resident key has. Open addressing with linear probing over the keys' hashes.

``table[i]`` is a slot + 1, or 0; ``hashes[slot]`` is the slot's key. A table is at most half full. Keys leave by shifting their
followers back, so that no tombstones pile up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints
from schemas.compiled import compiled


@compiled("int64(const uint64[:, ::1], int64[::1], uint64[:, ::1], int64[::1], int64, int64[::1], int64[::1])", makes_arrays=False)
def find_or_add(
    keys: NDArray[np.uint64],
    table: Ints,
    hashes: NDArray[np.uint64],
    free_slots: Ints,
    free_count: int,
    slot_of: Ints,
    added_rows: Ints,
) -> int:
    """Fill ``slot_of`` (n,) for n keys; a key that is not there gets a free slot, and its first row is noted in ``added_rows``.

    Returns how many were added; as many were taken from the end of ``free_slots[:free_count]``, which must hold n.
    """
    mask = len(table) - 1
    added = 0
    for row in range(len(keys)):
        place = np.int64(keys[row, 0] & np.uint64(mask))
        while True:
            slot = table[place] - 1
            if slot < 0:
                added_rows[added] = row
                added += 1
                slot = free_slots[free_count - added]
                hashes[slot, 0] = keys[row, 0]
                hashes[slot, 1] = keys[row, 1]
                table[place] = slot + 1
                break
            if hashes[slot, 0] == keys[row, 0] and hashes[slot, 1] == keys[row, 1]:
                break
            place = (place + 1) & mask
        slot_of[row] = slot
    return added


@compiled("void(const int64[::1], int64[::1], uint64[:, ::1])", makes_arrays=False)
def remove(leaving: Ints, table: Ints, hashes: NDArray[np.uint64]) -> None:
    """Take slots out of the table."""
    mask = len(table) - 1
    for slot in leaving:
        hole = np.int64(hashes[slot, 0] & np.uint64(mask))
        while table[hole] != slot + 1:
            hole = (hole + 1) & mask
        table[hole] = 0
        place = hole
        while True:
            place = (place + 1) & mask
            if table[place] == 0:
                break
            home = np.int64(hashes[table[place] - 1, 0] & np.uint64(mask))
            # A follower may move back into the hole unless its home lies between the two (around the end of the table).
            if (place - home) & mask >= (place - hole) & mask:
                table[hole] = table[place]
                table[place] = 0
                hole = place


@compiled("void(const int64[::1], int64[::1], uint64[:, ::1])", makes_arrays=False)
def rebuild(present: Ints, table: Ints, hashes: NDArray[np.uint64]) -> None:
    """Fill an empty table with slots."""
    mask = len(table) - 1
    for slot in present:
        place = np.int64(hashes[slot, 0] & np.uint64(mask))
        while table[place] != 0:
            place = (place + 1) & mask
        table[place] = slot + 1
