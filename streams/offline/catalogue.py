"""The feature catalogue: what each feature is, where it comes from and who uses it, told by the definitions themselves."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from schemas.errors import DefinitionError
from schemas.features import Json, fingerprint
from streams.definition.bound import Bound
from streams.definition.event_columns import EventColumn
from streams.definition.field_words import FieldWords
from streams.definition.load import load_bound
from streams.offline.since import known_since
from streams.suggestion import did_you_mean
from transforms.aggregate import Aggregate, column_of
from transforms.derive import Derived
from transforms.entity import Entity
from transforms.window import Window, duration

FORMAT = 1


def catalogue(bound: Bound) -> dict[str, Json]:
    """Every feature of a pipeline: fields its model is given, derived columns and window features, in the order of their computation."""
    words = FieldWords(bound.schema)
    names = [name for name in bound.model.inputs if name in bound.columns]
    entries = [_field(bound, words, bound.columns[name]) for name in names]
    entries += [_derived(bound, each) for each in bound.pipeline.derived]
    for entity in bound.pipeline.entities:
        pairs = [(window, aggregate) for window in entity.windows for aggregate in entity.aggregates]
        entries += [
            _window(bound, words, entity, window, aggregate, feature.name, feature.unit)
            for (window, aggregate), feature in zip(pairs, entity.features, strict=True)
        ]
    definitions = {feature.name: dict(feature.definition) for feature in bound.features.features}
    known: dict[str, Mapping[str, Json]] = {f.name: f.definition for entity in bound.pipeline.entities for f in entity.features}
    known |= {each.name: cast("Mapping[str, Json]", each.describe()) for each in bound.pipeline.derived}
    since = known_since(bound)
    for entry in entries:
        name = str(entry["name"])
        entry["definition"] = definitions.get(name) or dict(known.get(name, {}))
        meant = fingerprint(entry["definition"])
        entry["fingerprint"], entry["since"] = meant, since.get((name, meant))
    return {
        "format": FORMAT,
        "pipeline": bound.name,
        "feature_fingerprint": bound.features.fingerprint,
        "model": bound.model.name,
        "model_inputs": list(bound.features.names),
        "features": cast("list[Json]", entries),
    }


def show_feature(bound: Bound, name: str) -> dict[str, Json]:
    """One feature's entry.

    Raises:
        DefinitionError: there is none of this name.
    """
    entries = cast("list[dict[str, Json]]", catalogue(bound)["features"])
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise DefinitionError(f"pipeline {bound.name!r} has no feature {name!r}; {did_you_mean(name, [str(each['name']) for each in entries])}")


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Json]:
    """What became of the features from one catalogue to the next: those that came, went, or mean something else now."""
    before = {each["name"]: each for each in old["features"]}
    after = {each["name"]: each for each in new["features"]}
    changed: list[Json] = []
    for name in after:
        if name in before:
            changes = dict(_changes("", before[name]["definition"], after[name]["definition"]))
            changes |= {
                what: [before[name][what], after[name][what]]
                for what in ("unit", "description", "owner", "models")
                if before[name][what] != after[name][what]
            }
            if changes:
                same = before[name]["fingerprint"] == after[name]["fingerprint"]
                changed.append({"name": name, "same_numbers": same, "changes": changes})
    return {
        "old": old["feature_fingerprint"],
        "new": new["feature_fingerprint"],
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "changed": changed,
        "model_inputs": None if old["model_inputs"] == new["model_inputs"] else [old["model_inputs"], new["model_inputs"]],
    }


def catalogue_of(path: Path, which: str | None = None) -> dict[str, Any]:
    """The catalogue of a pipeline file, or one that was saved as JSON.

    Raises:
        DefinitionError: it is neither.
        SchemaError: the pipeline's schema is missing or broken.
    """
    if path.suffix != ".json":
        return dict(catalogue(load_bound(path, which)))
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DefinitionError(f"catalogue {path} can't be read: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or "features" not in found:
        raise DefinitionError(f"{path} is no catalogue; wanted what `millrace features ls --json` prints")
    return found


def _field(bound: Bound, words: FieldWords, column: EventColumn) -> dict[str, Json]:
    return {
        **_blank(bound, column.name, "1" if column.type == "boolean" else column.name),
        "kind": "field",
        "description": words.doc(column.name) or "A field of the event.",
        "owner": words.owner(column.name),
        "fields": [column.name],
    }


def _blank(bound: Bound, name: str, unit: str) -> dict[str, Json]:
    return {
        "name": name,
        "kind": "",
        "unit": unit,
        "description": "",
        "owner": None,
        "entity": None,
        "key": [],
        "window": None,
        "aggregate": None,
        "fields": [],
        "models": [bound.model.name] if name in bound.model.inputs else [],
    }


def _derived(bound: Bound, derived: Derived) -> dict[str, Json]:
    function = getattr(derived.function, "function", derived.function)
    return {
        **_blank(bound, derived.name, "1"),
        "kind": "derived",
        "description": _doc(function) or "A derived column.",
        "owner": FieldWords(bound.schema).owner(None),
        "fields": _read_by(function, bound.columns),
    }


def _window(bound: Bound, said: FieldWords, entity: Entity, window: Window, aggregate: Aggregate, name: str, unit: str) -> dict[str, Json]:
    column = column_of(aggregate)
    words = _first_words(_doc(type(aggregate)))
    if column:
        named = words.replace("a value", column).replace("own value", f"own {column}")
        words = named if named != words else f"{words} of {column}"
    return {
        **_blank(bound, name, unit),
        "kind": "window",
        "description": f"{words}, by {entity.name}, {_span(window)}.",
        "owner": said.owner(column or entity.key_columns[0]),
        "entity": entity.name,
        "key": list(entity.key_columns),
        "window": {"length": duration(window.length_ms), "delay": duration(window.delay_ms) if window.delay_ms else None, **_dict(window)},
        "aggregate": aggregate.word,
        "fields": list(dict.fromkeys((*entity.key_columns, *([column] if column else ())))),
    }


def _dict(window: Window) -> dict[str, Json]:
    return cast("dict[str, Json]", window.describe())


def _span(window: Window) -> str:
    span = f"over the last {duration(window.length_ms)}"
    if window.delay_ms:
        span = f"over {duration(window.length_ms)} that ended {duration(window.delay_ms)} ago"
    elif not window.include_self:
        span += " before the event itself"
    return span if window.grid_ms == 1 else f"{span}, in cells of {duration(window.grid_ms)}"


def _doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _first_words(doc: str) -> str:
    """A docstring up to where its first clause ends."""
    return re.split(r"[.;:](?:\s|$)", doc, maxsplit=1)[0]


def _read_by(function: object, columns: Mapping[str, EventColumn]) -> list[Json]:
    """The fields that a function names."""
    code = getattr(function, "__code__", None)
    return [name for name in columns if code is not None and name in code.co_consts]


def _changes(path: str, old: Any, new: Any) -> Sequence[tuple[str, list[Any]]]:
    """Where two definitions differ, by dotted path."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys((*old, *new))
        return [each for key in keys for each in _changes(f"{path}.{key}" if path else key, old.get(key), new.get(key))]
    return [] if old == new else [(path, [old, new])]


def list_words(facts: Mapping[str, Any]) -> str:
    """The catalogue in words: a line a feature."""
    rows = [("feature", "unit", "entity", "window", "models", "since", "description")]
    for each in facts["features"]:
        window = each["window"]
        span = "" if window is None else window["length"] + (f" -{window['delay']}" if window["delay"] else "")
        rows.append(
            (
                each["name"],
                each["unit"],
                each["entity"] or each["kind"],
                span,
                ", ".join(each["models"]) or "-",
                each["since"] or "-",
                each["description"],
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join((f"pipeline {facts['pipeline']}, features {facts['feature_fingerprint']}", *lines))


def show_words(entry: Mapping[str, Any]) -> str:
    """One feature in words."""
    lines = [f"{entry['name']}: {entry['description']}"]
    for what in ("kind", "unit", "entity", "key", "aggregate", "fields", "owner", "models", "since", "fingerprint"):
        value = entry[what]
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"  {what:12} {text if text not in (None, '') else '-'}")
    if entry["window"] is not None:
        window = entry["window"]
        delay = f", ending {window['delay']} before the event" if window["delay"] else ""
        lines.append(f"  {'window':12} {window['length']}{delay}, resolution {duration(window['grid_ms'])}")
    return "\n".join(lines)


def diff_words(facts: Mapping[str, Any]) -> str:
    """The difference in words."""
    lines = [f"features {facts['old']} -> {facts['new']}" + (": the same numbers" if facts["old"] == facts["new"] else "")]
    lines += [f"+ {name}" for name in facts["added"]]
    lines += [f"- {name}" for name in facts["removed"]]
    for each in facts["changed"]:
        lines.append(f"~ {each['name']}" + (" (words only)" if each["same_numbers"] else ""))
        lines += [f"    {path}: {json.dumps(old)} -> {json.dumps(new)}" for path, (old, new) in each["changes"].items()]
    if facts["model_inputs"] is not None:
        lines.append("the model is given other inputs, or in another order")
    return "\n".join(lines)
