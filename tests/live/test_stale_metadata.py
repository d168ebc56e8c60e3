"""Why a batch commits with the metadata captured when it was polled, and only while it holds its partitions' tokens.

The broker checks that the member and the generation of a commit are current, not that the member owns the partition.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from streams.kafka import Consumer, KafkaException, TopicPartition, group_consumer, plain_consumer, transactional_producer
from streams.ownership import Ownership
from tests.live.scene import wait_for
from tests.services import Broker

PARTITIONS = 2


@dataclass
class Member:
    """A member of a group that keeps the account of what it owns as the worker's source does."""

    broker: Broker
    group: str
    topic: str
    ownership: Ownership = field(default_factory=Ownership)

    def __post_init__(self) -> None:
        settings = self.broker.settings.model_copy(update={"session_timeout_ms": 6_000})
        self.consumer = group_consumer(
            settings, self.group, self.topic, self._assigned, self._revoked, self._revoked, lambda is_connected: None
        )

    def poll(self) -> dict[int, int]:
        """Serve the group; tokens of the partitions owned now."""
        self.consumer.poll(0.05)
        self.ownership.capture(self.consumer.consumer_group_metadata())
        return self.ownership.tokens()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([TopicPartition(self.topic, tp.partition, 0) for tp in partitions])
        for tp in partitions:
            self.ownership.grant(tp.partition)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self.ownership.revoke(tp.partition)
        consumer.incremental_unassign(partitions)


def test_after_a_rebalance_old_metadata_is_refused_and_new_metadata_of_a_lost_partition_is_not(broker: Broker, namespace: str) -> None:
    topic = broker.topic("input", partitions=PARTITIONS)
    old = Member(broker, namespace, topic)
    wait_for("both partitions", lambda: len(old.poll()) == PARTITIONS)
    polled_under = old.ownership.tokens()
    with old.ownership.holding(polled_under) as member:
        captured = member  # what a batch that was polled now would commit with
    new = Member(broker, namespace, topic)
    wait_for("one partition each", lambda: (len(old.poll()), len(new.poll())) == (1, 1))
    (lost,) = new.ownership.tokens()

    producer = transactional_producer(broker.settings, namespace, 1_000_000)
    producer.init_transactions(20)

    def commit(metadata: object) -> None:
        producer.begin_transaction()
        try:
            producer.send_offsets_to_transaction([TopicPartition(topic, lost, 7)], metadata, 20)
            producer.commit_transaction(20)
        except KafkaException:
            producer.abort_transaction(20)
            raise

    with pytest.raises(KafkaException, match=r"ILLEGAL_GENERATION|generation"):
        commit(captured)
    commit(old.consumer.consumer_group_metadata())  # accepted, though the partition is another member's: hence the tokens
    reader = plain_consumer(broker.settings, namespace)
    assert reader.committed([TopicPartition(topic, lost)], 10)[0].offset == 7

    with old.ownership.holding(polled_under) as member:
        assert member is None, "a batch polled before the rebalance must not be committed"
    kept = {p: token for p, token in polled_under.items() if p != lost}
    with old.ownership.holding(kept) as member:
        assert member is not None
    for each in (old.consumer, new.consumer, reader):
        each.close()
