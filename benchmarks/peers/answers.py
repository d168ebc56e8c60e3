"""What a peer has answered: read from its output as others may see it, and counted while it comes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.one_schema import OneSchema
from benchmarks.peers.definition import FEATURES
from benchmarks.peers.events import SCHEMAS, WINDOWS_DAYS, number_of
from benchmarks.peers.peer import PeerError
from benchmarks.peers.stand import PARTITIONS, Stand
from schemas.avro import AvroSchema, load_schema
from schemas.codec import Decoder
from schemas.columns import Column, Floats, Ints, PackedBytes, Ragged
from streams.kafka import KafkaError, KafkaException, TopicPartition, plain_consumer

MILLRACE_FEATURES = tuple(f"features.customer_{word}_{days}d" for days in WINDOWS_DAYS for word in ("count", "amount_mean"))
MOST_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers in the order they were seen."""

    number: Ints  # shape (n,): of the payment
    seen_at: Floats  # shape (n,): seconds since the epoch
    features: Floats  # shape (n, 6)
    score: Floats  # shape (n,)


@dataclass
class Reader:
    """Reads the output under read_committed, from its beginning."""

    stand: Stand
    topic: str
    schema: AvroSchema  # of the peer's answers
    count: int = 0
    _values: list[bytes] = field(default_factory=list)
    _seen_at: list[tuple[float, int]] = field(default_factory=list)  # and how many then

    def __post_init__(self) -> None:
        self._consumer = plain_consumer(self.stand.settings, "peers-reader")
        self._consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])

    def look(self, seconds: float) -> int:
        """Wait for answers so long, and take what is there; how many came."""
        first = self._consumer.poll(seconds)
        messages = [] if first is None else [first, *self._consumer.consume(MOST_AT_ONCE, 0)]
        now = time.time()
        found = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    continue
                raise KafkaException(error)
            value = message.value()
            if value is not None:
                found.append(value)
        if found:
            self._values += found
            self._seen_at.append((now, len(found)))
            self.count += len(found)
        return len(found)

    def answers(self) -> Answers:
        """All so far.

        Raises:
            PeerError: they can't be read.
        """
        times, counts = zip(*self._seen_at, strict=True) if self._seen_at else ((), ())
        return answers_of(self._values, np.repeat(np.array(times, np.float64), np.array(counts, np.int64)), self.schema)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


def answers_of(values: list[bytes], seen_at: Floats, schema: AvroSchema) -> Answers:
    """What the records say.

    Raises:
        PeerError: some are not of the schema, or name no payment.
    """
    decoded = Decoder(schema, "confluent", OneSchema(schema)).decode(PackedBytes.pack(values))
    if bad := int(np.count_nonzero(decoded.rejected)):
        raise PeerError(f"{bad:,} of its {len(values):,} answers are not of the schema")
    columns = decoded.columns
    ids = columns["event_id"]
    assert isinstance(ids, PackedBytes)
    names = MILLRACE_FEATURES if MILLRACE_FEATURES[0] in columns else FEATURES
    try:
        number = np.array([number_of(name) for name in ids], np.int64)
    except ValueError as error:
        raise PeerError(f"an answer names no payment: {error}") from error
    return Answers(
        number=number,
        seen_at=seen_at,
        features=np.column_stack([np.asarray(columns[name], np.float64) for name in names]),
        score=np.asarray(columns["score"] if "score" in columns else _scores(columns["scores"]), np.float64),
    )


def _scores(column: Column) -> Column:
    """Millrace writes an array of scores; here of one each."""
    assert isinstance(column, Ragged) and isinstance(column.items, Mapping)
    return column.items["score"]


def scored_schema() -> AvroSchema:
    """The schema of the answers of all but Millrace, whose scored events have one of their own."""
    return load_schema(SCHEMAS / "scored.avsc")
