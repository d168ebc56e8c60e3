"""What was served: scored events, found by where they came from, by their event's id, or by their own address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.avro import AvroSchema, read_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import HistoryError
from schemas.json_record import as_it_travels
from schemas.registry import open_registry
from streams.batch import Address
from streams.definition.bound import Bound
from streams.explain.log import LogReader
from streams.kafka import Record
from streams.partitioner import partitions_of
from streams.scored_event import output_schema, scored_event_schema
from streams.settings import Settings
from transforms.fixed_point import numbers


@dataclass(frozen=True, slots=True)
class Served:
    """A scored event, as its readers find it.

    Attributes:
        at: where it stands.
        said: its fields, by the schema it was written with.
    """

    at: Address
    said: Mapping[str, Any]

    @property
    def source(self) -> Address:
        """The record of the input it answers."""
        return Address(self.said["source_topic"], self.said["source_partition"], self.said["source_offset"])

    @property
    def score(self) -> np.float32:
        """The one that made the decision."""
        return np.float32(self.said["scores"][0]["score"])

    @property
    def version(self) -> str:
        """The model's."""
        return str(self.said["scores"][0]["version"])

    @property
    def features(self) -> Mapping[str, float] | None:
        """What the model saw; None = it does not say."""
        found: Mapping[str, float] | None = self.said.get("features")
        return found


class Outputs:
    """A pipeline's scored events, those of other versions of it included.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        log: reads topics.
    """

    def __init__(self, bound: Bound, settings: Settings, log: LogReader) -> None:
        self._bound, self._log = bound, log
        self._registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
        # What all versions of the definition have in common: where it came from, not which features it has.
        common = AvroSchema.parse(scored_event_schema(bound.name, ()), f"the output of pipeline {bound.name!r}")
        self._decoder = Decoder(common, bound.output.framing, self._registry)

    def at(self, at: Address) -> Served:
        """The scored event at an address.

        Raises:
            HistoryError: there is none.
        """
        record = self._log.record(at)
        served = None if record is None else self._read(record)
        if served is None:
            span = self._log.span(at.topic, at.partition)
            raise HistoryError(f"no scored event at {at}: the log has {span.start}..{span.end} of that partition")
        return served

    def of(self, source: Address, key: bytes | None, event_ms: int) -> Served | None:
        """The scored event that answers a record of the input; None if there is none (any more, or yet).

        Args:
            source: the record.
            key: it has; its answer has the same.
            event_ms: its event's time; its answer is stamped with it.
        """
        topic = self._bound.output.name
        count = self._log.partitions(topic)
        likely = int(partitions_of(PackedBytes.pack([key or b""]), count)[0]) if count else 0
        ordered = sorted(range(count), key=lambda partition: partition != likely)
        starts = {partition: self._log.offset_at(topic, partition, event_ms) for partition in ordered}
        for partition in ordered:
            found = self._scan(partition, starts[partition], self._log.span(topic, partition).end, source)
            if found is not None:
                return found
        for partition in ordered:  # topics may stamp records themselves, or take no older ones
            found = self._scan(partition, self._log.span(topic, partition).start, starts[partition], source)
            if found is not None:
                return found
        return None

    def of_event(self, event_id: str) -> list[Served]:
        """All scored events of an event's id, in the order of their partitions."""
        wanted = event_id.encode()
        found = []
        for records in self._all():
            for record in records:
                if wanted in (record.value() or b""):
                    served = self._read(record)
                    if served is not None and served.said["event_id"] == event_id:
                        found.append(served)
        return found

    def before(self, at: Address, most: int) -> list[Mapping[str, float]]:
        """Features of the scored events that stand before one, by the same definitions: the newest, in their order."""
        span = self._log.span(at.topic, at.partition)
        found = []
        for records in self._log.records(at.topic, at.partition, max(span.start, at.offset - 2 * most), at.offset):
            for record in records:
                served = self._read(record)
                if (
                    served is not None
                    and served.features is not None
                    and served.said["feature_fingerprint"] == self._bound.features.fingerprint
                ):
                    found.append(served.features)
        return found[-most:]

    def _all(self) -> Iterator[list[Record]]:
        topic = self._bound.output.name
        for partition in range(self._log.partitions(topic)):
            span = self._log.span(topic, partition)
            yield from self._log.records(topic, partition, span.start, span.end)

    def _scan(self, partition: int, first: int, end: int, source: Address) -> Served | None:
        for records in self._log.records(self._bound.output.name, partition, first, end):
            decoded = self._decoder.decode(PackedBytes.pack([record.value() or b"" for record in records]))
            columns = decoded.columns
            topics = columns["source_topic"]
            assert isinstance(topics, PackedBytes)
            ours = (decoded.rejected == 0) & topics.equals(source.topic)
            ours &= numbers("source_partition", columns["source_partition"]) == source.partition
            ours &= numbers("source_offset", columns["source_offset"]) == source.offset
            for row in np.flatnonzero(ours).tolist():
                return self._read(records[row])
        return None

    def _read(self, record: Record) -> Served | None:
        value = record.value() or b""
        if self._decoder.decode(PackedBytes.pack([value])).rejected[0]:
            return None
        writer, payload = output_schema(self._bound), value
        if self._bound.output.framing == "confluent":
            writer, payload = self._registry.schema(int.from_bytes(value[1:5], "big")) or writer, value[5:]
        said: Mapping[str, Any] = read_value(payload, as_it_travels(writer))
        return Served(Address(record.topic(), record.partition(), record.offset()), said)
