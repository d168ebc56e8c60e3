"""Fields of a topic's records: what each is, who answers for it, and what in a pipeline hangs on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.avro import AvroSchema
from schemas.constraints import Constraints
from schemas.features import Json
from streams.definition.bound import Bound, BoundLabels
from streams.definition.event_columns import event_columns
from streams.definition.field_words import FieldWords
from streams.schema.impact import PARTS, uses
from transforms.arithmetic import NEEDS_LABELS
from transforms.entity import Entity

Fields = dict[str, dict[str, Any]]


def fields_of(schema: AvroSchema) -> Fields:
    """The fields of a schema by dotted path, with nothing that hangs on them."""
    words = FieldWords(schema)
    return {
        name: {"name": name, "type": str(column), "description": words.doc(name), "owner": words.owner(name), "constraints": {}, "uses": []}
        for name, column in event_columns(schema).items()
    }


def event_fields(bound: Bound) -> Fields:
    """Those of the input.

    Raises:
        DefinitionError: a function of the pipeline fails on a batch without rows.
    """
    found = _constrained(fields_of(bound.written_schema), bound.constraints)
    for name, used in uses(bound).items():
        parts: dict[str, Json] = {part: list(getattr(used, part)) for part in PARTS if getattr(used, part)}
        if parts:
            found[name]["uses"].append({"pipeline": bound.name, **parts})
    return found


def label_fields(bound: Bound, labels: BoundLabels) -> Fields:
    """Those of the labels: features are made of their value, by way of the keys, the event's id and its time."""
    found = _constrained(fields_of(labels.written_schema), labels.constraints)
    counting = [entity for entity in bound.pipeline.entities if entity.has_labels]
    keys = {name for entity in counting for name in entity.key_columns}
    declared = bound.pipeline.labels
    assert declared is not None
    roles = {
        "key": labels.key,
        "event id": labels.event_id,
        "event time": labels.event_time.column,
        "label": labels.value,
        "time of the label": declared.time,
    }
    for name, field in found.items():
        mine = [entity for entity in counting if name in entity.key_columns]
        made = counting if name in (labels.event_id, labels.event_time.column, labels.value) else mine
        parts: dict[str, list[str]] = {
            "roles": [role for role, column in roles.items() if column == name] + (["key of an entity"] if name in keys else []),
            "rules": [rule.name for rule in labels.rules if name in rule.columns],
            "features": [feature for entity in made for feature in _from_labels(entity)],
        }
        parts["model"] = [feature for feature in parts["features"] if feature in bound.model.inputs]
        if any(parts.values()):
            field["uses"].append({"pipeline": bound.name, **{part: names for part, names in parts.items() if names}})
    return found


def merge(known: Fields, more: Fields) -> None:
    """Take in what another pipeline says of the same topic."""
    for name, field in more.items():
        mine = known.setdefault(name, field)
        if mine is field:
            continue
        if field["type"] not in mine["type"].split(" | "):
            mine["type"] += f" | {field['type']}"
        mine["description"] = mine["description"] or field["description"]
        mine["constraints"] = mine["constraints"] | field["constraints"]
        mine["uses"] += field["uses"]


def _from_labels(entity: Entity) -> list[str]:
    """The features of an entity that labels make."""
    aggregates = [aggregate for _ in entity.windows for aggregate in entity.aggregates]
    return [name for name, aggregate in zip(entity.feature_names, aggregates, strict=True) if aggregate.needs & NEEDS_LABELS]


def _constrained(fields: Fields, constraints: Constraints | None) -> Fields:
    """With what their constraints say of each."""
    if constraints is None:
        return fields
    said: list[Mapping[str, Any]] = constraints.describe()["holds"]["fields"]
    for each in said:
        if each["field"] in fields:
            fields[each["field"]]["constraints"] = {word: value for word, value in each.items() if word != "field"}
    for name in constraints.absent:
        if name in fields:
            fields[name]["constraints"]["absent_in"] = constraints.environment
    return fields
