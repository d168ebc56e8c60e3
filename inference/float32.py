"""Features are float64, models take float32: this is the one place where one becomes the other.

Training converts through here as well, so that a served row and the row that was trained on have the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inference.scorer import Rows
from schemas.columns import Floats, Mask


class Float32Rows(NamedTuple):
    """Rows a model can take."""

    rows: Rows  # shape (n, k), C order; zeros where `finite` is false
    finite: Mask  # shape (n,): which rows stayed finite


def to_float32(features: Floats) -> Float32Rows:
    """Round features to the nearest float32.

    A row with a value that is not finite, or too large for float32 (beyond 3.4e38), is marked and zeroed: it has no score.

    Args:
        features: shape (n, k).
    """
    with np.errstate(over="ignore"):
        rows = features.astype(np.float32, order="C")
    every = np.isfinite(rows)
    if every.all():
        return Float32Rows(rows, np.ones(len(rows), np.bool_))
    finite = np.asarray(every.all(axis=1))
    rows[~finite] = 0
    return Float32Rows(rows, finite)
