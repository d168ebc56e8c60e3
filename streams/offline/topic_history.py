"""The history in a topic: every partition from one offset or time to another, in the order of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, cast

import numpy as np

from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import HistoryError, SettingsError
from schemas.features import Json
from schemas.registry import open_registry
from streams.definition.bound import Bound
from streams.kafka import (
    ANSWER_SECONDS,
    OFFSET_END,
    Consumer,
    KafkaDown,
    KafkaException,
    Record,
    TopicPartition,
    admin,
    cause,
    next_messages,
    plain_consumer,
    topic_facts,
)
from streams.offline.featurize import Past
from streams.offline.history import Turn
from streams.pack import first_offsets, headers_by_row
from streams.planning.stage import Stage, computed_at_once
from streams.settings import Settings

READER_GROUP = "millrace-history"  # names the reader in the broker's log; nothing is committed
TURN_ROWS = 10_000

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a stretch of a log begins or ends: at an offset of every partition, or at the first record of a time."""

    offset: int | None = None
    time_ms: int | None = None

    @classmethod
    def parse(cls, text: str) -> Edge:
        """An offset, or a time in ISO 8601 with its zone.

        Raises:
            SettingsError: it is neither.
        """
        if text.isdigit():
            return cls(offset=int(text))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise SettingsError(f"{text!r} is neither an offset nor a time; wanted 1042, or 2026-01-31T12:00:00Z") from error
        if moment.tzinfo is None:
            raise SettingsError(f"{text!r} has no time zone; wanted one at its end, such as {text}Z")
        return cls(time_ms=round(moment.astimezone(UTC).timestamp() * 1_000))


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is read of a partition: records from `read_from`, of which those from `first` to before `end` are wanted."""

    partition: int
    read_from: int
    first: int
    end: int


class TopicHistory:
    """The events of a topic, partition by partition; a worker that began with them would have served their features.

    With a start, reading begins as much earlier as the windows reach back, by the records' own timestamps, so that they are full.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        topic: to read; its records are as those of the pipeline's input.
        start: the first events wanted; None = the earliest there are.
        end: the first not wanted any more; None = what is there now.
        stage: whose log the topic is: only its windows are to be full; None = of all entities, whose events must lie in one order.

    Raises:
        TopicError: there is no such topic.
        HistoryError: the order of an entity's events is not that of the topic.
        KafkaDown: the broker does not answer.
    """

    labelled = False

    def __init__(
        self,
        bound: Bound,
        settings: Settings,
        topic: str,
        start: Edge | None = None,
        end: Edge | None = None,
        *,
        stage: Stage | None = None,
    ) -> None:
        facts = topic_facts(admin(settings.kafka), (topic,))[topic]
        if stage is None:
            _check_order(bound, topic, facts.partitions)
        reach_ms = bound.retention_ms if stage is None else stage.retention_ms
        registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
        self.decoder = Decoder(bound.schema, bound.input.framing, registry)
        self.max_record_bytes = facts.max_record_bytes
        self._settings, self._topic = settings, topic
        consumer = plain_consumer(settings.kafka, READER_GROUP)
        try:
            self.stretches = [_stretch(consumer, reach_ms, topic, partition, start, end) for partition in range(facts.partitions)]
        finally:
            consumer.close()
        self.rows: int | None = sum(each.end - each.read_from for each in self.stretches)

    def turns(self) -> Iterator[Turn]:
        """See `History`."""
        for stretch in self.stretches:
            if stretch.end > stretch.read_from:
                yield from self._of(stretch)

    def describe(self) -> Json:
        """See `History`."""
        return {"topic": self._topic, "partitions": {str(each.partition): [each.first, each.end] for each in self.stretches}}

    def _of(self, stretch: Stretch) -> Iterator[Turn]:
        """A partition's records; turns end where those that are wanted begin."""
        for wanted, first, end in ((False, stretch.read_from, stretch.first), (True, stretch.first, stretch.end)):
            for records in records_between(self._settings, self._topic, stretch.partition, first, end):
                yield Turn(self._past(stretch.partition, records), wanted=wanted)

    def _past(self, partition: int, records: list[Record]) -> Past:
        values, headers = [record.value() for record in records], headers_by_row(records)
        return Past(
            source=self._topic,
            partition=partition,
            offsets=np.array([record.offset() for record in records], np.int64),
            next_offset=records[-1].offset() + 1,
            values=PackedBytes.pack([value or b"" for value in values]),
            keys=[record.key() for record in records],
            arrived_ms=np.array([record.timestamp()[1] for record in records], np.int64),
            absent=np.array([value is None for value in values], np.bool_),
            first_offsets=first_offsets(self._topic, records, headers),
            headers=headers,
        )


def _check_order(bound: Bound, topic: str, partitions: int) -> None:
    """Raises:
    HistoryError: the events of an entity lie in several partitions.
    """
    once = computed_at_once(bound, partitions)
    together = partitions == 1  # an entity that counts labels has a topic of its own, wherever its events lie
    scattered = [
        entity.name
        for entity in bound.pipeline.entities
        if entity not in once and not (entity.has_labels and (together or entity.key_columns == (bound.key,)))
    ]
    if scattered:
        raise HistoryError(
            f"topic {topic} has {partitions} partitions keyed by {bound.key!r}: the events of {', '.join(scattered)} lie in "
            "several, in no one order; wanted 1 partition, or only entities of that key"
        )


def records_between(settings: Settings, topic: str, partition: int, first: int, end: int) -> Iterator[list[Record]]:
    """The committed records of a partition from one offset to before another, some at a time.

    Raises:
        KafkaDown: the broker does not answer.
    """
    consumer = plain_consumer(settings.kafka, READER_GROUP)
    try:
        if first < end:
            consumer.assign([TopicPartition(topic, partition, first)])
        at, waiting = first, list[Record]()
        while at < end:
            for message in next_messages(consumer, topic, TURN_ROWS + 1):
                if message.error() is not None or message.offset() >= end:
                    at = end
                    break
                at = message.offset() + 1
                waiting.append(message)
            if waiting and (at >= end or len(waiting) >= TURN_ROWS):
                yield waiting
                waiting = []
    finally:
        consumer.close()


def _stretch(consumer: Consumer, reach_ms: int, topic: str, partition: int, start: Edge | None, end: Edge | None) -> Stretch:
    low, high = _ask(lambda: consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS), topic, partition)
    last = high if end is None else min(_offset(consumer, topic, partition, end, high), high)
    if start is None:
        return Stretch(partition, low, low, max(low, last))
    first = max(_offset(consumer, topic, partition, start, high), low)
    last = max(first, last)
    return Stretch(partition, _warm_up(consumer, reach_ms, topic, partition, low, first), first, last)


def _warm_up(consumer: Consumer, reach_ms: int, topic: str, partition: int, low: int, first: int) -> int:
    """Where to begin so that the windows are full at an offset: by the timestamp of the record there, as far back as they reach."""
    if first <= low or not reach_ms:
        return first
    consumer.assign([TopicPartition(topic, partition, first)])
    found = cast("Record | None", consumer.poll(ANSWER_SECONDS))
    if found is None or found.error() is not None:
        return low
    since_ms = found.timestamp()[1] - reach_ms
    return min(max(_offset(consumer, topic, partition, Edge(time_ms=max(since_ms, 0)), first), low), first)


def _offset(consumer: Consumer, topic: str, partition: int, edge: Edge, otherwise: int) -> int:
    if edge.offset is not None:
        return edge.offset
    assert edge.time_ms is not None
    wanted = TopicPartition(topic, partition, edge.time_ms)
    found = _ask(lambda: consumer.offsets_for_times([wanted], ANSWER_SECONDS), topic, partition)[0]
    return otherwise if found.offset in (OFFSET_END, -1) else int(found.offset)


def _ask(question: Callable[[], Answer], topic: str, partition: int) -> Answer:
    try:
        return question()
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what {topic}[{partition}] holds: {cause(error).str()}") from error
