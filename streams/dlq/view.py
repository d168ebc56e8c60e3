"""Look at a pipeline's dead letters: how many and why, or one of them with everything it says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.features import Json
from schemas.framing import Headers
from schemas.read_record import as_written
from schemas.registry import Registry, open_registry
from streams.dead_letters import OURS
from streams.definition.inlet import Inlet
from streams.dlq.letters import Choice, place_of, read_letter, read_letters, text_of
from streams.settings import Settings


def list_letters(inlet: Inlet, settings: Settings, choice: Choice) -> dict[str, Json]:
    """Count the letters that are in the topic now, by stage and reason, with the place of the first and the last of each.

    Raises:
        TopicError: there is no dead-letter topic.
        KafkaDown: the broker does not answer.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    last: dict[tuple[str, str], str] = {}
    for letter in read_letters(inlet, settings.kafka):
        if not choice.takes(letter, inlet):
            continue
        reason = letter.stage, letter.reason
        counts[reason] += 1
        first.setdefault(reason, letter.at)
        last[reason] = letter.at
    reasons: list[Json] = [
        {"stage": stage, "reason": reason, "letters": count, "first": first[stage, reason], "last": last[stage, reason]}
        for (stage, reason), count in counts.most_common()
    ]
    return {"topic": inlet.topic.dead_letters, "letters": counts.total(), "reasons": reasons}


def show_letter(inlet: Inlet, settings: Settings, at: str) -> dict[str, Json]:
    """One letter: its headers, its key, and its value as text or as the words that say why there is none.

    Raises:
        SettingsError: `at` is no place.
        TopicError: there is no letter.
        KafkaDown: the broker does not answer.
    """
    letter = read_letter(inlet, settings.kafka, place_of(at))
    registry = open_registry(settings.registry.place(inlet.bound.schema_folder), settings.registry.client_keys)
    return {
        "at": f"{inlet.topic.dead_letters}[{letter.place[0]}]@{letter.place[1]}",
        "record": str(letter.source) if letter.source else None,
        "stage": letter.stage,
        "reason": letter.reason,
        "message": letter.message,
        "key": text_of(letter.key),
        "timestamp": _iso(letter.said.get(OURS + "timestamp_ms")),
        "value_hex": None if letter.value is None else letter.value.hex(),
        "value": told_value(inlet, registry, letter.value, letter.given),
        "context": dict(letter.said),
        "headers": {name: text_of(text) or "" for name, text in letter.given},
    }


def told_value(inlet: Inlet, registry: Registry, value: bytes | None, headers: Headers = ()) -> Json:
    """What the value says: the event or label, or in words why its bytes are none."""
    if value is None:
        return "none: the record had no value, or the letter had no room for it"
    decoder = Decoder(inlet.schema, inlet.topic.framing, registry)
    if decoder.decode(PackedBytes.pack([value]), None, {0: headers}).rejected[0]:
        return str(decoder.explain(value, headers).detail)
    return _told(as_written(decoder, value, headers))


def _iso(milliseconds: str | None) -> str | None:
    try:
        return datetime.fromtimestamp(int(milliseconds or "") / 1_000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return milliseconds


def _told(value: Any) -> Json:
    """What fastavro read, as JSON has it: bytes as text of the characters U+0000 to U+00FF."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {key: _told(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_told(each) for each in value]
    plain: Json = value
    return plain


def list_words(facts: Mapping[str, Any]) -> str:
    """A line for each reason."""
    lines = [f"{facts['letters']:,} letters in {facts['topic']}"]
    lines += [
        f"{each['letters']:>10,}  {each['stage']:8} {each['reason']:32} {each['first']} .. {each['last']}" for each in facts["reasons"]
    ]
    return "\n".join(lines)


def show_words(facts: Mapping[str, Any]) -> str:
    """A letter on a page."""
    value = facts["value"] if isinstance(facts["value"], str) else json.dumps(facts["value"], indent=2)
    lines = [
        f"letter    {facts['at']}",
        f"record    {facts['record']}, timestamp {facts['timestamp']}",
        f"refused   by {facts['stage']}: {facts['reason']}",
        f"because   {facts['message']}",
        f"key       {facts['key']}",
        f"value     {value}",
        *(f"context   {name} = {text}" for name, text in sorted(facts["context"].items())),
        *(f"header    {name} = {text}" for name, text in sorted(facts["headers"].items())),
    ]
    return "\n".join(lines)
