"""Upstream: how far the stages before have come in their inputs, by timestamp, whoever runs them.

Labels are few and read in no time; in a backlog they would pass the events they are of, which a later stage would then never have
heard of. So labels wait until the events of their time are through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from streams.kafka import AdminClient, Consumer, KafkaDown, TopicPartition, committed_by, next_messages

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 2.0
SAY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Feed:
    """A stage before: its consumer group, its input and that one's partitions."""

    group: str
    topic: str
    partitions: int


class Upstream:
    """Knows how far some stages have come, and asks anew now and then.

    Args:
        feeds: the stages.
        open_client: makes a client that asks what they have committed.
        open_reader: makes a consumer that looks at the records they have before them.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        open_client: Callable[[], AdminClient],
        open_reader: Callable[[], Consumer],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feeds = feeds
        self._open_client = open_client
        self._client: AdminClient | None = None
        self._open_reader = open_reader
        self._clock = clock
        self._reader: Consumer | None = None
        self._passed_ms = 0
        self._looked = self._said = 0.0

    def passed_ms(self) -> int:
        """A timestamp before which every record of their inputs is through, as of a moment ago; 0 if one of them never began."""
        now = self._clock()
        if not 0 <= now - self._looked < LOOK_SECONDS:  # a clock that was set back has a new beginning
            try:
                self._passed_ms = min((self._come_ms(feed) for feed in self._feeds), default=int(now * 1_000))
            except KafkaDown as error:
                log.warning("not known how far the stages before have come: %s", error)
                self.close()  # its connections may lead nowhere: the next look has its own
            self._looked = self._clock()
        return self._passed_ms

    def close(self) -> None:
        """Let go of Kafka."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._client = None

    def _come_ms(self, feed: Feed) -> int:
        """The timestamp of the earliest record that a stage has before it; now, if there is none."""
        if self._reader is None:
            self._reader = self._open_reader()
        if self._client is None:
            self._client = self._open_client()
        asked_ms = int(self._clock() * 1_000)
        committed = {
            tp.partition: tp.offset for tp in committed_by(self._client, [feed.group], ANSWER_SECONDS)[feed.group] if tp.topic == feed.topic
        }
        if len(committed) < feed.partitions:
            return 0
        come_ms = asked_ms
        for partition, offset in committed.items():
            here = TopicPartition(feed.topic, partition, offset)
            self._reader.assign([here])
            message = next_messages(self._reader, f"{feed.topic}[{partition}]@{offset}", seconds=ANSWER_SECONDS)[0]
            if message.error() is None:
                come_ms = min(come_ms, message.timestamp()[1])
        self._reader.unassign()
        return come_ms
