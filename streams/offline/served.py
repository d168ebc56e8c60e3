"""Served: which features the scored events of a span of the input say they were scored with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Decoder
from schemas.columns import Columns, Floats, Ints, PackedBytes, Symbols
from schemas.registry import open_registry
from streams.definition.bound import Bound
from streams.kafka import ANSWER_SECONDS, Record, TopicPartition, admin, plain_consumer, topic_facts
from streams.offline.topic_history import READER_GROUP, records_between
from streams.scored_event import output_schema
from streams.settings import Settings
from transforms.fixed_point import numbers


@dataclass
class Served:
    """What was served of the events of a partition, in the order of their offsets."""

    offsets: Ints  # shape (n,)
    features: Floats  # shape (n, k)
    timing: NDArray[np.uint8]  # shape (n,): indices into TIMINGS
    fingerprints: list[str]
    repeated: int = 0  # served once more

    @property
    def last(self) -> int:
        """The last offset that was served; -1 = none was."""
        return int(self.offsets[-1]) if len(self.offsets) else -1

    def find(self, offsets: Ints) -> NDArray[np.intp]:
        """Shape (m,): where each offset stands here; -1 = it was not served."""
        if not len(self.offsets):
            return np.full(len(offsets), -1, np.intp)
        at = np.minimum(np.searchsorted(self.offsets, offsets), len(self.offsets) - 1)
        return np.where(self.offsets[at] == offsets, at, -1)


def read_served(bound: Bound, settings: Settings, spans: Mapping[int, tuple[int, int]]) -> tuple[dict[int, Served], int]:
    """What was served of some spans of the input.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        spans: by partition of the input, the first offset and the one behind the last.

    Returns:
        By partition, what was served; and how many outputs can't be read by the pipeline's schema.

    Raises:
        TopicError: there is no output topic.
        KafkaDown: the broker does not answer.
    """
    registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
    decoder = Decoder(output_schema(bound), bound.output.framing, registry)
    parts: dict[int, list[tuple[Ints, Floats, NDArray[np.uint8], list[str]]]] = {partition: [] for partition in spans}
    unreadable = 0
    for records in _outputs(bound, settings):
        decoded = decoder.decode(PackedBytes.pack([record.value() or b"" for record in records]))
        unreadable += int((decoded.rejected != 0).sum())
        columns = decoded.columns
        partitions = numbers("source_partition", columns["source_partition"])
        offsets = numbers("source_offset", columns["source_offset"])
        ours = (decoded.rejected == 0) & _is_topic(columns, bound.input.name)
        for partition, (first, end) in spans.items():
            rows = np.flatnonzero(ours & (partitions == partition) & (offsets >= first) & (offsets < end))
            if len(rows):
                parts[partition].append(_rows(bound, columns, rows, offsets))
    return {partition: _joined(found, len(bound.features.names)) for partition, found in parts.items()}, unreadable


def _outputs(bound: Bound, settings: Settings) -> Iterator[list[Record]]:
    topic = bound.output.name
    count = topic_facts(admin(settings.kafka), (topic,))[topic].partitions
    consumer = plain_consumer(settings.kafka, READER_GROUP)
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS) for partition in range(count)]
    finally:
        consumer.close()
    for partition, (low, high) in enumerate(ends):
        yield from records_between(settings, topic, partition, low, high)


def _is_topic(columns: Columns, topic: str) -> NDArray[np.bool_]:
    column = columns["source_topic"]
    assert isinstance(column, PackedBytes)
    return column.equals(topic)


def _rows(bound: Bound, columns: Columns, rows: NDArray[np.intp], offsets: Ints) -> tuple[Ints, Floats, NDArray[np.uint8], list[str]]:
    features = np.column_stack([numbers(name, columns[f"features.{name}"])[rows] for name in bound.features.names])
    timing = columns["timing"]
    assert isinstance(timing, Symbols)
    prints = columns["feature_fingerprint"]
    assert isinstance(prints, PackedBytes)
    known = [text.decode() for text in prints.take(rows)]
    return offsets[rows], features.astype(np.float64, copy=False), timing.codes[rows].astype(np.uint8), known


def _joined(parts: list[tuple[Ints, Floats, NDArray[np.uint8], list[str]]], width: int) -> Served:
    if not parts:
        return Served(np.zeros(0, np.int64), np.zeros((0, width)), np.zeros(0, np.uint8), [])
    offsets = np.concatenate([part[0] for part in parts])
    kept, first = np.unique(offsets, return_index=True)
    prints = [each for part in parts for each in part[3]]
    return Served(
        kept,
        np.ascontiguousarray(np.concatenate([part[1] for part in parts])[first]),
        np.concatenate([part[2] for part in parts])[first],
        [prints[at] for at in first.tolist()],
        len(offsets) - len(kept),
    )
