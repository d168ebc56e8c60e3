"""Make what a pipeline needs on the broker and in the registry, and look at what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.avro import AvroSchema
from schemas.features import Json
from schemas.framing import asks_a_registry
from schemas.registry import Registry, open_registry
from streams.definition.bound import Bound
from streams.definition.pipeline import Topic
from streams.kafka import AdminClient, admin, topic_facts
from streams.planning.topics import create_topics, existing, facts_of, findings, planned_topics
from streams.scored_event import output_schema
from streams.settings import Settings


def create(bound: Bound, settings: Settings, partitions: int | None = None, replication: int = -1) -> dict[str, Json]:
    """Make missing topics, register schemas, and say what is wrong with topics that are there. Safe to repeat.

    Args:
        bound: the pipeline.
        settings: where broker and registry are.
        partitions: of each topic that is made; None = as many as the input has, or as the pipeline declares, else one.
        replication: copies of each partition; -1 = the broker's default.

    Raises:
        TopicError: the broker refuses a topic, or the pipeline declares another number of partitions.
        SchemaError: the registry refuses a schema.
        RetryLater: broker or registry do not answer.
    """
    client = admin(settings.kafka)
    plans = planned_topics(bound, _partitions(client, bound, partitions))
    made = create_topics(client, plans, replication)
    facts = facts_of(client, bound)
    registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
    topics: list[Json] = [
        {
            "role": plan.role,
            "topic": plan.name,
            "made": plan.name in made,
            "partitions": facts[plan.name].partitions,
            "settings": {key: facts[plan.name].settings[key] for key in plan.settings},
        }
        for plan in plans
    ]
    written = [(bound.input, bound.written_schema), (bound.output, output_schema(bound))]
    if bound.labels is not None:
        written.append((bound.labels.topic, bound.labels.written_schema))
    schemas: list[Json] = [_registered(registry, topic, schema) for topic, schema in written if asks_a_registry(topic.framing)]
    trouble: list[Json] = [{"topic": f.topic, "fatal": f.fatal, "finding": f.words} for f in findings(bound, facts)]
    return {"pipeline": bound.name, "topics": topics, "schemas": schemas, "findings": trouble}


def _partitions(client: AdminClient, bound: Bound, wanted: int | None) -> int:
    """How many partitions the topics get: internal ones must have as many as the input, which may be there already."""
    if existing(client, (bound.input.name,)):
        return topic_facts(client, (bound.input.name,))[bound.input.name].partitions
    return wanted or bound.input.partitions or 1


def _registered(registry: Registry, topic: Topic, schema: AvroSchema) -> Json:
    found = registry.latest(topic.subject)
    if found is not None and found[1].fingerprint == schema.fingerprint:
        return {"subject": topic.subject, "id": found[0], "made": False}
    return {"subject": topic.subject, "id": registry.register(topic.subject, schema), "made": True}


def create_words(facts: Mapping[str, Any]) -> str:
    """A line for each topic, schema and finding."""
    lines = []
    for topic in facts["topics"]:
        settings = ", ".join(f"{key}={value}" for key, value in topic["settings"].items())
        lines.append(
            f"{'made ' if topic['made'] else 'there'}  {topic['role']:12} {topic['topic']}  {topic['partitions']} partitions, {settings}"
        )
    lines += [
        f"{'made ' if schema['made'] else 'there'}  schema       {schema['subject']} as id {schema['id']}" for schema in facts["schemas"]
    ]
    lines += [f"{'WRONG' if finding['fatal'] else 'look '}  {finding['topic']}: {finding['finding']}" for finding in facts["findings"]]
    return "\n".join(lines)
