"""How far the stages before have come: by what they committed, and by when the next record arrived."""

from __future__ import annotations

from collections.abc import Callable

from streams.kafka import AdminClient, TopicPartition, admin, plain_consumer, plain_producer
from streams.settings import KafkaSettings
from streams.upstream import LOOK_SECONDS, Feed, Upstream
from tests.services import Broker


def test_labels_may_go_as_far_as_the_record_that_is_next_and_to_now_where_there_is_none(
    broker: Broker, topic: Callable[..., str], namespace: str
) -> None:
    name = topic("feed", partitions=2)
    producer = plain_producer(broker.settings)
    for partition, stamp_ms in ((0, 1_000_000), (0, 2_000_000), (1, 1_500_000)):
        producer.produce(name, b"x", None, partition, timestamp=stamp_ms)
    assert producer.flush(30) == 0
    now = 5_000.0
    group = plain_consumer(broker.settings, namespace)
    upstream = Upstream(
        [Feed(namespace, name, 2)], lambda: admin(broker.settings), lambda: plain_consumer(broker.settings, f"{namespace}.x"), lambda: now
    )

    def passed_ms(*committed: int) -> int:
        nonlocal now
        now += LOOK_SECONDS
        group.commit(offsets=[TopicPartition(name, p, offset) for p, offset in enumerate(committed)], asynchronous=False)
        return upstream.passed_ms()

    assert passed_ms(0) == 0, "one partition was never begun"
    assert passed_ms(0, 0) == 1_000_000
    assert passed_ms(1, 0) == 1_500_000
    assert passed_ms(1, 1) == 2_000_000
    assert passed_ms(2, 1) == 5_000_000 + 5 * LOOK_SECONDS * 1_000
    group.commit(offsets=[TopicPartition(name, 0, 0)], asynchronous=False)
    assert upstream.passed_ms() == 5_000_000 + 5 * LOOK_SECONDS * 1_000, "it does not ask each time"
    upstream.close()
    group.close()


def test_of_several_stages_the_one_that_is_furthest_behind_counts(broker: Broker, topic: Callable[..., str], namespace: str) -> None:
    feeds = [Feed(f"{namespace}.{name}", topic(name, partitions=1), 1) for name in ("first", "second", "third")]
    producer = plain_producer(broker.settings)
    for feed, stamp_ms in zip(feeds, (3_000_000, 1_000_000, 2_000_000), strict=True):
        producer.produce(feed.topic, b"x", None, 0, timestamp=stamp_ms)
    assert producer.flush(30) == 0
    now = 5_000.0
    upstream = Upstream(feeds, lambda: admin(broker.settings), lambda: plain_consumer(broker.settings, f"{namespace}.x"), lambda: now)
    found = []
    for feed, offset in [*((feed, 0) for feed in feeds), (feeds[1], 1), (feeds[2], 1), (feeds[0], 1)]:
        group = plain_consumer(broker.settings, feed.group)
        group.commit(offsets=[TopicPartition(feed.topic, 0, offset)], asynchronous=False)
        group.close()
        now += LOOK_SECONDS
        found.append(upstream.passed_ms())
    upstream.close()
    assert found == [0, 0, 1_000_000, 2_000_000, 3_000_000, now * 1_000]


def test_a_broker_that_does_not_answer_is_waited_for_and_nothing_goes_on(namespace: str) -> None:
    away = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    upstream = Upstream([Feed(namespace, "feed", 1)], lambda: admin(away), lambda: plain_consumer(away, namespace))
    assert upstream.passed_ms() == 0
    upstream.close()


def test_after_a_silence_the_next_look_has_clients_of_its_own(namespace: str) -> None:
    """The old ones may hold connections that nobody is at the other end of."""
    away = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    made: list[AdminClient] = []
    now = 5_000.0

    def client() -> AdminClient:
        made.append(admin(away))
        return made[-1]

    upstream = Upstream([Feed(namespace, "feed", 1)], client, lambda: plain_consumer(away, namespace), lambda: now)
    for _ in range(2):
        assert upstream.passed_ms() == 0
        now += LOOK_SECONDS
    upstream.close()
    assert len(made) == 2


def test_a_clock_that_is_set_back_does_not_keep_it_from_looking(broker: Broker, topic: Callable[..., str], namespace: str) -> None:
    name = topic("feed", partitions=1)
    group = plain_consumer(broker.settings, namespace)
    group.commit(offsets=[TopicPartition(name, 0, 0)], asynchronous=False)
    now = 9_000.0
    upstream = Upstream(
        [Feed(namespace, name, 1)], lambda: admin(broker.settings), lambda: plain_consumer(broker.settings, f"{namespace}.x"), lambda: now
    )
    assert upstream.passed_ms() == 9_000_000
    now = 5_000.0
    assert upstream.passed_ms() == 5_000_000
    now = 5_000.0 + 365 * 86_400
    assert upstream.passed_ms() == (5_000 + 365 * 86_400) * 1_000
    upstream.close()
    group.close()
