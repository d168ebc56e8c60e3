"""Rules: what a record must be beyond its schema, as functions over columns.

    rules = (in_range("amount", 0, 50_000), one_of("currency", ("EUR",)), present("terminal_id"))
    rejected = check(rules, columns, rejected)

A null breaks each of these; `Rule.explain` says that it was a null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Constant, Ints, Mask, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import DefinitionError
from schemas.features import Json
from schemas.reject import FIRST_RULE, MOST_RULES

Number: TypeAlias = int | float
Value: TypeAlias = str | bytes | int | float | bool


class RuleBug(Exception):
    """A rule's function raised, or returned something other than one bool a row: a bug of its author's, not of a record."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that every usable row must meet.

    Attributes:
        name: a word, safe as a metric label; the reason in the dead letter of a row that breaks the rule.
        holds: columns to shape (n,) of bool: which rows meet it.
        wanted: the condition in words, after "wanted".
        columns: what `explain` shows of a row that breaks it.
        version: to be raised when `holds` changes its mind about any row.
        definition: all that `holds` depends on; a rule without it is known by its name and version.
    """

    name: str
    holds: Callable[[Columns], Mask] = field(compare=False)
    wanted: str = ""
    columns: tuple[str, ...] = ()
    version: int = 1
    definition: Json = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DefinitionError(f"rule {self.name!r}: a rule's name is a word of letters, digits and _, since it becomes a metric label")

    def describe(self) -> Json:
        """What a fingerprint is made of."""
        return {"rule": self.name, "version": self.version, "definition": self.definition}

    def explain(self, columns: Columns, row: int) -> str:
        """Why one row breaks the rule: "amount is -1.0, wanted 0 to 50000"."""
        found = " and ".join(f"{name} is {show(columns[name], row)}" for name in self.columns)
        return ", ".join(part for part in (found, f"wanted {self.wanted}" if self.wanted else "") if part) or f"{self.name} does not hold"


def in_range(column: str, low: Number, high: Number) -> Rule:
    """Both ends belong to the range; NaN and null break the rule."""
    if not low <= high:
        raise DefinitionError(f"in_range({column!r}, {low}, {high}): the range is empty")

    def holds(columns: Columns) -> Mask:
        return _where_valid(columns[column], lambda values: _within(values, low, high, column))

    return Rule(f"{_word(column)}_in_range", holds, f"{low} to {high}", (column,), definition=["in_range", column, _json(low), _json(high)])


def one_of(column: str, values: Sequence[Value]) -> Rule:
    """The value is one of these; null breaks the rule."""
    wanted = tuple(values)
    if not wanted:
        raise DefinitionError(f"one_of({column!r}, ()): no value could ever be one of none")

    def holds(columns: Columns) -> Mask:
        return _where_valid(columns[column], lambda given: _among(given, wanted, column))

    listed = ", ".join(map(str, wanted))
    definition: Json = ["one_of", column, [_json(value) for value in wanted]]
    return Rule(f"{_word(column)}_one_of", holds, f"one of {listed}", (column,), definition=definition)


def present(column: str) -> Rule:
    """The value is not null."""

    def holds(columns: Columns) -> Mask:
        return _where_valid(columns[column], lambda values: np.ones(len(values), np.bool_))

    return Rule(f"{_word(column)}_present", holds, "a value", (column,), definition=["present", column])


def valency(column: str, least: int, most: int) -> Rule:
    """An array has at least and at most so many items; null breaks the rule."""
    if not 0 <= least <= most:
        raise DefinitionError(f"valency({column!r}, {least}, {most}): no array could ever have so many items")

    def holds(columns: Columns) -> Mask:
        return _where_valid(columns[column], lambda values: _within(_lengths(values, column), least, most, column))

    return Rule(f"{_word(column)}_valency", holds, f"{least} to {most} items", (column,), definition=["valency", column, least, most])


def check(rules: Sequence[Rule], columns: Columns, rejected: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shape (n,): the codes given, and for usable rows the code of the first rule they break, `FIRST_RULE` plus its place.

    Raises:
        RuleBug: a rule's function raised, or did not return one bool a row.
    """
    if len(rules) > MOST_RULES:
        raise DefinitionError(f"{len(rules)} rules, wanted {MOST_RULES} at most")
    checked = rejected.copy()
    for place, rule in enumerate(rules):
        with _Naming(rule):
            holds = rule.holds(columns)
        if not isinstance(holds, np.ndarray) or holds.dtype != np.bool_ or holds.shape != checked.shape:
            raise RuleBug(f"rule {rule.name!r} returned {_shape(holds)}, wanted an array of bool of shape {checked.shape}")
        checked[~holds & (checked == 0)] = FIRST_RULE + place
    return checked


def show(column: Column, row: int) -> str:
    """One row's value in words, as messages have it; shortened if it is long."""
    if isinstance(column, Nullable):
        return show(column.values, row) if column.valid[row] else "null"
    if isinstance(column, Ragged):
        return f"an array of {column.ends[row] - column.starts[row]} items"
    value: Any
    if isinstance(column, PackedBytes):
        value = column[row].decode("utf-8", "backslashreplace")
    elif isinstance(column, Symbols):
        value = column.symbols[column.codes[row]]
    elif isinstance(column, Constant):
        value = column.value.decode("utf-8", "backslashreplace") if isinstance(column.value, bytes) else column.value
    else:
        value = column[row].item() if column.dtype != np.object_ else column[row]
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class _Naming:
    """Says whose function raised."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            raise RuleBug(f"rule {self.rule.name!r} raised {type(error).__name__}: {error}") from error


def _where_valid(column: Column, holds: Callable[[Column], Mask]) -> Mask:
    if isinstance(column, Nullable):
        return _where_valid(column.values, holds) & column.valid
    return holds(column)


def _within(values: Column, low: Number, high: Number, name: str) -> Mask:
    if isinstance(values, Constant) and not isinstance(values.value, bytes):
        return np.full(values.rows, low <= values.value <= high)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iubf":
        return np.asarray((values >= low) & (values <= high))
    raise TypeError(f"column {name!r} holds no numbers: {_shape(values)}")


def _among(column: Column, wanted: tuple[Value, ...], name: str) -> Mask:
    texts = [value.encode() if isinstance(value, str) else value for value in wanted if isinstance(value, str | bytes)]
    if isinstance(column, Constant):
        return np.full(column.rows, column.value in (texts if isinstance(column.value, bytes) else wanted))
    if isinstance(column, PackedBytes):
        return column.is_in(texts)
    if isinstance(column, Symbols):
        return column.is_in([value for value in wanted if value in column.symbols and isinstance(value, str)])
    if isinstance(column, np.ndarray):
        return np.isin(column, [value for value in wanted if not isinstance(value, str | bytes)])
    raise TypeError(f"column {name!r} can't be one of some values: {_shape(column)}")


def _lengths(column: Column, name: str) -> Ints:
    if not isinstance(column, Ragged):
        raise TypeError(f"column {name!r} holds no arrays: {_shape(column)}")
    return column.ends - column.starts


def _word(column: str) -> str:
    return column.replace(".", "_")


def _json(value: Value) -> Json:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _shape(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
