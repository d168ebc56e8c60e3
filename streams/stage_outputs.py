"""What a stage puts out: scored events if it is the last, else hop records for the stages that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from schemas.codec import Encoder
from schemas.columns import Columns, Ints
from streams.batch import Batch
from streams.come_back import passed_on
from streams.definition.bound import Bound
from streams.hop import HopSchema, Origins, texts
from streams.kafka import TopicFacts
from streams.output import Headers, Output, as_read
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
        return columns_of(batch.columns, origins_of(batch))

    def keys(batch: Batch, rows: Ints) -> Sequence[bytes | None]:
        found = hop.keys(batch.columns)
        return [found[row] for row in rows.tolist()]

    topic = reader.input.name
    bounds_ms = topics[topic].clamp_bounds_ms()
    return Output(topic, hop.encoder(), columns, keys, event_time.column, bounds_ms, partial(_go_along, topic), abreast=True)


def _go_along(topic: str, batch: Batch, rows: Ints) -> Mapping[int, Headers]:
    """What the next stage has to know of events that came back as dead letters, if it holds them."""
    if batch.first_offsets is None:
        return {}
    found = {row: passed_on(topic, batch.headers.get(row, ())) for row in rows[batch.first_offsets[rows] >= 0].tolist()}
    return {row: headers for row, headers in found.items() if headers}


def origins_of(batch: Batch) -> Origins:
    """Where a batch's rows came from, and what is known of each beside its columns."""
    n = len(batch)
    partitions, offsets = batch.entered_at
    return Origins(
        partitions,
        offsets,
        batch.arrived_ms,
        np.full(n, -1, np.int32) if batch.schema_ids is None else batch.schema_ids,
        np.zeros(n, np.uint8) if batch.timing is None else batch.timing,
    )
