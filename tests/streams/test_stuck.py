"""A source whose client brings nothing, or whose thread hangs: silent deaths, on a real broker, which must show in /livez."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streams.batch import Batch
from streams.health import Health
from streams.kafka import Consumer, TopicPartition, group_consumer, plain_producer
from streams.ownership import InFlight, Ownership
from streams.recovery import Start
from streams.settings import KafkaSettings
from streams.source import Source
from tests.live.scene import wait_for
from tests.services import Broker

pytestmark = pytest.mark.broker
STALLED_SECONDS = 1.0


class Watched:
    """Tells the health of one source, as the account of a stage does."""

    def __init__(self, health: Health) -> None:
        self.owns, self.waits, self.gone, self.looked = health.owns, health.waits, health.gone, health.looked
        self.held = health.held


class At0:
    """Takes each partition over at its beginning; or hangs, if it is told to."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.let_go = threading.Event()

    def take(self, consumer: Consumer, partition: int) -> Start:
        if self.hangs.is_set():
            self.let_go.wait(30)
        return Start(0, 0)

    def release(self, partition: int) -> None: ...

    def forget(self, partition: int) -> None: ...


class Reader:
    """A source whose batches are final as soon as they are read."""

    def __init__(self, broker: Broker, topic: str, group: str) -> None:
        self.topic, self.broker = topic, broker
        self.takeover, self.in_flight = At0(), InFlight(3)
        self.health = Health(STALLED_SECONDS, lambda: self.source.ends(), lambda: self.source.beat_seconds)
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, session_timeout_ms=2_000)

        def connect(assigned: Any, revoked: Any, lost: Any) -> Consumer:
            return group_consumer(settings, group, topic, assigned, revoked, lost, lambda up: None)

        self.source = Source(topic, connect, self.takeover, Ownership(), self.in_flight, self.final, 100, 1.0, Watched(self.health))
        self.thread = threading.Thread(target=self.source.run)
        self.thread.start()

    def final(self, batch: Batch, alone: bool) -> None:
        for span in batch.spans:
            self.health.moved(span.partition, span.next_offset)
        self.in_flight.leave()

    def send(self, count: int) -> None:
        producer = plain_producer(self.broker.settings)
        for _ in range(count):
            producer.produce(self.topic, b"x", b"k")
        producer.flush()

    def read(self, offset: int) -> bool:
        return 0 in self.source.reading and self.source.reading[0].position >= offset


@pytest.fixture
def reader(broker: Broker, topic: Callable[..., str], namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setattr("streams.source.ASK_SECONDS", 0.3)
    made = Reader(broker, topic("stuck"), namespace)
    yield made
    made.takeover.let_go.set()
    made.source.stop()
    made.thread.join(20)
    assert not made.thread.is_alive()


def test_a_client_that_fetches_no_more_is_found_by_asking_the_broker(reader: Reader) -> None:
    reader.send(5)
    wait_for("five records", lambda: reader.read(5))
    assert reader.health.livez()[0]
    reader.source.ask(
        lambda consumer: consumer.pause([TopicPartition(reader.topic, 0)])
    )  # it polls, beats, is a member, and brings nothing
    time.sleep(0.1)  # the last fetch under way, of at most 10 ms, is over
    reader.send(2)
    wait_for("a failing /livez", lambda: not reader.health.livez()[0], 20)
    assert reader.source.ends()[0] == 7
    reader.source.ask(lambda consumer: consumer.resume([TopicPartition(reader.topic, 0)]))
    wait_for("a /livez that is well again", lambda: reader.health.livez()[0])


def test_a_thread_that_hangs_while_a_partition_arrives_is_found_however_idle_it_seems(reader: Reader) -> None:
    wait_for("its partition", lambda: 0 in reader.source.reading)
    reader.takeover.hangs.set()
    reader.source.start_over(reader.source._ownership.tokens(), Exception("again"))  # type: ignore[arg-type]
    wait_for("a failing /livez", lambda: not reader.health.livez()[0], 20)
    assert "source" in str(reader.health.livez()[1])
