"""Statistics of a field, and of records: counts, quantiles, top values and histograms, in memory that does not grow with the data.

What they are made of can be merged, written to a file and read again (`Statistics.to_json`), so that yesterday is compared with today
without keeping yesterday's rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Constant, Mask, Nullable, PackedBytes, Ragged, Symbols
from schemas.constraints_check import FieldType
from schemas.errors import SchemaError
from schemas.features import Json
from schemas.sketch import Distinct, Quantiles, Top

FORMAT = "millrace statistics 1"
RANKS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOST_TOP = 100  # values of a field that are told of
BARS = 20
LONGEST_TEXT = 60  # of a value that is kept; longer ones are cut
MOST_WHOLE = 1_000  # different whole numbers, above which they are an amount and no code


@dataclass(slots=True)
class FieldStatistics:
    """What one field was like.

    Attributes:
        type: as the schema has it.
        rows: records looked at.
        missing: of these, without a value.
        numbers: quantiles of numbers, of lengths of texts in characters' bytes, of numbers of items.
        top: of texts, booleans and whole numbers; None = there is nothing to count, or too many different ones.
        nan: numbers that are none.
    """

    type: FieldType
    rows: int = 0
    missing: int = 0
    nan: int = 0
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    squares: float = 0.0  # of the distances from the mean
    numbers: Quantiles = field(default_factory=Quantiles)
    top: Top | None = field(default_factory=Top)
    distinct: Distinct = field(default_factory=Distinct)

    @property
    def count(self) -> int:
        """Values there were."""
        return self.rows - self.missing

    @property
    def presence(self) -> float:
        """The share of records with a value."""
        return self.count / self.rows if self.rows else 1.0

    @property
    def mean(self) -> float:
        """Of the numbers; NaN if there were none."""
        return self.total / self.numbers.count if self.numbers.count else math.nan

    @property
    def std(self) -> float:
        """Of the numbers, as of a whole population."""
        return math.sqrt(self.squares / self.numbers.count) if self.numbers.count else math.nan

    @property
    def is_category(self) -> bool:
        """Whether its values are told apart and not measured."""
        return (
            self.top is not None and self.type.kind in ("string", "enum", "boolean", "int", "long", "bytes", "fixed") and not self.is_time
        )

    @property
    def is_time(self) -> bool:
        """Whether it is a time or a date."""
        return bool(self.type.logical and (self.type.logical.endswith(("millis", "micros")) or self.type.logical == "date"))

    def add(self, column: Column) -> None:
        """Look at some records' values."""
        self.rows += len(column)
        there: Mask | None = None
        while isinstance(column, Nullable):
            there = column.valid if there is None else there & column.valid
            column = column.values
        if isinstance(column, np.ndarray) and column.dtype == np.object_:
            self.missing += sum(value is None for value in column.tolist())
            return
        if there is not None:
            self.missing += len(there) - int(np.count_nonzero(there))
        if isinstance(column, Constant):
            column = (
                PackedBytes.pack([column.value] * column.rows) if isinstance(column.value, bytes) else np.full(column.rows, column.value)
            )
        if isinstance(column, PackedBytes):
            self._texts(column if there is None else column.take(there))
        elif isinstance(column, Symbols):
            codes = column.codes if there is None else column.codes[there]
            counts = np.bincount(codes, minlength=len(column.symbols))
            self._count({symbol: int(n) for symbol, n in zip(column.symbols, counts.tolist(), strict=False) if n})
        elif isinstance(column, Ragged):
            items = column.ends - column.starts
            self._measure((items if there is None else items[there]).astype(np.float64))
        else:
            self._numbers(column if there is None else column[there])

    def _texts(self, texts: PackedBytes) -> None:
        counts: dict[bytes, int] = {}
        for value in texts:
            counts[value] = counts.get(value, 0) + 1
        self._measure((texts.ends - texts.starts).astype(np.float64))
        self._count({_shown(value): n for value, n in counts.items()} if len(counts) < 2 else _merged(counts))

    def _numbers(self, values: NDArray[Any]) -> None:
        if values.dtype == np.bool_:
            yes = int(np.count_nonzero(values))
            self._count({word: n for word, n in (("true", yes), ("false", len(values) - yes)) if n})
            return
        whole = values.dtype.kind in "iu"
        numbers = values.astype(np.float64)
        if self.type.kind == "decimal":
            numbers = numbers / 10**self.type.scale
        elif whole and not self.is_time:
            self._whole(values)
        elif len(values):
            self.distinct.add(np.unique(values).tolist())
        broken = np.isnan(numbers)
        self.nan += int(np.count_nonzero(broken))
        self._measure(numbers[~broken])

    def _whole(self, values: NDArray[Any]) -> None:
        different, counts = np.unique(values, return_counts=True)
        self.distinct.add(different.tolist())
        if self.top is not None:
            if self.distinct.estimate > MOST_WHOLE:
                self.top = None
            else:
                self.top.add((str(value), n) for value, n in zip(different.tolist(), counts.tolist(), strict=True))

    def _measure(self, numbers: NDArray[np.float64]) -> None:
        if not len(numbers):
            return
        self.zeros += int(np.count_nonzero(numbers == 0))
        finite = numbers[np.isfinite(numbers)]
        before, n = self.numbers.count, len(numbers)
        self.numbers.add(numbers)
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        if len(finite) < n:
            self.total += float(numbers.sum())
            self.squares = math.nan
            return
        mean, here = (self.total / before if before else 0.0), float(numbers.sum())
        self.squares += float(((numbers - here / n) ** 2).sum()) + (here / n - mean) ** 2 * before * n / (before + n)
        self.total += here

    def _count(self, counts: Mapping[str, int]) -> None:
        self.distinct.add(counts)
        if self.top is not None:
            self.top.add(counts.items())

    def merge(self, other: FieldStatistics) -> None:
        """Take another's in: what the two were like together."""
        before, n = self.numbers.count, other.numbers.count
        if before and n:
            self.squares += other.squares + (self.mean - other.mean) ** 2 * before * n / (before + n)
        elif n:
            self.squares = other.squares
        for name in ("rows", "missing", "nan", "zeros", "total"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.numbers.merge(other.numbers)
        self.distinct.merge(other.distinct)
        if self.top is None or other.top is None:
            self.top = None
        else:
            self.top.merge(other.top)

    def values(self, most: int = MOST_TOP) -> list[tuple[str, int]]:
        """The values that came most often, with their counts."""
        return [] if self.top is None else self.top.items(most)

    def histogram(self) -> list[tuple[float, float, float]]:
        """Of the numbers: the ends of each bar and its share. The lowest and the highest hundredth stand in the outermost bars."""
        if not self.numbers.count or not (math.isfinite(self.low) and math.isfinite(self.high)):
            return []
        low, high = self.numbers.at((0.01, 0.99))
        if low == high:
            low, high = self.low, self.high
        if low == high:
            return [(low, high, 1.0)]
        inner = np.linspace(low, high, BARS + 1)
        shares = self.numbers.shares(inner[1:-1].tolist())
        ends = [self.low, *inner[1:-1].tolist(), self.high]
        return [(ends[place], ends[place + 1], float(share)) for place, share in enumerate(shares.tolist())]

    def say(self, value: float, exact: bool = True) -> float | int | str:
        """A number as the field means it: a time in ISO 8601, a whole number without a point; JSON has no infinity."""
        if not math.isfinite(value):
            return str(value)
        if self.is_time:
            return self._moment(value)
        return int(value) if exact and value == int(value) and self.type.kind not in ("float", "double", "decimal") else value

    def _moment(self, value: float) -> float | str:
        per_second = {"date": 1 / 86_400}.get(str(self.type.logical), 1_000 if str(self.type.logical).endswith("millis") else 1_000_000)
        try:
            moment = datetime.fromtimestamp(value / per_second, UTC)
        except (OverflowError, ValueError, OSError):
            return value  # a time that no calendar has
        return (
            moment.date().isoformat() if self.type.logical == "date" else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )

    def describe(self) -> dict[str, Json]:
        """In full, as JSON: what people read."""
        told: dict[str, Json] = {"type": str(self.type), "rows": self.rows, "missing": self.missing, "presence": self.presence}
        if self.numbers.count:
            say = self.say
            what = {"array": "items", "map": "items", "string": "bytes", "bytes": "bytes", "fixed": "bytes"}.get(self.type.kind, "numbers")
            told[what] = {
                "low": say(self.low), "high": say(self.high), "mean": say(self.mean, exact=False), "std": _number(self.std),
                "zeros": self.zeros,
                "quantiles": {str(rank): say(value) for rank, value in zip(RANKS, self.numbers.at(RANKS), strict=True)},
                "histogram": [[say(low, exact=False), say(high, exact=False), share] for low, high, share in self.histogram()],
            }  # fmt: skip
        if self.nan:
            told["nan"] = self.nan
        if self.count and self.type.kind not in ("array", "map", "opaque"):
            told["distinct"] = self.distinct.estimate
        if self.top is not None and (values := self.values(20)):
            told |= {"top": [{"value": value, "count": n} for value, n in values], "top_error": self.top.error}
        return told

    def to_json(self) -> dict[str, Json]:
        """In full, as JSON: what can be read again."""
        kind = self.type
        return {
            "type": [kind.kind, kind.logical, kind.scale, list(kind.symbols), kind.nullable],
            "counts": [self.rows, self.missing, self.nan, self.zeros],
            "numbers": [_number(value) for value in (self.low, self.high, self.total, self.squares)],
            "quantiles": self.numbers.written(),
            "distinct": self.distinct.written(),
            "top": None if self.top is None else self.top.written(),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> FieldStatistics:
        """From what `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        kind, logical, scale, symbols, nullable = said["type"]
        top = None if said["top"] is None else Top.read(said["top"])
        made = cls(FieldType(kind, logical, scale, tuple(symbols), nullable), *said["counts"][:4])
        made.low, made.high, made.total, made.squares = (float(value) for value in said["numbers"])
        made.numbers, made.distinct, made.top = Quantiles.read(said["quantiles"]), Distinct.read(said["distinct"]), top
        return made


@dataclass(slots=True)
class Statistics:
    """What records were like.

    Attributes:
        rows: records looked at.
        fields: by dotted path.
    """

    fields: dict[str, FieldStatistics]
    rows: int = 0

    @classmethod
    def of(cls, types: Mapping[str, FieldType]) -> Statistics:
        """Of a schema's columns; nothing looked at so far."""
        return cls({name: FieldStatistics(kind) for name, kind in types.items()})

    def add(self, columns: Columns, rows: int) -> None:
        """Look at some records."""
        self.rows += rows
        for name, column in self._columns(columns):
            self.fields[name].add(column)

    def _columns(self, columns: Columns) -> Iterator[tuple[str, Column]]:
        return ((name, columns[name]) for name in self.fields if name in columns)

    def merge(self, other: Statistics) -> None:
        """Take another's in."""
        self.rows += other.rows
        for name, each in other.fields.items():
            if name in self.fields:
                self.fields[name].merge(each)
            else:
                self.fields[name] = each

    def describe(self) -> dict[str, Json]:
        """In full, as JSON: what people read."""
        return {"rows": self.rows, "fields": {name: each.describe() for name, each in self.fields.items()}}

    def to_json(self) -> dict[str, Json]:
        """In full, as JSON: what can be read again."""
        return {"format": FORMAT, "rows": self.rows, "fields": {name: each.to_json() for name, each in self.fields.items()}}

    @classmethod
    def from_json(cls, said: Any, where: str) -> Statistics:
        """From what `to_json` gave.

        Raises:
            SchemaError: it is none; names `where`.
        """
        if not isinstance(said, Mapping) or said.get("format") != FORMAT:
            raise SchemaError(f"{where} holds no statistics of ours (`millrace schema stats --out` writes them)")
        try:
            return cls({name: FieldStatistics.from_json(each) for name, each in said["fields"].items()}, int(said["rows"]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise SchemaError(f"{where} holds broken statistics: {type(error).__name__}: {error}") from error


def chosen(column: Column, rows: NDArray[Any]) -> Column:
    """Some rows of a column, by a mask or by their places, sharing what lies under it."""
    if isinstance(column, PackedBytes):
        return column.take(rows)
    if isinstance(column, Symbols):
        return Symbols(column.codes[rows], column.symbols)
    if isinstance(column, Constant):
        return Constant(column.value, int(np.count_nonzero(rows)) if rows.dtype == np.bool_ else len(rows))
    if isinstance(column, Nullable):
        return Nullable(chosen(column.values, rows), column.valid[rows])
    if isinstance(column, Ragged):
        return Ragged(column.items, column.starts[rows], column.ends[rows])
    some: NDArray[Any] = column[rows]
    return some


def _merged(counts: Mapping[bytes, int]) -> dict[str, int]:
    """By text as it is kept: two long ones may be one by then."""
    found: dict[str, int] = {}
    for value, n in counts.items():
        text = _shown(value)
        found[text] = found.get(text, 0) + n
    return found


def _shown(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else str(value)


def names_of(some: Sequence[Statistics]) -> list[str]:
    """Every field of several, in their order."""
    return list(dict.fromkeys(name for each in some for name in each.fields))
