"""Compare texts row by row."""

from __future__ import annotations

import numpy as np

from schemas.columns import Column, Constant, Ints, Mask, Nullable, Octets, PackedBytes, Symbols
from schemas.compiled import compiled


def same_text(texts: PackedBytes, column: Column) -> Mask:
    """Shape (n,): which rows of a column have this text: a string or symbol in UTF-8, bytes as they are, an integer in decimals.

    Raises:
        TypeError: the column is of another kind.
    """
    if isinstance(column, Nullable):
        return same_text(texts, column.values) & column.valid
    if isinstance(column, PackedBytes):
        same = np.empty(len(texts), np.bool_)
        _same(texts.data, texts.starts, texts.ends, column.data, column.starts, column.ends, same)
        return same
    if isinstance(column, Symbols):
        symbols = PackedBytes.pack([symbol.encode() for symbol in column.symbols])
        return same_text(texts, symbols.take(column.codes))
    if isinstance(column, np.ndarray) and np.issubdtype(column.dtype, np.integer):
        return same_text(texts, PackedBytes.pack([b"%d" % number for number in column.tolist()]))
    found = type(column.value).__name__ if isinstance(column, Constant) else getattr(column, "dtype", type(column).__name__)
    raise TypeError(f"a key is the text of a string, bytes, enum or integer field, not of {found}")


@compiled("void(const uint8[::1], const int64[::1], const int64[::1], const uint8[::1], const int64[::1], const int64[::1], boolean[::1])")
def _same(left: Octets, left_starts: Ints, left_ends: Ints, right: Octets, right_starts: Ints, right_ends: Ints, same: Mask) -> None:
    for row in range(len(same)):
        size = left_ends[row] - left_starts[row]
        equal = right_ends[row] - right_starts[row] == size
        for place in range(size if equal else 0):
            if left[left_starts[row] + place] != right[right_starts[row] + place]:
                equal = False
                break
        same[row] = equal
