"""The scored event: the Avro schema it goes out with, and its columns.

One for each input, keyed like it, stamped with its event time. It says which models scored it, with which features, and where it
came from, so that the decision can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.avro import AvroSchema
from schemas.columns import Column, Constant, Nullable, PackedBytes, Ragged, Symbols
from schemas.features import Json
from streams.batch import Batch
from streams.definition.bound import Bound
from transforms.fixed_point import numbers

DECISIONS = ("negative", "positive")
TIMINGS = ("on_time", "late", "too_late")  # as `transforms.shard` numbers them


def scored_event_schema(pipeline: str, features: Sequence[str]) -> Json:
    """The Avro schema of a pipeline's scored events; `features` are the columns that go out with them, maybe none."""
    fields: list[Json] = [
        {"name": "event_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "decision",
            "type": {"type": "enum", "name": "Decision", "symbols": list(DECISIONS)},
            "doc": "positive = score >= threshold",
        },
        {"name": "threshold", "type": "double"},
        {
            "name": "scores",
            "doc": "The first made the decision.",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Score",
                    "fields": [
                        {"name": "model", "type": "string"},
                        {"name": "version", "type": "string"},
                        {"name": "role", "type": "string", "doc": "champion, challenger or shadow"},
                        {"name": "score", "type": "float"},
                    ],
                },
            },
        },
        {
            "name": "timing",
            "type": {"type": "enum", "name": "Timing", "symbols": list(TIMINGS)},
            "doc": "The worst over its entities. late: later events see it; too_late: scored at the oldest time still admitted, "
            "and not remembered.",
        },
        {"name": "pipeline", "type": "string"},
        {"name": "feature_fingerprint", "type": "string", "doc": "Names the definitions and the order of the model's inputs."},
        {"name": "schema_id", "type": "int", "doc": "The input's schema as the producer wrote it; -1 without a registry."},
        {"name": "source_topic", "type": "string"},
        {"name": "source_partition", "type": "int"},
        {"name": "source_offset", "type": "long"},
    ]
    if features:
        members: list[Json] = [{"name": name, "type": "double"} for name in features]
        fields.append({"name": "features", "type": {"type": "record", "name": "Features", "fields": members}})
    return {"type": "record", "name": "ScoredEvent", "namespace": f"millrace.{pipeline}", "fields": fields}


def output_schema(bound: Bound) -> AvroSchema:
    """The schema a pipeline's scored events go out with."""
    features = bound.features.names if bound.pipeline.include_features else ()
    return AvroSchema.parse(scored_event_schema(bound.name, features), f"the output of pipeline {bound.name!r}")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every scored event of a worker says alike."""

    pipeline: str
    model: str
    version: str
    role: str
    threshold: float
    feature_fingerprint: str
    features: tuple[str, ...]  # columns that go out; none when they are switched off
    event_id: str
    event_time: str


def scored_columns(batch: Batch, stamp: Stamp) -> Mapping[str, Column]:
    """The columns of a batch's scored events, a row for each row of the batch, rejected ones included.

    Raises:
        ValueError: the batch has not been scored.
    """
    if batch.scores is None or batch.timing is None:
        raise ValueError(f"{batch} has not been scored")
    n = len(batch)

    def same(value: str | float) -> Constant:
        return Constant(value.encode() if isinstance(value, str) else value, n)

    positive = batch.scores >= np.float32(stamp.threshold)
    partitions, offsets = batch.entered_at
    rows = np.arange(n, dtype=np.int64)
    score: dict[str, Column] = {"model": same(stamp.model), "version": same(stamp.version), "role": same(stamp.role), "score": batch.scores}
    columns: dict[str, Column] = {
        "event_id": _texts(batch.columns[stamp.event_id]),
        "event_time": batch.columns[stamp.event_time],
        "decision": Symbols(positive.astype(np.int32), DECISIONS),
        "threshold": same(float(np.float32(stamp.threshold))),  # as it is compared
        "scores": Ragged(score, rows, rows + 1),
        "timing": Symbols(batch.timing.astype(np.int32), TIMINGS),
        "pipeline": same(stamp.pipeline),
        "feature_fingerprint": same(stamp.feature_fingerprint),
        "schema_id": np.full(n, -1, np.int32) if batch.schema_ids is None else batch.schema_ids,
        "source_topic": _source_topic(batch),
        "source_partition": partitions,
        "source_offset": offsets,
    }
    for name in stamp.features:
        columns[f"features.{name}"] = numbers(name, batch.columns[name]).astype(np.float64, copy=False)
    return columns


def _source_topic(batch: Batch) -> Column:
    if batch.origins is not None:
        return Symbols(batch.origins.codes, batch.origins.topics)
    return Constant(batch.spans[0].topic.encode() if batch.spans else b"", len(batch))


def _texts(column: Column) -> Column:
    """An event's id as text, whatever its type; in usable rows it is there, since a rule asks for it."""
    if isinstance(column, Nullable):
        return _texts(column.values)
    if isinstance(column, np.ndarray):
        return PackedBytes.pack([b"%d" % number for number in column.tolist()])
    return column
