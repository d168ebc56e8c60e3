"""Columns: the values of one field over the rows of a batch.

A column is one of

- a numpy array: bool, int32, int64, float32 or float64;
- `PackedBytes`: strings (UTF-8) and bytes, as stretches of one buffer;
- `Symbols`: an enum, as codes into its symbols;
- `Constant`: one value in every row;
- `Nullable`: any of these with a mask of the rows that have a value;
- `Ragged`: arrays, as stretches of a longer column (or of several, for an array of records).

Columns are never written in place: what changes a column makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Octets = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PackedBytes(Sequence[bytes]):
    """Byte strings as stretches of one buffer: row i is ``data[starts[i]:ends[i]]``.

    Stretches may overlap, repeat and stand in any order, so taking rows copies no bytes.
    """

    data: Octets  # shape (size_bytes,)
    starts: Ints  # shape (n,)
    ends: Ints  # shape (n,)

    @classmethod
    def pack(cls, values: Sequence[bytes]) -> PackedBytes:
        """Lay byte strings back to back in one buffer."""
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if len(values) else ends
        return cls(np.frombuffer(b"".join(values), np.uint8), starts, ends)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> PackedBytes: ...

    def __getitem__(self, row: int | slice) -> bytes | PackedBytes:
        return self.take(row) if isinstance(row, slice) else self.data[self.starts[row] : self.ends[row]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        buffer = self.data.tobytes()
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield buffer[start:end]

    def take(self, rows: NDArray[Any] | slice) -> PackedBytes:
        """The given rows (indices, a mask or a slice), sharing the buffer."""
        return PackedBytes(self.data, self.starts[rows], self.ends[rows])

    def equals(self, value: str | bytes) -> Mask:
        """Shape (n,): which rows hold exactly this value."""
        wanted = np.frombuffer(value.encode() if isinstance(value, str) else value, np.uint8)
        same: Mask = np.equal(self.ends - self.starts, len(wanted))
        for place, octet in enumerate(wanted.tolist()):
            rows = np.flatnonzero(same)
            same[rows] = self.data[self.starts[rows] + place] == octet
        return same

    def is_in(self, values: Sequence[str | bytes]) -> Mask:
        """Shape (n,): which rows hold one of these values."""
        found = np.zeros(len(self), np.bool_)
        for value in values:
            found |= self.equals(value)
        return found


@dataclass(frozen=True, slots=True)
class Symbols:
    """An enum's values as codes: row i is ``symbols[codes[i]]``."""

    codes: NDArray[np.int32]  # shape (n,)
    symbols: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def equals(self, symbol: str) -> Mask:
        """Shape (n,): which rows hold this symbol."""
        return np.asarray(self.codes == self.symbols.index(symbol))

    def is_in(self, symbols: Sequence[str]) -> Mask:
        """Shape (n,): which rows hold one of these symbols."""
        return np.isin(self.codes, [self.symbols.index(s) for s in symbols])


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value in each of n rows: a number, a bool, or bytes (UTF-8 for a string or an enum's symbol)."""

    value: float | int | bool | bytes
    rows: int

    def __len__(self) -> int:
        return self.rows


@dataclass(frozen=True, slots=True)
class Nullable:
    """A column some of whose rows are null; what ``values`` holds there means nothing."""

    values: Column
    valid: Mask  # shape (n,)

    def __len__(self) -> int:
        return len(self.valid)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Arrays: row i is ``items[starts[i]:ends[i]]``; for an array of records, ``items`` has a column for each field."""

    items: Column | Mapping[str, Column]
    starts: Ints  # shape (n,)
    ends: Ints  # shape (n,)

    def __len__(self) -> int:
        return len(self.starts)


Column: TypeAlias = "NDArray[Any] | PackedBytes | Symbols | Constant | Nullable | Ragged"
Columns: TypeAlias = "Mapping[str, Column]"
EventColumns: TypeAlias = "Mapping[str, Any]"  # the same for a user's function, which knows what each of its columns is


def rows_of(column: Column, rows: slice) -> Column:
    """A stretch of a column's rows, sharing what lies under it."""
    if isinstance(column, PackedBytes):
        return column.take(rows)
    if isinstance(column, Symbols):
        return Symbols(column.codes[rows], column.symbols)
    if isinstance(column, Constant):
        return Constant(column.value, len(range(*rows.indices(column.rows))))
    if isinstance(column, Nullable):
        return Nullable(rows_of(column.values, rows), column.valid[rows])
    if isinstance(column, Ragged):
        return Ragged(column.items, column.starts[rows], column.ends[rows])
    return column[rows]
