"""Aggregates: what is computed from the events of a window.

Each is a definition only: the name it gives its feature, the integers it needs from the window (`needs`) and which arithmetic
turns these into a number (`kind`, `transforms/arithmetic.py`). `empty` stands where the window has too few events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from schemas.features import Json
from transforms import arithmetic
from transforms.fixed_point import FixedPoint


@dataclass(frozen=True, slots=True)
class Count:
    """How many events."""

    empty: float = 0.0

    word: ClassVar[str] = "count"
    kind: ClassVar[int] = arithmetic.COUNT
    needs: ClassVar[int] = 0
    value: ClassVar[None] = None
    unit: ClassVar[str] = "events"


@dataclass(frozen=True, slots=True)
class RatePerDay:
    """How many events for each day of the window's length."""

    empty: float = 0.0

    word: ClassVar[str] = "rate_per_day"
    kind: ClassVar[int] = arithmetic.RATE_PER_DAY
    needs: ClassVar[int] = 0
    value: ClassVar[None] = None
    unit: ClassVar[str] = "events/day"


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of a value."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "sum"
    kind: ClassVar[int] = arithmetic.SUM
    needs: ClassVar[int] = arithmetic.NEEDS_SUM
    unit: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of a value."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "mean"
    kind: ClassVar[int] = arithmetic.MEAN
    needs: ClassVar[int] = arithmetic.NEEDS_SUM
    unit: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Std:
    """The sample standard deviation of a value; `empty` for fewer than two events."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "std"
    kind: ClassVar[int] = arithmetic.STD
    needs: ClassVar[int] = arithmetic.NEEDS_SUM | arithmetic.NEEDS_SQUARES
    unit: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Min:
    """The smallest value."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "min"
    kind: ClassVar[int] = arithmetic.MIN
    needs: ClassVar[int] = arithmetic.NEEDS_EXTREMES
    unit: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Max:
    """The largest value."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "max"
    kind: ClassVar[int] = arithmetic.MAX
    needs: ClassVar[int] = arithmetic.NEEDS_EXTREMES
    unit: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Distinct:
    """How many different values: of a fixed-point value, or of any column a key could be made of (by its 64-bit hash).

    Two values of a window are taken for one with a chance below 3e-10 even among 100,000. Exact windows only (grid 1).
    """

    value: FixedPoint | str
    empty: float = 0.0

    word: ClassVar[str] = "distinct"
    kind: ClassVar[int] = arithmetic.DISTINCT
    needs: ClassVar[int] = arithmetic.NEEDS_DISTINCT
    unit: ClassVar[str] = "values"


@dataclass(frozen=True, slots=True)
class Last:
    """The value of the newest event; of several with one time, the one that came last. Most useful with ``include_self=False``."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "last"
    kind: ClassVar[int] = arithmetic.LAST
    needs: ClassVar[int] = arithmetic.NEEDS_LAST
    unit: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class RatioToMean:
    """The event's own value over the mean of the window's other events; `empty` without others, or where their sum is zero."""

    value: FixedPoint
    empty: float = 0.0

    word: ClassVar[str] = "ratio_to_mean"
    kind: ClassVar[int] = arithmetic.RATIO_TO_MEAN
    needs: ClassVar[int] = arithmetic.NEEDS_SUM
    unit: ClassVar[str] = "1"


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How many events are labelled 1 by now. An event without a label yet counts as one labelled 0.

    Give its windows a delay as long as labels take to come: else the newest events, of which nothing is known yet, are in them
    and look harmless.
    """

    empty: float = 0.0

    word: ClassVar[str] = "label_count"
    kind: ClassVar[int] = arithmetic.LABEL_COUNT
    needs: ClassVar[int] = arithmetic.NEEDS_LABELS
    value: ClassVar[None] = None
    unit: ClassVar[str] = "events"


@dataclass(frozen=True, slots=True)
class LabelRate:
    """The share of a window's events that are labelled 1 by now: `LabelCount` over `Count`, and all that is said there."""

    empty: float = 0.0

    word: ClassVar[str] = "label_rate"
    kind: ClassVar[int] = arithmetic.LABEL_RATE
    needs: ClassVar[int] = arithmetic.NEEDS_LABELS
    value: ClassVar[None] = None
    unit: ClassVar[str] = "1"


Aggregate = Count | RatePerDay | Sum | Mean | Std | Min | Max | Distinct | Last | RatioToMean | LabelCount | LabelRate


def column_of(aggregate: Aggregate) -> str | None:
    """The name of the column an aggregate is computed from; None where events are merely counted."""
    value = aggregate.value
    return value.column if isinstance(value, FixedPoint) else value


def describe(aggregate: Aggregate) -> Json:
    """The definition, for a fingerprint."""
    value = aggregate.value
    return {
        "aggregate": aggregate.word,
        "value": value.describe() if isinstance(value, FixedPoint) else value,
        "empty": float(aggregate.empty),
    }
