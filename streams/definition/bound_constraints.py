"""A topic's constraints, found, read and held against its schema and its pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from schemas.avro import AvroSchema, Field, Record, load_schema, to_json
from schemas.constraints import Constraints
from schemas.constraints_check import field_types
from schemas.constraints_file import find_constraints, load_constraints
from schemas.constraints_rules import constraint_rules
from schemas.errors import DefinitionError
from schemas.rules import Rule
from streams.definition.pipeline import Pipeline, Topic


def bind_constraints(topic: Topic, folder: Path, environment: str | None = None) -> Constraints | None:
    """The constraints of a topic, in its environment or another; None if there are none.

    Args:
        topic: with its schema.
        folder: where its paths start.
        environment: in place of the topic's.

    Raises:
        SchemaError: the file is missing or broken, contradicts itself or the schema, or knows no such environment.
    """
    assert topic.schema is not None, "checked when the pipeline was defined"
    schema = folder / topic.schema
    file = find_constraints(schema, topic.name) if topic.constraints is None else folder / topic.constraints
    return None if file is None else load_constraints(file, load_schema(schema), environment or topic.environment)


def with_defaults(schema: AvroSchema, constraints: Constraints | None) -> AvroSchema:
    """A reader's schema with an environment's defaults: what stands for a field that the writer left out."""
    if constraints is None or not constraints.defaults:
        return schema
    root = schema.root
    assert isinstance(root, Record)
    fields = tuple(_with_default(each, constraints) for each in root.fields)
    return AvroSchema.parse(to_json(Record(root.name, fields, root.aliases), schema.named), f"schema {schema} with {constraints.source}")


def rules_of(
    topic: Topic, schema: AvroSchema, constraints: Constraints | None, event_time: str, others: Iterable[Rule]
) -> tuple[Rule, ...]:
    """The rules that constraints come to in a pipeline.

    Raises:
        DefinitionError: they go by another event time than the topic, or one is called as a rule of the pipeline.
    """
    if constraints is None:
        return ()
    if constraints.event_time not in (None, event_time):
        raise DefinitionError(
            f"topic {topic.name!r} has event_time={event_time!r}, and {constraints.source} goes by {constraints.event_time!r}; wanted one"
        )
    rules = constraint_rules(constraints, field_types(schema), (event_time,))
    known = {rule.name for rule in others}
    for rule in rules:
        if rule.name in known:
            raise DefinitionError(
                f"{rule.name!r} is a rule of the pipeline and a constraint in {constraints.source}; wanted it in one of them"
            )
    return rules


def refuse_absent(named: Iterable[tuple[str, str]], constraints: Constraints | None) -> None:
    """What an environment does not have is used nowhere: a label would be learned from, and be missing where it counts.

    Args:
        named: who names a field, and the field.
        constraints: of the topic it is a field of.

    Raises:
        DefinitionError: something names it; says who, and where it is.
    """
    if constraints is None or not constraints.absent:
        return
    for what, name in named:
        if name in constraints.absent:
            raise DefinitionError(
                f"{what} uses {name!r}, which is not there in {constraints.environment}: "
                f"by {constraints.source} only {' and '.join(constraints.absent[name])} has it"
            )


def fields_named(pipeline: Pipeline) -> Iterable[tuple[str, str]]:
    """What the pipeline names of its events, and as what."""
    yield from _roles(pipeline.input)
    for rule in pipeline.rules:
        yield from ((f"rule {rule.name!r}", name) for name in rule.columns)
    for entity in pipeline.entities:
        yield from ((f"entity {entity.name!r}", name) for name in entity.columns_needed)
    yield from ((f"model {pipeline.model.name!r}", name) for name in pipeline.model.inputs)


def label_fields_named(pipeline: Pipeline) -> Iterable[tuple[str, str]]:
    """What the pipeline names of its labels, and as what."""
    labels = pipeline.labels
    if labels is None:
        return
    yield from _roles(labels.topic)
    for role, name in (("value", labels.value), ("time", labels.time)):
        if name is not None:
            yield f"labels {labels.topic.name!r}: {role}", name
    for entity in pipeline.entities:
        if entity.has_labels:
            yield from ((f"entity {entity.name!r}", name) for name in entity.key_columns)


def _roles(topic: Topic) -> Iterable[tuple[str, str]]:
    roles: Mapping[str, str | None] = {role: getattr(topic, role) for role in ("key", "event_id", "event_time")}
    yield from ((f"topic {topic.name!r}: {role}", name) for role, name in roles.items() if name)


def _with_default(field: Field, constraints: Constraints) -> Field:
    return replace(field, default=constraints.defaults[field.name]) if field.name in constraints.defaults else field
