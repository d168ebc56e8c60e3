"""The reader: a read_committed reader of the output and the dead letters, as any service behind the pipeline would be.

It notes when each answer was in its hands. An event's id says which row it is, and so when it was due.
"""

from __future__ import annotations

import time
from typing import cast

import numpy as np

from benchmarks.load.events import row_of_poison, rows_of_ids
from schemas.codec import Decoder
from schemas.columns import Floats, Ints, PackedBytes
from schemas.errors import MillraceError
from schemas.registry import Registry
from streams.definition.bound import Bound
from streams.kafka import OFFSET_BEGINNING, Consumer, KafkaDown, KafkaError, KafkaException, Record, TopicPartition, cause, plain_consumer
from streams.scored_event import output_schema
from streams.settings import KafkaSettings

MOST_RECORDS = 10_000
ANSWER_SECONDS = 10.0
LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)


class WrongAnswer(MillraceError):
    """What came out is not what it should be: nothing measured beside it counts."""


class Answers:
    """Reads answers, scored events and dead letters; which row each is of.

    Args:
        bound: the pipeline.
        settings: of the broker.
        registry: knows the output's schema.
        from_beginning: whether to read all there is, or only what comes from now on.
    """

    def __init__(self, bound: Bound, settings: KafkaSettings, registry: Registry, *, from_beginning: bool) -> None:
        self._output, letters = bound.output.name, bound.input.dead_letters
        self._decoder = Decoder(output_schema(bound), bound.output.framing, registry)
        self._consumer = plain_consumer(settings, "millrace-bench")
        places = partitions_of(self._consumer, self._output) + partitions_of(self._consumer, letters)
        for place in places:
            place.offset = OFFSET_BEGINNING if from_beginning else end_of(self._consumer, place)
        self._consumer.assign(places)
        self._unread = len(places)
        self.bytes_read = 0

    @property
    def at_end(self) -> bool:
        """Whether the end of every partition was reached."""
        return self._unread <= 0

    def take(self, seconds: float) -> tuple[Ints, float, dict[str, object]] | None:
        """The next answers: their rows, when they were in hand, and the scored ones' columns (with their rows under ``row``).

        Rows of a poisoned record's dead letter come as they are; an answer to something that was never sent has the row -1.
        """
        first = self._consumer.poll(seconds)
        if first is None:
            return None
        messages = cast("list[Record]", [first, *self._consumer.consume(MOST_RECORDS, 0)])
        at = time.time()
        values, letters = [], []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaDown(f"{message.topic()} can't be read: {error.str()}")
                self._unread -= 1
            elif message.topic() == self._output:
                values.append(message.value() or b"")
            else:
                letters.append(row_of_poison(message.value()))
        self.bytes_read += sum(map(len, values))
        decoded = self._decoder.decode(PackedBytes.pack(values))
        if decoded.rejected.any():
            raise WrongAnswer(f"{self._output} holds a value that is no scored event")
        rows = rows_of_ids(cast("PackedBytes", decoded.columns["event_id"]))
        return np.concatenate((rows, np.array(letters, np.int64))), at, {**decoded.columns, "row": rows}

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


class Arrivals:
    """When each row of a stretch was answered first, and how many answers came that none was expected for.

    Args:
        first_row: of the stretch.
        rows: how many.
    """

    def __init__(self, first_row: int, rows: int) -> None:
        self._first = first_row
        self.at: Floats = np.full(rows, np.nan)
        self.answered = 0
        self.repeated = 0
        self.foreign = 0

    def note(self, rows: Ints, at: float) -> None:
        """Answers to these rows are in hand since `at`, in seconds since the epoch."""
        places = rows - self._first
        ours = (places >= 0) & (places < len(self.at))
        self.foreign += int(np.count_nonzero(rows < 0))
        places = places[ours]
        fresh = np.unique(places[np.isnan(self.at[places])])
        self.at[fresh] = at
        self.answered += len(fresh)
        self.repeated += len(places) - len(fresh)


def partitions_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Every partition of a topic.

    Raises:
        KafkaDown: the broker does not say.
    """
    try:
        found = consumer.list_topics(topic, ANSWER_SECONDS).topics[topic]
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say which partitions {topic} has: {cause(error).str()}") from error
    return [TopicPartition(topic, number) for number in sorted(found.partitions)]


def end_of(consumer: Consumer, place: TopicPartition) -> int:
    """Where a partition ends now; a topic that was just made may have no leader for a moment."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, ANSWER_SECONDS)[1])
        except KafkaException as error:
            if time.monotonic() > deadline or cause(error).code() not in LEADERLESS:
                raise KafkaDown(f"the broker does not say where {place.topic}[{place.partition}] ends: {cause(error).str()}") from error
            time.sleep(0.05)
