"""The topics a pipeline needs: how they are made, and what is wrong with those that are there.

Every setting that decides whether records are taken or kept is set explicitly, since the broker's defaults lose records here:

- the input is stamped by the broker (LogAppendTime), so that producers' old event times neither delete the log nor hide when a
  record arrived; it is kept as long as the windows look back, and a week more;
- so is an internal topic, which is the log that its stage's state is rebuilt from; a record there may be larger than in the input by
  the features it carries; it has as many partitions as the input;
- scored events carry their event time, which may be years ago or ahead: any is taken, and none ends a record's life;
- a dead letter is a record of the input and its headers, so its topic takes that much more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import TopicError
from streams.dead_letters import HEADER_ROOM_BYTES
from streams.definition.bound import Bound
from streams.definition.pipeline import Topic
from streams.kafka import AdminClient, KafkaDown, KafkaException, NewTopic, TopicFacts, cause, topic_facts
from streams.planning.stage import Stage, stages

INPUT_RECORD_BYTES = 1_048_588  # the broker's own default, written out
OUTPUT_RECORD_BYTES = 1_048_588
HOP_ROOM_BYTES = HEADER_ROOM_BYTES  # features so far, and where the original stands
DAY_MS = 86_400_000
SPARE_MS = 7 * DAY_MS  # kept beyond what the windows look back on: time to find a fault in
ANY_MS = str(2**63 - 1)
FOREVER_MS = -1


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic to be made: its role in the pipeline, and every setting that matters."""

    role: str  # input, labels, internal, output or dead letters
    name: str
    partitions: int
    settings: Mapping[str, str]
    needed_ms: int = 0  # how far back it must reach for the state that is rebuilt from it


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a topic that is there. Fatal = records would be lost, or the worker could not go on."""

    topic: str
    fatal: bool
    words: str


def planned_topics(bound: Bound, partitions: int) -> tuple[TopicPlan, ...]:
    """Every topic of a pipeline: input, output and dead letters first, then those of labels and the internal ones.

    Raises:
        TopicError: the pipeline declares another number of partitions for its input.
    """
    declared = bound.input.partitions
    if declared is not None and declared != partitions:
        raise TopicError(f"topic {bound.input.name}: the pipeline declares {declared} partitions, and {partitions} are asked for")

    def settings(record_bytes: int, retention_ms: int) -> dict[str, str]:
        return {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "max.message.bytes": str(record_bytes)}

    stamped = {"message.timestamp.type": "LogAppendTime"}
    any_time = {"message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": ANY_MS, "message.timestamp.after.max.ms": ANY_MS}

    def read(role: str, topic: Topic, record_bytes: int, needed_ms: int) -> TopicPlan:
        count = topic.partitions or partitions
        return TopicPlan(role, topic.name, count, settings(record_bytes, needed_ms + SPARE_MS) | stamped, needed_ms)

    scores = settings(OUTPUT_RECORD_BYTES, FOREVER_MS) | any_time
    letters = settings(INPUT_RECORD_BYTES + HEADER_ROOM_BYTES, FOREVER_MS) | any_time
    first, *others = stages(bound, partitions)
    plans = [
        read("input", bound.input, INPUT_RECORD_BYTES, first.retention_ms),
        TopicPlan("output", bound.output.name, bound.output.partitions or partitions, scores),
        TopicPlan("dead letters", bound.input.dead_letters, partitions, letters),
    ]
    for stage in others:
        if stage.kind == "labels":
            labels = read("labels", stage.input, INPUT_RECORD_BYTES, 0)
            plans += [labels, TopicPlan("dead letters", stage.input.dead_letters, labels.partitions, letters)]
        else:
            plans.append(read("internal", stage.input, INPUT_RECORD_BYTES + HOP_ROOM_BYTES, stage.retention_ms))
    return tuple(plans)


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
    """Facts about each of a pipeline's topics, internal ones included.

    Raises:
        TopicError: one of them does not exist.
        KafkaDown: the broker does not answer.
    """
    source = topic_facts(client, (bound.input.name,))
    return source | topic_facts(client, [name for name in topic_names(bound, source[bound.input.name].partitions) if name not in source])


def topic_names(bound: Bound, partitions: int) -> tuple[str, ...]:
    """Every topic of a pipeline whose input has so many partitions."""
    names = [bound.input.name, bound.output.name, bound.input.dead_letters]
    for stage in stages(bound, partitions)[1:]:
        names += [stage.input.name, stage.input.dead_letters] if stage.kind == "labels" else [stage.input.name]
    return tuple(names)


def findings(bound: Bound, facts: Mapping[str, TopicFacts]) -> tuple[Finding, ...]:
    """What is wrong with a pipeline's topics, fatal findings first."""
    source, out, letters = (facts[name] for name in (bound.input.name, bound.output.name, bound.input.dead_letters))
    first, *others = stages(bound, source.partitions)
    found = [*_of_log(first, source), *_of_count(bound.input, source), *_of_count(bound.output, out), *_of_letters(source, letters)]
    written, logs = [out, letters], [source]
    for stage in others:
        topic = facts[stage.input.name]
        if stage.kind == "labels":
            found += [*_of_count(stage.input, topic), *_of_letters(topic, facts[stage.input.dead_letters])]
            written.append(facts[stage.input.dead_letters])
        else:
            found += [*_of_log(stage, topic), *_of_internal(source, topic)]
            logs.append(topic)
    for topic in (*logs, *written):
        policy = topic.settings["cleanup.policy"]
        if "compact" in policy:
            words = f"its cleanup.policy is {policy}, wanted delete: compaction keeps the last record of a key only"
            found.append(Finding(topic.name, True, words))
    for topic in written:
        if topic.settings["message.timestamp.type"] == "CreateTime" and topic.retention_ms >= 0:
            words = f"its retention.ms is {topic.retention_ms} and its records carry event times: one that old is deleted at once"
            found.append(Finding(topic.name, False, words))
    return tuple(sorted(found, key=lambda finding: not finding.fatal))


def _of_log(stage: Stage, log: TopicFacts) -> Iterator[Finding]:
    """What is wrong with a topic as the log that a stage's state is rebuilt from."""
    if 0 <= log.retention_ms < stage.retention_ms:
        words = (
            f"its retention.ms is {log.retention_ms}, wanted {stage.retention_ms} or more: "
            f"the windows look back {stage.retention_ms / DAY_MS:.1f} days, and a lost state could not be rebuilt from it"
        )
        yield Finding(log.name, False, words)


def _of_count(declared: Topic, topic: TopicFacts) -> Iterator[Finding]:
    if declared.partitions is not None and declared.partitions != topic.partitions:
        words = f"it has {topic.partitions} partitions, and the pipeline declares {declared.partitions}; say partitions={topic.partitions}"
        yield Finding(topic.name, True, f"{words}, or leave it out")


def _of_internal(source: TopicFacts, internal: TopicFacts) -> Iterator[Finding]:
    if internal.partitions != source.partitions:
        words = (
            f"it has {internal.partitions} partitions and {source.name} {source.partitions}: one of them was made for another plan. "
            "If nothing was scored yet, delete it and let `millrace topics create` make it; else give the pipeline a new name, "
            "which has topics, groups and state of its own, and let it read from the earliest event"
        )
        yield Finding(internal.name, True, words)
    wanted = source.max_record_bytes + HOP_ROOM_BYTES
    if internal.max_record_bytes < wanted:
        words = f"its max.message.bytes is {internal.max_record_bytes}, wanted {wanted}: the largest events of {source.name} would not fit"
        yield Finding(internal.name, False, words)
    if internal.settings["message.timestamp.type"] == "CreateTime" and internal.retention_ms >= 0:
        words = (
            f"its retention.ms is {internal.retention_ms} and its message.timestamp.type CreateTime, wanted LogAppendTime: "
            "old events would be deleted at once"
        )
        yield Finding(internal.name, True, words)


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
        TopicError: one of them would lose records, or contradicts the plan.
    """
    found = findings(bound, facts)
    fatal = [finding for finding in found if finding.fatal]
    if fatal:
        raise TopicError("; ".join(f"topic {finding.topic}: {finding.words}" for finding in fatal))
    return found
