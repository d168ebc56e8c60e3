"""The plan of a pipeline: which stages there are, which topics they need, what they keep, and what is missing or in the way.

Follows from the definition alone where no broker answers; says so then, and of how many partitions it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import RetryLater, SettingsError, StateError, TopicError
from schemas.features import Json
from schemas.framing import framing_words
from streams.definition.bound import Bound
from streams.kafka import TopicFacts, admin, topic_facts
from streams.planning.disagreement import commits_of_workers, disagreements
from streams.planning.stage import Stage, column_bytes, fed_by, hop_bytes, several_need_exactly_once, stages
from streams.planning.topics import DAY_MS, Finding, TopicPlan, existing, findings, planned_topics
from streams.settings import Settings
from transforms.block import HEADER_BYTES
from transforms.entity import Entity
from transforms.slab import record_bytes

HOP_HEAD_BYTES = 45  # of a hop record, about: its layout, where the original stands, the event's id and time
ANSWER_SECONDS = 3.0


def plan(bound: Bound, settings: Settings, partitions: int | None = None, answer_seconds: float = ANSWER_SECONDS) -> dict[str, Json]:
    """What it takes to run a pipeline, and what the broker has of it.

    Args:
        bound: the pipeline.
        settings: where the broker is, and what groups are called.
        partitions: plan for so many of the input, if it is not there yet; None = as many as it has, else as declared, else one.
        answer_seconds: how long an answer of the broker is waited for.

    Raises:
        DefinitionError: the declared order of stages leaves an entity out.
        SettingsError: it has several stages, and events are to be delivered at least once.
        TopicError: broker, definition and `partitions` differ about the number of the input's partitions.
    """
    asked = _Broker(bound, settings, answer_seconds)
    count, origin = _partitions(bound, asked.partitions, partitions)
    all_stages = stages(bound, count)
    if len(all_stages) > 1 and settings.worker.delivery == "at_least_once":
        raise SettingsError(several_need_exactly_once(bound, all_stages))
    plans = planned_topics(bound, count)
    there = asked.facts([each.name for each in plans])
    trouble, against = asked.trouble(plans, there), asked.against(all_stages, there)
    missing: list[Json] = [each.name for each in plans if each.name not in there] if asked.answers else []
    facts: dict[str, Json] = {
        "pipeline": bound.name,
        "fingerprint": bound.fingerprint,
        "broker": {"address": settings.kafka.bootstrap_servers, "answers": asked.answers, "says": asked.says},
        "partitions": count,
        "partitions_from": origin,
        "delivery": settings.worker.delivery,
        "stages": [_stage(bound, stage, all_stages, settings) for stage in all_stages],
        "topics": [_topic(each, there.get(each.name), asked.answers) for each in plans],
        "missing": missing,
        "findings": [*_told(trouble, "topic"), *_told(against, "running")],
    }
    return facts


def refuse(facts: Mapping[str, Any]) -> None:
    """Refuse a plan that can't be run as it stands; topics that are merely missing are no reason.

    Raises:
        StateError: it disagrees with what is running.
        TopicError: a topic would lose records, or contradicts it.
    """
    fatal = [each for each in facts["findings"] if each["fatal"]]
    if fatal:
        kind = StateError if any(each["about"] == "running" for each in fatal) else TopicError
        raise kind("; ".join(f"{each['where']}: {each['finding']}" for each in fatal))


class _Broker:
    """What the broker says; a broker that does not answer says nothing, and why."""

    def __init__(self, bound: Bound, settings: Settings, answer_seconds: float) -> None:
        self._bound, self._settings, self._answer_seconds = bound, settings, answer_seconds
        self._client = admin(settings.kafka)
        self.answers, self.says = True, ""
        self.partitions: int | None = None
        found = self.facts([bound.input.name])
        if found:
            self.partitions = found[bound.input.name].partitions

    def facts(self, names: Sequence[str]) -> dict[str, TopicFacts]:
        """Facts about those of the topics that are there."""
        if not self.answers:
            return {}
        try:
            there = existing(self._client, names, self._answer_seconds)
            return topic_facts(self._client, there, self._answer_seconds) if there else {}
        except RetryLater as error:
            self.answers, self.says = False, str(error)
            return {}

    def trouble(self, plans: Sequence[TopicPlan], there: Mapping[str, TopicFacts]) -> list[Finding]:
        """What is wrong with topics that are there. What is missing can't be wrong: it is taken as it would be made."""
        as_made = {each.name: there.get(each.name) or TopicFacts(each.name, each.partitions, each.settings) for each in plans}
        return [Finding(f"topic {each.topic}", each.fatal, each.words) for each in findings(self._bound, as_made) if each.topic in there]

    def against(self, all_stages: Sequence[Stage], there: Mapping[str, TopicFacts]) -> list[Finding]:
        """What running groups have against the plan."""
        if not self.answers:
            return []
        try:
            commits = commits_of_workers(self._client, self._bound, all_stages, self._settings.kafka)
        except RetryLater as error:
            return [Finding("consumer groups", False, f"not looked at: {error}")]
        counts = {name: topic.partitions for name, topic in there.items()}
        return disagreements(self._bound, all_stages, self._settings.kafka, commits, counts)


def _told(found: Sequence[Finding], about: str) -> list[Json]:
    return [{"about": about, "where": each.topic, "fatal": each.fatal, "finding": each.words} for each in found]


def _partitions(bound: Bound, found: int | None, wanted: int | None) -> tuple[int, str]:
    """How many the input has, and who says so."""
    said = {"on the broker": found, "in the definition": bound.input.partitions, "on the command line": wanted}
    counts = {count: where for where, count in reversed(said.items()) if count is not None}
    if len(counts) > 1:
        words = " and ".join(f"{count} {where}" for where, count in said.items() if count is not None)
        raise TopicError(f"topic {bound.input.name}: its partitions are {words}; wanted one number")
    return next(iter(counts.items()), (1, "by default"))


def _stage(bound: Bound, stage: Stage, all_stages: Sequence[Stage], settings: Settings) -> Json:
    carried: Json = {each.input.name: HOP_HEAD_BYTES + _carried(bound, stage, each, all_stages) for each in fed_by(stage, all_stages)}
    entities: list[Json] = [_entity(entity) for entity in stage.entities]
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "reads": stage.input.name,
        "read_as": framing_words(stage.input.framing),
        "key": list(stage.key_columns),
        "writes": [topic.name for topic in stage.outputs],
        "scores": stage.is_last,
        "hop_bytes": carried,
        "group": stage.group(settings.kafka),
        "transactional_ids": stage.transactional_prefix(settings.kafka) + "-*",
        "state": stage.namespace if stage.entities else None,
        "retention_ms": stage.retention_ms,
        "entities": entities,
    }


def _carried(bound: Bound, writer: Stage, stage: Stage, all_stages: Sequence[Stage]) -> int:
    if writer.kind == "labels":
        return column_bytes(bound, [name for entity in stage.entities for name in entity.key_columns])
    path = [each for each in all_stages if each.kind != "labels"]
    return hop_bytes(bound, [each.entities for each in path[stage.index :]], [each.entities for each in path[: stage.index]])


def _entity(entity: Entity) -> Json:
    return {
        "name": entity.name,
        "key": list(entity.key_columns),
        "windows": [window.suffix for window in entity.windows],
        "features": len(entity.features),
        "labels": entity.has_labels,
        "retention_ms": entity.retention_ms,
        "key_bytes": HEADER_BYTES,
        "event_bytes": record_bytes(entity),
        "max_records": entity.max_records,
    }


def _topic(wanted: TopicPlan, there: TopicFacts | None, answers: bool) -> Json:
    found: Json = None if there is None else {"partitions": there.partitions, "retention_ms": there.retention_ms}
    return {
        "role": wanted.role,
        "topic": wanted.name,
        "partitions": wanted.partitions,
        "settings": dict(wanted.settings),
        "needed_ms": wanted.needed_ms,
        "there": found if answers else "unknown",
    }


def plan_words(facts: Mapping[str, Any]) -> str:
    """A page: stages in their order, topics, what is missing, what is wrong."""
    broker = facts["broker"]
    lines = [
        f"pipeline {facts['pipeline']}  fingerprint {facts['fingerprint']}  {facts['delivery']}",
        f"planned for {_counted(facts['partitions'], 'partition')} of the input, the number {facts['partitions_from']}",
    ]
    if not broker["answers"]:
        lines.append(f"the broker at {broker['address']} does not answer, so this follows from the definition alone: {broker['says']}")
    for stage in facts["stages"]:
        lines += _stage_words(stage)
    lines += [_topic_words(topic) for topic in facts["topics"]]
    if facts["missing"]:
        lines.append(f"missing on the broker: {', '.join(facts['missing'])}; `millrace topics create` makes them")
    lines += [f"{'WRONG' if each['fatal'] else 'look '}  {each['where']}: {each['finding']}" for each in facts["findings"]]
    return "\n".join(lines)


def _stage_words(stage: Mapping[str, Any]) -> list[str]:
    what = ", ".join(stage["writes"]) + (" (scored)" if stage["scores"] else "")
    lines = [f"stage {stage['stage']}: {stage['reads']} by {', '.join(stage['key'])} -> {what}", f"  group    {stage['group']}"]
    if stage["read_as"] != "confluent" and stage["kind"] != "hop":
        lines.append(f"  framing  {stage['read_as']}")
    for entity in stage["entities"]:
        labels = ", labels" if entity["labels"] else ""
        lines.append(
            f"  entity   {entity['name']} by {', '.join(entity['key'])}: {_counted(entity['features'], 'feature')} "
            f"over {', '.join(entity['windows'])}{labels}"
        )
        lines.append(
            f"           {entity['key_bytes']} bytes a key and about {entity['event_bytes']} an event that it remembers for "
            f"{_days(entity['retention_ms'])}, at most {entity['max_records']:,} events"
        )
    if stage["state"]:
        lines.append(f"  state    {stage['state']}")
    lines += [f"  hop      about {size} bytes a record to {name}" for name, size in stage["hop_bytes"].items()]
    return lines


def _topic_words(topic: Mapping[str, Any]) -> str:
    there = topic["there"]
    wanted = f"{_counted(topic['partitions'], 'partition')}, keep {_kept(int(topic['settings']['retention.ms']))}"
    if topic["needed_ms"]:
        wanted += f" (its windows need {_days(topic['needed_ms'])})"
    if there is None:
        state = "missing"
    elif there == "unknown":
        state = "not looked at"
    else:
        state = f"there, {_counted(there['partitions'], 'partition')}, keeps {_kept(there['retention_ms'])}"
    return f"topic {topic['topic']}  {topic['role']}: {wanted}; {state}"


def _kept(retention_ms: int) -> str:
    return "for ever" if retention_ms < 0 else _days(retention_ms)


def _days(span_ms: int) -> str:
    return f"{span_ms / DAY_MS:.1f} days"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
