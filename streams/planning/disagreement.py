"""Where a plan and what is running disagree: what the consumer groups have committed says by which plan the state was made.

A stage's group reads its stage's input and nothing else, names its state in each commit (`streams.recovery.CommitNote`), and is the
only worker's group on an internal topic. Whatever says otherwise was left by another plan, or by another pipeline of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from schemas.errors import StateError
from streams.definition.bound import Bound
from streams.kafka import AdminClient, TopicPartition, committed_by, group_names
from streams.planning.stage import Stage
from streams.planning.topics import Finding
from streams.recovery import CommitNote, repartitioned
from streams.settings import KafkaSettings

Commits = Mapping[str, Sequence[TopicPartition]]  # by consumer group
Counts = Mapping[str, int]  # partitions by topic; topics that are not there are left out

ANEW = "give the pipeline a new name, which has topics, groups and state of its own, and let it read from the earliest event"
REBUILD = "--on-conflict rebuild"  # what tells a fault that a rebuild puts right
_STAGE_GROUP = r"(\.by-.+|\.first|\.labels)?"


def commits_of_workers(client: AdminClient, bound: Bound, all_stages: Sequence[Stage], settings: KafkaSettings) -> Commits:
    """What workers have committed: commits with a worker's note, of this pipeline's groups, and of all if it has internal topics.

    Raises:
        KafkaDown: the broker does not answer.
    """
    ours = {stage.group(settings) for stage in all_stages}
    like_ours = _named_like_ours(bound, settings)
    asked = ours | {group for group in group_names(client) if len(all_stages) > 1 or like_ours.fullmatch(group)}
    found = committed_by(client, sorted(asked))
    noted = {group: [each for each in commits if CommitNote.load(each.metadata) is not None] for group, commits in found.items()}
    return {group: commits for group, commits in noted.items() if commits}


def disagreements(bound: Bound, all_stages: Sequence[Stage], settings: KafkaSettings, commits: Commits, counts: Counts) -> list[Finding]:
    """What the groups' commits have against a plan, fatal findings first.

    Args:
        bound: the pipeline.
        all_stages: as planned for the partitions its input has.
        settings: give the groups their names.
        commits: of all workers' groups.
        counts: of every topic of the plan that is there.
    """
    ours = {stage.group(settings): stage for stage in all_stages}
    found = [*_of_other_plans(bound, all_stages, settings, commits), *_of_other_owners(bound, all_stages, settings, commits)]
    for group, stage in ours.items():
        found += _of_group(stage, group, commits.get(group, ()), counts.get(stage.input.name, 0))
        if commits.get(group):
            found += _of_outputs(stage, group, counts)
    return sorted(found, key=lambda finding: not finding.fatal)


def check_running(found: Sequence[Finding], on_conflict: str) -> tuple[Finding, ...]:
    """The warnings among disagreements; with ``rebuild``, what a rebuild puts right is one.

    Raises:
        StateError: what is running was made by another plan.
    """
    fatal = [finding for finding in found if finding.fatal and not (on_conflict == "rebuild" and REBUILD in finding.words)]
    if fatal:
        raise StateError("; ".join(f"{finding.topic}: {finding.words}" for finding in fatal))
    return tuple(found)


def _of_group(stage: Stage, group: str, commits: Sequence[TopicPartition], count: int) -> Iterator[Finding]:
    """What a stage's own group has against it."""
    elsewhere = sorted({each.topic for each in commits} - {stage.input.name})
    if elsewhere:
        words = (
            f"it has read {', '.join(elsewhere)}, and stage {stage.name} is to read {stage.input.name}: another pipeline has this name; "
            f"rename one. If it was this one, `millrace run PIPELINE {REBUILD}` drops the state and begins anew"
        )
        yield Finding(f"group {group}", True, words)
    here = [each for each in commits if each.topic == stage.input.name]
    notes = [note for each in here if (note := CommitNote.load(each.metadata)) is not None]
    before = sorted({note.partitions for note in notes} - {0, count}) if count else []
    if before:
        yield Finding(f"topic {stage.input.name}", True, str(repartitioned("it", before[-1], count)))
    states = {note.state for note in notes} - {stage.state_fingerprint}
    if states and stage.entities:
        names = ", ".join(entity.name for entity in stage.entities)
        words = (
            f"its state is {', '.join(sorted(states))}, and that of stage {stage.name} would be {stage.state_fingerprint}: "
            f"the definition of {names} changed; "
        )
        if stage.is_alone:
            yield Finding(f"group {group}", False, words + "the next start builds it anew from the log, if that reaches back")
        else:
            words += (
                f"`millrace run PIPELINE {REBUILD}` builds it anew, as far back as the log reaches, "
                "or goes on with what `millrace state rebuild PIPELINE` has built beside the old workers"
            )
            yield Finding(f"group {group}", True, words)


def _of_outputs(stage: Stage, group: str, counts: Counts) -> Iterator[Finding]:
    """Internal topics that are gone although their writer has run: it is the writer that tells, since readers' offsets went with them."""
    for topic in stage.outputs if stage.feeds else ():
        if topic.name not in counts:
            words = (
                f"it is gone, and stage {stage.name} has written to it (group {group}): what was in it is lost, "
                f"and no state can be rebuilt from it; {ANEW}"
            )
            yield Finding(f"topic {topic.name}", True, words)


def _of_other_plans(bound: Bound, all_stages: Sequence[Stage], settings: KafkaSettings, commits: Commits) -> Iterator[Finding]:
    """Groups of stages that this pipeline had, and that the plan has not."""
    ours = {stage.group(settings) for stage in all_stages}
    like_ours = _named_like_ours(bound, settings)
    for group in sorted(set(commits) - ours):
        topics = sorted({each.topic for each in commits[group] if _is_of(bound, each.topic)})
        if topics and like_ours.fullmatch(group):
            words = (
                f"it has read {', '.join(topics)}, and the plan has no such stage: another plan of this pipeline is running, or was. "
                f"Stop it, delete the group (kafka-consumer-groups.sh --delete --group {group}) and start as kafka.start says; "
                f"or {ANEW}"
            )
            yield Finding(f"group {group}", True, words)


def _of_other_owners(bound: Bound, all_stages: Sequence[Stage], settings: KafkaSettings, commits: Commits) -> Iterator[Finding]:
    """Groups of other pipelines on internal topics of this one."""
    ours = {stage.group(settings) for stage in all_stages}
    like_ours = _named_like_ours(bound, settings)
    internal = {stage.input.name for stage in all_stages if stage.kind == "hop"}
    for group in sorted(set(commits) - ours):
        topics = sorted(internal & {each.topic for each in commits[group]})
        if topics and not like_ours.fullmatch(group):
            words = (
                f"group {group} reads it as well: two pipelines, or one under two groups, write their events to one internal topic, "
                "where each would count twice; rename one of them"
            )
            yield Finding(f"topic {', '.join(topics)}", True, words)


def _named_like_ours(bound: Bound, settings: KafkaSettings) -> re.Pattern[str]:
    return re.compile(re.escape(settings.group or bound.name) + _STAGE_GROUP)


def _is_of(bound: Bound, topic: str) -> bool:
    read = {bound.input.name, bound.labels.topic.name if bound.labels else bound.input.name}
    return topic in read or topic.startswith(bound.pipeline.internal)
