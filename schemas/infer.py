"""A draft schema from data: what each field of JSON records holds, how often, and the Avro type that most of it fits.

Memory is bounded by the number of fields, not of records: a field keeps counts, its least and greatest number, and a few of its values.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from schemas.avro import AvroSchema
from schemas.errors import SchemaError
from schemas.features import Json

MOST_VALUES = 20  # of a field that are kept apart: more are no domain
LEAST_ROWS_OF_A_DOMAIN = 100
MOST_FIELDS = 2_000
DEEPEST = 20
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONG = range(-(2**63), 2**63)


class Infinite(Exception):
    """A JSON document that says NaN or Infinity, which JSON does not have."""


@dataclass(slots=True)
class Seen:
    """What was seen under one name.

    Attributes:
        kinds: how many values were of which kind: null, boolean, long, double, time, string, array, record.
        low, high: of the numbers.
        values: how often each of the first few different values came; None = there are too many.
        first: by kind, the first row that had it.
        fields: of the records.
        items: of the arrays.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    low: float = math.inf
    high: float = -math.inf
    values: Counter[Any] | None = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)
    fields: dict[str, Seen] = field(default_factory=dict)
    items: Seen | None = None

    @property
    def kind(self) -> str:
        """What most values are; whole numbers count as doubles where there are any, and times as strings likewise."""
        kinds = Counter({kind: count for kind, count in self.kinds.items() if kind != "null"})
        if kinds["double"]:
            kinds["double"] += kinds.pop("long", 0)
        if kinds["string"]:
            kinds["string"] += kinds.pop("time", 0)
        found = [kind for kind, count in kinds.most_common() if count]
        return found[0] if found else "null"

    @property
    def odd(self) -> dict[str, int]:
        """Kinds that are not the one most values are, with their counts: such values would be refused."""
        fits = {"null", self.kind, *({"double": ("long",), "string": ("time",)}.get(self.kind, ()))}
        return {kind: count for kind, count in self.kinds.items() if kind not in fits}


class Profile:
    """Looks at records one by one.

    Raises:
        SchemaError: there are more different fields than any schema should have, or records nested deeper.
    """

    def __init__(self) -> None:
        self.root = Seen()
        self.rows = 0
        self._fields = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Look at one."""
        self.rows += 1
        self._add(self.root, record, self.rows, 0)

    def _add(self, seen: Seen, value: Any, row: int, depth: int) -> None:
        if depth > DEEPEST:
            raise SchemaError(f"row {row}: records are nested more than {DEEPEST} deep")
        kind = _kind(value)
        seen.kinds[kind] += 1
        seen.first.setdefault(kind, row)
        if kind == "record":
            for name, inner in value.items():
                if name not in seen.fields:
                    self._fields += 1
                    if self._fields > MOST_FIELDS:
                        raise SchemaError(
                            f"row {row}: more than {MOST_FIELDS} different fields; the names may be data, as the keys of a map are"
                        )
                    seen.fields[name] = Seen()
                self._add(seen.fields[name], inner, row, depth + 1)
        elif kind == "array":
            seen.items = seen.items or Seen()
            for inner in value:
                self._add(seen.items, inner, row, depth + 1)
        elif kind != "null":
            if kind in ("long", "double"):
                seen.low, seen.high = min(seen.low, value), max(seen.high, value)
            if seen.values is not None:
                seen.values[value] += 1
                if len(seen.values) > MOST_VALUES:
                    seen.values = None

    def schema(self, name: str) -> AvroSchema:
        """The draft: a field that was missing or null anywhere may be null, with that as its default.

        Raises:
            SchemaError: there were no records, or a name can't be Avro's.
        """
        if not self.rows:
            raise SchemaError("no records, no schema")
        return AvroSchema.parse(self._record(self.root, name, ""), f"the draft of {name}")

    def fields(self) -> list[Json]:
        """What was seen of each field, by dotted path."""
        found: list[Json] = []
        self._tell(self.root, "", found)
        return found

    def rules(self) -> list[str]:
        """Rules that all of the data meets, as a pipeline file would have them; a suggestion and no more."""
        found: list[str] = []
        for path, seen, _ in self._leaves(self.root, "", self.root.kinds["record"]):
            if seen.odd or seen.kinds["null"]:
                continue
            if seen.kind == "string" and seen.values is not None and seen.kinds["string"] >= LEAST_ROWS_OF_A_DOMAIN:
                values = ", ".join(json.dumps(value) for value in sorted(seen.values))
                found.append(f'one_of("{path}", ({values}{"," if len(seen.values) == 1 else ""}))')
            elif seen.kind in ("long", "double"):
                found.append(f'in_range("{path}", {seen.low!r}, {seen.high!r})')
        return found

    def _record(self, seen: Seen, name: str, path: str) -> dict[str, Any]:
        fields = []
        for inner_name, inner in seen.fields.items():
            where = f"{path}.{inner_name}".lstrip(".")
            if not NAME.fullmatch(inner_name):
                raise SchemaError(f"field {where!r}: Avro's names are letters, digits and _, and begin with no digit; rename it")
            kind = self._type(inner, f"{name}_{inner_name}", where)
            may_miss = sum(inner.kinds.values()) < seen.kinds["record"] or inner.kinds["null"] > 0
            if kind == "null":
                fields.append({"name": inner_name, "type": ["null", "string"], "default": None})
            elif may_miss:
                fields.append({"name": inner_name, "type": ["null", kind], "default": None})
            else:
                fields.append({"name": inner_name, "type": kind})
        return {"type": "record", "name": name, "fields": fields}

    def _type(self, seen: Seen, name: str, path: str) -> Any:
        if seen.kind == "record":
            return self._record(seen, name, path)
        if seen.kind == "array":
            inner = self._type(seen.items, f"{name}_item", path) if seen.items is not None and seen.items.kind != "null" else "string"
            holds_null = seen.items is not None and seen.items.kinds["null"]
            return {"type": "array", "items": ["null", inner] if holds_null else inner}
        if seen.kind == "time":
            return {"type": "long", "logicalType": "timestamp-millis"}
        return seen.kind

    def _leaves(self, seen: Seen, path: str, rows: int) -> Iterable[tuple[str, Seen, int]]:
        for name, inner in seen.fields.items():
            where = f"{path}.{name}".lstrip(".")
            yield where, inner, rows
            yield from self._leaves(inner, where, inner.kinds["record"])

    def _tell(self, seen: Seen, path: str, found: list[Json]) -> None:
        for where, inner, rows in self._leaves(seen, path, seen.kinds["record"]):
            told: dict[str, Json] = {
                "field": where,
                "kind": inner.kind,
                "missing": rows - sum(inner.kinds.values()),
                "null": inner.kinds["null"],
                "odd": [{"kind": kind, "values": count, "first_row": inner.first[kind]} for kind, count in inner.odd.items()],
            }
            if inner.low <= inner.high:
                told |= {"low": inner.low, "high": inner.high}
            if inner.values is not None and inner.kind in ("string", "long", "boolean", "time"):
                told["values"] = [{"value": value, "count": count} for value, count in inner.values.most_common()]
            found.append(told)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "long" if value in _LONG else "double"
        case float():
            return "double"
        case str():
            return "time" if _is_time(value) else "string"
        case list():
            return "array"
    return "record"


def _is_time(text: str) -> bool:
    """ISO 8601 with a date and a time of day."""
    if not 16 <= len(text) <= 40 or text[4:5] != "-" or text[10:11] not in ("T", " "):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def no_constant(word: str) -> Any:
    """For `json.loads`: NaN and Infinity are no JSON.

    Raises:
        Infinite: always.
    """
    raise Infinite(word)
