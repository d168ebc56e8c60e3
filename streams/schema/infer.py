"""`millrace schema infer`: a draft schema and draft constraints of data in files or a topic, and what is odd about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import HistoryError, SchemaError
from schemas.features import Json
from schemas.infer import Profile
from schemas.statistics import FieldStatistics
from streams.schema.source import Reading, open_source
from streams.schema.stats import look, write_new

SHOWN_ROWS = 10
_NO_RECORD = ("bad_json", "bad_utf8", "wrong_columns")


def infer_schema(given: list[str], how: Reading, out: Path | None = None, constraints_out: Path | None = None) -> dict[str, Json]:
    """Draft the schema of data; what is no record is counted and left out.

    Args:
        given: files of one kind, or one topic (``kafka:NAME``).
        how: they are read.
        out: where the draft goes; it must not be there yet. None = nowhere.
        constraints_out: where drafted constraints go, likewise.

    Raises:
        SchemaError: the data can't be read, has no record, or a field whose name can't be Avro's.
        SettingsError: a draft can't be written.
    """
    from schemas.constraints_draft import draft_constraints, written

    source = _opened(given, how)
    seen = look(source)
    profile: Profile | None = getattr(source, "profile", None)
    no_records = sum(count for (reason, _), count in seen.troubles.counts.items() if reason in _NO_RECORD)
    constraints = draft_constraints(seen.statistics, f"Drafted from {seen.statistics.rows} rows of {source.name}.")
    if out is not None:
        write_new(out, json.dumps(source.schema.definition, indent=2) + "\n")
    if constraints_out is not None:
        write_new(constraints_out, written(constraints))
    return {
        "file": source.name,
        "records": seen.rows - no_records,
        "no_records": no_records,
        "examples": _examples(seen.troubles.examples),
        "schema": source.schema.definition,
        "out": None if out is None else str(out),
        "fields": profile.fields() if profile is not None else [_told(name, each) for name, each in seen.statistics.fields.items()],
        "rules": [] if profile is None else list(profile.rules()),
        "constraints": constraints,
        "constraints_out": None if constraints_out is None else str(constraints_out),
    }


def _opened(given: list[str], how: Reading) -> Any:
    try:
        return open_source(given, how)
    except HistoryError as error:
        raise SchemaError(str(error)) from error


def _examples(found: Mapping[tuple[str, str], list[tuple[str, str]]]) -> list[Json]:
    shown = [(place, words) for (reason, _), each in found.items() if reason in _NO_RECORD for place, words in each]
    numbered = sorted((int(re.split(r"\D", place)[-1]), words) for place, words in shown)
    return [{"line": number, "words": words} for number, words in numbered[:SHOWN_ROWS]]


def _told(name: str, each: FieldStatistics) -> Json:
    told: dict[str, Json] = {"field": name, "kind": str(each.type), "missing": 0, "null": each.missing, "odd": []}
    if each.numbers.count and each.type.is_number:
        told |= {"low": each.say(each.low), "high": each.say(each.high)}
    elif (values := each.values(21)) and len(values) <= 20:
        told["values"] = [{"value": value, "count": count} for value, count in values]
    return told


def infer_words(facts: Mapping[str, Any]) -> str:
    """A table of fields, what is odd, drafted constraints, and the draft if it went nowhere."""
    from schemas.constraints_draft import written

    lines = [f"{facts['records']:,} records in {facts['file']}; {facts['no_records']:,} rows are none"]
    lines += [f"  line {each['line']}: {each['words']}" for each in facts["examples"]]
    lines.append(f"{'field':32} {'kind':16} {'missing':>9} {'null':>9}  range, values")
    for each in facts["fields"]:
        shown = f"{each['low']} .. {each['high']}" if "low" in each else ", ".join(str(v["value"]) for v in each.get("values", [])[:6])
        lines.append(f"{each['field']:32} {each['kind']:16} {each['missing']:>9,} {each['null']:>9,}  {shown}".rstrip())
        lines += [f"    {odd['values']:,} are {odd['kind']}, first in record {odd['first_row']}" for odd in each["odd"]]
    if facts["rules"]:
        lines += ["rules that all of this meets:", *(f"  {rule}," for rule in facts["rules"])]
    if facts["constraints_out"]:
        lines.append(f"constraints written to {facts['constraints_out']}")
    elif facts["constraints"]["fields"]:
        lines += [
            "constraints that all of this meets (--constraints-out FILE):",
            *_indented(written({"fields": facts["constraints"]["fields"]})),
        ]
    lines.append(f"draft written to {facts['out']}" if facts["out"] else json.dumps(facts["schema"], indent=2))
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.rstrip().splitlines()]
