"""The rules every pipeline has: what an event must be for its windows and its model to work at all.

They stand before the user's, each under a name that no rule of the user's gets by itself, since it is the reason in a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from schemas.columns import Column, Columns, Constant, Mask, Nullable, PackedBytes
from schemas.errors import DefinitionError
from schemas.rules import Rule, in_range, present
from streams.definition.event_columns import EventColumn
from streams.definition.pipeline import Pipeline, repeated
from transforms.fixed_point import FixedPoint

YEAR_1_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z
YEAR_9999_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def implicit_rules(pipeline: Pipeline, columns: Mapping[str, EventColumn], event_time: str) -> tuple[Rule, ...]:
    """What an event must be for the pipeline to work at all, each rule under a name that no rule of the user's gets by itself."""
    event_id = str(pipeline.input.event_id)
    keyed = [entity for entity in pipeline.entities if entity.missing_key == "refuse"]
    keys = dict.fromkeys((event_id, *(name for entity in keyed for name in entity.key_columns)))
    times = in_range(event_time, YEAR_1_MS, YEAR_9999_MS)
    amounts = dict.fromkeys(a.value for entity in pipeline.entities for a in entity.aggregates if isinstance(a.value, FixedPoint))
    twice = repeated(amount.column for amount in amounts)
    if twice:
        raise DefinitionError(
            f"pipeline {pipeline.name!r}: {twice!r} is declared as two different FixedPoints; wanted one for all aggregates"
        )
    counted = [amount.column for amount in amounts]
    return (
        *(_given_rule(columns[name]) for name in keys),
        replace(present(event_time), name=f"{_word(event_time)}_given"),
        replace(times, name=f"{_word(event_time)}_in_years_1_to_9999", wanted="a time in the years 1 to 9999, as milliseconds since 1970"),
        *(replace(rule, name=f"countable_{rule.name}") for amount in amounts for rule in amount.rules()),
        *(rule for name in pipeline.model.inputs if name in columns and name not in counted for rule in _input_rules(columns[name])),
    )


def label_rules(columns: Mapping[str, EventColumn], event_id: str, keys: Iterable[str], event_time: str, value: str) -> tuple[Rule, ...]:
    """What a label must be: of an event, of its keys, at a time, and 0 or 1."""
    times = in_range(event_time, YEAR_1_MS, YEAR_9999_MS)
    value_rules = [replace(present(value), name=f"{_word(value)}_given")]
    if columns[value].type != "boolean":
        value_rules.append(replace(in_range(value, 0, 1), name=f"{_word(value)}_is_0_or_1", wanted="0 or 1"))
    return (
        *(_given_rule(columns[name]) for name in dict.fromkeys((event_id, *keys))),
        replace(present(event_time), name=f"{_word(event_time)}_given"),
        replace(times, name=f"{_word(event_time)}_in_years_1_to_9999", wanted="a time in the years 1 to 9999, as milliseconds since 1970"),
        *value_rules,
    )


def _given_rule(column: EventColumn) -> Rule:
    """What tells one thing from another is there: neither null nor empty."""
    name = f"{_word(column.name)}_given"
    if column.type not in ("string", "bytes"):
        return replace(present(column.name), name=name)

    def holds(columns: Columns) -> Mask:
        return _not_empty(columns[column.name])

    return Rule(name, holds, "a value that is not empty", (column.name,), definition=["not_empty", column.name])


def _not_empty(column: Column) -> Mask:
    if isinstance(column, Nullable):
        return _not_empty(column.values) & column.valid
    if isinstance(column, Constant):
        return np.full(column.rows, bool(column.value))
    assert isinstance(column, PackedBytes)
    return np.greater(column.ends, column.starts)


def _input_rules(column: EventColumn) -> list[Rule]:
    """The model is given a finite number in every row."""
    if column.type in ("float", "double"):
        finite = in_range(column.name, -LARGEST_FLOAT32, LARGEST_FLOAT32)
        return [replace(finite, name=f"{_word(column.name)}_finite", wanted="a finite number, as float32")]
    return [replace(present(column.name), name=f"{_word(column.name)}_given")] if column.nullable else []


def _word(column: str) -> str:
    return column.replace(".", "_")
