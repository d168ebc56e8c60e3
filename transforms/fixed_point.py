"""Fixed point: amounts as whole numbers of their smallest unit, so that sums are exact in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Constant, Ints, Mask, Nullable
from schemas.errors import DefinitionError
from schemas.features import Json
from schemas.rules import Rule, in_range

_EXACT_FLOAT = 1 << 53  # up to here every integer is a float64


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A column counted in units of 1 / scale: with scale 100, an amount of 12.34 is the integer 1234.

    Attributes:
        column: a column of floats or integers.
        scale: units in 1; a value with more digits than that is refused by `rules`.
        largest: no value may lie farther from zero than this; sums are sized by it.
    """

    column: str
    scale: int
    largest: float

    def __post_init__(self) -> None:
        if self.scale < 1 or self.scale != int(self.scale):
            raise DefinitionError(f"{self}: the scale must be a whole number above 0")
        if not 0 < self.largest * self.scale <= _EXACT_FLOAT:
            raise DefinitionError(f"{self}: largest x scale must be above 0 and at most 2^53, where floats stay exact")

    @property
    def largest_units(self) -> int:
        """The largest magnitude, in units."""
        return int(np.ceil(self.largest * self.scale))

    def rules(self) -> tuple[Rule, ...]:
        """What a record's value must be: finite, within +-largest, and without more digits than the scale keeps."""
        whole = Rule(
            f"{self.column.replace('.', '_')}_scale",
            lambda columns: self.keeps(columns[self.column]),
            "a whole number" if self.scale == 1 else f"a multiple of 1/{self.scale}",
            (self.column,),
            definition=["fixed_point", self.column, self.scale],
        )
        return (in_range(self.column, -self.largest, self.largest), whole)

    def convert(self, column: Column) -> Ints:
        """Shape (n,): the values in units, rint(value x scale).

        What stands in a row that breaks the rules is an arbitrary integer: such rows take no part in anything.

        Raises:
            TypeError: the column holds no numbers.
        """
        values = numbers(self.column, column)
        if values.dtype.kind in "iub":
            return np.asarray(values.astype(np.int64) * self.scale)
        with np.errstate(invalid="ignore", over="ignore"):
            units = np.rint(values.astype(np.float64) * self.scale)
            kept = np.abs(units) <= _EXACT_FLOAT  # false for NaN, too
        return np.where(kept, units, 0.0).astype(np.int64)

    def keeps(self, column: Column) -> Mask:
        """Shape (n,): which rows have a value that the scale keeps whole; a float32 is taken as the decimal nearest to it."""
        if isinstance(column, Nullable):
            return self.keeps(column.values) & column.valid
        values = numbers(self.column, column)
        if values.dtype.kind in "iub":
            return np.ones(len(values), np.bool_)
        units = self.convert(values)
        return np.asarray((units / self.scale).astype(values.dtype) == values)

    def describe(self) -> Json:
        """The definition, for a fingerprint."""
        return {"column": self.column, "scale": self.scale, "largest": float(self.largest)}


def numbers(name: str, column: Column) -> NDArray[Any]:
    """Shape (n,): the numbers of a column as an array; what stands in null rows is arbitrary.

    Raises:
        TypeError: the column holds no numbers.
    """
    if isinstance(column, Nullable):
        return numbers(name, column.values)
    if isinstance(column, Constant) and not isinstance(column.value, bytes):
        return np.full(column.rows, column.value)
    if isinstance(column, np.ndarray) and column.dtype.kind in "iubf":
        return column
    raise TypeError(f"column {name!r} should hold numbers, not {type(column).__name__}")
