"""`millrace schema infer`: a draft schema of a file of JSON lines, and what is odd about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from schemas.errors import SchemaError, SettingsError
from schemas.features import Json
from schemas.infer import Infinite, Profile, no_constant

SHOWN_LINES = 10


def infer_schema(file: Path, name: str, out: Path | None, limit: int | None) -> dict[str, Json]:
    """Draft the schema of a file's records; lines that are no records are counted and left out.

    Args:
        file: JSON lines.
        name: of the record, with its namespace.
        out: where the draft goes; it must not be there yet. None = nowhere.
        limit: look at the first lines only.

    Raises:
        SchemaError: the file can't be read, has no record, or a field whose name can't be Avro's.
        SettingsError: the draft can't be written.
    """
    profile, count = Profile(), 0
    broken: list[Json] = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(islice(lines, limit), 1):
                if not line.strip():
                    continue
                trouble = _look(profile, line)
                if trouble:
                    count += 1
                    if len(broken) < SHOWN_LINES:
                        broken.append({"line": number, "words": trouble})
    except OSError as error:
        raise SchemaError(f"records {file} can't be read: {error.strerror}") from error
    schema = profile.schema(name)
    if out is not None:
        try:
            with out.open("x", encoding="utf-8") as target:
                target.write(json.dumps(schema.definition, indent=2) + "\n")
        except OSError as error:
            raise SettingsError(f"{out} can't be written: {error.strerror}; wanted a file that is not there yet") from error
    return {
        "file": str(file),
        "records": profile.rows,
        "no_records": count,
        "examples": broken,
        "schema": schema.definition,
        "out": None if out is None else str(out),
        "fields": profile.fields(),
        "rules": list(profile.rules()),
    }


def _look(profile: Profile, line: bytes) -> str:
    """Look at a line; why it is no record, if it is none."""
    try:
        record = json.loads(line, parse_constant=no_constant)
    except Infinite as error:
        return f"{error} is no number of JSON's"
    except UnicodeDecodeError as error:
        return f"no UTF-8: byte {error.start} is {line[error.start]:#04x}"
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    if not isinstance(record, dict):
        return f"{type(record).__name__}, wanted an object"
    profile.add(record)
    return ""


def infer_words(facts: Mapping[str, Any]) -> str:
    """A table of fields, what is odd, suggested rules, and the draft if it went nowhere."""
    lines = [f"{facts['records']:,} records in {facts['file']}; {facts['no_records']:,} lines are none"]
    lines += [f"  line {each['line']}: {each['words']}" for each in facts["examples"]]
    lines.append(f"{'field':32} {'kind':8} {'missing':>9} {'null':>9}  range, values")
    for each in facts["fields"]:
        shown = f"{each['low']} .. {each['high']}" if "low" in each else ", ".join(str(v["value"]) for v in each.get("values", [])[:6])
        lines.append(f"{each['field']:32} {each['kind']:8} {each['missing']:>9,} {each['null']:>9,}  {shown}".rstrip())
        lines += [f"    {odd['values']:,} are {odd['kind']}, first in record {odd['first_row']}" for odd in each["odd"]]
    if facts["rules"]:
        lines += ["rules that all of this meets:", *(f"  {rule}," for rule in facts["rules"])]
    lines.append(f"draft written to {facts['out']}" if facts["out"] else json.dumps(facts["schema"], indent=2))
    return "\n".join(lines)
