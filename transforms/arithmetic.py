"""From a window's integers to a feature: one elementwise function of +, -, *, / and sqrt.

Each of these is exactly rounded on every machine, so equal integers give equal bits, online and offline.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Floats, Ints
from schemas.compiled import compiled

# What an aggregate wants from the records of its window.
NEEDS_SUM: Final = 1
NEEDS_SQUARES: Final = 2
NEEDS_EXTREMES: Final = 4
NEEDS_DISTINCT: Final = 8
NEEDS_LAST: Final = 16
NEEDS_LABELS: Final = 32

# Which arithmetic makes a feature of them.
COUNT: Final = 0
SUM: Final = 1
MEAN: Final = 2
STD: Final = 3
MIN: Final = 4
MAX: Final = 5
RATE_PER_DAY: Final = 6
RATIO_TO_MEAN: Final = 7
DISTINCT: Final = 8
LAST: Final = 9
LABEL_COUNT: Final = 10
LABEL_RATE: Final = 11

# The integers of a window: how many events, then six for each value. Of labels, S1 is how many are 1.
N: Final = 0
S1: Final = 0
S2: Final = 1
LEAST: Final = 2
GREATEST: Final = 3
DIFFERENT: Final = 4
NEWEST: Final = 5
VALUE_INTEGERS: Final = 6

KIND: Final = 0  # fields of a feature
WINDOW: Final = 1
VALUE: Final = 2  # which of the record's values; 0 where none is needed
OWN: Final = 3  # 1 if the event itself is in its window
FEATURE_FIELDS: Final = 4

SCALE: Final = 0  # terms of a feature
EMPTY: Final = 1
LENGTH_DAYS: Final = 2
FEATURE_TERMS: Final = 3


@compiled(makes_arrays=False)
def _std(n: int, s1: int, s2: int) -> float:
    """Sample standard deviation from the number of values (2 or more), their sum and the sum of their squares.

    n s2 - s1^2 in wrapping int64 is exact whenever the true value is below 2^63, even if both products wrap; where the estimate
    says that it may not be, the estimate is as good as a float gets.
    """
    estimate = float(n) * float(s2) - float(s1) * float(s1)
    spread = float(n * s2 - s1 * s1) if estimate < 2.0**62 else estimate
    return math.sqrt(max(spread / (float(n) * (float(n) - 1.0)), 0.0))


@compiled(makes_arrays=False)
def _feature(kind: int, n: int, own: int, of: Ints, x: int, scale: float, empty: float, length_days: float) -> float:
    """One feature of a window with n events, the event itself among them if `own`; x is the event's own value."""
    if n == 0:
        return empty
    if kind == COUNT:
        return float(n)
    if kind == RATE_PER_DAY:
        return float(n) / length_days
    if kind == SUM:
        return float(of[S1]) / scale
    if kind == MEAN:
        return float(of[S1]) / (float(n) * scale)
    if kind == STD:
        return _std(n, of[S1], of[S2]) / scale if n > 1 else empty
    if kind == MIN:
        return float(of[LEAST]) / scale
    if kind == MAX:
        return float(of[GREATEST]) / scale
    if kind == RATIO_TO_MEAN:
        others = n - own
        rest = of[S1] - own * x
        return float(x) / (float(rest) / float(others)) if others > 0 and rest != 0 else empty
    if kind == DISTINCT:
        return float(of[DIFFERENT])
    if kind == LABEL_COUNT:
        return float(of[S1])
    if kind == LABEL_RATE:
        return float(of[S1]) / float(n)
    return float(of[NEWEST]) / scale


@compiled(
    "void(const int64[:, ::1], const float64[:, ::1], int64[:, :, ::1], const int64[:, ::1], const int64[::1], float64[:, ::1], int64)",
    makes_arrays=False,
)
def compute(
    features: NDArray[np.int64],  # (k, FEATURE_FIELDS)
    terms: Floats,  # (k, FEATURE_TERMS)
    integers: NDArray[np.int64],  # (m, windows, 1 + 6 x values)
    given: NDArray[np.int64],  # (values, m) the events' own values
    rows: Ints,  # (m,) where each event stands in `out`
    out: Floats,  # (n, all features)
    first_column: int,
) -> None:
    """Fill columns first_column .. first_column + k of the events' rows."""
    for i in range(len(rows)):
        for f in range(len(features)):
            value = features[f, VALUE]
            window = integers[i, features[f, WINDOW]]
            at = 1 + value * VALUE_INTEGERS
            x = given[value, i] if len(given) else 0
            out[rows[i], first_column + f] = _feature(
                features[f, KIND], window[N], features[f, OWN], window[at:], x, terms[f, SCALE], terms[f, EMPTY], terms[f, LENGTH_DAYS]
            )
