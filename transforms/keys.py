"""Keys: the bytes that tell one key from another, and their 128-bit hash.

A key's *id* is its parts one after the other, each with its type and length before it, so that a string is not the integer of
the same digits and ("ab", "c") is not ("a", "bc"):

    text, bytes, enum symbol   's'  length (uint32)  the bytes
    integer, boolean           'i'  8 (uint32)       int64

all little-endian. The hash is MurmurHash3_x64_128 of the id, seed 0 (Austin Appleby, public domain:
github.com/aappleby/smhasher, src/MurmurHash3.cpp). At a billion keys two share a hash with a chance of 2e-21.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Constant, Ints, Mask, Nullable, Octets, PackedBytes, Symbols
from schemas.compiled import compiled

_TEXT = ord("s")
_INTEGER = ord("i")
_PREFIX_BYTES = 5


def key_ids(names: Sequence[str], columns: Sequence[Column]) -> PackedBytes:
    """The ids of n keys, whose parts are the rows of the given columns.

    Raises:
        ValueError: a part is null.
        TypeError: a column's values can't be keys (floats, arrays).
    """
    parts = [_part(name, column) for name, column in zip(names, columns, strict=True)]
    sizes = np.zeros(len(columns[0]), np.int64)
    for part in parts:
        sizes += _PREFIX_BYTES + (part.ends - part.starts if isinstance(part, PackedBytes) else 8)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    data = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    at = starts.copy()
    for part in parts:
        if isinstance(part, PackedBytes):
            _append_bytes(part.data, part.starts, part.ends, at, data)
        else:
            _append_integers(part, at, data)
    return PackedBytes(data, starts, ends)


def key_hashes(ids: PackedBytes, seed: int = 0) -> NDArray[np.uint64]:
    """Shape (n, 2): the 128-bit hash of each byte string."""
    hashes = np.empty((len(ids), 2), np.uint64)
    _murmur3(ids.data, ids.starts, ids.ends, np.uint64(seed), hashes)
    return hashes


def identities(name: str, column: Column) -> Ints:
    """Shape (n,): 64 bits of the hash of each row's value, to tell values apart."""
    return np.ascontiguousarray(key_hashes(key_ids([name], [column]))[:, 0]).view(np.int64)


def is_given(column: Column) -> Mask:
    """Shape (n,): which rows have something that can tell one thing from another: neither null nor empty."""
    match column:
        case Nullable():
            return is_given(column.values) & column.valid
        case Constant(value=bytes() as value, rows=rows):
            return np.full(rows, bool(value))
        case PackedBytes():
            return np.greater(column.ends, column.starts)
    return np.ones(len(column), np.bool_)


def _part(name: str, column: Column) -> PackedBytes | Ints:
    match column:
        case PackedBytes():
            return column
        case Symbols():
            return PackedBytes.pack([symbol.encode() for symbol in column.symbols]).take(column.codes)
        case Constant(value=bytes() as value, rows=rows):
            return PackedBytes.pack([value]).take(np.zeros(rows, np.int64))
        case Constant(value=bool() | int() as value, rows=rows):
            return np.full(rows, value, np.int64)
        case Nullable() if column.valid.all():
            return _part(name, column.values)
        case Nullable():
            raise ValueError(f"key column {name!r} is null in {int((~column.valid).sum())} usable rows; refuse such rows with a rule")
        case np.ndarray() if column.dtype.kind in "iub":
            return np.ascontiguousarray(column, np.int64)
    raise TypeError(f"column {name!r} can't be a key: {getattr(column, 'dtype', type(column).__name__)}")


@compiled("void(const uint8[::1], const int64[::1], const int64[::1], int64[::1], uint8[::1])", makes_arrays=False)
def _append_bytes(data: Octets, starts: Ints, ends: Ints, at: Ints, out: Octets) -> None:
    for row in range(len(starts)):
        place = at[row]
        size = ends[row] - starts[row]
        out[place] = _TEXT
        for byte in range(4):
            out[place + 1 + byte] = (size >> (8 * byte)) & 255
        place += 5
        start = starts[row]
        for byte in range(size):
            out[place + byte] = data[start + byte]
        at[row] = place + size


@compiled("void(const int64[::1], int64[::1], uint8[::1])", makes_arrays=False)
def _append_integers(values: Ints, at: Ints, out: Octets) -> None:
    for row in range(len(values)):
        place = at[row]
        out[place] = _INTEGER
        out[place + 1] = 8
        for byte in range(3):
            out[place + 2 + byte] = 0
        for byte in range(8):
            out[place + 5 + byte] = (values[row] >> (8 * byte)) & 255
        at[row] = place + 13


@compiled(makes_arrays=False)
def _word(data: Octets, start: int, size: int) -> np.uint64:
    """Up to 8 bytes as a little-endian integer."""
    word = np.uint64(0)
    for byte in range(size):
        word |= np.uint64(data[start + byte]) << np.uint64(8 * byte)
    return word


@compiled(makes_arrays=False)
def _rotate(word: np.uint64, bits: np.uint64) -> np.uint64:
    return (word << bits) | (word >> (np.uint64(64) - bits))


@compiled(makes_arrays=False)
def _mix(word: np.uint64) -> np.uint64:
    word ^= word >> np.uint64(33)
    word *= np.uint64(0xFF51AFD7ED558CCD)
    word ^= word >> np.uint64(33)
    word *= np.uint64(0xC4CEB9FE1A85EC53)
    return word ^ (word >> np.uint64(33))


@compiled("void(const uint8[::1], const int64[::1], const int64[::1], uint64, uint64[:, ::1])", makes_arrays=False)
def _murmur3(data: Octets, starts: Ints, ends: Ints, seed: np.uint64, hashes: NDArray[np.uint64]) -> None:
    c1 = np.uint64(0x87C37B91114253D5)
    c2 = np.uint64(0x4CF5AD432745937F)
    for row in range(len(starts)):
        at = starts[row]
        size = ends[row] - at
        h1 = seed
        h2 = seed
        for _ in range(size // 16):
            h1 ^= _rotate(_word(data, at, 8) * c1, np.uint64(31)) * c2
            h1 = (_rotate(h1, np.uint64(27)) + h2) * np.uint64(5) + np.uint64(0x52DCE729)
            h2 ^= _rotate(_word(data, at + 8, 8) * c2, np.uint64(33)) * c1
            h2 = (_rotate(h2, np.uint64(31)) + h1) * np.uint64(5) + np.uint64(0x38495AB5)
            at += 16
        left = size % 16
        if left > 8:
            h2 ^= _rotate(_word(data, at + 8, left - 8) * c2, np.uint64(33)) * c1
        if left > 0:
            h1 ^= _rotate(_word(data, at, min(left, 8)) * c1, np.uint64(31)) * c2
        h1 ^= np.uint64(size)
        h2 ^= np.uint64(size)
        h1 += h2
        h2 += h1
        h1 = _mix(h1)
        h2 = _mix(h2)
        h1 += h2
        h2 += h1
        hashes[row, 0] = h1
        hashes[row, 1] = h2
