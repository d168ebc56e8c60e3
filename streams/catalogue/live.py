"""What the broker has of topics: partitions, how long they keep records, and every group that has read them, with its lag."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from schemas.features import Json
from streams.explain.log import LogReader
from streams.kafka import TopicPartition, admin, committed_by, group_names, topic_facts
from streams.planning.topics import existing
from streams.settings import Settings

ANSWER_SECONDS = 5.0


def partitions_of(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    """How many partitions those of the topics have that are there.

    Raises:
        KafkaDown: the broker does not answer.
    """
    client = admin(settings.kafka)
    there = existing(client, topics, ANSWER_SECONDS)
    return {name: facts.partitions for name, facts in topic_facts(client, there, ANSWER_SECONDS).items()} if there else {}


def look(settings: Settings, topics: Collection[str]) -> dict[str, dict[str, Json]]:
    """Facts about each topic that is there; groups of others among them.

    Raises:
        KafkaDown: the broker does not answer.
    """
    client = admin(settings.kafka)
    there = existing(client, list(topics), ANSWER_SECONDS)
    facts = topic_facts(client, there, ANSWER_SECONDS) if there else {}
    read: dict[str, dict[str, list[TopicPartition]]] = {name: {} for name in there}
    for group, committed in committed_by(client, group_names(client, ANSWER_SECONDS), ANSWER_SECONDS).items():
        for each in committed:
            if each.topic in read:
                read[each.topic].setdefault(group, []).append(each)
    found: dict[str, dict[str, Json]] = {}
    with LogReader(settings) as log:
        for name in there:
            ends = {partition: log.span(name, partition).end for partition in range(facts[name].partitions)}
            groups: list[Json] = [{"group": group, "lag": _lag(ends, at)} for group, at in sorted(read[name].items())]
            found[name] = {"partitions": facts[name].partitions, "retention_ms": facts[name].retention_ms, "groups": groups}
    return found


def _lag(ends: Mapping[int, int], committed: Sequence[TopicPartition]) -> int:
    """How many records are behind what a group has committed; of partitions that it has never committed, all."""
    at = {each.partition: each.offset for each in committed}
    return sum(max(end - at.get(partition, 0), 0) for partition, end in ends.items())
