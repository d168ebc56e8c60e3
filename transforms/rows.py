"""Some rows of a column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Constant, Nullable, PackedBytes, Symbols


def taken(column: Column, rows: NDArray[np.intp]) -> Column:
    """The rows at these places, each named at most once and in order.

    Raises:
        TypeError: arrays, which can be neither a key nor a value.
    """
    if len(rows) == len(column):
        return column
    match column:
        case np.ndarray():
            return column[rows]
        case PackedBytes():
            return column.take(rows)
        case Symbols():
            return replace(column, codes=column.codes[rows])
        case Constant():
            return replace(column, rows=len(rows))
        case Nullable():
            return Nullable(taken(column.values, rows), column.valid[rows])
    raise TypeError(f"arrays ({type(column).__name__}) can be neither a key nor a value")
