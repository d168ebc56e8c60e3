"""Snapshots: the state of a pipeline as files, one a partition, each with the offset it goes by.

A snapshot is taken beside running workers, or of a pipeline that is stopped. Of one at rest, what a file holds is the state at its
`position`. Beside a worker that goes on, blocks are read one after the other while it writes; the file then holds what
`transforms/archive.py` says: nothing at or above `position`, and the log read into it from there is the state from `complete_at` on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.block_file import Blocks, write_blocks
from schemas.errors import FenceLost, LostBlock, StateError
from schemas.features import Json
from streams.definition.bound import Bound
from streams.kafka import admin
from streams.progress import Advance, progress
from streams.settings import Settings
from streams.state.places import Place, open_archive, places
from transforms.archive import Archive, Dump

log = logging.getLogger(__name__)

FORMAT = 1
KEYS_AT_ONCE = 4_096
TRIES = 3
PAUSE_SECONDS = 1.0


def snapshot(bound: Bound, settings: Settings, folder: Path) -> dict[str, Json]:
    """Write the state of every stage and partition into a folder; files that are there are replaced, each when the new one is whole.

    Raises:
        StateError: a partition has no state, its state changes hands again and again, a block is damaged, or a file can't be written.
        StoreDown, KafkaDown: what it asks does not answer.
    """
    files: list[Json] = []
    for place in places(bound, admin(settings.kafka)):
        archive = open_archive(settings.redis, place.stage.namespace)
        try:
            keys = {each.shard: each.keys for each in archive.shards()}
            for shard in place.shards:
                with progress(f"{place.topic.name}[{shard}]", keys.get(shard, 0)) as advance:
                    files.append(_one(bound, archive, place, shard, folder, advance))
        finally:
            archive.close()
    return {"pipeline": bound.name, "folder": str(folder), "files": files}


def _one(bound: Bound, archive: Archive, place: Place, shard: str, folder: Path, advance: Advance) -> dict[str, Json]:
    """Write one partition's file; once more if the state changed hands meanwhile."""
    for attempt in range(TRIES):
        try:
            return _write(bound, archive, place, shard, folder, advance)
        except LostBlock as error:
            raise StateError(f"{error}; `millrace run` finds it and rebuilds the partition from the log") from error
        except FenceLost as error:
            log.warning("snapshot_again at=%s[%s] because=%r", place.topic.name, shard, str(error))
            if attempt + 1 == TRIES:
                raise StateError(f"{place.topic.name}[{shard}] changes hands again and again: {error}; take the snapshot later") from error
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


def _write(bound: Bound, archive: Archive, place: Place, shard: str, folder: Path, advance: Advance) -> dict[str, Json]:
    stage, where = place.stage, f"{place.topic.name}[{shard}]"
    dump = archive.dump(shard)
    if dump is None:
        raise StateError(f"{where} has no state in {stage.namespace}: no worker of this definition has come to it yet")
    try:
        reading = _Reading(dump, {entity.name for entity in stage.entities}, advance)

        def note() -> dict[str, Json]:
            return {
                "format": FORMAT,
                "pipeline": bound.name,
                "stage": stage.name,
                "topic": place.topic.name,
                "partition": int(shard),
                "partitions": place.topic.partitions,
                "position": dump.position,
                "complete_at": dump.end(),
                "state_fingerprint": stage.state_fingerprint,
                "state": bound.describe_state(stage.entities),
                "keys": dict(reading.keys),
            }

        file = folder / f"{stage.name}-{shard}.parquet"
        said = write_blocks(file, reading, note)
    finally:
        dump.close()
    shown = ("stage", "topic", "partition", "position", "complete_at", "keys", "size_bytes")
    return {"file": file.name, **{name: said[name] for name in shown}}


@dataclass(slots=True)
class _Reading:
    """The blocks of a dump, in the order of their entities and keys; those with nothing left are passed over."""

    dump: Dump
    entities: set[str]
    advance: Advance
    keys: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Blocks]:
        for entity, keys in self.dump.keys.items():
            if entity not in self.entities:
                raise StateError(f"there are blocks of entity {entity!r}, wanted {', '.join(sorted(self.entities))}")
            self.keys[entity] = 0
            for first in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[first : first + KEYS_AT_ONCE]
                found = self.dump.blocks(entity, some)
                left = np.flatnonzero(found.ends > found.starts)
                self.keys[entity] += len(left)
                self.advance(len(some))
                yield Blocks(entity, some[left], found.take(left))


def snapshot_words(facts: Mapping[str, Any]) -> str:
    """A line for each file."""
    lines = []
    for each in facts["files"]:
        keys = ", ".join(f"{count:,} {entity}" for entity, count in each["keys"].items()) or "no keys"
        later = "" if each["complete_at"] == each["position"] else f", complete with the log up to {each['complete_at']}"
        at = f"{each['topic']}[{each['partition']}]@{each['position']}"
        lines.append(f"{each['file']}  {at}{later}: {keys}, {each['size_bytes']:,} bytes of blocks")
    return "\n".join([*lines, f"{len(facts['files'])} files in {facts['folder']}"])
