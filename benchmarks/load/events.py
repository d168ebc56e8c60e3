"""The events of a load: made up from the pipeline's schema and rules, each by its row number alone.

Every process that asks for a row gets the same event, so nothing has to be kept or sent around: generators make what they send, the
reader knows from an event's id when it was due, and the check makes the log again.

Event time runs evenly, so fast that a key has `live` events within the longest window, however high the rate: windows are full all the
time. The rows before the first that is timed fill them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from schemas.avro import Enum
from schemas.columns import Column, Constant, Floats, Ints, Mask, Nullable, PackedBytes, Symbols, rows_of
from schemas.errors import DefinitionError, Refused
from schemas.rules import check
from streams.definition.bound import Bound
from streams.definition.event_columns import EventColumn
from streams.hop import leaf_types, texts
from transforms.entity import Entity

BLOCK_ROWS = 1_024  # made between two ticks of a generator, so as not to make it late
START_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
TRIED_ROWS = 512
ID_DIGITS = 12
ID = b"load-%012d"
# No framing begins like this, and as a bare value it is a length that no record has.
POISON = b"\xff" * 10 + b"%012d"
TYPICAL = 1_000.0  # of a number that no rule bounds
TEXT = b"load"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent, beside how fast.

    Attributes:
        seed: another seed makes other events.
        keys: of each key column.
        live: events that a key has within the longest window.
        zipf: exponent of the keys' popularity; 0 = all alike.
        late_share: of events before their time, by as much as their entities still take.
        too_late_share: of events before even that.
        poison_share: of records that are no event at all.
    """

    seed: int = 0
    keys: int = 10_000
    live: int = 60
    zipf: float = 0.0
    late_share: float = 0.0
    too_late_share: float = 0.0
    poison_share: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.late_share, self.too_late_share, self.poison_share)
        if not (1 <= self.keys <= 10_000_000 and 1 <= self.live <= 100_000 and 0 <= self.zipf <= 5):
            raise Refused(f"{self.keys} keys, {self.live} events of each, Zipf {self.zipf:g}: wanted up to 10,000,000, 100,000 and 5")
        if min(shares) < 0 or sum(shares) > 1:
            raise Refused(f"shares of late, too late and poison are {shares}: wanted 0 to 1, together too")

    @property
    def history(self) -> int:
        """Rows that fill the windows."""
        return self.keys * self.live


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive events, row by row."""

    first_row: int
    columns: dict[str, Column]  # as the encoder takes them
    keys: PackedBytes  # of the records
    event_ms: Ints
    poison: Mask

    def __len__(self) -> int:
        return len(self.poison)


class Events:
    """Makes a pipeline's events.

    Args:
        bound: the pipeline.
        traffic: what they are like.

    Raises:
        DefinitionError: an event can't be made up that its schema and rules take.
    """

    def __init__(self, bound: Bound, traffic: Traffic) -> None:
        self.bound, self.traffic = bound, traffic
        self._types = leaf_types(bound.schema)
        entities = bound.pipeline.entities
        self._key_columns = tuple(dict.fromkeys((bound.key, *(name for entity in entities for name in entity.key_columns))))
        span_ms = max((window.length_ms + window.delay_ms for entity in entities for window in entity.windows), default=1_000)
        self.step_ms = span_ms / traffic.history
        self._lateness_ms = min((entity.lateness_ms for entity in entities), default=0)
        self._bounds, self._choices = _declared(bound)
        self._scales = {amount.column: amount.scale for e in entities for amount in e.values if not isinstance(amount, str)}
        guarded = [entity.name for entity in entities if entity.guard is not None]
        if guarded:
            raise DefinitionError(f"entity {guarded[0]!r} has a guard, and a load's events are of 2024: it would believe none of them")
        self._try()

    @cached_property
    def _popularity(self) -> Floats | None:
        """The share of draws that fall on the first so many keys."""
        if self.traffic.zipf == 0:
            return None
        weights = np.arange(1, self.traffic.keys + 1, dtype=np.float64) ** -self.traffic.zipf
        return np.cumsum(weights / weights.sum())

    @cached_property
    def _names(self) -> dict[str, PackedBytes]:
        """Every key's text, by column."""
        return {
            name: PackedBytes.pack([b"%s-%07d" % (name.encode(), key) for key in range(self.traffic.keys)]) for name in self._key_columns
        }

    def blocks(self, first_row: int, end_row: int) -> Iterator[Block]:
        """The events from one row to before another."""
        for number in range(first_row // BLOCK_ROWS, -(-end_row // BLOCK_ROWS)):
            start = number * BLOCK_ROWS
            yield self._block(number, max(first_row - start, 0), min(end_row - start, BLOCK_ROWS))

    def key_numbers(self, entity: Entity, rows: int) -> Ints:
        """Shape (rows,): which key of an entity each of the first so many rows is of, as a number."""
        numbers = np.zeros(rows, np.int64)
        for number in range(-(-rows // BLOCK_ROWS)):
            random = self._random(number)
            drawn = {name: self._draw(random) for name in self._key_columns}
            here = slice(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, rows))
            for name in entity.key_columns:
                folded = drawn[name] % len(self._symbols(name)) if isinstance(self._types[name], Enum) else drawn[name]
                numbers[here] = numbers[here] * self.traffic.keys + folded[: here.stop - here.start]
        return numbers

    def _block(self, number: int, begin: int, end: int) -> Block:
        # All of a block is drawn, whatever of it is wanted: a row is the same in each.
        random = self._random(number)
        rows = number * BLOCK_ROWS + np.arange(BLOCK_ROWS, dtype=np.int64)
        drawn = {name: self._draw(random) for name in self._key_columns}
        kind = random.random(BLOCK_ROWS)
        event_ms = START_MS + (rows * self.step_ms).astype(np.int64) - self._behind_ms(random, kind)
        columns: dict[str, Column] = {}
        for name, column in self.bound.columns.items():
            values = rows_of(self._values(column, random, rows, event_ms, drawn), slice(begin, end))
            nullable = column.nullable and not isinstance(values, Nullable)
            columns[name] = Nullable(values, np.ones(end - begin, np.bool_)) if nullable else values
        return Block(int(rows[begin]), columns, texts(columns[self.bound.key]), event_ms[begin:end], self._is_poison(kind)[begin:end])

    def _random(self, number: int) -> Generator:
        """A block's own stream of numbers."""
        return Generator(Philox(key=self.traffic.seed, counter=[0, 0, 0, number]))

    def _is_poison(self, kind: Floats) -> Mask:
        return kind >= 1 - self.traffic.poison_share

    def _draw(self, random: Generator) -> Ints:
        share = random.random(BLOCK_ROWS)
        if self._popularity is None:
            return (share * self.traffic.keys).astype(np.int64)
        return np.minimum(np.searchsorted(self._popularity, share), self.traffic.keys - 1)

    def _behind_ms(self, random: Generator, kind: Floats) -> Ints:
        share = random.random(BLOCK_ROWS)
        late = kind < self.traffic.late_share
        too_late = ~late & (kind < self.traffic.late_share + self.traffic.too_late_share)
        span = np.int64(self._lateness_ms)
        # A key's newest event is some steps old: what is to be too late goes back by that much more, and an hour.
        since_last_ms = int(self.step_ms * self.traffic.keys * 20)
        far = span + since_last_ms + (share * 3_600_000).astype(np.int64)
        return np.where(late, (share * span).astype(np.int64), np.where(too_late, far, 0))

    def _values(self, column: EventColumn, random: Generator, rows: Ints, event_ms: Ints, drawn: dict[str, Ints]) -> Column:
        name, kind = column.name, self._types[column.name]
        if name == self.bound.event_id:
            return PackedBytes.pack([ID % row for row in rows.tolist()])
        if name == self.bound.event_time.column:
            return event_ms * self.bound.event_time.units_per_ms
        if isinstance(kind, Enum):
            symbols = self._symbols(name)
            picks = drawn[name] % len(symbols) if name in drawn else random.integers(len(symbols), size=len(rows))
            return Symbols(np.array([kind.symbols.index(each) for each in symbols], np.int32)[picks], kind.symbols)
        if name in drawn:
            return self._names[name].take(drawn[name]) if column.type in ("string", "bytes") else drawn[name].astype(_dtype(column))
        if name in self._choices:
            chosen = self._choices[name]
            picks = random.integers(len(chosen), size=len(rows))
            return PackedBytes.pack(chosen).take(picks) if isinstance(chosen[0], bytes) else np.asarray(chosen, _dtype(column))[picks]
        if column.type in ("int", "long", "float", "double"):
            return self._numbers(column, random)
        if column.type == "boolean":
            return random.random(len(rows)) < 0.5
        return _filler(column, len(rows))

    def _symbols(self, name: str) -> list[str]:
        """What an enum's events say: any of its symbols that the rules allow."""
        kind = self._types[name]
        assert isinstance(kind, Enum)
        return [each.decode() for each in self._choices[name]] if name in self._choices else list(kind.symbols)

    def _numbers(self, column: EventColumn, random: Generator) -> NDArray[Any]:
        low, high = self._bounds.get(column.name, (0.0, TYPICAL))
        whole = column.type in ("int", "long")
        scale = self._scales.get(column.name, 1 if whole else 100)
        units = np.rint(random.standard_gamma(2.0, BLOCK_ROWS) * min(high - low, TYPICAL) * scale / 30)
        clipped: Floats = np.clip(np.ceil(low * scale) + units, np.ceil(low * scale), np.floor(high * scale))
        values: NDArray[Any] = (clipped / scale).astype(_dtype(column))
        return values

    def _try(self) -> None:
        """Some events must pass the pipeline's rules, else nothing but dead letters would be measured."""
        (block,) = self.blocks(0, TRIED_ROWS)
        time = self.bound.event_time
        columns = {**block.columns, time.column: time.to_ms(block.columns[time.column])}
        refused = check(self.bound.rules, columns, np.zeros(len(block), np.uint8))
        bad = np.flatnonzero(refused & ~block.poison)
        if len(bad):
            row = int(bad[0])
            broken = next(rule for rule in self.bound.rules if not rule.holds(columns)[row])
            raise DefinitionError(
                f"pipeline {self.bound.name!r}: no load can be made up: rule {broken.name} refuses {len(bad)} of {TRIED_ROWS} events, "
                f"such as one with {broken.explain(columns, row)}"
            )


def rows_of_ids(ids: PackedBytes) -> Ints:
    """Shape (n,): the row numbers that event ids stand for; -1 where one is not of a load."""
    at = ids.ends - ID_DIGITS
    ours = (ids.ends - ids.starts) == len(ID % 0)
    places = np.where(ours, at, 0)[:, None] + np.arange(ID_DIGITS)
    digits = ids.data[np.minimum(places, max(len(ids.data) - 1, 0))].astype(np.int64) - ord("0") if len(ids) else np.zeros((0, ID_DIGITS))
    return np.where(ours, digits @ 10 ** np.arange(ID_DIGITS - 1, -1, -1), -1).astype(np.int64)


def row_of_poison(value: bytes | None) -> int:
    """The row number of a poisoned record; -1 = it is none of a load."""
    if value is None or len(value) != len(POISON % 0) or not value.startswith(POISON[:10]) or not value[10:].isdigit():
        return -1
    return int(value[10:])


def _declared(bound: Bound) -> tuple[dict[str, tuple[float, float]], dict[str, list[Any]]]:
    """What the rules that Millrace knows ask for: ranges and choices, by column."""
    ranges: dict[str, tuple[float, float]] = {}
    choices: dict[str, list[Any]] = {}
    for rule in bound.rules:
        match rule.definition:
            case ["in_range", str(column), low, high]:
                before = ranges.get(column, (-np.inf, np.inf))
                ranges[column] = max(before[0], float(low)), min(before[1], float(high))  # type: ignore[arg-type]
            case ["one_of", str(column), [*values]]:
                choices[column] = [value.encode() if isinstance(value, str) else value for value in values]
    # An amount that may be below zero is mostly above.
    return {name: (max(low, 0.0) if high > 0 else low, high) for name, (low, high) in ranges.items()}, choices


def _dtype(column: EventColumn) -> str:
    return {"int": "int32", "long": "int64", "float": "float32", "double": "float64"}[column.type]


def _filler(column: EventColumn, rows: int) -> Column:
    """Something for a column that nothing is known of."""
    if column.type in ("string", "bytes"):
        return Constant(TEXT, rows)
    if column.nullable:
        return Nullable(np.zeros(rows, np.int64), np.zeros(rows, np.bool_))
    raise DefinitionError(f"no load can be made up for column {column.name!r} of type {column}: wanted numbers, text or what may be null")
