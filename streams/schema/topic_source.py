"""Topics as a source of data to look at: what is committed in them now, partition by partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from schemas.avro import AvroSchema
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import HistoryError, SchemaError
from schemas.framing import Framing
from schemas.infer import Profile
from schemas.registry import Registry, open_registry
from schemas.reject import Reject, label
from streams.kafka import KafkaDown, KafkaException, Record, TopicPartition, admin, cause, plain_consumer, topic_facts
from streams.offline.topic_history import READER_GROUP, records_between
from streams.pack import headers_by_row
from streams.schema.source import FramingChoice, JsonReader, Reading, Rows, Trouble, profile_line, without_settings

ANSWER_SECONDS = 10.0
MOST_IDS = 100
FIRST_VALUES = 100
_HEADER_BYTES = 5
_REASONS = {"not_encodable": Reject.BAD_FIELD.label}  # of files, and of dead letters


class TopicSource:
    """The committed records of a topic, to where it ends when it is opened."""

    def __init__(self, topic: str, how: Reading) -> None:
        self._topic, self._how = topic, how
        self._settings = without_settings(how)
        facts = topic_facts(admin(self._settings.kafka), (topic,))[topic]
        consumer = plain_consumer(self._settings.kafka, READER_GROUP)
        try:
            self._spans = [(p, *consumer.get_watermark_offsets(TopicPartition(topic, p), ANSWER_SECONDS)) for p in range(facts.partitions)]
        except KafkaException as error:
            raise KafkaDown(f"the broker does not say what {topic} holds: {cause(error).str()}") from error
        finally:
            consumer.close()
        self.name = f"kafka:{topic}"
        self.profile: Profile | None = None
        self._registry: Registry = open_registry(self._settings.registry.place(how.folder), self._settings.registry.client_keys)
        self._framing: Framing = how.framing or self._look()
        self.schema = how.schema if how.schema is not None else self._draft()

    def _records(self) -> Iterator[tuple[int, list[Record]]]:
        for partition, low, high in self._spans:
            left = self._how.limit
            for records in records_between(self._settings, self._topic, partition, low, high):
                if left is not None:
                    records = records[:left]
                    left -= len(records)
                if records:
                    yield partition, records
                if left == 0:
                    break

    def _look(self) -> FramingChoice:
        """How values are framed, by what most of the first ones look like: any one may be corrupt."""
        first = [value for value in islice(self._values(), FIRST_VALUES) if value]
        if not first:
            raise HistoryError(f"topic {self._topic} holds no records with a value")
        seen: Counter[FramingChoice] = Counter(_framing(value) for value in first)
        return seen.most_common(1)[0][0]

    def _draft(self) -> AvroSchema:
        """What its writers say; of JSON, what it looks like."""
        if self._framing == "confluent":
            seen = Counter(int.from_bytes(value[1:_HEADER_BYTES], "big") for value in self._values() if value[:1] == b"\0")
            ids = [number for number, _ in seen.most_common(MOST_IDS)]  # what is corrupt says any id
            known = {number: found for number in sorted(ids) if (found := self._registry.schema(number)) is not None}
            if not known:
                raise SchemaError(
                    f"topic {self._topic}: the registry knows none of its schema ids ({', '.join(map(str, sorted(ids)[:5]))})"
                )
            return known[max(known)]
        if self._framing == "bare":
            raise SchemaError(f"topic {self._topic} holds bare Avro, which does not say its schema; wanted --schema")
        self.profile = Profile()
        for value in self._values():
            profile_line(self.profile, value)
        return self.profile.schema(self._how.name)

    def _values(self) -> Iterator[bytes]:
        for _, records in self._records():
            yield from (value for record in records if (value := record.value()))

    def rows(self) -> Iterator[Rows]:
        """See `Source`."""
        if self._framing == "json":
            reader = JsonReader(self.schema)
            for partition, records in self._records():
                yield _as_a_worker(reader.rows([record.value() or b"" for record in records], self._place(partition, records)), records)
            return
        decoder = Decoder(self.schema, self._framing, self._registry)
        for partition, records in self._records():
            values = [record.value() for record in records]
            absent = np.array([value is None for value in values], np.bool_)
            headers = headers_by_row(records)
            decoded = decoder.decode(PackedBytes.pack([value or b"" for value in values]), absent, headers)
            bad = np.flatnonzero(decoded.rejected).tolist()
            # Explaining takes a look at the bytes again: a few of each reason are enough for anybody.
            troubles = {row: Trouble(label(int(decoded.rejected[row])), "", "") for row in bad}
            for code in {int(decoded.rejected[row]) for row in bad}:
                for row in islice((row for row in bad if decoded.rejected[row] == code), 5):
                    troubles[row] = Trouble(label(code), "", Trouble.of(decoder.explain(values[row], headers.get(row, ()))).words)
            arrived = np.array([record.timestamp()[1] for record in records], np.int64)
            keys = [record.key() for record in records]
            yield Rows(decoded.columns, decoded.rejected == Reject.USABLE, troubles, self._place(partition, records), arrived, keys=keys)

    def _place(self, partition: int, records: Sequence[Record]) -> Callable[[int], str]:
        offsets = [record.offset() for record in records]
        return lambda row: f"{self._topic}[{partition}]@{offsets[row]}"


def _as_a_worker(rows: Rows, records: Sequence[Record]) -> Rows:
    """Rows of a topic of JSON with what a file does not have, and with the reasons that its dead letters have."""
    troubles = {row: replace(each, reason=_REASONS.get(each.reason, each.reason)) for row, each in rows.troubles.items()}
    for row in [row for row, record in enumerate(records) if not record.value()]:
        reason = Reject.TOMBSTONE if records[row].value() is None else Reject.EMPTY_VALUE
        troubles[row] = Trouble(reason.label, "", "the record has no value")
    arrived_ms = np.array([record.timestamp()[1] for record in records], np.int64)
    return replace(rows, troubles=troubles, arrived_ms=arrived_ms, keys=[record.key() for record in records])


def _framing(value: bytes) -> FramingChoice:
    if value[:1] == b"\0" and len(value) >= _HEADER_BYTES:
        return "confluent"
    return "json" if value.lstrip()[:1] == b"{" else "bare"
