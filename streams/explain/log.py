"""The log, read here and there: where it begins and ends, where a time begins, one record, a stretch of records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from schemas.errors import SettingsError
from streams.batch import Address
from streams.kafka import (
    ANSWER_SECONDS,
    Consumer,
    KafkaDown,
    KafkaError,
    KafkaException,
    Record,
    TopicPartition,
    cause,
    next_messages,
    plain_consumer,
)
from streams.offline.topic_history import records_between
from streams.recovery import Log
from streams.settings import Settings

READER = "millrace-explain"  # names the reader in the broker's log; nothing is committed
_ADDRESS = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")

Answer = TypeVar("Answer")


def parse_address(text: str) -> Address:
    """An address as it is printed.

    Raises:
        SettingsError: it is none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise SettingsError(f"{text!r} is no address of a record; wanted TOPIC[PARTITION]@OFFSET, such as payments[3]@1042")
    return Address(found["topic"], int(found["partition"]), int(found["offset"]))


class LogReader:
    """Reads committed records without being a member of any group. Calls may raise `KafkaDown`: the broker does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: Consumer = plain_consumer(settings.kafka, READER)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> int:
        """How many a topic has; 0 = there is no such topic."""
        found = self._ask(topic, lambda: self._consumer.list_topics(topic, ANSWER_SECONDS)).topics[topic]
        return 0 if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART else len(found.partitions)

    def span(self, topic: str, partition: int) -> Log:
        """What a partition has."""
        return Log(*self._ask(topic, lambda: self._consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS)))

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first record of a partition with this timestamp or a later one; where the partition ends if there is none."""
        span = self.span(topic, partition)
        if time_ms <= 0:
            return span.start
        wanted = TopicPartition(topic, partition, time_ms)
        (found,) = self._ask(topic, lambda: self._consumer.offsets_for_times([wanted], ANSWER_SECONDS))
        return span.end if found.offset < 0 else int(found.offset)

    def record(self, at: Address) -> Record | None:
        """The record at an address; None if the log has none there."""
        span = self.span(at.topic, at.partition)
        if not span.start <= at.offset < span.end:
            return None
        self._consumer.assign([TopicPartition(at.topic, at.partition, at.offset)])
        found = next_messages(self._consumer, str(at))[0]
        self._consumer.unassign()
        return found if found.error() is None and found.offset() == at.offset else None

    def records(self, topic: str, partition: int, first: int, end: int) -> Iterator[list[Record]]:
        """The records of a partition from one offset to before another, some at a time."""
        return records_between(self._settings, topic, partition, first, end)

    def _ask(self, topic: str, question: Callable[[], Answer]) -> Answer:
        try:
            return question()
        except KafkaException as error:
            raise KafkaDown(f"the broker does not say what {topic} holds: {cause(error).str()}") from error
