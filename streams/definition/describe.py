"""A pipeline in full, as JSON: what `check --json` prints and what two versions of a file can be compared by."""

from __future__ import annotations

from schemas.constraints_rules import is_constraint
from schemas.features import Json
from schemas.framing import describe_framing, framing_words
from streams.definition.bound import Bound, BoundLabels, describe_labels
from transforms.entity import Entity


def describe(bound: Bound) -> dict[str, Json]:
    """Every definition of a pipeline, with names resolved, implicit rules written out, and the fingerprints."""
    rules: list[Json] = []
    constrained = 0 if bound.constraints is None else sum(is_constraint(rule) for rule in bound.rules)
    implicit = len(bound.rules) - len(bound.pipeline.rules) - constrained
    for number, rule in enumerate(bound.rules):
        rules.append({"name": rule.name, "implicit": number < implicit, "rule": rule.describe()})
    features: list[Json] = [{"name": f.name, "unit": f.unit, "definition": dict(f.definition)} for f in bound.features.features]
    return {
        "pipeline": bound.name,
        "fingerprint": bound.fingerprint,
        "feature_fingerprint": bound.features.fingerprint,
        "state_fingerprint": bound.state_fingerprint,
        "topics": {"input": bound.input.name, "output": bound.output.name, "dead_letters": bound.input.dead_letters},
        "input": {
            "schema": bound.input.schema,
            "schema_fingerprint": bound.schema.fingerprint,
            "framing": describe_framing(bound.input.framing),
            "read_as": framing_words(bound.input.framing),
            "key": bound.key,
            "event_id": bound.event_id,
            "event_time": {"column": bound.event_time.column, "units_per_ms": bound.event_time.units_per_ms},
            "columns": {name: str(column) for name, column in bound.columns.items()},
        },
        "constraints": None if bound.constraints is None else bound.constraints.describe(),
        "labels": None if bound.labels is None else _labels(bound.labels),
        "rules": rules,
        "derived": [derived.describe() for derived in bound.pipeline.derived],
        "entities": [_entity(entity) for entity in bound.pipeline.entities],
        "features": features,
        "include_features": bound.pipeline.include_features,
    }


def _labels(labels: BoundLabels) -> Json:
    constraints = None if labels.constraints is None else labels.constraints.describe()
    return {"topic": labels.topic.name, "constraints": constraints, **describe_labels(labels)}


def _entity(entity: Entity) -> Json:
    guard = {"oldest_ms": entity.guard.oldest_ms, "ahead_ms": entity.guard.ahead_ms} if entity.guard else None
    return {
        "name": entity.name,
        "key": list(entity.key_columns),
        "windows": [window.describe() for window in entity.windows],
        "lateness_ms": entity.lateness_ms,
        "guard": guard,
        "max_records": entity.max_records,
        "retention_ms": entity.retention_ms,
        "state_fingerprint": entity.state_fingerprint,
        "features": list(entity.feature_names),
    }
