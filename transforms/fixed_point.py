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
_NEIGHBOURS = 4  # floats that a value may lie away from the one nearest to whole units: what some sums and products leave behind
_LARGEST_SLIP = 1 / 128  # of a unit: a digit too many is a tenth of one or a hundredth, and is told from a slip


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A column counted in units of 1 / scale: with scale 100, an amount of 12.34 is the integer 1234.

    Attributes:
        column: a column of floats or integers.
        scale: units in 1; a value with more digits than that is refused by `rules`. One that arithmetic has left a few floats beside a
            whole number of units (0.1 + 0.2, or 87.7 as 17.54 * 5) is that number; see `keeps`.
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
            definition=["fixed_point", self.column, self.scale, _NEIGHBOURS],
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
        """Shape (n,): which rows have a value that the scale keeps whole; a float32 is taken as the decimal nearest to it.

        A value may lie up to four floats of its own type beside the nearest one to its units, as long as that is less than 1/128 of a
        unit. So every value that is kept has one number of units, `convert` finds it, and one digit too many or two never pass.
        """
        if isinstance(column, Nullable):
            return self.keeps(column.values) & column.valid
        values = numbers(self.column, column)
        if values.dtype.kind in "iub":
            return np.ones(len(values), np.bool_)
        nearest = (self.convert(values) / self.scale).astype(values.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            slip = _NEIGHBOURS * np.spacing(np.abs(nearest)).astype(np.float64)
            near = (np.abs(values.astype(np.float64) - nearest) <= slip) & (slip * self.scale < _LARGEST_SLIP)
        return np.asarray((nearest == values) | near)

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
