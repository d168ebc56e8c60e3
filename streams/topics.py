"""The topics a pipeline needs: how they are made, and what is wrong with those that are there.

Every setting that decides whether records are taken or kept is set explicitly, since the broker's defaults lose records here:

- the input is stamped by the broker (LogAppendTime), so that producers' old event times neither delete the log nor hide when a
  record arrived; it is kept as long as the windows look back, and a week more;
- scored events carry their event time, which may be years ago or ahead: any is taken, and none ends a record's life;
- a dead letter is a record of the input and its headers, so its topic takes that much more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import TopicError
from streams.bound import Bound
from streams.dead_letters import HEADER_ROOM_BYTES
from streams.kafka import AdminClient, KafkaDown, KafkaException, NewTopic, TopicFacts, cause, topic_facts

INPUT_RECORD_BYTES = 1_048_588  # the broker's own default, written out
OUTPUT_RECORD_BYTES = 1_048_588
DAY_MS = 86_400_000
SPARE_MS = 7 * DAY_MS  # kept beyond what the windows look back on: time to find a fault in
ANY_MS = str(2**63 - 1)
FOREVER_MS = -1


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic to be made: its role in the pipeline, and every setting that matters."""

    role: str  # input, output or dead letters
    name: str
    partitions: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a topic that is there. Fatal = records would be lost, or the worker could not go on."""

    topic: str
    fatal: bool
    words: str


def planned_topics(bound: Bound, partitions: int) -> tuple[TopicPlan, TopicPlan, TopicPlan]:
    """Input, output and dead letters of a pipeline.

    Raises:
        TopicError: the pipeline can't run over that many partitions.
    """
    scattered = entities_scattered_by(bound, partitions)
    if scattered:
        raise TopicError(_scattered(bound, scattered, partitions))

    def settings(record_bytes: int, retention_ms: int) -> dict[str, str]:
        return {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "max.message.bytes": str(record_bytes)}

    any_time = {"message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": ANY_MS, "message.timestamp.after.max.ms": ANY_MS}
    events = settings(INPUT_RECORD_BYTES, bound.retention_ms + SPARE_MS) | {"message.timestamp.type": "LogAppendTime"}
    scores = settings(OUTPUT_RECORD_BYTES, FOREVER_MS) | any_time
    letters = settings(INPUT_RECORD_BYTES + HEADER_ROOM_BYTES, FOREVER_MS) | any_time
    return (
        TopicPlan("input", bound.input.name, partitions, events),
        TopicPlan("output", bound.output.name, partitions, scores),
        TopicPlan("dead letters", bound.input.dead_letters, partitions, letters),
    )


def create_topics(client: AdminClient, plans: Sequence[TopicPlan], replication: int = -1, timeout_seconds: float = 20.0) -> tuple[str, ...]:
    """Make the topics that are not there yet; returns their names. What is there is left as it is.

    Raises:
        TopicError: the broker refuses one.
        KafkaDown: the broker does not answer.
    """
    there = existing(client, [plan.name for plan in plans], timeout_seconds)
    new = [NewTopic(p.name, p.partitions, replication, config=dict(p.settings)) for p in plans if p.name not in there]
    if not new:
        return ()
    for name, future in client.create_topics(new, operation_timeout=timeout_seconds, request_timeout=timeout_seconds).items():
        try:
            future.result()
        except KafkaException as error:
            if cause(error).name() == "TOPIC_ALREADY_EXISTS":
                continue  # somebody else was quicker; the check that follows looks at it
            if cause(error).retriable() or cause(error).code() < 0:
                raise KafkaDown(f"the broker does not make topic {name}: {cause(error).str()}") from error
            raise TopicError(f"the broker refuses to make topic {name}: {cause(error).str()}") from error
    made = tuple(topic.topic for topic in new)
    _await_seen(client, made, timeout_seconds)
    return made


def _await_seen(client: AdminClient, names: Sequence[str], timeout_seconds: float) -> None:
    """Wait until the broker lists new topics: its answer that they are made comes before that."""
    deadline = time.monotonic() + timeout_seconds
    while len(existing(client, names, timeout_seconds)) < len(names):
        if time.monotonic() > deadline:
            raise KafkaDown(f"the broker made the topics {', '.join(names)}, and does not list them all")
        time.sleep(0.02)


def existing(client: AdminClient, names: Sequence[str], timeout_seconds: float = 10.0) -> tuple[str, ...]:
    """Those of the topics that are there.

    Raises:
        KafkaDown: the broker does not answer.
    """
    try:
        known = client.list_topics(timeout=timeout_seconds).topics
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what its topics are: {cause(error).str()}") from error
    return tuple(name for name in names if name in known)


def facts_of(client: AdminClient, bound: Bound) -> dict[str, TopicFacts]:
    """Facts about a pipeline's three topics.

    Raises:
        TopicError: one of them does not exist.
        KafkaDown: the broker does not answer.
    """
    return topic_facts(client, (bound.input.name, bound.output.name, bound.input.dead_letters))


def findings(bound: Bound, facts: Mapping[str, TopicFacts]) -> tuple[Finding, ...]:
    """What is wrong with a pipeline's topics, fatal findings first."""
    source, out, letters = (facts[name] for name in (bound.input.name, bound.output.name, bound.input.dead_letters))
    found = [*_of_input(bound, source), *_of_letters(source, letters)]
    for topic in (source, out, letters):
        policy = topic.settings["cleanup.policy"]
        if "compact" in policy:
            words = f"its cleanup.policy is {policy}, wanted delete: compaction keeps the last record of a key only"
            found.append(Finding(topic.name, True, words))
    for topic in (out, letters):
        if topic.settings["message.timestamp.type"] == "CreateTime" and topic.retention_ms >= 0:
            words = f"its retention.ms is {topic.retention_ms} and its records carry event times: one that old is deleted at once"
            found.append(Finding(topic.name, False, words))
    return tuple(sorted(found, key=lambda finding: not finding.fatal))


def _of_input(bound: Bound, source: TopicFacts) -> Iterator[Finding]:
    scattered = entities_scattered_by(bound, source.partitions)
    if scattered:
        yield Finding(source.name, True, _scattered(bound, scattered, source.partitions))
    if 0 <= source.retention_ms < bound.retention_ms:
        words = (
            f"its retention.ms is {source.retention_ms}, wanted {bound.retention_ms} or more: "
            f"the windows look back {bound.retention_ms / DAY_MS:.1f} days, and a lost state could not be rebuilt from it"
        )
        yield Finding(source.name, False, words)


def _of_letters(source: TopicFacts, letters: TopicFacts) -> Iterator[Finding]:
    wanted = source.max_record_bytes + HEADER_ROOM_BYTES
    if letters.max_record_bytes < wanted:
        words = (
            f"its max.message.bytes is {letters.max_record_bytes}, wanted {wanted} (that of {source.name}, and {HEADER_ROOM_BYTES} "
            "for headers): larger letters go out without their value"
        )
        yield Finding(letters.name, False, words)


def check_topics(bound: Bound, facts: Mapping[str, TopicFacts]) -> tuple[Finding, ...]:
    """The warnings about a pipeline's topics.

    Raises:
        TopicError: one of them would lose records, or can't be read in one pass.
    """
    found = findings(bound, facts)
    fatal = [finding for finding in found if finding.fatal]
    if fatal:
        raise TopicError("; ".join(f"topic {finding.topic}: {finding.words}" for finding in fatal))
    return found


def entities_scattered_by(bound: Bound, partitions: int) -> tuple[str, ...]:
    """Entities whose events lie in several partitions: those that the input is not keyed by, if it has more than one."""
    if partitions == 1:
        return ()
    return tuple(entity.name for entity in bound.pipeline.entities if bound.key not in entity.key_columns)


def _scattered(bound: Bound, entities: Sequence[str], partitions: int) -> str:
    return (
        f"{partitions} partitions keyed by {bound.key!r} scatter the events of {', '.join(entities)}, whose order must be that of one log; "
        f"wanted 1 partition, or only entities keyed by {bound.key!r}"
    )
