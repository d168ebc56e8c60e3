"""Rebuild: the state of this definition, made anew up to the committed offset, from the log or from a snapshot and the log after it.

Each partition is claimed, as a worker would; its old state goes only when what replaces it was found to be whole and to reach far
enough. A rebuild cut short leaves a partition without state, or with one that stands at an earlier offset: a worker goes on from
either, and so does another rebuild. It ends at the committed offset of the moment it asked. Workers of an older definition may go on
meanwhile, in their own namespace; those of this one read what was scored since into the state, and only then score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from schemas.block_file import check_blocks, read_blocks, read_note
from schemas.errors import FenceLost, StateError
from schemas.features import Json
from streams.definition.bound import Bound
from streams.kafka import Consumer, KafkaDown, KafkaException, TopicPartition, admin, cause, plain_consumer
from streams.log_reach import shortfall
from streams.progress import progress
from streams.recovery import CommitNote, Log
from streams.settings import Settings
from streams.state.places import Place, open_archive, places, refuse_held
from streams.state.replay import READER, replay
from streams.state.snapshot import FORMAT
from transforms.entity import suffices
from transforms.redis_archive import RedisArchive
from transforms.store import Writes

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file of one partition's state, and what it says of itself."""

    file: Path
    note: Mapping[str, Any]

    @property
    def position(self) -> int:
        """Where the log is to be read into it from."""
        return int(self.note["position"])


@dataclass(frozen=True, slots=True)
class Target:
    """A partition to rebuild: from where, up to where."""

    place: Place
    partition: int
    committed: int
    refused: Mapping[int, int]
    snapshot: Snapshot | None
    start: int  # where the log is read from

    @property
    def where(self) -> str:
        return f"{self.place.topic.name}[{self.partition}]"


def rebuild(bound: Bound, settings: Settings, folder: Path | None, *, accept_short_log: bool = False) -> dict[str, Json]:
    """Make the state of every stage and partition anew.

    Args:
        bound: the pipeline.
        settings: of broker, store and registry.
        folder: of a snapshot; None = from the log alone.
        accept_short_log: make do with what the log has, if that is less than the windows look back on.

    Raises:
        StateError: a live worker holds the state; or neither log nor snapshot gives what is needed, or they don't fit.
        StoreDown, KafkaDown, RetryLater: what it asks does not answer.
    """
    archives: list[RedisArchive] = []
    try:
        targets: list[Target] = []
        snapshots = None if folder is None else read_folder(folder)
        for place in places(bound, admin(settings.kafka)):
            archive = open_archive(settings.redis, place.stage.namespace)
            archives.append(archive)
            archive.check_server()
            refuse_held(place.stage.namespace, archive.shards())
            targets += _targets(bound, settings, place, snapshots, accept_short_log)
        for target in targets:  # all that could be refused is, before anything is replaced
            if target.snapshot is not None:
                check_blocks(target.snapshot.file)
        done = [_make(bound, settings, archives, target) for target in targets]
    finally:
        for archive in archives:
            archive.close()
    return {"pipeline": bound.name, "from": None if folder is None else str(folder), "partitions": done}


def read_folder(folder: Path) -> tuple[Snapshot, ...]:
    """The snapshots in a folder.

    Raises:
        StateError: there are none, or a file of another kind goes by such a name.
    """
    found = tuple(Snapshot(file, read_note(file)) for file in sorted(folder.glob("*.parquet")))
    if not found:
        raise StateError(f"no snapshot in {folder}; wanted files that `millrace state snapshot --to {folder}` wrote")
    return found


def _targets(
    bound: Bound, settings: Settings, place: Place, snapshots: Sequence[Snapshot] | None, accept_short_log: bool
) -> Iterator[Target]:
    reader = plain_consumer(settings.kafka, READER)
    group = plain_consumer(settings.kafka, place.stage.group(settings.kafka))
    try:
        wanted = bound.describe_state(place.stage.entities)
        for partition in range(place.topic.partitions):
            here = TopicPartition(place.topic.name, partition)
            committed, note = _committed(group, here)
            log = _log(group, here)
            if committed is None:
                raise StateError(
                    f"{_at(here)} has no committed offset: nothing was scored yet, so `millrace run` begins with a state of its own"
                )
            if not log.start <= committed <= log.end:
                raise StateError(f"{_at(here)}: the committed offset is {committed}, and the log has {log.start}..{log.end}")
            refused = note.refused if note else {}
            if snapshots is not None:
                chosen = choose(snapshots, wanted, place, partition)
                check_fits(chosen, log, committed, _at(here))
                yield Target(place, partition, committed, refused, chosen, chosen.position)
                continue
            retention_ms = max(entity.retention_ms for entity in place.stage.entities)
            short = shortfall(reader, here, log, committed, retention_ms)
            if short is not None and not accept_short_log:
                raise StateError(
                    f"{_at(here)}: {short}. `--from FOLDER` begins with a snapshot; `--accept-short-log` makes do with what the log has"
                )
            yield Target(place, partition, committed, refused, None, log.start)
    finally:
        reader.close()
        group.close()


def choose(snapshots: Sequence[Snapshot], wanted: Mapping[str, Json], place: Place, partition: int) -> Snapshot:
    """The snapshot to begin a partition with: of its topic, and with all that its entities look at.

    Raises:
        StateError: there is none.
    """
    topic = place.topic
    where = f"{topic.name}[{partition}]"
    here = [each for each in snapshots if (each.note.get("topic"), each.note.get("partition")) == (topic.name, partition)]
    if not here:
        raise StateError(f"no snapshot of {where} in {snapshots[0].file.parent}; there are files of {_told(snapshots)}")
    for each in here:
        if each.note.get("format") != FORMAT:
            raise StateError(f"{each.file} has format {each.note.get('format')}, wanted {FORMAT}: it is another version's")
        if each.note["partitions"] != topic.partitions:
            raise StateError(
                f"{each.file} was taken when {topic.name} had {each.note['partitions']} partitions, and it has {topic.partitions}: "
                "keys have moved between them; rebuild from the log"
            )
    for each in here:
        if holds(each.note["state"], wanted):
            return each
    missing = ", ".join(lacking(here[0].note["state"], wanted))
    raise StateError(
        f"{here[0].file} holds another state ({str(here[0].note['state_fingerprint'])[:8]}, "
        f"wanted {place.stage.state_fingerprint[:8]}): it has not all that is needed of {missing}; rebuild from the log"
    )


def holds(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a stored state has all that another definition looks at, in its format; both as `Bound.describe_state` says."""
    return not lacking(state, wanted)


def lacking(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The entities, or the event time, that a stored state can't serve."""
    if state["event_time"] != wanted["event_time"]:
        return ["the event time"]
    found = state["entities"]
    return [
        name
        for name, entity in wanted["entities"].items()
        if name not in found or found[name]["columns"] != entity["columns"] or not suffices(found[name]["stored"], entity["stored"])
    ]


def check_fits(snapshot: Snapshot, log: Log, committed: int, where: str) -> None:
    """Raises:
    StateError: log and snapshot leave a gap between them, or the snapshot is ahead of what was committed.
    """
    complete_at = int(snapshot.note["complete_at"])
    if complete_at > committed:
        raise StateError(
            f"{snapshot.file} goes up to {complete_at}, ahead of the committed offset {committed} of {where}: offsets were reset"
        )
    if snapshot.position < log.start and snapshot.position < committed:
        raise StateError(
            f"{snapshot.file} stands at {snapshot.position}, but the log of {where} begins at {log.start}: "
            "the records between are gone; a later snapshot is wanted"
        )


def _make(bound: Bound, settings: Settings, archives: Sequence[RedisArchive], target: Target) -> dict[str, Json]:
    place, shard = target.place, str(target.partition)
    archive = next(each for each in archives if each.namespace == place.stage.namespace)
    try:
        archive.claim(shard, {})
        keys = 0
        if target.snapshot is None:
            archive.drop(shard)
            archive.claim(shard, {})
        else:
            keys = _load(archive, shard, target, {entity.name for entity in place.stage.entities})
        with progress(f"{target.where} replay", target.committed - target.start) as advance:
            replay(bound, settings, place, archive, target.partition, target.start, target.committed, target.refused, advance)
        _end_at(archive, shard, target)
    except FenceLost as error:
        raise StateError(f"{target.where}: somebody else took the state over while it was rebuilt: {error}") from error
    return {
        "stage": place.stage.name,
        "topic": place.topic.name,
        "partition": target.partition,
        "snapshot": None if target.snapshot is None else target.snapshot.file.name,
        "keys_loaded": keys,
        "replayed_from": target.start,
        "position": target.committed,
    }


def _load(archive: RedisArchive, shard: str, target: Target, entities: set[str]) -> int:
    assert target.snapshot is not None
    note = target.snapshot.note
    loaded = 0

    def writes() -> Iterator[Writes]:
        nonlocal loaded
        with progress(f"{target.where} load", int(note["rows"])) as advance:
            for some in read_blocks(cast(Snapshot, target.snapshot).file):
                if some.entity in entities:  # one that the pipeline has no more is left out
                    loaded += len(some.keys)
                    yield Writes.whole(some.entity, some.keys, some.data)
                advance(len(some.keys))

    archive.load(shard, writes(), target.snapshot.position)
    return loaded


def _end_at(archive: RedisArchive, shard: str, target: Target) -> None:
    """Give the shard up at the committed offset, even if there was nothing to replay."""
    archive.write(shard, (), target.committed)
    archive.release(shard)


def _committed(group: Consumer, here: TopicPartition) -> tuple[int | None, CommitNote | None]:
    try:
        (found,) = group.committed([here], ANSWER_SECONDS)
    except KafkaException as error:
        raise KafkaDown(f"{_at(here)} does not say what is committed: {cause(error).str()}") from error
    if found.error is not None:
        raise KafkaDown(f"{_at(here)} does not say what is committed: {found.error.str()}")
    return (None, None) if found.offset < 0 else (found.offset, CommitNote.load(found.metadata))


def _log(group: Consumer, here: TopicPartition) -> Log:
    try:
        start, end = group.get_watermark_offsets(here, ANSWER_SECONDS)
    except KafkaException as error:
        raise KafkaDown(f"{_at(here)} does not say what its log holds: {cause(error).str()}") from error
    return Log(start, end)


def _at(here: TopicPartition) -> str:
    return f"{here.topic}[{here.partition}]"


def _told(snapshots: Sequence[Snapshot]) -> str:
    return ", ".join(f"{each.note.get('topic')}[{each.note.get('partition')}]" for each in snapshots)


def rebuild_words(facts: Mapping[str, Any]) -> str:
    """A line for each partition."""
    lines = []
    for each in facts["partitions"]:
        origin = f"{each['keys_loaded']:,} keys of {each['snapshot']}" if each["snapshot"] else "nothing"
        stretch = f"{each['replayed_from']}..{each['position']}"
        lines.append(
            f"{each['stage']}  {each['topic']}[{each['partition']}]: {origin}, then the log {stretch}; stands at {each['position']}"
        )
    return "\n".join(lines)
