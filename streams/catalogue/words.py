"""The catalogue in words: a block for each topic, a line for each field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DAY_MS = 86_400_000
MOST_FEATURES = 3  # that a line names of a pipeline, where topics are listed


def catalogue_words(facts: Mapping[str, Any]) -> str:
    """All of it."""
    lines = [f"{_count(len(facts['topics']), 'topic')} of {', '.join(each['pipeline'] for each in facts['pipelines'])}"]
    for topic in facts["topics"]:
        lines += ["", *_topic(topic, facts["broker_asked"], None if facts["field"] else MOST_FEATURES)]
    return "\n".join(line.rstrip() for line in lines)


def writers(topic: Mapping[str, Any]) -> list[str]:
    """Who writes a topic: others, where no stage here does."""
    here = any("stage" in each for each in topic["written_by"])
    return ([] if here or "receipts" in topic["roles"] else ["others"]) + [_party(each) for each in topic["written_by"]]


def readers(topic: Mapping[str, Any]) -> list[str]:
    """Who reads it."""
    return [_party(each) for each in topic["read_by"]] or ["nobody here"]


def used_by(field: Mapping[str, Any], most: int | None = None) -> str:
    """What hangs on a field, in words, at most so many features of each pipeline; what the model is given is marked."""
    return "; ".join(f"{each['pipeline']}: {', '.join(_uses(each, most))}" for each in field["uses"])


def constrained(field: Mapping[str, Any]) -> str:
    """What a field has to be, in words."""
    return ", ".join(f"{word} {json.dumps(value)}" for word, value in field["constraints"].items())


def versions_words(schema: Mapping[str, Any]) -> str:
    """How records are framed, and which versions there are of their schema, in words."""
    versions = schema["versions"]
    if versions is None:
        return f"{schema['framing']}, in no registry"
    if versions["latest"] is None:
        return f"{schema['framing']}: {versions['subject']} {versions['says']}"
    others = f" of {', '.join(map(str, versions['ids']))}" if len(versions["ids"]) > 1 else ""
    if versions["ours"] is None:
        ours = f"this {versions['says']}"
    else:
        ours = "this is it" if versions["ours"] == versions["latest"] else f"this is {versions['ours']}"
    return f"{schema['framing']}: {versions['subject']}, latest id {versions['latest']}{others}; {ours}"


def _party(each: Mapping[str, Any]) -> str:
    who = f"{each['pipeline']}, stage {each['stage']}" if "stage" in each else f"millrace {each['command']} of {each['pipeline']}"
    return f"{who} (group {each['group']})" if "group" in each else who


def _uses(each: Mapping[str, Any], most: int | None) -> Iterator[str]:
    given = each.get("model", ())
    made = [*each.get("derived", ()), *each.get("features", ())]
    yield from each.get("roles", ())
    yield from (f"rule {name}" for name in each.get("rules", ()))
    yield from (f"{name} (model)" if name in given else name for name in made[:most])
    if most is not None and made[most:]:
        yield f"and {_count(len(made) - most, 'more feature')}"
    yield from (f"model input {name}" for name in given if name not in made)


def _topic(topic: Mapping[str, Any], asked: bool, most: int | None) -> Iterator[str]:
    yield f"{topic['topic']}  ({', '.join(topic['roles'])})"
    yield from _listed("written by", writers(topic))
    yield from _listed("read by", readers(topic))
    if asked:
        yield from _live(topic["live"], {each["group"] for each in topic["read_by"] if "group" in each})
    for schema in topic["schemas"]:
        keyed = f", key {schema['key']}" if schema["key"] else ""
        file = f" in {schema['file']}" if schema["file"] else ""
        yield f"  schema      {schema['record']}{file}{keyed}, fingerprint {schema['fingerprint']} ({schema['pipeline']})"
        yield f"              {versions_words(schema)}"
    for each in topic["constraints"]:
        yield f"  constraints {each['source']} version {each['version']} ({each['holds']['environment']}), owner {each['owner']}"
        yield from (f"              {name}: {holds}" for name, holds in each["holds"]["relations"])
    if topic["fields"]:
        yield from _fields(topic["fields"], most)


def _live(live: Mapping[str, Any] | None, ours: set[str]) -> Iterator[str]:
    if live is None:
        yield "  broker      not there"
        return
    kept = "for ever" if live["retention_ms"] < 0 else f"{live['retention_ms'] / DAY_MS:.1f} days"
    yield f"  broker      {_count(live['partitions'], 'partition')}, keeps records {kept}"
    for each in live["groups"]:
        foreign = "" if each["group"] in ours else ", and is of nobody here"
        yield f"              group {each['group']} has {each['lag']:,} before it{foreign}"


def _fields(fields: Sequence[Mapping[str, Any]], most: int | None) -> Iterator[str]:
    name, kind = (max(len(each[what]) for each in fields) for what in ("name", "type"))
    for each in fields:
        yield f"    {each['name']:{name}}  {each['type']:{kind}}  {used_by(each, most)}"
        if each["constraints"]:
            yield f"    {'':{name}}  {'':{kind}}  {constrained(each)}"


def _listed(what: str, parties: Sequence[str]) -> Iterator[str]:
    for place, each in enumerate(parties):
        yield f"  {what if place == 0 else '':11} {each}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
