"""Where a pipeline's state is: its stages that keep some, the topics they read, and the stores of their namespaces."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import StateError
from streams.definition.bound import Bound
from streams.kafka import AdminClient, TopicFacts, topic_facts
from streams.planning.stage import Stage, stages
from streams.settings import RedisSettings
from transforms.archive import ShardFacts
from transforms.redis_archive import RedisArchive


@dataclass(frozen=True, slots=True)
class Place:
    """A stage that keeps state, and the topic it reads."""

    stage: Stage
    topic: TopicFacts

    @property
    def shards(self) -> tuple[str, ...]:
        """One for each partition of the topic."""
        return tuple(map(str, range(self.topic.partitions)))


def places(bound: Bound, client: AdminClient) -> tuple[Place, ...]:
    """The stages that keep state, in their order.

    Raises:
        TopicError: a topic they read is not there.
        KafkaDown: the broker does not answer.
    """
    partitions = topic_facts(client, (bound.input.name,))[bound.input.name].partitions
    keeping = [stage for stage in stages(bound, partitions) if stage.entities]
    facts = topic_facts(client, [stage.input.name for stage in keeping])
    return tuple(Place(stage, facts[stage.input.name]) for stage in keeping)


def open_archive(settings: RedisSettings, namespace: str) -> RedisArchive:
    """The store of a namespace."""
    return RedisArchive(
        settings.url.get_secret_value(),
        namespace,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        answer_timeout_seconds=settings.answer_timeout_seconds,
    )


def refuse_held(namespace: str, shards: tuple[ShardFacts, ...]) -> None:
    """Raises:
    StateError: a live worker holds one of these.
    """
    held = [each.shard for each in shards if each.holder]
    if held:
        raise StateError(f"a worker is at work on {namespace}: it holds partition {', '.join(held)}; stop it first")
