"""The namespaces of a pipeline's state in Redis: listed, and freed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from schemas.errors import SettingsError, StateError, TopicError
from schemas.features import Json
from streams.definition.bound import Bound
from streams.kafka import admin
from streams.planning.stage import stages
from streams.progress import progress
from streams.settings import Settings
from streams.state.places import open_archive, places, refuse_held
from streams.suggestion import did_you_mean
from transforms.archive import ShardFacts

_REST = re.compile(r"(.+)\.([0-9a-f]{8})")  # a stage's name, and the beginning of its state's fingerprint


def list_state(bound: Bound, settings: Settings) -> dict[str, Json]:
    """Every namespace of this pipeline, of its present definition and of older ones.

    Raises:
        StoreDown, KafkaDown: what it asks does not answer.
    """
    current = _current(bound, settings)
    found = _survey(bound, settings)
    listed: list[Json] = [_described(bound, namespace, shards, namespace in current) for namespace, shards in found.items()]
    return {"pipeline": bound.name, "namespaces": listed}


def drop_state(bound: Bound, settings: Settings, namespace: str, *, even_current: bool = False) -> dict[str, Json]:
    """Free the memory of one namespace.

    Raises:
        SettingsError: it is no namespace of this pipeline.
        StateError: a worker is at work on it; or it is the present definition's, and that was not said to be meant.
        StoreDown, KafkaDown: what it asks does not answer.
    """
    if not namespace.startswith(f"{bound.name}."):
        raise SettingsError(f"{namespace!r} is no namespace of pipeline {bound.name!r}; wanted one of those that `millrace state ls` shows")
    current = _current(bound, settings)
    found = _survey(bound, settings)
    if namespace not in found:
        raise SettingsError(f"there is no namespace {namespace!r}; {did_you_mean(namespace, found) if found else 'there is none at all'}")
    shards = found[namespace]
    refuse_held(namespace, shards)
    if namespace in current and not even_current:
        raise StateError(
            f"{namespace} is the state of the present definition: without it, the next worker has to rebuild it from the log. "
            "`--even-current` drops it all the same"
        )
    archive = open_archive(settings.redis, namespace)
    try:
        with progress(f"dropping {namespace}", sum(each.keys for each in shards)) as advance:
            for each in shards:
                archive.claim(each.shard, {})
                archive.free(each.shard, advance)
    finally:
        archive.close()
    return {"dropped": namespace, **_sums(shards)}


def _current(bound: Bound, settings: Settings) -> set[str]:
    try:
        return {place.stage.namespace for place in places(bound, admin(settings.kafka))}
    except TopicError:  # nothing was ever read here: the definition alone says what its state would be called
        return {stage.namespace for stage in stages(bound) if stage.entities}


def _survey(bound: Bound, settings: Settings) -> dict[str, tuple[ShardFacts, ...]]:
    archive = open_archive(settings.redis, bound.name)
    with progress("looking through Redis", None) as advance:
        found = archive.survey(f"{bound.name}.", advance)
    return {namespace: shards for namespace, shards in found.items() if _REST.fullmatch(namespace.removeprefix(f"{bound.name}."))}


def _described(bound: Bound, namespace: str, shards: tuple[ShardFacts, ...], is_current: bool) -> dict[str, Json]:
    parts = _REST.fullmatch(namespace.removeprefix(f"{bound.name}."))
    assert parts is not None
    positions: dict[str, Json] = {each.shard: each.position for each in shards}
    held: list[Json] = [each.shard for each in shards if each.holder]
    return {
        "namespace": namespace,
        "stage": parts[1],
        "fingerprint": parts[2],
        "current": is_current,
        "partitions": len(shards),
        "held": held,
        "positions": positions,
        **_sums(shards),
    }


def _sums(shards: tuple[ShardFacts, ...]) -> dict[str, Json]:
    return {"keys": sum(each.keys for each in shards), "size_bytes": sum(each.size_bytes for each in shards)}


def list_words(facts: Mapping[str, Any]) -> str:
    """A line for each namespace."""
    lines = []
    for each in facts["namespaces"]:
        at = ", ".join(f"{shard}@{'-' if position is None else position}" for shard, position in each["positions"].items())
        age = "current" if each["current"] else "old"
        held = f", a worker holds {', '.join(each['held'])}" if each["held"] else ""
        lines.append(f"{each['namespace']:40} {age:8} {each['keys']:>12,} keys {each['size_bytes']:>16,} bytes  at {at}{held}")
    return "\n".join(lines) or f"no state of {facts['pipeline']} in Redis"


def drop_words(facts: Mapping[str, Any]) -> str:
    """One line."""
    return f"dropped {facts['dropped']}: {facts['keys']:,} keys, {facts['size_bytes']:,} bytes"
