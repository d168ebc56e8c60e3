"""`millrace schema stats`: what data was like, field by field, in memory that does not grow with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.columns import Ints, Nullable
from schemas.constraints_check import FieldType, field_types
from schemas.errors import HistoryError, SchemaError, SettingsError
from schemas.features import Json
from schemas.statistics import Statistics, chosen
from streams.schema.source import Rows, Source

SHOWN = 3  # examples of each trouble
MOST_DAYS = 400
_PER_DAY = {"timestamp-millis": 86_400_000, "timestamp-micros": 86_400_000_000, "date": 1}
_PER_DAY |= {f"local-{name}": each for name, each in list(_PER_DAY.items()) if name != "date"}


@dataclass
class Troubles:
    """Rows that can't be read, by reason and field, with a few of each."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    examples: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    unexpected: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """Look at some rows."""
        for row, trouble in rows.troubles.items():
            key = (trouble.reason, trouble.field)
            self.counts[key] = self.counts.get(key, 0) + 1
            shown = self.examples.setdefault(key, [])
            if len(shown) < SHOWN and trouble.words:
                shown.append((rows.place(row), trouble.words))
        for name, count in rows.unexpected.items():
            self.unexpected[name] = self.unexpected.get(name, 0) + count

    def describe(self) -> list[Json]:
        """As facts, most first."""
        return [
            {"reason": reason, "field": name, "rows": count, "examples": [list(each) for each in self.examples[reason, name]]}
            for (reason, name), count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        ]


@dataclass
class Seen:
    """What a source was like: rows read, those that can be used, and what they were like."""

    types: Mapping[str, FieldType]
    rows: int = 0
    statistics: Statistics = field(init=False)
    troubles: Troubles = field(default_factory=Troubles)

    def __post_init__(self) -> None:
        self.statistics = Statistics.of(self.types)

    def add(self, rows: Rows) -> None:
        """Look at some rows."""
        self.rows += len(rows)
        self.troubles.add(rows)
        self.add_columns(rows, rows.usable)

    def add_columns(self, rows: Rows, which: Any) -> None:
        """Look at the columns of some of them."""
        count = int(np.count_nonzero(which))
        columns = rows.columns if count == len(rows) else {name: chosen(column, which) for name, column in rows.columns.items()}
        self.statistics.add(columns, count)


def look(source: Source, progress: Callable[[int], None] = lambda rows: None) -> Seen:
    """Statistics of all of a source.

    Raises:
        HistoryError: it is broken, or holds nothing.
    """
    seen = Seen(field_types(source.schema))
    for rows in source.rows():
        seen.add(rows)
        progress(len(rows))
    if not seen.rows:
        raise HistoryError(f"{source.name} holds no rows")
    return seen


def look_by_day(source: Source, time: str | None) -> tuple[str, dict[int, Statistics], Troubles]:
    """Statistics of each day (UTC), by days since 1970, in order; and which field's days they are.

    Raises:
        HistoryError: it is broken, holds nothing, has no such time, or more days than are looked at.
    """
    types = field_types(source.schema)
    times = [name for name, kind in types.items() if kind.logical in _PER_DAY]
    if time is None and not times:
        raise HistoryError(f"{source.name} has no time to tell days by; wanted --time FIELD, of a timestamp or date")
    name = time or times[0]
    if name not in times:
        raise HistoryError(f"{source.name}: {name!r} is no time; there are {', '.join(times) or 'none'}")
    days: dict[int, Statistics] = {}
    troubles = Troubles()
    for rows in source.rows():
        troubles.add(rows)
        column: Any = rows.columns[name]
        there = rows.usable & column.valid if isinstance(column, Nullable) else rows.usable
        values = column.values if isinstance(column, Nullable) else column
        day: Ints = np.asarray(values, np.int64) // _PER_DAY[str(types[name].logical)]
        for each in np.unique(day[there]).tolist():
            which = there & (day == each)
            if each not in days and len(days) == MOST_DAYS:
                raise HistoryError(f"{source.name} has more than {MOST_DAYS} days; wanted fewer, or statistics of each (--out)")
            statistics = days.setdefault(each, Statistics.of(types))
            statistics.add({path: chosen(c, which) for path, c in rows.columns.items()}, int(np.count_nonzero(which)))
    if not days:
        raise HistoryError(f"{source.name} holds no rows with a {name}")
    return name, dict(sorted(days.items())), troubles


def stats_facts(source: Source, seen: Seen) -> dict[str, Any]:
    """What `stats` prints."""
    return {
        "source": source.name,
        "rows": seen.rows,
        "read": seen.statistics.rows,
        "unreadable": seen.rows - seen.statistics.rows,
        "troubles": seen.troubles.describe(),
        "unexpected": dict(seen.troubles.unexpected),
        "fields": {name: each.describe() for name, each in seen.statistics.fields.items()},
    }


def save(statistics: Statistics, out: Path) -> None:
    """Write statistics to a file that is not there yet.

    Raises:
        SettingsError: it is there, or can't be written.
    """
    write_new(out, json.dumps(statistics.to_json()) + "\n")


def load(file: Path) -> Statistics:
    """Statistics from a file.

    Raises:
        SchemaError: it can't be read, or holds none.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SchemaError(f"statistics {file} can't be read: {error}") from error
    return Statistics.from_json(said, str(file))


def write_new(out: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        SettingsError: it is there, or can't be written.
    """
    try:
        with out.open("x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        raise SettingsError(f"{out} can't be written: {error.strerror}; wanted a file that is not there yet") from error


def stats_words(facts: Mapping[str, Any]) -> str:
    """A table: a line a field."""
    lines = [f"{facts['rows']:,} rows of {facts['source']}; {facts['unreadable']:,} can't be read"]
    lines += trouble_lines(facts["troubles"])
    lines += [f"  {name} is no field of the schema: {count:,} rows have it" for name, count in facts["unexpected"].items()]
    width = max([len(name) for name in facts["fields"]] + [5])
    lines.append(
        f"{'field':{width}}  {'type':16} {'present':>8} {'distinct':>9}  {'low':>19} {'median':>19} {'high':>19} {'mean':>19}  top values"
    )
    lines += [_line(name, each, width) for name, each in facts["fields"].items()]
    return "\n".join(line.rstrip() for line in lines)


def trouble_lines(troubles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows that can't be read, in words."""
    lines = []
    for each in troubles:
        where = f"{each['field']}: " if each["field"] else ""
        lines.append(f"  {where}{each['rows']:,} {each['reason']}")
        lines += [f"    {place}: {words}" for place, words in each["examples"]]
    return lines


def _line(name: str, each: Mapping[str, Any], width: int) -> str:
    measured = next((each[word] for word in ("numbers", "items", "bytes") if word in each), None)
    kind = f"{each['type']}{'' if measured is None or 'numbers' in each else ' (items)' if 'items' in each else ''}"
    line = f"{name:{width}}  {kind:16} {_share(each['presence']):>8} {each.get('distinct', ''):>9}"
    numbers = [""] * 4
    if "numbers" in each or "items" in each:
        assert measured is not None
        numbers = [_short(measured["low"]), _short(measured["quantiles"]["0.5"]), _short(measured["high"]), _short(measured["mean"])]
    top = ", ".join(f"{one['value']} {_share(one['count'] / max(each['rows'], 1))}" for one in each.get("top", [])[:4])
    return f"{line}  {numbers[0]:>19} {numbers[1]:>19} {numbers[2]:>19} {numbers[3]:>19}  {top}"


def _share(value: float) -> str:
    return f"{value:.1%}" if 0.001 <= value <= 0.999 or value in (0, 1) else f"{value:.3%}"


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value[:19] if value[10:11] == "T" else value
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.5g}"
