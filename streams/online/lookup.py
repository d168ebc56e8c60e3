"""Look keys up in the workers' state: where each one is, its block, and what that comes to at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Ints, PackedBytes
from schemas.errors import LostBlock, SettingsError, StateError, StoreDown, UnknownKey
from streams.definition.bound import Bound
from streams.hop import record_keys
from streams.kafka import admin, topic_facts
from streams.online.key_features import Key, KeyFeatures, Part
from streams.partitioner import partitions_of
from streams.planning.stage import Stage, stages
from streams.settings import KafkaSettings, RedisSettings
from streams.suggestion import did_you_mean
from transforms.current import Current, Looking
from transforms.entity import Entity
from transforms.keys import key_hashes, key_ids
from transforms.redis_reader import Look, RedisReader

LONGEST_LISTED = 3


@dataclass(frozen=True, slots=True)
class _Home:
    """Where an entity's state is."""

    entity: Entity
    stage: Stage
    looking: Looking
    reader: RedisReader


@dataclass(slots=True)
class _Read:
    """What was read of n keys."""

    blocks: list[bytes]
    places: list[int]  # partitions
    positions: list[int]

    @property
    def missing(self) -> list[int]:
        """Keys without a block."""
        return [row for row, block in enumerate(self.blocks) if not block]


class Lookup:
    """A pipeline's entities, and where the state of each is.

    Args:
        bound: the pipeline.
        settings: of Redis.
        partitions: of the pipeline's input.
    """

    def __init__(self, bound: Bound, settings: RedisSettings, partitions: int) -> None:
        self._bound, self._partitions = bound, partitions
        self._homes: dict[str, _Home] = {}
        for stage in stages(bound, partitions):
            reader = RedisReader(
                settings.url.get_secret_value(), stage.namespace, settings.connect_timeout_seconds, settings.answer_timeout_seconds
            )
            for entity in stage.entities:
                self._homes[entity.name] = _Home(entity, stage, Looking(entity), reader)

    def close(self) -> None:
        """Let go of Redis."""
        for home in self._homes.values():
            home.reader.close()

    @property
    def entities(self) -> tuple[str, ...]:
        """Whose features there are."""
        return tuple(self._homes)

    def stage_of(self, entity: str) -> Stage:
        """The stage that keeps an entity's state."""
        return self._home(entity).stage

    def features(self, entity: str, keys: Sequence[Key], at_ms: int, *, refuse_unknown: bool) -> list[KeyFeatures]:
        """The features of some keys at a time; see `FeatureReader.get_many`."""
        home = self._home(entity)
        parts = [_parts(home.entity, key) for key in keys]
        if not parts:
            return []
        columns = self._columns(home.entity, parts)
        every = key_ids(home.entity.key_columns, [columns[name] for name in home.entity.key_columns])
        every_hash = key_hashes(every)
        first, row_of = _distinct(every_hash)  # 1 and "1" may be one key
        ids, hashes, wanted = every.take(first), every_hash[first], [parts[row] for row in first.tolist()]
        read = self._read(home, self._places(home, columns)[first], hashes)
        if read.missing and self._partitions > 1 and home.stage.kind == "events":
            self._look_elsewhere(home, read, hashes)
        if read.missing and refuse_unknown:
            raise self._unknown(home, [wanted[row] for row in read.missing])
        found = self._compute(home, ids, hashes, PackedBytes.pack(read.blocks), at_ms)
        names = home.entity.feature_names
        made = []
        for row, values in enumerate(found.features.tolist()):
            count = int(found.events[row])
            made.append(
                KeyFeatures(
                    entity=entity,
                    key=wanted[row],
                    features=dict(zip(names, values, strict=True)),
                    asked_ms=at_ms,
                    evaluated_ms=int(found.evaluated_ms[row]),
                    is_known=count > 0,
                    events=count,
                    last_event_ms=int(found.newest_ms[row]) if count else None,
                    partition=read.places[row],
                    position=read.positions[row],
                )
            )
        return [replace(made[row], key=key) for row, key in zip(row_of, parts, strict=True)]

    # --- where keys are ---

    def _home(self, entity: str) -> _Home:
        home = self._homes.get(entity)
        if home is None:
            known = did_you_mean(entity, self._homes) if self._homes else "it has none"
            raise SettingsError(f"pipeline {self._bound.name!r} has no entity {entity!r}; {known}")
        return home

    def _columns(self, entity: Entity, keys: Sequence[tuple[Part, ...]]) -> dict[str, Column]:
        """A column for each part of the key, of the type its field has."""
        return {
            name: _column(f"{entity.name}'s {name}", self._bound.columns[name].type, [key[place] for key in keys])
            for place, name in enumerate(entity.key_columns)
        }

    def _places(self, home: _Home, columns: Mapping[str, Column]) -> Ints:
        """Shape (n,): the partition each key's events should be in."""
        if self._partitions == 1:
            return np.zeros(len(next(iter(columns.values()))), np.int64)
        keys = record_keys(columns, home.stage.key_columns)
        return partitions_of(PackedBytes.pack([key or b"" for key in keys]), self._partitions)

    def _read(self, home: _Home, places: Ints, hashes: NDArray[np.uint64]) -> _Read:
        """The keys' blocks, and the position of each one's partition."""
        rows = {str(place): np.flatnonzero(places == place) for place in np.unique(places).tolist()}
        looks = home.reader.look(home.entity.name, {shard: hashes[each] for shard, each in rows.items()})
        read = _Read([b""] * len(places), places.tolist(), [0] * len(places))
        for shard, look in looks.items():
            position = self._position(home, shard, look)
            for row, block in zip(rows[shard].tolist(), look.blocks, strict=True):
                read.blocks[row], read.positions[row] = block, position
        return read

    def _position(self, home: _Home, shard: str, look: Look) -> int:
        if look.rebuilding:
            raise StoreDown(f"the state of {home.stage.input.name}[{shard}] in {home.stage.namespace} is being built anew; ask again later")
        if look.position is None and look.claimed:
            return 0
        if look.position is None:
            raise StateError(
                f"there is no state of {home.stage.input.name}[{shard}] in namespace {home.stage.namespace}: no worker of this definition "
                "has come to it yet, or the definition is not the workers' one; `millrace state ls` shows what there is"
            )
        return look.position

    def _look_elsewhere(self, home: _Home, read: _Read, hashes: NDArray[np.uint64]) -> None:
        """Look in all partitions for keys that are not where Kafka's own partitioner puts them: producers may have another one."""
        missing = read.missing
        wanted = np.ascontiguousarray(hashes[missing])
        looks = home.reader.look(home.entity.name, {str(place): wanted for place in range(self._partitions)})
        for shard, look in looks.items():
            for row, block in zip(missing, look.blocks, strict=True):
                if block:
                    read.blocks[row], read.places[row], read.positions[row] = block, int(shard), self._position(home, shard, look)

    # --- what they come to ---

    def _compute(self, home: _Home, ids: PackedBytes, hashes: NDArray[np.uint64], blocks: PackedBytes, at_ms: int) -> Current:
        try:
            return home.looking.at(ids, hashes, blocks, at_ms)
        except LostBlock as error:
            raise StateError(
                f"{error}, in {home.stage.namespace}: another version of Millrace wrote it, or it is damaged; "
                "read with the workers' version, and see `millrace state ls`"
            ) from error

    def _unknown(self, home: _Home, keys: Sequence[tuple[Part, ...]]) -> UnknownKey:
        shown = ", ".join(_shown(key) for key in keys[:LONGEST_LISTED]) + (", ..." if len(keys) > LONGEST_LISTED else "")
        many = f"{len(keys)} keys" if len(keys) > 1 else "key"
        return UnknownKey(f"no event of {home.entity.name} {many} {shown} is remembered in {home.stage.namespace}")


def partitions_in(kafka: KafkaSettings, topic: str) -> int:
    """How many partitions a topic has, as the broker says.

    Raises:
        TopicError: there is no such topic.
        KafkaDown: the broker does not answer.
    """
    return topic_facts(admin(kafka), (topic,))[topic].partitions


def _parts(entity: Entity, key: Key) -> tuple[Part, ...]:
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) != len(entity.key_columns):
        raise SettingsError(f"key {_shown(parts)} of {entity.name} has {len(parts)} parts, wanted {', '.join(entity.key_columns)}")
    return parts


def _distinct(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.intp], list[int]]:
    """Where each different key comes first, and for every key which of those it is."""
    rows: dict[bytes, int] = {}
    row_of = [rows.setdefault(key.tobytes(), len(rows)) for key in hashes]
    first = np.empty(len(rows), np.intp)
    for place in range(len(row_of) - 1, -1, -1):
        first[row_of[place]] = place
    return first, row_of


def _column(what: str, kind: str, parts: Sequence[Part]) -> Column:
    try:
        if kind in ("int", "long"):
            return np.array([int(part) for part in parts], np.int64)
        return PackedBytes.pack([part if isinstance(part, bytes) else _text(part).encode() for part in parts])
    except (ValueError, TypeError, OverflowError) as error:
        raise SettingsError(f"{what} is of type {kind}: {error}") from error


def _text(part: Part) -> str:
    if not isinstance(part, str):
        raise TypeError(f"{part!r} is no text")
    return part


def _shown(key: tuple[Part, ...]) -> str:
    return ", ".join(repr(part) for part in key)
