"""A reader of topics that waits for what it is told to expect, and gives up where nothing comes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.kafka import KafkaError, Message, TopicPartition, plain_consumer
from streams.settings import Settings

PATIENCE_SECONDS = 120.0  # without any progress


class NoProgress(Exception):
    """What was waited for did not come."""


@dataclass
class Reader:
    """Collects the values of a topic's records, by partition, as a read_committed reader sees them; or only counts them."""

    settings: Settings
    topic: str
    partitions: int
    keep: bool = True
    values: dict[int, list[bytes]] = field(default_factory=dict)
    ended_at: dict[int, int] = field(default_factory=dict)  # where each partition ended when that was last seen
    count: int = 0

    def __post_init__(self) -> None:
        self._consumer = plain_consumer(self.settings.kafka, "handbook-reader")
        self._consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(self.partitions)])
        self.values = {partition: [] for partition in range(self.partitions)}

    def read(self, seconds: float) -> None:
        """Take what is there, waiting so long for the first of it."""
        first: Message | None = self._consumer.poll(seconds)
        if first is None:
            return
        for message in (first, *self._consumer.consume(20_000, 0)):
            error, value, partition, offset = message.error(), message.value(), message.partition(), message.offset()
            if error is not None and error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
                self.ended_at[partition] = offset
            elif error is None and value is not None and partition is not None:
                self.count += 1
                if self.keep:
                    self.values[partition].append(value)

    def read_to_the_end(self) -> None:
        """Read until nothing is left in any partition."""
        for partition in range(self.partitions):
            end = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), 10.0)[1]
            while self.ended_at.get(partition, -1) < end:
                self.read(0.1)

    def await_count(self, wanted: int, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        """Read until there are so many records.

        Raises:
            NoProgress: a worker ended, or nothing came for long.
        """
        deadline, before = time.monotonic() + PATIENCE_SECONDS, self.count
        while self.count < wanted:
            self.read(0.02)
            if self.count > before:
                deadline, before = time.monotonic() + PATIENCE_SECONDS, self.count
            if time.monotonic() > deadline or any(worker.poll() is not None for worker in workers):
                codes = [worker.poll() for worker in workers]
                raise NoProgress(f"{self.count} of {wanted} records on {self.topic}; exit codes of the workers: {codes}")

    def take(self) -> list[bytes]:
        """What was collected since the last time."""
        taken = [value for part in self.values.values() for value in part]
        self.values = {partition: [] for partition in range(self.partitions)}
        return taken

    def close(self) -> None:
        self._consumer.close()
