"""What lies in the topics of a pipeline, as a reader of committed records finds it, and how far groups and state have come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.definition.bound import Bound
from streams.kafka import KafkaDown, KafkaError, KafkaException, TopicPartition, plain_consumer
from streams.planning.stage import Stage, stages
from streams.settings import KafkaSettings

READ_RECORDS = 10_000
ANSWER_SECONDS = 30.0  # a transaction that a dead worker left open ends by its time-out, and offsets wait for it
LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 60.0

Place = tuple[int, int]  # partition and offset
Offsets = Mapping[int, int | None]  # by partition


class Record(NamedTuple):
    """A record as it lies in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self.partition, self.offset


@dataclass(frozen=True)
class History:
    """Everything that is left of a run, each topic partition after partition in its order.

    Attributes:
        partitions: of the input.
        inputs: the pipeline's.
        labels: likewise; empty where the pipeline has none.
        hops: what each stage behind a hop reads, by its name.
        outputs: scored events.
        letters: dead letters of events.
        label_letters: and of labels.
        committed: by stage, the group's offsets.
        positions: by stage that keeps state, how far it has come in the store.
    """

    partitions: int
    inputs: Sequence[Record]
    labels: Sequence[Record]
    hops: Mapping[str, Sequence[Record]]
    outputs: Sequence[Record]
    letters: Sequence[Record]
    label_letters: Sequence[Record]
    committed: Mapping[str, Offsets]
    positions: Mapping[str, Offsets]


def read_history(bound: Bound, kafka: KafkaSettings, position: Callable[[Stage, int], int | None]) -> History:
    """Read it all. `position` tells how far the state of a stage's partition has come; it is asked first, since state follows offsets.

    Raises:
        KafkaDown: the broker does not answer.
    """
    inputs = read_topic(kafka, bound.input.name)
    partitions = count_partitions(kafka, bound.input.name)
    all_stages = stages(bound, partitions)
    positions = {s.name: {p: position(s, p) for p in range(partitions)} for s in all_stages if s.entities or s.is_alone}
    labels = bound.labels.topic if bound.labels is not None else None
    counted = {topic: count_partitions(kafka, topic) for topic in {stage.input.name for stage in all_stages}}
    return History(
        partitions,
        inputs,
        read_topic(kafka, labels.name) if labels else (),
        {stage.name: read_topic(kafka, stage.input.name) for stage in all_stages if stage.kind == "hop"},
        read_topic(kafka, bound.output.name),
        read_topic(kafka, bound.input.dead_letters),
        read_topic(kafka, labels.dead_letters) if labels else (),
        {stage.name: committed(kafka, stage, counted[stage.input.name]) for stage in all_stages},
        positions,
    )


def read_topic(kafka: KafkaSettings, topic: str) -> list[Record]:
    """All records of a topic that a reader of committed ones sees now, partition after partition.

    Raises:
        KafkaDown: the broker does not answer.
    """
    reader = plain_consumer(kafka, "millrace-checker")
    try:
        count = count_partitions(kafka, topic)
        reader.assign([TopicPartition(topic, p, 0) for p in range(count)])
        found: list[Record] = []
        at_end: set[int] = set()
        silent = 0.0
        while len(at_end) < count:
            first: Any = reader.poll(LOOK_SECONDS)  # a consume alone would wait its whole time-out for the rest
            silent = 0.0 if first is not None else silent + LOOK_SECONDS
            if silent > PATIENCE_SECONDS:
                raise KafkaDown(f"the broker gives nothing more of {topic} for {PATIENCE_SECONDS:.0f} seconds")
            messages: list[Any] = [] if first is None else [first, *reader.consume(READ_RECORDS, 0)]
            for message in messages:
                error = message.error()
                if error is None:
                    headers = tuple(message.headers() or ())
                    stamp = message.timestamp()[1]
                    found.append(Record(message.partition(), message.offset(), message.key(), message.value(), headers, stamp))
                elif error.code() == KafkaError._PARTITION_EOF:
                    at_end.add(message.partition())
        return sorted(found, key=lambda record: record.place)
    finally:
        reader.close()


def count_partitions(kafka: KafkaSettings, topic: str) -> int:
    """How many a topic has.

    Raises:
        KafkaDown: the broker does not answer.
    """
    reader = plain_consumer(kafka, "millrace-checker")
    try:
        return len(reader.list_topics(topic, ANSWER_SECONDS).topics[topic].partitions)
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say how many partitions {topic} has") from error
    finally:
        reader.close()


def committed(kafka: KafkaSettings, stage: Stage, partitions: int) -> Offsets:
    """A stage's offsets, by partition; None where nothing is committed. Waits for open transactions.

    Raises:
        KafkaDown: the broker does not answer, or a transaction stays open.
    """
    reader = plain_consumer(kafka, stage.group(kafka))
    try:
        found = reader.committed([TopicPartition(stage.input.name, p) for p in range(partitions)], ANSWER_SECONDS)
        return {each.partition: None if each.offset < 0 else each.offset for each in found}
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what {stage.name} has committed: {error}") from error
    finally:
        reader.close()
