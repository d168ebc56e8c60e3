"""The hop record: what one stage hands the next through an internal topic, events and labels alike.

It says where the original stands in the log (topic, partition, offset, arrival), which schema wrote it, how late it has been so far,
and carries the columns that later stages need and the features so far, and not more. A label is the same record with a label in it,
and without an event.

Bare Avro has no schema id, so a record begins with eight bytes that name the layout: the schema, and what the features and derived
columns in it mean. A record of another layout is refused and never read as something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.avro import AvroSchema, AvroType, Enum, Fixed, Record, Union
from schemas.codec import Decoder, Encoder
from schemas.columns import Column, Columns, Constant, Ints, Mask, Nullable, PackedBytes, Symbols
from schemas.errors import StateError
from schemas.features import Json, fingerprint
from streams.definition.bound import Bound
from streams.planning.stage import Stage, columns_needed, stages
from streams.scored_event import TIMINGS
from transforms.fixed_point import numbers
from transforms.keys import key_ids

KINDS = ("event", "label")
LAYOUT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Origins:
    """Where n rows came from, and what is known of each beside its columns."""

    partitions: NDArray[np.int32]  # shape (n,): of the pipeline's input; for a label, of the labels' topic
    offsets: Ints  # shape (n,): likewise
    arrived_ms: Ints  # shape (n,): the original's timestamp
    schema_ids: NDArray[np.int32]  # shape (n,): the original's writer's
    timing: NDArray[np.uint8]  # shape (n,): the worst so far; see `transforms.shard`

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class HopRows:
    """The records of a batch, decoded. What stands in a rejected row means nothing; nor does what a label has no value for."""

    columns: Columns  # by the names they had: event id, event time, keys, the columns that are needed from here on, features so far
    origins: Origins
    is_label: Mask  # shape (n,)
    labels: Ints  # shape (n,): 0 or 1; 0 for events
    rejected: NDArray[np.uint8]  # shape (n,): 0 = usable, else a `Reject`: bytes that no stage of ours wrote


@dataclass(frozen=True)
class HopSchema:
    """The records that one stage reads from its internal topic.

    Attributes:
        bound: the pipeline.
        stage: the stage that reads them.
        all_stages: the pipeline's.
    """

    bound: Bound
    stage: Stage
    all_stages: tuple[Stage, ...]

    @classmethod
    def of(cls, bound: Bound, stage: Stage) -> HopSchema:
        """The records that a stage reads.

        Raises:
            ValueError: it reads no internal topic.
        """
        if stage.kind != "hop":
            raise ValueError(f"stage {stage.name} reads {stage.input.name}, which is no internal topic")
        return cls(bound, stage, stages(bound, stage.input.partitions))

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """What a label says as well as an event: the keys of the stage's entities."""
        return tuple(dict.fromkeys(name for entity in self.stage.entities for name in entity.key_columns))

    @cached_property
    def event_columns(self) -> tuple[str, ...]:
        """The other columns of the event that this stage and those after it need; the event's id and time are always there."""
        later = [each for each in self.all_stages if each.kind == "hop" and each.index >= self.stage.index]
        needed = columns_needed(self.bound, [entity for each in later for entity in each.entities])
        there = (*self.key_columns, self.bound.event_id, self.bound.event_time.column)
        return tuple(name for name in needed if name not in there)

    @cached_property
    def derived(self) -> tuple[str, ...]:
        """Derived columns among the model's inputs."""
        return tuple(each.name for each in self.bound.pipeline.derived if each.name in self.bound.model.inputs)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Window features of earlier stages among the model's inputs."""
        earlier = [each for each in self.all_stages if each.kind != "labels" and each.index < self.stage.index]
        names = [name for each in earlier for entity in each.entities for name in entity.feature_names]
        return tuple(name for name in names if name in self.bound.model.inputs)

    @cached_property
    def schema(self) -> AvroSchema:
        """The Avro schema of the records."""
        bound = self.bound
        types = leaf_types(bound.schema)
        fields: list[Json] = [
            {"name": "layout", "type": {"type": "fixed", "name": "Layout", "size": LAYOUT_BYTES}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": list(KINDS)}},
            {"name": "source_partition", "type": "int"},
            {"name": "source_offset", "type": "long"},
            {"name": "arrived_ms", "type": "long"},
            {"name": "schema_id", "type": "int"},
            {"name": "timing", "type": {"type": "enum", "name": "Timing", "symbols": list(TIMINGS)}, "doc": "The worst so far."},
            {"name": "event_id", "type": "string"},
            {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "label", "type": "int", "doc": "0 for events."},
        ]
        optional = {name for entity in self.stage.entities if entity.missing_key == "absent" for name in entity.key_columns}
        keys = {name: _spelled(types[name], f"keys.{name}", bound.columns[name].nullable and name in optional) for name in self.key_columns}
        carried = {name: _spelled(types[name], f"event.{name}", bound.columns[name].nullable) for name in self.event_columns}
        fields.append({"name": "keys", "type": _record("keys", keys)})
        for part, members in (
            ("event", carried),
            ("derived", dict.fromkeys(self.derived, "double")),
            ("features", dict.fromkeys(self.features, "double")),
        ):
            if members:
                record = _record(part, members)
                fields.append({"name": part, "type": ["null", record] if self.stage.counts_labels else record})
        name = "".join(word.capitalize() for word in self.stage.name.split("-"))
        definition: Json = {"type": "record", "name": name, "namespace": f"millrace.{bound.name}.hop", "fields": fields}
        return AvroSchema.parse(definition, f"the internal topic {self.stage.input.name!r}")

    @cached_property
    def layout(self) -> bytes:
        """Eight bytes that name the schema, and what the derived columns and features in it mean."""
        meant: list[Json] = [each.describe() for each in self.bound.pipeline.derived if each.name in self.derived]
        meant += [{"name": each.name, **each.definition} for each in self.bound.features.features if each.name in self.features]
        return bytes.fromhex(fingerprint([self.schema.fingerprint, meant, self.bound.event_time.column]))

    def encoder(self) -> Encoder:
        """Writes the records; its calls must not overlap."""
        return Encoder(self.schema, "bare")

    def decoder(self) -> Decoder:
        """Reads them."""
        return Decoder(self.schema, "bare")

    def keys(self, columns: Columns) -> list[bytes | None]:
        """Shape (n,): the record keys; None where the key is null or empty."""
        return record_keys(columns, self.stage.key_columns)

    def columns(self, columns: Columns, origins: Origins) -> Columns:
        """What events go out as, for the encoder.

        Args:
            columns: the event's (its time in milliseconds), derived ones and features so far, n rows each.
            origins: where they came from.
        """
        out = self._common("event", columns, origins, self.bound.event_id, self.bound.event_time.column)
        out["label"] = Constant(0, len(origins))
        out |= {f"event.{name}": columns[name] for name in self.event_columns}
        for part, names in (("derived", self.derived), ("features", self.features)):
            out |= {f"{part}.{name}": numbers(name, columns[name]).astype(np.float64, copy=False) for name in names}
        return out

    def label_columns(self, columns: Columns, origins: Origins) -> Columns:
        """What labels go out as, for the encoder; `columns` are the labels' own, their event time in milliseconds.

        Raises:
            ValueError: the stage counts no labels.
        """
        labels = self.bound.labels
        if labels is None or not self.stage.counts_labels:
            raise ValueError(f"stage {self.stage.name} counts no labels")
        n = len(origins)
        out = self._common("label", columns, origins, labels.event_id, labels.event_time.column)
        out["label"] = numbers(labels.value, columns[labels.value]).astype(np.int64)
        nothing = Nullable(Constant(0, n), np.zeros(n, np.bool_))
        parts = (("event", self.event_columns), ("derived", self.derived), ("features", self.features))
        return out | {f"{part}.{name}": nothing for part, names in parts for name in names}

    def _common(self, kind: str, columns: Columns, origins: Origins, event_id: str, event_time: str) -> dict[str, Column]:
        n = len(origins)
        return {
            "layout": Constant(self.layout, n),
            "kind": Constant(kind.encode(), n),
            "source_partition": origins.partitions,
            "source_offset": origins.offsets,
            "arrived_ms": origins.arrived_ms,
            "schema_id": origins.schema_ids,
            "timing": Symbols(origins.timing.astype(np.int32), TIMINGS),
            "event_id": columns[event_id],
            "event_time": columns[event_time],
            **{f"keys.{name}": columns[name] for name in self.key_columns},
        }

    def decode(self, decoder: Decoder, values: PackedBytes, where: Callable[[int], str], absent: Mask | None = None) -> HopRows:
        """The records of a batch.

        Args:
            decoder: this schema's.
            values: n records.
            where: names a row's place in the log, for the error.
            absent: shape (n,); records without a value.

        Raises:
            StateError: a record was written by another definition of the pipeline.
        """
        foreign = np.flatnonzero(self._is_foreign(values, absent))
        if len(foreign):
            raise StateError(
                f"{where(int(foreign[0]))} was written by another definition of pipeline {self.bound.name!r}: its columns or features "
                "differ from those of this one. Let the stages of the old definition drain their topics, then start this one"
            )
        decoded = decoder.decode(values, absent)
        found = decoded.columns
        columns: dict[str, Column] = {self.bound.event_id: found["event_id"], self.bound.event_time.column: found["event_time"]}
        columns |= {name: found[f"keys.{name}"] for name in self.key_columns}
        columns |= {name: self._plain(found[f"event.{name}"], self.bound.columns[name].nullable) for name in self.event_columns}
        for part, names in (("derived", self.derived), ("features", self.features)):
            columns |= {name: self._plain(found[f"{part}.{name}"], False) for name in names}
        timing = found["timing"]
        kind = found["kind"]
        assert isinstance(timing, Symbols)
        assert isinstance(kind, Symbols)
        origins = Origins(
            _ints(found["source_partition"]).astype(np.int32),
            _ints(found["source_offset"]),
            _ints(found["arrived_ms"]),
            _ints(found["schema_id"]).astype(np.int32),
            timing.codes.astype(np.uint8),
        )
        is_label = kind.codes == KINDS.index("label")
        return HopRows(columns, origins, is_label, _ints(found["label"]).astype(np.int64), decoded.rejected)

    def source_topic(self, is_label: bool) -> str:
        """Where a row's original stands."""
        labels = self.bound.labels
        return labels.topic.name if is_label and labels is not None else self.bound.input.name

    def _plain(self, column: Column, may_be_null: bool) -> Column:
        """A column that is null in labels alone is none that may be null."""
        return column.values if isinstance(column, Nullable) and not may_be_null else column

    def _is_foreign(self, values: PackedBytes, absent: Mask | None) -> Mask:
        """Shape (n,): records that begin with another layout. Shorter ones and missing ones are the decoder's to refuse."""
        long_enough = values.ends - values.starts >= LAYOUT_BYTES
        if absent is not None:
            long_enough &= ~absent
        rows = np.flatnonzero(long_enough)
        layout = PackedBytes(values.data, values.starts[rows], values.starts[rows] + LAYOUT_BYTES)
        foreign = np.zeros(len(values), np.bool_)
        foreign[rows] = ~layout.equals(self.layout)
        return foreign


def record_keys(columns: Columns, names: tuple[str, ...]) -> list[bytes | None]:
    """Shape (n,): the text of a single key column, the ids of `transforms.keys` for several; None where one is null or empty."""
    found = texts(columns[names[0]]) if len(names) == 1 else key_ids(names, [_filled(columns[name]) for name in names])
    missing = np.logical_or.reduce([_is_missing(columns[name]) for name in names])
    if not missing.any():
        return list(found)
    return [None if lacks else key for key, lacks in zip(found, missing.tolist(), strict=True)]


def _is_missing(column: Column) -> Mask:
    """Shape (n,): rows that are null, or text without a byte."""
    if isinstance(column, Nullable):
        return ~column.valid | _is_missing(column.values)
    return column.starts == column.ends if isinstance(column, PackedBytes) else np.zeros(len(column), np.bool_)


def texts(column: Column) -> PackedBytes:
    """A key's text in each row: a string or symbol in UTF-8, bytes as they are, an integer in decimals; anything in null rows."""
    if isinstance(column, Nullable):
        return texts(column.values)
    if isinstance(column, Symbols):
        return PackedBytes.pack([symbol.encode() for symbol in column.symbols]).take(column.codes)
    if isinstance(column, Constant):
        value = column.value if isinstance(column.value, bytes) else b"%d" % column.value
        return PackedBytes.pack([value]).take(np.zeros(column.rows, np.int64))
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        return PackedBytes.pack([b"%d" % number for number in column.tolist()])
    assert isinstance(column, PackedBytes)
    return column


def leaf_types(schema: AvroSchema) -> Mapping[str, AvroType]:
    """The Avro type of each column of a record's schema, without its null, by dotted path."""

    def leaves(kind: AvroType, path: str) -> Iterator[tuple[str, AvroType]]:
        if isinstance(kind, Union) and kind.nullable is not None:
            kind = kind.nullable
        if isinstance(kind, Record):
            for each in kind.fields:
                yield from leaves(each.type, f"{path}.{each.name}" if path else each.name)
        else:
            yield path, kind

    return dict(leaves(schema.root, ""))


def _record(path: str, members: Mapping[str, Json]) -> Json:
    """A record of members by dotted path: nested ones become records again."""
    fields: dict[str, Json] = {}
    nested: dict[str, dict[str, Json]] = {}
    for name, kind in members.items():
        head, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = kind
            fields.setdefault(head, None)
        else:
            fields[head] = kind
    made: list[Json] = [
        {"name": name, "type": _record(f"{path}.{name}", nested[name]) if name in nested else kind} for name, kind in fields.items()
    ]
    return {"type": "record", "name": _type_name(path, "Part"), "fields": made}


def _spelled(kind: AvroType, path: str, nullable: bool) -> Json:
    spelled: Json = kind.kind
    if isinstance(kind, Fixed):
        spelled = {"type": "fixed", "name": _type_name(path, "Fixed"), "size": kind.size_bytes}
    elif isinstance(kind, Enum):
        spelled = {"type": "enum", "name": _type_name(path, "Symbol"), "symbols": list(kind.symbols)}
    return ["null", spelled] if nullable else spelled


def _type_name(path: str, kind: str) -> str:
    return f"{path.replace('.', '_')}_{kind}"


def _filled(column: Column) -> Column:
    return column.values if isinstance(column, Nullable) else column


def _ints(column: Column) -> NDArray[Any]:
    assert isinstance(column, np.ndarray)
    return column
