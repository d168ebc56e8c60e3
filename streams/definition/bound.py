"""A pipeline held against its schema: every name resolved, every implicit rule written out, every fingerprint computed.

Works offline: it reads the schema file, and neither broker, store nor model. What contradicts itself is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.avro import AvroSchema, load_schema
from schemas.bodies import bodies
from schemas.columns import Column, Constant, Ints, Nullable
from schemas.constraints import Constraints
from schemas.errors import DefinitionError, SchemaError
from schemas.features import Feature, FeatureSet, Json, fingerprint
from schemas.framing import describe_framing, loaded
from schemas.reject import MOST_RULES
from schemas.rules import Rule
from streams.definition.bound_constraints import (
    bind_constraints,
    fields_named,
    label_fields_named,
    refuse_absent,
    rules_of,
    with_defaults,
)
from streams.definition.event_columns import EventColumn, event_columns
from streams.definition.implicit_rules import implicit_rules, label_rules
from streams.definition.pipeline import Model, Pipeline, Topic, repeated
from streams.suggestion import did_you_mean
from transforms.aggregate import column_of
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint

if TYPE_CHECKING:
    from schemas.table import Frame

_KEY_TYPES = ("string", "bytes", "fixed", "enum", "int", "long")
_TEXT_TYPES = ("string", "bytes", "enum", "int", "long")
_NUMBER_TYPES = ("boolean", "int", "long", "float", "double")


@dataclass(frozen=True, slots=True)
class EventTime:
    """The column that says when an event happened, and how it becomes milliseconds.

    Microseconds are floored: an event 1 us before the epoch happened in the millisecond -1. Every column of event times is in
    milliseconds from extraction on; rules, derived columns and windows see nothing else.
    """

    column: str
    units_per_ms: int  # 1 or 1000

    def to_ms(self, column: Column) -> Column:
        """The same rows in milliseconds."""
        if self.units_per_ms == 1:
            return column
        if isinstance(column, Nullable):
            return Nullable(self.to_ms(column.values), column.valid)
        if isinstance(column, Constant):
            assert isinstance(column.value, int)
            return Constant(column.value // self.units_per_ms, column.rows)
        assert isinstance(column, np.ndarray)
        times: Ints = column // self.units_per_ms
        return times


@dataclass(frozen=True)
class BoundLabels:
    """A pipeline's labels, held against their schema.

    Attributes:
        topic: where they come from.
        written_schema: what producers write and registries know.
        schema: the same, with the defaults of the topic's environment.
        columns: of a label, by name.
        event_time: which of them is the event's own time.
        value: which of them is the label.
        rules: what a label must be, implicit ones first, then those of the constraints; the order gives the reject codes.
        constraints: beside the schema, in the topic's environment; None = there are none.
    """

    topic: Topic
    written_schema: AvroSchema
    schema: AvroSchema
    columns: Mapping[str, EventColumn]
    event_time: EventTime
    value: str
    rules: tuple[Rule, ...]
    constraints: Constraints | None = None

    @property
    def event_id(self) -> str:
        """The field that names the event."""
        return _given(self.topic.event_id)

    @property
    def key(self) -> str:
        """The field whose text is the record's key."""
        return _given(self.topic.key)


@dataclass(frozen=True)
class Bound:
    """A pipeline, its schema, and what follows from the two.

    Attributes:
        pipeline: as defined.
        folder: the pipeline file's; relative paths start there.
        schema: of the input's values, with the defaults of its environment.
        columns: of an event, by name.
        event_time: which of them is its time.
        rules: implicit ones first, then the user's, then those of the constraints; the order gives the reject codes.
        features: what the model is given, in order.
        labels: what became of events; None = nobody says.
        constraints: beside the input's schema, in the input's environment; None = there are none.
    """

    pipeline: Pipeline
    folder: Path
    schema: AvroSchema
    columns: Mapping[str, EventColumn]
    event_time: EventTime
    rules: tuple[Rule, ...]
    features: FeatureSet
    labels: BoundLabels | None = None
    constraints: Constraints | None = None

    @property
    def name(self) -> str:
        """The pipeline's."""
        return self.pipeline.name

    @property
    def input(self) -> Topic:
        """Where events come from."""
        return self.pipeline.input

    @property
    def output(self) -> Topic:
        """Where scored events go."""
        return self.pipeline.output

    @property
    def key(self) -> str:
        """The field whose text is the record's key."""
        return _given(self.input.key)

    @property
    def event_id(self) -> str:
        """The field that names an event."""
        return _given(self.input.event_id)

    @property
    def model(self) -> Model:
        """What scores."""
        return self.pipeline.model

    @property
    def model_path(self) -> Path:
        """The model's file."""
        return self.folder / self.model.path

    @cached_property
    def written_schema(self) -> AvroSchema:
        """What producers write and registries know: the input's schema without the defaults of an environment."""
        return load_schema(self.folder / _given(self.input.schema))

    @property
    def schema_folder(self) -> Path:
        """Where writers' schemas are looked up when the settings name no registry: beside the input's own."""
        return (self.folder / _given(self.input.schema)).parent

    @property
    def retention_ms(self) -> int:
        """How far back the input's log must reach to rebuild the state."""
        return max((entity.retention_ms for entity in self.pipeline.entities), default=0)

    @cached_property
    def state_fingerprint(self) -> str:
        """Names what is stored: the entities, and the columns they are made of."""
        return self.state_fingerprint_of(self.pipeline.entities)

    def state_fingerprint_of(self, entities: Iterable[Entity]) -> str:
        """Names what is stored of some of its entities."""
        return fingerprint([self._event_time(), [[e.state_fingerprint, self._made_of(e)] for e in entities]])

    def describe_state(self, entities: Iterable[Entity]) -> dict[str, Json]:
        """What is stored of some of its entities, in words that `state_fingerprint_of` is made of."""
        held: dict[str, Json] = {e.name: {"stored": e.describe_state(), "columns": self._made_of(e)} for e in entities}
        return {"event_time": self._event_time(), "entities": held}

    @cached_property
    def fingerprint(self) -> str:
        """Names the whole pipeline but for the broker's names: what is accepted, remembered, shown to the model and put out."""
        labels: list[Json] = [] if self.labels is None else [describe_labels(self.labels)]
        return fingerprint(
            [
                [self.schema.fingerprint, describe_framing(self.input.framing), self.key, self.event_id, self._event_time()],
                [rule.describe() for rule in self.rules],
                [derived.describe() for derived in self.pipeline.derived],
                self.state_fingerprint,
                [self.model.name, self.features.fingerprint],
                self.pipeline.include_features,
                *labels,
            ]
        )

    def transform(
        self,
        frame: Frame,
        *,
        labels: Frame | None = None,
        known_at: str | None = None,
        time_zone: str | None = None,
        arrived: str | None = None,
    ) -> Frame:
        """The features of past events, as a worker would have served them to the bit.

        The table is one log, in its order, and its windows begin empty. A row stands for the record a producer would have sent: a column
        for each field, a struct or dotted names for a record in it. What a worker would refuse has no features, and says why.

        Args:
            frame: of polars, pandas or pyarrow.
            labels: what became of events, for a pipeline that counts labels: the event's id and the label, under the names that the
                pipeline's labels have, and when each became known. A label enters the log before the event with which the log's
                newest time reaches that.
            known_at: the labels' column that says when; None = the one that the pipeline's labels name as their time.
            time_zone: of times that have none; None = such times are refused.
            arrived: the column that says when the broker took each record in; needed where an entity has a guard.

        Returns:
            The same table with more columns: derived columns, window features, ``timing``, ``refused`` (the reason, null in good rows) and
            ``refused_detail``.

        Raises:
            HistoryError: a column is missing, or a value is missing or of another type; names column and row.
            TooManyRecords: a key has more events in its windows than its entity declares.
        """
        from streams.offline.transform_table import transform_table  # needs pyarrow, which workers go without

        return transform_table(self, frame, labels=labels, known_at=known_at, time_zone=time_zone, arrived=arrived)

    def _event_time(self) -> Json:
        return {"column": self.event_time.column, "units_per_ms": self.event_time.units_per_ms}

    def _made_of(self, entity: Entity) -> Json:
        return _made_of(entity, self.pipeline, self.columns)


def bind(pipeline: Pipeline, folder: Path) -> Bound:
    """Hold a pipeline against its schema.

    Args:
        pipeline: as defined.
        folder: where its relative paths start.

    Raises:
        SchemaError: the schema file or its constraints are missing or broken.
        DefinitionError: the pipeline names what is not there, or uses a column for what it can't be.
    """
    pipeline = _with_files(pipeline, folder)
    constraints = bind_constraints(pipeline.input, folder)
    refuse_absent(fields_named(pipeline), constraints)
    schema = with_defaults(load_schema(folder / _given(pipeline.input.schema)), constraints)
    columns = event_columns(schema)
    _check_framing(pipeline.input, schema)
    check = _Names(pipeline, columns, pipeline.input)
    event_time = check.event_time()
    check.field("key", pipeline.input.key, _TEXT_TYPES)
    check.field("event_id", pipeline.input.event_id, ("string",))
    check.one_meaning()
    for entity in pipeline.entities:
        check.entity(entity)
    labels = bind_labels(pipeline, folder, columns)
    features = FeatureSet(tuple(check.model_input(name, event_time) for name in pipeline.model.inputs))
    rules = (*implicit_rules(pipeline, columns, event_time.column), *pipeline.rules)
    rules = (*rules, *rules_of(pipeline.input, schema, constraints, event_time.column, rules))
    _check_rules(f"pipeline {pipeline.name!r}", rules)
    return Bound(pipeline, folder, schema, columns, event_time, rules, features, labels, constraints)


def _with_files(pipeline: Pipeline, folder: Path) -> Pipeline:
    """The same with the schemas that its topics' framings name."""
    pipeline = replace(pipeline, input=replace(pipeline.input, framing=loaded(pipeline.input.framing, folder)))
    if pipeline.labels is None:
        return pipeline
    topic = pipeline.labels.topic
    return replace(pipeline, labels=replace(pipeline.labels, topic=replace(topic, framing=loaded(topic.framing, folder))))


def _check_framing(topic: Topic, schema: AvroSchema) -> None:
    try:
        bodies(schema, topic.framing)
    except SchemaError as error:
        raise DefinitionError(f"topic {topic.name!r}: {error}") from error


def _check_rules(whose: str, rules: tuple[Rule, ...]) -> None:
    """Rules are told apart by name, and each has a reject code."""
    twice = repeated(rule.name for rule in rules)
    if twice:
        raise DefinitionError(f"{whose}: two rules are named {twice!r}; rename yours")
    if len(rules) > MOST_RULES:
        raise DefinitionError(f"{whose}: {len(rules)} rules with the implicit ones, wanted {MOST_RULES} at most")


def describe_labels(labels: BoundLabels) -> dict[str, Json]:
    """The definition, for a fingerprint."""
    return {
        "schema": labels.schema.fingerprint,
        "framing": describe_framing(labels.topic.framing),
        "event_id": labels.event_id,
        "event_time": {"column": labels.event_time.column, "units_per_ms": labels.event_time.units_per_ms},
        "value": labels.value,
        "rules": [rule.describe() for rule in labels.rules],
    }


@dataclass(frozen=True, slots=True)
class _Names:
    """Looks up what a pipeline names."""

    pipeline: Pipeline
    columns: Mapping[str, EventColumn]
    topic: Topic

    def field(self, role: str, name: str | None, types: tuple[str, ...]) -> EventColumn:
        """The column of the event that plays a role, of one of these types."""
        topic, name = self.topic.name, _given(name)
        if name not in self.columns:
            raise DefinitionError(f"topic {topic!r}: {role}={name!r} is no field of its schema; {did_you_mean(name, self.columns)}")
        column = self.columns[name]
        if column.type not in types:
            raise DefinitionError(f"topic {topic!r}: {role}={name!r} is of type {column}, wanted {' or '.join(types)}")
        return column

    def event_time(self) -> EventTime:
        column = self.field("event_time", self.topic.event_time, ("long",))
        units = {"timestamp-millis": 1, "timestamp-micros": 1_000}.get(column.logical or "")
        if units is None:
            raise DefinitionError(
                f"topic {self.topic.name!r}: event_time={column.name!r} is of type {column}, "
                "wanted a long with logical type timestamp-millis or timestamp-micros"
            )
        return EventTime(column.name, units)

    def label_key(self, entity: Entity, name: str, event: EventColumn) -> None:
        """A label says of which key its event was, as the event itself does."""
        topic = self.topic.name
        if name not in self.columns:
            raise DefinitionError(
                f"topic {topic!r}: entity {entity.name!r} counts labels, and its key {name!r} is no field of the labels' schema; "
                f"{did_you_mean(name, self.columns)}"
            )
        if self.columns[name].type != event.type:
            raise DefinitionError(
                f"topic {topic!r}: key {name!r} of entity {entity.name!r} is of type {self.columns[name]}, wanted {event} as in the event"
            )

    def one_meaning(self) -> None:
        """Columns of a batch are told apart by name alone."""
        taken = dict.fromkeys(self.columns, "a field of the event")
        for derived in self.pipeline.derived:
            self._take(taken, derived.name, "a derived column")
        for entity in self.pipeline.entities:
            for name in entity.feature_names:
                self._take(taken, name, f"a window feature of {entity.name!r}")

    def _take(self, taken: dict[str, str], name: str, what: str) -> None:
        if name in taken:
            raise DefinitionError(f"pipeline {self.pipeline.name!r}: {name!r} is {taken[name]} and {what}; wanted one meaning")
        taken[name] = what

    def entity(self, entity: Entity) -> None:
        amounts = [a.value for a in entity.aggregates if isinstance(a.value, FixedPoint)]
        for role, names, types in (
            ("key", entity.key_columns, _KEY_TYPES),
            ("value", [amount.column for amount in amounts], _NUMBER_TYPES[1:]),
            ("value", [name for a in entity.aggregates if (name := column_of(a)) and not isinstance(a.value, FixedPoint)], _KEY_TYPES),
        ):
            for name in names:
                self._of_entity(entity, role, name, types)

    def _of_entity(self, entity: Entity, role: str, name: str, types: tuple[str, ...]) -> None:
        if name in {derived.name for derived in self.pipeline.derived}:
            raise DefinitionError(
                f"entity {entity.name!r}: its {role} {name!r} is a derived column; "
                "wanted a field of the event, since rules stand before derived columns"
            )
        if name not in self.columns:
            raise DefinitionError(
                f"entity {entity.name!r}: its {role} {name!r} is no field of the event; {did_you_mean(name, self.columns)}"
            )
        if self.columns[name].type not in types:
            raise DefinitionError(
                f"entity {entity.name!r}: its {role} {name!r} is of type {self.columns[name]}, wanted one of {', '.join(types)}"
            )

    def model_input(self, name: str, event_time: EventTime) -> Feature:
        """What the model is given under a name."""
        model = f"model {self.pipeline.model.name!r}"
        derived = {each.name: each for each in self.pipeline.derived}
        windows = {feature.name: (feature, entity) for entity in self.pipeline.entities for feature in entity.features}
        if name in windows:
            feature, entity = windows[name]
            time: Json = {"column": event_time.column, "units_per_ms": event_time.units_per_ms}
            made_of = _made_of(entity, self.pipeline, self.columns)
            return replace(feature, definition={**feature.definition, "event_time": time, "columns": made_of})
        if name in derived:
            return Feature(name, "1", {"derived": derived[name].describe()})
        if name not in self.columns:
            raise DefinitionError(f"{model}: no input is named {name!r}; {did_you_mean(name, (*self.columns, *derived, *windows))}")
        column = self.columns[name]
        if "." in name and self.pipeline.include_features:
            raise DefinitionError(
                f"{model}: input {name!r} would go out under a name with a dot; "
                "give it a plain one with Derived, or set include_features=False"
            )
        if column.type not in _NUMBER_TYPES:
            raise DefinitionError(f"{model}: input {name!r} is of type {column}, wanted a number ({', '.join(_NUMBER_TYPES)})")
        return Feature(name, name, {"field": column.describe()})


def bind_labels(pipeline: Pipeline, folder: Path, event: Mapping[str, EventColumn]) -> BoundLabels | None:
    """Hold a pipeline's labels against their schema, and against the entities that count them.

    Raises:
        SchemaError: the schema file or its constraints are missing or broken.
        DefinitionError: an entity counts labels and there are none, or the other way round, or a field is missing or of another type.
    """
    counting = [entity for entity in pipeline.entities if entity.has_labels]
    if pipeline.labels is None:
        if counting:
            raise DefinitionError(
                f"entity {counting[0].name!r} counts labels, and pipeline {pipeline.name!r} has none; add labels=Labels(...)"
            )
        return None
    topic, value = pipeline.labels.topic, pipeline.labels.value
    if not counting:
        raise DefinitionError(f"pipeline {pipeline.name!r} reads labels from {topic.name!r}, and no entity counts them; add LabelCount()")
    constraints = bind_constraints(topic, folder)
    refuse_absent(label_fields_named(pipeline), constraints)
    written = load_schema(folder / _given(topic.schema))
    schema = with_defaults(written, constraints)
    columns = event_columns(schema)
    _check_framing(topic, schema)
    check = _Names(pipeline, columns, topic)
    event_time = check.event_time()
    check.field("key", topic.key, _TEXT_TYPES)
    check.field("event_id", topic.event_id, ("string",))
    check.field("value", value, ("boolean", "int", "long"))
    if pipeline.labels.time is not None:
        check.field("time", pipeline.labels.time, ("long",))
    for entity in counting:
        for name in entity.key_columns:
            check.label_key(entity, name, event[name])
    keys = [name for entity in counting for name in entity.key_columns]
    rules = label_rules(columns, _given(topic.event_id), keys, event_time.column, value)
    rules = (*rules, *rules_of(topic, schema, constraints, event_time.column, rules))
    _check_rules(f"labels {topic.name!r}", rules)
    return BoundLabels(topic, written, schema, columns, event_time, value, rules, constraints)


def _made_of(entity: Entity, pipeline: Pipeline, fields: Mapping[str, EventColumn]) -> dict[str, Json]:
    """Where an entity's columns come from: fields of which type, functions of which version; and its labels, under names no column has."""
    made = {each.name: each.describe() for each in pipeline.derived}
    origins = {name: fields[name].describe() if name in fields else made[name] for name in entity.columns_needed}
    if not entity.has_labels or pipeline.labels is None:
        return origins
    event_id = _given(pipeline.input.event_id)
    told: dict[str, Json] = {"event_id": _given(pipeline.labels.topic.event_id), "value": pipeline.labels.value}
    return {**origins, "event id": {event_id: fields[event_id].describe()}, "label of": told}


def _given(value: str | None) -> str:
    assert value is not None, "checked when the pipeline was defined"
    return value
