"""What a schema means to a pipeline: which fields each of its parts uses, and what becomes of them if producers write another schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from schemas.avro import AvroSchema
from schemas.codec import Decoder
from schemas.columns import Columns, PackedBytes
from schemas.compatibility import breaks, filled
from schemas.features import Json
from schemas.rules import Rule, check
from streams.definition.bound import Bound
from streams.definition.trial import try_functions
from transforms.aggregate import column_of
from transforms.derive import derive

PARTS = ("roles", "rules", "derived", "features", "model", "output")


@dataclass(frozen=True, slots=True)
class Uses:
    """What hangs on one field.

    Attributes:
        roles: whether it is the input's key, event id or event time.
        rules: names of rules that look at it.
        derived: names of derived columns made of it.
        features: names of window features made of it, by way of an entity's key or an aggregate's value.
        model: the model's inputs made of it, in the model's order.
        output: fields of the scored events made of it.
    """

    roles: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    output: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether nothing does."""
        return self == Uses()


class _Watched(dict[str, Any]):
    """Columns that remember which of them were looked at."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        super().__init__(columns)
        self.looked_at: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.looked_at.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.looked_at.add(name)
        return super().get(name, default)

    def items(self) -> Any:
        self.looked_at.update(self)
        return super().items()

    def values(self) -> Any:
        self.looked_at.update(self)
        return super().values()


def uses(bound: Bound) -> dict[str, Uses]:
    """What hangs on each column of the event. What functions look at is seen by running them over no rows.

    Raises:
        DefinitionError: one of them fails on a batch without rows.
    """
    try_functions(bound)
    columns = dict(Decoder(bound.schema, "bare", None).decode(PackedBytes.pack([])).columns)
    columns[bound.event_time.column] = bound.event_time.to_ms(columns[bound.event_time.column])
    rules = {rule.name: _seen(columns, partial(_check, rule)) for rule in bound.rules}
    made = _derived(bound, columns)
    windows = _windows(bound)
    return {name: _uses_of(name, bound, rules, made, windows) for name in bound.columns}


def impact(bound: Bound, new: AvroSchema) -> dict[str, Json]:
    """What becomes of a pipeline whose producers write a new schema, while it reads with its own.

    Returns:
        By field: what breaks, why, and what hangs on it; and the fields that would hold their default in every event.
    """
    by_name = uses(bound)
    broken: list[Json] = [
        {"field": each.path, "change": each.change, "words": each.words, "some": each.some, **_told(_under(by_name, each))}
        for each in breaks(new, bound.schema)
    ]
    silent: list[Json] = [
        {"field": each.path, "default": _plain(each.default), **_told(found)}
        for each in filled(new, bound.schema)
        if not (found := _under(by_name, each)).nothing
    ]
    return {
        "pipeline": bound.name,
        "model": bound.model.name,
        "output": bound.output.name,
        "breaks": broken,
        "defaults": silent,
    }


_NO_ROWS = np.zeros(0, np.uint8)


def _check(rule: Rule, columns: Columns) -> None:
    check((rule,), columns, _NO_ROWS)


def _seen(columns: Columns, call: Callable[[_Watched], object]) -> set[str]:
    watched = _Watched(columns)
    call(watched)
    return watched.looked_at


def _derived(bound: Bound, columns: Columns) -> dict[str, set[str]]:
    """By derived column: the columns of the event it is made of, by way of others too."""
    made: dict[str, set[str]] = {}
    known = dict(columns)
    for each in bound.pipeline.derived:
        watched = _Watched(known)
        function: Any = each.function
        if callable(function) and not hasattr(function, "function"):
            function(watched)
            looked = watched.looked_at
        else:
            looked = set(columns)  # a function of single rows is given them all
        made[each.name] = {origin for name in looked for origin in made.get(name, {name})}
        known = derive(known, (each,), np.zeros(0, np.bool_))
    return made


def _windows(bound: Bound) -> dict[str, set[str]]:
    """By window feature: the columns of the event it is made of."""
    made = {}
    for entity in bound.pipeline.entities:
        always = {*entity.key_columns, bound.event_time.column}
        of_aggregates = [column_of(aggregate) for _ in entity.windows for aggregate in entity.aggregates]
        for name, column in zip(entity.feature_names, of_aggregates, strict=True):
            made[name] = always | ({column} if column is not None else set())
    return made


def _uses_of(
    name: str, bound: Bound, rules: Mapping[str, set[str]], derived: Mapping[str, set[str]], windows: Mapping[str, set[str]]
) -> Uses:
    roles = {"key": bound.key, "event id": bound.event_id, "event time": bound.event_time.column}
    inputs = tuple(each for each in bound.features.names if each == name or name in derived.get(each, ()) or name in windows.get(each, ()))
    output = [role.replace(" ", "_") for role, column in roles.items() if column == name and role != "key"]
    if inputs:
        output += ["scores", "decision", *(["features"] if bound.pipeline.include_features else [])]
    return Uses(
        tuple(role for role, column in roles.items() if column == name),
        tuple(rule for rule, columns in rules.items() if name in columns),
        tuple(each for each, columns in derived.items() if name in columns),
        tuple(each for each, columns in windows.items() if name in columns),
        inputs,
        tuple(output),
    )


def _under(by_name: Mapping[str, Uses], each: Any) -> Uses:
    """What hangs on a path: on the field itself, or on all fields of a record."""
    path = each.path
    found = [used for name, used in by_name.items() if path == "" or name == path or name.startswith(path + ".")]
    joined = {part: tuple(dict.fromkeys(value for used in found for value in getattr(used, part))) for part in PARTS}
    return Uses(**joined)


def _told(used: Uses) -> dict[str, Json]:
    return {part: list(getattr(used, part)) for part in PARTS}


def _plain(value: object) -> Json:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def words_of(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What hangs on a field, as one line: "rule amount_in_range, features customer_amount_mean_7d (+5), model card_fraud"."""
    return ", ".join(_parts(found, facts)) or "nothing here"


def _parts(found: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    if found["roles"]:
        yield f"the {' and '.join(found['roles'])} of every event"
    for part, one in (("rules", "rule"), ("derived", "derived column"), ("features", "feature")):
        names = found[part]
        if names:
            more = f" (+{len(names) - 1})" if len(names) > 1 and part == "features" else ""
            yield f"{one}{'s' if len(names) > 1 else ''} {names[0] if more else ', '.join(names)}{more}"
    if found["model"]:
        yield f"model {facts['model']} ({len(found['model'])} of its inputs)"
    if found["output"]:
        yield f"output {facts['output']} ({', '.join(found['output'])})"
