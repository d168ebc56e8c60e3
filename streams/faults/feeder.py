"""The feeder: sends made up events at a rate, whatever becomes of the broker meanwhile."""

from __future__ import annotations

import threading
import time
from typing import Any

from streams.definition.bound import Bound
from streams.faults.events import Events
from streams.kafka import KafkaDown, KafkaException, plain_producer
from streams.settings import Settings

TICK_SECONDS = 0.02
PATIENCE_SECONDS = 120.0


class Feeder(threading.Thread):
    """Sends events at a rate, and the labels that are due, until it is closed."""

    def __init__(self, bound: Bound, settings: Settings, events: Events, rate: float) -> None:
        super().__init__(daemon=True)
        self._bound, self._events, self._rate = bound, events, rate
        self._producer = plain_producer(settings.kafka, 2_000_000)
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self.sent = 0

    def run(self) -> None:
        """Send."""
        due, before = 0.0, time.monotonic()
        while not self._enough.wait(TICK_SECONDS):
            now = time.monotonic()
            due += (now - before) * self._rate
            before = now
            self.send(int(due))
            due -= int(due)

    def send(self, count: int, **how: Any) -> None:
        """Send so many events now; `how` as `Events.event` has it."""
        with self._lock:
            for _ in range(count):
                self._put(self._bound.input.name, *self._events.event(**how))
                self.sent += 1
            for key, value in self._events.labels():
                assert self._bound.labels is not None
                self._put(self._bound.labels.topic.name, key, value)

    def _put(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise KafkaDown(f"an event can't be sent: {error}") from error

    def close(self) -> None:
        """Stop, and wait until the broker has all of it."""
        self._enough.set()
        if self.is_alive():
            self.join()
        self._producer.flush(PATIENCE_SECONDS)
