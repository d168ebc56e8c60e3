"""What runs here: local services, a pipeline's lag by stage and partition, its worker's health."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from schemas.errors import RetryLater, TopicError
from schemas.features import Json
from streams.definition.bound import Bound
from streams.kafka import KafkaDown, KafkaException, TopicPartition, admin, cause, plain_consumer, topic_facts
from streams.local.addresses import local_status
from streams.planning.stage import stages
from streams.settings import HealthSettings, KafkaSettings, Settings

ANSWER_SECONDS = 5.0


def status_of(bound: Bound | None, settings: Settings) -> dict[str, Json]:
    """Local services; for a pipeline, also its lag and its worker. What does not answer is said, not raised."""
    facts: dict[str, Json] = {"services": local_status()}
    if bound is None:
        return facts
    facts["pipeline"] = bound.name
    try:
        facts["stages"] = stage_lags(bound, settings.kafka)
    except (RetryLater, TopicError) as error:
        facts["trouble"] = str(error)
    facts["worker"] = worker_health(settings.health)
    return facts


def stage_lags(bound: Bound, settings: KafkaSettings) -> list[Json]:
    """By stage: its group, the topic it reads, and its lag by partition.

    Raises:
        TopicError: there is no such topic.
        KafkaDown: the broker does not answer.
    """
    count = topic_facts(admin(settings), (bound.input.name,), ANSWER_SECONDS)[bound.input.name].partitions
    return [
        {
            "stage": stage.name,
            "group": stage.group(settings),
            "topic": stage.input.name,
            "partitions": group_lag(settings, stage.group(settings), stage.input.name),
        }
        for stage in stages(bound, count)
    ]


def group_lag(settings: KafkaSettings, group: str, topic: str) -> list[Json]:
    """By partition: the offsets the log holds, the committed one, and how many are between it and the end.

    Raises:
        TopicError: there is no such topic.
        KafkaDown: the broker does not answer.
    """
    partitions = topic_facts(admin(settings), (topic,), ANSWER_SECONDS)[topic].partitions
    consumer = plain_consumer(settings, group)
    try:
        committed = consumer.committed([TopicPartition(topic, p) for p in range(partitions)], ANSWER_SECONDS)
        lags: list[Json] = []
        for found in committed:
            begin, end = consumer.get_watermark_offsets(TopicPartition(topic, found.partition), ANSWER_SECONDS)
            offset = found.offset if found.offset >= 0 else None
            lags.append(
                {
                    "partition": found.partition,
                    "begin": begin,
                    "end": end,
                    "committed": offset,
                    "lag": None if offset is None else max(end - offset, 0),
                }
            )
        return lags
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say how far group {group} has come in {topic}: {cause(error).str()}") from error
    finally:
        consumer.close()


def worker_health(settings: HealthSettings) -> Json:
    """What the worker's own pages say; a worker elsewhere, or none, does not answer."""
    url = f"http://{settings.host}:{settings.port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return {"url": url, "ready": True, "says": json.loads(answer.read())}
    except urllib.error.HTTPError as error:
        return {"url": url, "ready": False, "says": error.read().decode(errors="replace")}
    except (OSError, ValueError) as error:
        return {"url": url, "ready": False, "says": f"no answer: {error}"}


def status_words(facts: Mapping[str, Any]) -> str:
    """A line for each service, partition and worker."""
    lines = [
        f"{each['name']:8} {each['state']:8} {each['address']}" + (f"  pid {each['pid']}" if each["pid"] else "")
        for each in facts["services"]
    ] or ["no local services (`millrace up` starts them)"]
    if "pipeline" in facts:
        lines.append(f"pipeline {facts['pipeline']}")
    for stage in facts.get("stages", ()):
        lines.append(f"  stage {stage['stage']}: {stage['topic']}, group {stage['group']}")
        for each in stage["partitions"]:
            committed = "nothing committed" if each["committed"] is None else f"committed {each['committed']}, lag {each['lag']}"
            lines.append(f"    partition {each['partition']}: log {each['begin']}..{each['end']}, {committed}")
    if "trouble" in facts:
        lines.append(f"  {facts['trouble']}")
    if "worker" in facts:
        worker = facts["worker"]
        lines.append(f"  worker at {worker['url']}: {'ready' if worker['ready'] else 'not ready'} ({json.dumps(worker['says'])})")
    return "\n".join(lines)
