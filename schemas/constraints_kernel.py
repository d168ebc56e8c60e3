"""The loops behind constraints on values of bytes: patterns, domains, and what came before within a window."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Mask, Octets
from schemas.compiled import compiled

_FNV_START: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)

Hashes = NDArray[np.uint64]


@compiled(
    "void(const uint8[::1], const int64[::1], const int64[::1], const int32[::1], const uint8[::1], int64, "
    "const boolean[::1], boolean[::1])"
)
def run_pattern(
    data: Octets, starts: Ints, ends: Ints, moves: NDArray[np.int32], class_of: Octets, classes: int, accepts: Mask, found: Mask
) -> None:
    """Which stretches an automaton accepts (`schemas/constraints_pattern.py`)."""
    for row in range(len(found)):
        state = np.int64(0)
        for at in range(starts[row], ends[row]):
            state = np.int64(moves[state * classes + class_of[data[at]]])
            if state < 0:
                break
        found[row] = state >= 0 and accepts[state]


@compiled("void(const uint8[::1], const int64[::1], const int64[::1], uint64[::1])")
def hash_texts(data: Octets, starts: Ints, ends: Ints, hashes: Hashes) -> None:
    """FNV-1a of stretches, 64 bits, mixed once more so that its low bits can name a place in a table."""
    for row in range(len(hashes)):
        value = _FNV_START
        for at in range(starts[row], ends[row]):
            value = (value ^ np.uint64(data[at])) * _FNV_PRIME
        hashes[row] = mixed(value)


@compiled("void(const int64[::1], uint64[::1])")
def hash_words(words: Ints, hashes: Hashes) -> None:
    """Of numbers of 64 bits, as their bits are."""
    for row in range(len(hashes)):
        hashes[row] = mixed(np.uint64(words[row]))


@compiled()
def mixed(value: np.uint64) -> np.uint64:
    """Spreads a number's bits over all of it (the finish of Murmur3)."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled(
    "void(const uint8[::1], const int64[::1], const int64[::1], const uint8[::1], const int64[::1], const int64[::1], "
    "const int64[::1], boolean[::1])"
)
def run_domain(
    data: Octets, starts: Ints, ends: Ints, known: Octets, known_starts: Ints, known_ends: Ints, table: Ints, found: Mask
) -> None:
    """Which stretches are one of some known ones; `table`, of a power of two, holds the numbers of those by their hash, else -1."""
    last = np.uint64(len(table) - 1)
    for row in range(len(found)):
        value = _FNV_START
        for at in range(starts[row], ends[row]):
            value = (value ^ np.uint64(data[at])) * _FNV_PRIME
        place = np.int64(mixed(value) & last)
        size = ends[row] - starts[row]
        found[row] = False
        while table[place] >= 0:
            number = table[place]
            same = known_ends[number] - known_starts[number] == size
            for offset in range(size if same else 0):
                if known[known_starts[number] + offset] != data[starts[row] + offset]:
                    same = False
                    break
            if same:
                found[row] = True
                break
            place = np.int64(np.uint64(place + 1) & last)


@compiled("int64(const uint64[::1], const int64[::1], const boolean[::1], int64, uint64[::1], int64[::1], int64, int64, boolean[::1])")
def run_unique(
    hashes: Hashes, times_ms: Ints, looked_at: Mask, window_ms: int, keys: Hashes, last_ms: Ints, free: int, row: int, again: Mask
) -> int:
    """Which rows have a value seen less than a window away, from `row` on; ends early where the table has no `free` place left.

    `keys` holds hashes (0 = none) and `last_ms` the newest time of each. Gives the row it came to, and in ``again`` what it found.
    """
    last = np.uint64(len(keys) - 1)
    while row < len(again):
        again[row] = False
        if looked_at[row]:
            wanted = hashes[row] | np.uint64(1)
            place = np.int64(wanted * _MIX >> np.uint64(1) & last)
            while keys[place] != 0 and keys[place] != wanted:
                place = np.int64(np.uint64(place + 1) & last)
            if keys[place] == 0:
                if free == 0:
                    return row
                free -= 1
                keys[place] = wanted
                last_ms[place] = times_ms[row]
            else:
                away = times_ms[row] - last_ms[place]
                again[row] = abs(away) < window_ms
                last_ms[place] = max(last_ms[place], times_ms[row])
        row += 1
    return row
