"""Sends the values of an `EventWriter`, and keeps count of what the broker refuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from schemas.errors import RecordError
from streams.kafka import KafkaDown, KafkaError, KafkaException, Message, admin, cause, plain_producer, topic_facts
from streams.settings import KafkaSettings

FLUSH_SECONDS = 30.0
KEPT_FAILURES = 100
PER_EVENT = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)


class EventSending:
    """An idempotent producer for one topic.

    Attributes:
        most_bytes: the largest value it takes.
    """

    def __init__(self, topic: str, kafka: KafkaSettings) -> None:
        self._topic = topic
        self._failures: deque[str] = deque(maxlen=KEPT_FAILURES)
        self._failed = 0
        self._down: KafkaError | None = None
        self.most_bytes = topic_facts(admin(kafka), (topic,))[topic].max_record_bytes
        self._producer = plain_producer(kafka, self.most_bytes)

    def send(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
        """Queue one record.

        Raises:
            KafkaDown: the broker does not take events.
        """
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered, headers=list(headers))
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise KafkaDown(f"events can't be sent: {cause(error).str()}") from error
        self._producer.poll(0)
        if self._down is not None:
            raise KafkaDown(f"the broker does not take events for {self._topic}: {self._down.str()}")

    def wait(self) -> int:
        """Wait for the broker's answers; how many are missing."""
        return self._producer.flush(FLUSH_SECONDS)

    def finish(self) -> None:
        """Wait until the broker has all.

        Raises:
            RecordError: it refused some of it; says how many, and what of the first.
            KafkaDown: it does not answer.
        """
        left = self.wait()
        if left or self._down is not None:
            why = self._down.str() if self._down is not None else f"no answer for {FLUSH_SECONDS:.0f} seconds"
            raise KafkaDown(f"the broker did not confirm events for {self._topic}: {why}")
        if self._failed:
            failed, first = self._failed, self._failures[0]
            self._failed = 0
            self._failures.clear()
            raise RecordError("output_refused", f"the broker refused {failed} events for {self._topic}; the first: {first}")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        if error.code() in PER_EVENT:
            self._failed += 1
            self._failures.append(f"key {message.key()!r}: {error.str()}")
        else:
            self._down = self._down or error
