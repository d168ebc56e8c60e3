"""The one door to Kafka: clients set up for our promises, and its errors sorted by what to do about them.

The rest of `streams/` imports the client's types from here and configures none of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from schemas.errors import RetryLater, TopicError
from streams.settings import KafkaSettings

__all__ = [
    "ANSWER_SECONDS",
    "OFFSET_BEGINNING",
    "OFFSET_END",
    "OFFSET_INVALID",
    "TIMESTAMP_CREATE_TIME",
    "AdminClient",
    "Consumer",
    "KafkaDown",
    "KafkaError",
    "KafkaException",
    "Message",
    "NewTopic",
    "Producer",
    "Record",
    "TopicFacts",
    "TopicPartition",
    "admin",
    "cause",
    "committed_by",
    "group_consumer",
    "group_names",
    "next_messages",
    "plain_consumer",
    "plain_producer",
    "topic_facts",
    "topic_id",
    "transactional_producer",
]

log = logging.getLogger(__name__)


class Record(Protocol):
    """A record as the client gives it, or an event in a record's place: then `error` says which."""

    def error(self) -> KafkaError | None: ...

    def topic(self) -> str: ...

    def partition(self) -> int: ...

    def offset(self) -> int: ...

    def key(self) -> bytes | None: ...

    def value(self) -> bytes | None: ...

    def headers(self) -> list[tuple[str, bytes | None]] | None: ...

    def timestamp(self) -> tuple[int, int]:
        """Its type, and milliseconds since the epoch."""


ANSWER_SECONDS = 10.0  # for a reader that waits for records that are there
DEFAULT_REQUEST_BYTES = 1_000_000  # the client's own default

OnPartitions = Callable[[Consumer, list[TopicPartition]], None]


class KafkaDown(RetryLater):
    """The broker is unreachable, or does not answer in time."""


def cause(error: KafkaException) -> KafkaError:
    """The error inside the exception the client raises."""
    found: KafkaError = error.args[0]
    return found


def _common(settings: KafkaSettings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "logger": logging.getLogger("librdkafka"),
        "error_cb": _note_error,
        # A broker that comes back is found within a fraction of a second.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        **settings.client_keys,
    }


def _note_error(error: KafkaError) -> None:
    log.warning("kafka_error code=%s detail=%r", error.name(), error.str())


def group_consumer(
    settings: KafkaSettings,
    group: str,
    topic: str,
    on_assign: OnPartitions,
    on_revoke: OnPartitions,
    on_lost: OnPartitions,
    on_connected: Callable[[bool], None],
) -> Consumer:
    """A member of the group, reading committed records only; where to start in a partition is decided by the caller at assignment.

    `on_connected` is told, twice a second and from within a poll, whether there is a connection to a broker.
    """

    def note_connections(statistics: str) -> None:
        brokers = json.loads(statistics)["brokers"].values()
        on_connected(any(broker["state"] == "UP" for broker in brokers))

    conf = {
        **_common(settings),
        "group.id": group,
        "group.protocol": settings.group_protocol,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        # What was just resumed waits for the fetch under way, a busy partition never; and asking an idle one more often costs both sides:
        # a worker with nothing to do takes 1.3 % of a core, with 10 ms 2.1 %.
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 50_000,
        "statistics.interval.ms": 500,
        "stats_cb": note_connections,
    }
    if settings.group_protocol == "classic":
        conf |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": settings.session_timeout_ms,
            "heartbeat.interval.ms": max(settings.session_timeout_ms // 10, 100),
        }
    if settings.static_member:
        conf["group.instance.id"] = settings.instance
    consumer = Consumer({**conf, **settings.client_keys})
    consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
    return consumer


def plain_consumer(settings: KafkaSettings, group: str, *, read_committed: bool = True, off_the_log: str = "earliest") -> Consumer:
    """A reader that commits nothing: for looking at topics, offsets and dead letters.

    Where an offset is not in the log any more it goes on as `off_the_log` says: ``earliest``, or ``error``, which it then reports.
    """
    return Consumer(
        {
            **_common(settings),
            "group.id": group,
            "isolation.level": "read_committed" if read_committed else "read_uncommitted",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": off_the_log,
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 5,
        }
    )


def transactional_producer(
    settings: KafkaSettings, transactional_id: str, max_record_bytes: int, max_request_bytes: int = DEFAULT_REQUEST_BYTES
) -> Producer:
    """A producer for `streams.transaction`; its transactions are not initialised yet.

    Records together stay below `max_request_bytes`: what one of its topics takes is a limit on requests, not on records alone.
    """
    return Producer(
        {
            **_common(settings),
            "transactional.id": transactional_id,
            "transaction.timeout.ms": settings.transaction_timeout_ms,
            "message.max.bytes": max_record_bytes,
            "batch.size": min(max_request_bytes, DEFAULT_REQUEST_BYTES),
            # Only failures are reported a record: a report for each success would cost more than the record.
            "delivery.report.only.error": True,
            "linger.ms": 1,
            "queue.buffering.max.messages": 1_000_000,
            "batch.num.messages": 100_000,
            "partitioner": "murmur2_random",
            **settings.client_keys,
        }
    )


def plain_producer(settings: KafkaSettings, max_record_bytes: int = 1_048_576, **extra: Any) -> Producer:
    """An idempotent producer without transactions, placing keys where Java's client would."""
    return Producer(
        {
            **_common(settings),
            "enable.idempotence": True,
            "message.max.bytes": max_record_bytes,
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
            "partitioner": "murmur2_random",
            **settings.client_keys,
            **extra,
        }
    )


def next_messages(consumer: Consumer, where: str, most: int = 1, seconds: float = ANSWER_SECONDS) -> list[Record]:
    """What comes next of what the consumer is assigned: at least one record or end of a partition, `most` at most.

    The end of a partition is a message with an error, and an offset beyond the last record's: the markers of transactions take offsets
    that no reader sees.

    Raises:
        KafkaDown: nothing comes, or it can't be read; `where` says of what.
    """
    first = consumer.poll(seconds)
    if first is None:
        raise KafkaDown(f"the broker gives nothing of {where} for {seconds:.0f} seconds")
    found = cast("list[Record]", [first, *(consumer.consume(most - 1, 0) if most > 1 else ())])
    for message in found:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaDown(f"{where} can't be read: {error.str()}")
    return found


def admin(settings: KafkaSettings) -> AdminClient:
    """For topics and their settings."""
    return AdminClient(_common(settings))


# The stand-in of `streams.local.embedded_broker`, by the name librdkafka gives its mock clusters. It tells no settings, since it has
# none: it keeps every record as long as it runs, whatever its timestamp.
STAND_IN = "mockCluster"
STAND_IN_SETTINGS = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "retention.ms": "-1",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.after.max.ms": str(2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a topic is and takes, as the broker says."""

    name: str
    partitions: int
    settings: Mapping[str, str]

    @property
    def max_record_bytes(self) -> int:
        """The largest record batch it takes."""
        return int(self.settings["max.message.bytes"])

    @property
    def retention_ms(self) -> int:
        """How long it keeps records; -1 = for ever."""
        return int(self.settings["retention.ms"])

    @property
    def on_stand_in(self) -> bool:
        """Whether its broker is the embedded stand-in, which does not tell what groups have committed."""
        return self.settings is STAND_IN_SETTINGS

    def clamp_bounds_ms(self) -> tuple[int, int]:
        """How far before and after the broker's clock a record's timestamp may lie; it may lie anywhere under LogAppendTime."""
        if self.settings["message.timestamp.type"] == "LogAppendTime":
            return 2**62, 2**62
        return int(self.settings["message.timestamp.before.max.ms"]), int(self.settings["message.timestamp.after.max.ms"])


def topic_facts(client: AdminClient, names: Sequence[str], timeout_seconds: float = 10.0) -> dict[str, TopicFacts]:
    """Facts about each of the topics.

    Raises:
        TopicError: one of them does not exist.
        KafkaDown: the broker does not answer.
    """
    try:
        cluster = client.list_topics(timeout=timeout_seconds)
        known = cluster.topics
        missing = [name for name in names if name not in known]
        if missing:
            raise TopicError(f"no topic {', '.join(missing)} on the broker; `millrace topics create` makes what a pipeline needs")
        if (cluster.cluster_id or "").startswith(STAND_IN):
            return {name: TopicFacts(name, len(known[name].partitions), STAND_IN_SETTINGS) for name in names}
        wanted = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = client.describe_configs(wanted, request_timeout=timeout_seconds)
        settings = {resource.name: {k: str(entry.value) for k, entry in answer.result().items()} for resource, answer in answers.items()}
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what its topics are: {cause(error).str()}") from error
    return {name: TopicFacts(name, len(known[name].partitions), settings[name]) for name in names}


def topic_id(client: AdminClient, name: str, timeout_seconds: float = 10.0) -> str:
    """What tells a topic from one that is made anew under its name; on the stand-in, whose topics live as long as it does, the name.

    Raises:
        TopicError: the topic does not exist.
        KafkaDown: the broker does not answer.
    """
    try:
        if (client.list_topics(timeout=timeout_seconds).cluster_id or "").startswith(STAND_IN):
            return name
        (answer,) = client.describe_topics(TopicCollection([name]), request_timeout=timeout_seconds).values()
        return str(answer.result().topic_id)
    except KafkaException as error:
        if cause(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicError(f"no topic {name} on the broker") from error
        raise KafkaDown(f"the broker does not say what {name} is: {cause(error).str()}") from error


def group_names(client: AdminClient, timeout_seconds: float = 10.0) -> tuple[str, ...]:
    """Every consumer group the brokers know; none on the stand-in, which does not tell.

    Raises:
        KafkaDown: the broker does not answer.
    """
    try:
        if (client.list_topics(timeout=timeout_seconds).cluster_id or "").startswith(STAND_IN):
            return ()
        return tuple(group.group_id for group in client.list_consumer_groups(request_timeout=timeout_seconds).result().valid)
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say which consumer groups there are: {cause(error).str()}") from error


def committed_by(client: AdminClient, groups: Sequence[str], timeout_seconds: float = 10.0) -> dict[str, list[TopicPartition]]:
    """By consumer group: what it has committed in any topic, with its metadata. A group that is not there has committed nothing.

    Raises:
        KafkaDown: the broker does not answer.
    """
    found: dict[str, list[TopicPartition]] = {}
    try:
        asked = [
            client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=timeout_seconds) for group in groups
        ]
        for group, answers in zip(groups, asked, strict=True):
            (answer,) = answers.values()
            found[group] = [each for each in answer.result().topic_partitions if each.offset >= 0]
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what the consumer groups have committed: {cause(error).str()}") from error
    return found
