"""What a stage puts out: scored events if it is the last, else hop records for the stages that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from schemas.codec import Encoder
from schemas.columns import Columns, Ints
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.hop import HopSchema, Origins, texts
from streams.kafka import TopicFacts
from streams.output import Output, as_read
from streams.planning.stage import Stage, fed_by
from streams.scored_event import Stamp, scored_columns


def scored_output(stage: Stage, encoder: Encoder, stamp: Stamp, key: str, topics: Mapping[str, TopicFacts]) -> Output:
    """Scored events, keyed like the input: `key` is the field that has the key of a record that came over a hop."""

    def keys(batch: Batch, rows: Ints) -> Sequence[bytes | None]:
        return as_read(batch, rows) if stage.kind == "events" else list(texts(batch.columns[key]).take(rows))

    topic = stage.output.name
    return Output(topic, encoder, partial(scored_columns, stamp=stamp), keys, stamp.event_time, topics[topic].clamp_bounds_ms())


def hop_outputs(bound: Bound, stage: Stage, all_stages: Sequence[Stage], topics: Mapping[str, TopicFacts]) -> tuple[Output, ...]:
    """Hop records, for each stage that reads some of this one."""
    return tuple(_hop_output(bound, stage, reader, topics) for reader in fed_by(stage, all_stages))


def _hop_output(bound: Bound, stage: Stage, reader: Stage, topics: Mapping[str, TopicFacts]) -> Output:
    hop = HopSchema.of(bound, reader)
    columns_of = hop.label_columns if stage.kind == "labels" else hop.columns
    event_time = bound.labels.event_time if stage.kind == "labels" and bound.labels is not None else bound.event_time

    def columns(batch: Batch) -> Columns:
        return columns_of(batch.columns, _origins(batch))

    def keys(batch: Batch, rows: Ints) -> Sequence[bytes | None]:
        found = hop.keys(batch.columns)
        return [found[row] for row in rows.tolist()]

    topic = reader.input.name
    return Output(topic, hop.encoder(), columns, keys, event_time.column, topics[topic].clamp_bounds_ms(), abreast=True)


def _origins(batch: Batch) -> Origins:
    n = len(batch)
    partitions, offsets = batch.entered_at
    return Origins(
        partitions,
        offsets,
        batch.arrived_ms,
        np.full(n, -1, np.int32) if batch.schema_ids is None else batch.schema_ids,
        np.zeros(n, np.uint8) if batch.timing is None else batch.timing,
    )
