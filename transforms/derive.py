"""Derived columns: a user's functions of a batch's columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Constant, Mask, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import DefinitionError
from schemas.features import Json

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Derived:
    """A new column: a function of the columns of a batch.

    The function gets every row of a batch, those that were refused included, and gives an array (or other column) of the same
    length. It must look at nothing else, and each row's value must depend on that row alone: results are recomputed from the
    log at any time, in batches cut anywhere.

    Attributes:
        name: of the new column.
        function: columns of n rows -> a column of n rows.
        version: raise it when the function's meaning changes; name and version are what fingerprints know of a function.
    """

    name: str
    function: Callable[[Columns], Any] | _RowByRow
    version: int = 1

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DefinitionError(f"a derived column's name must be an identifier, not {self.name!r}")

    @classmethod
    def per_row(cls, name: str, function: Callable[[Row], Any], version: int = 1) -> Derived:
        """A column made row by row from a dict of Python values (None for null).

        Convenient, and slow: some microseconds a row where a function over columns takes nanoseconds. It is called for usable
        rows only; others get 0.
        """
        return cls(name, _RowByRow(function), version)

    def describe(self) -> Json:
        """The definition, for a fingerprint."""
        return {"derived": self.name, "version": self.version}


@dataclass(frozen=True, slots=True)
class _RowByRow:
    """A per-row function as one over columns."""

    function: Callable[[Row], Any]

    def __call__(self, columns: Columns, usable: Mask) -> NDArray[Any]:
        names = [name for name, column in columns.items() if not isinstance(column, Ragged)]
        rows = np.flatnonzero(usable)
        values = zip(*(_python_values(columns[name], rows) for name in names), strict=True)
        results = [self.function(dict(zip(names, row, strict=True))) for row in values]
        made = np.asarray(results if results else [0.0])
        column = np.zeros(len(usable), made.dtype)
        column[rows] = made[: len(rows)]
        return column


class DerivedFault(Exception):
    """A derived column's function broke its promise: a bug in the pipeline file, which stops the worker."""


def derive(columns: Columns, derived: Sequence[Derived], usable: Mask) -> dict[str, Column]:
    """The columns and the derived ones, each of which may use those before it.

    Raises:
        DerivedFault: a function raised, or gave a column of the wrong length or type, or no finite number in a usable row.
    """
    result = dict(columns)
    for each in derived:
        result[each.name] = _checked(each, _call(each, result, usable), usable)
    return result


def _call(derived: Derived, columns: Columns, usable: Mask) -> Any:
    # Rows that were refused hold anything; what numpy thinks of them is nobody's business.
    with _FaultsOf(derived), np.errstate(all="ignore"):
        if isinstance(derived.function, _RowByRow):
            return derived.function(columns, usable)
        return derived.function(columns)


@dataclass(frozen=True, slots=True)
class _FaultsOf:
    """Whatever a user's function raises goes on up, under the name of its column."""

    derived: Derived

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            raise DerivedFault(f"derived column {self.derived.name!r}: its function raised {type(error).__name__}: {error}") from error


def _checked(derived: Derived, made: Any, usable: Mask) -> Column:
    if isinstance(made, PackedBytes | Symbols | Constant | Nullable | Ragged):
        column: Column = made
    else:
        column = np.asarray(made)
        if column.dtype.kind not in "biuf" or column.ndim != 1:
            raise DerivedFault(f"derived column {derived.name!r}: wanted one number a row, got {column.dtype} of shape {column.shape}")
    if len(column) != len(usable):
        raise DerivedFault(f"derived column {derived.name!r}: {len(column)} rows for a batch of {len(usable)}")
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(column) & usable)
        if len(bad):
            raise DerivedFault(f"derived column {derived.name!r}: {column[bad[0]]} in row {bad[0]} of the batch ({len(bad)} such rows)")
    return column


def _python_values(column: Column, rows: NDArray[np.intp]) -> list[Any]:
    if isinstance(column, Nullable):
        values = _python_values(column.values, rows)
        return [value if valid else None for value, valid in zip(values, column.valid[rows].tolist(), strict=True)]
    if isinstance(column, PackedBytes):
        return [_text(value) for value in column.take(rows)]
    if isinstance(column, Symbols):
        return [column.symbols[code] for code in column.codes[rows].tolist()]
    if isinstance(column, Constant):
        value = column.value
        return [_text(value) if isinstance(value, bytes) else value] * len(rows)
    if isinstance(column, Ragged):
        raise TypeError("arrays are not handed to per-row functions")
    return list(column[rows].tolist())


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
