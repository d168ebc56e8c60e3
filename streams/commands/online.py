"""`millrace features get`: what is known of a key now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import SettingsError
from schemas.features import Json
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

if TYPE_CHECKING:
    from streams.definition.bound import Bound
    from streams.online.feature_reader import FeatureReader
    from streams.online.key_features import KeyFeatures
    from streams.settings import Settings


def get(
    pipeline: PipelineFile,
    keys: Annotated[
        list[str], typer.Argument(metavar="ENTITY=KEY...", help="Such as customer=123; parts of one key by commas.", show_default=False)
    ],
    which: Which = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Event time to look from (ISO 8601); by default now.", show_default=False)
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Read the features that keys have now from the workers' state in Redis, and say how fresh they are."""
    from streams.online.feature_reader import FeatureReader

    bound, loaded = bound_of(pipeline, which), settings_of(settings)
    moment = None if at is None else _time(at)
    asked = [_asked(text) for text in keys]
    with FeatureReader(bound, loaded) as reader:
        found = [reader.get(entity, key, at=moment) for entity, key in asked]
        facts: list[Json] = [_facts(bound, loaded, reader, each) for each in found]
    say({"pipeline": bound.name, "keys": facts}, as_json, get_words)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)  # without a zone it is refused where it is used
    except ValueError as error:
        raise SettingsError(f"--at {text!r} is no time; wanted one such as 2026-01-31T12:00:00Z") from error


def _asked(text: str) -> tuple[str, tuple[str, ...] | str]:
    entity, equals, key = text.partition("=")
    if not equals:
        raise SettingsError(f"{text!r} names no key; wanted ENTITY=KEY, such as customer=123")
    return entity, tuple(key.split(",")) if "," in key else key


def _facts(bound: Bound, settings: Settings, reader: FeatureReader, found: KeyFeatures) -> dict[str, Json]:
    from streams.explain.moment import moment
    from streams.kafka import admin, committed_by

    stage = reader.stage_of(found.entity)
    group = stage.group(settings.kafka)
    committed = {
        each.partition: each.offset for each in committed_by(admin(settings.kafka), [group])[group] if each.topic == stage.input.name
    }
    at = committed.get(found.partition)
    return {
        "entity": found.entity,
        "key": [part.decode(errors="replace") if isinstance(part, bytes) else part for part in found.key],
        "asked": moment(found.asked_ms),
        "evaluated": moment(found.evaluated_ms),
        "events": found.events,
        "last_event": None if found.last_event_ms is None else moment(found.last_event_ms),
        "age_ms": found.age_ms,
        "topic": stage.input.name,
        "partition": found.partition,
        "position": found.position,
        "committed": at,
        "behind": None if at is None else max(at - found.position, 0),
        "namespace": stage.namespace,
        "features": dict(found.features),
    }


def get_words(facts: Mapping[str, Any]) -> str:
    """The features in words, a key after the other."""
    lines = []
    for each in facts["keys"]:
        age = "no event"
        if each["age_ms"] is not None:
            side = "before" if each["age_ms"] >= 0 else "after the time asked for"
            age = f"the last {each['last_event']}, {abs(each['age_ms']) / 1_000:,.0f} s {side}"
        behind = "" if each["committed"] is None else f", committed {each['committed']}"
        lines.append(f"{each['entity']} {', '.join(map(str, each['key']))} at {each['evaluated']}: {each['events']:,} events, {age}")
        lines.append(f"  state of {each['topic']}[{each['partition']}] at {each['position']}{behind}, in {each['namespace']}")
        lines += [f"  {name:44} {value!r}" for name, value in each["features"].items()]
    return "\n".join(lines)
