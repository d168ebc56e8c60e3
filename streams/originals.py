"""Originals: records read once more by their addresses, for the dead letters of stages that did not read them first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from streams.batch import Address
from streams.dead_letters import Refused
from streams.kafka import Consumer, KafkaDown, Record, TopicPartition, next_messages

ANSWER_SECONDS = 5.0
FAR_OFFSETS = 5_000  # apart, records are asked for anew; nearer, what lies between them is read


class Originals:
    """Reads single records of a log, with a client of its own that is made when it is first needed.

    Args:
        connect: makes a reader of committed records that also tells where a partition ends.
    """

    def __init__(self, connect: Callable[[], Consumer]) -> None:
        self._connect = connect
        self._consumer: Consumer | None = None

    def read(self, addresses: Iterable[Address]) -> dict[Address, Refused]:
        """The records at these addresses, by address; those that the log does not have any more are missing.

        Raises:
            KafkaDown: the broker does not answer.
        """
        if self._consumer is None:
            self._consumer = self._connect()
        wanted: dict[tuple[str, int], set[int]] = {}
        for at in addresses:
            wanted.setdefault((at.topic, at.partition), set()).add(at.offset)
        found: dict[Address, Refused] = {}
        try:
            for (topic, partition), offsets in wanted.items():
                for message in _at(self._consumer, topic, partition, deque(sorted(offsets))):
                    at = Address(topic, partition, message.offset())
                    found[at] = Refused(at, message.value(), message.key(), tuple(message.headers() or ()), message.timestamp()[1])
        except KafkaDown:
            # Its connection may be one that nobody is at the other end of, which the client would give up after a minute.
            self.close()
            raise
        return found

    def close(self) -> None:
        """Let go of the client."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _at(consumer: Consumer, topic: str, partition: int, wanted: deque[int]) -> Iterator[Record]:
    """The records at these offsets, in order."""
    while wanted:
        consumer.assign([TopicPartition(topic, partition, wanted[0])])
        last = wanted[0]
        while wanted and wanted[0] - last < FAR_OFFSETS:
            message = next_messages(consumer, f"{topic}[{partition}]", seconds=ANSWER_SECONDS)[0]
            if message.error() is not None:
                return  # the partition ends before what is still wanted
            last = message.offset()
            while wanted and wanted[0] < last:
                wanted.popleft()
            if wanted and wanted[0] == last:
                wanted.popleft()
                yield message
