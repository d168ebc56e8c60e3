"""`millrace schema validate`: data held against its schema and its constraints, as a worker would hold it.

    rows = passed + refused, and refused = the sum of its reasons

A finding is what is wrong, where, in how many rows, with a few of them. Findings of a record say how many rows break it, each row in every
finding it belongs to; `refused` counts a row once, under the reason its dead letter would have. Constraints of many records look at
those that pass, as a worker's metrics do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Mask, PackedBytes
from schemas.compare import same_text
from schemas.constraints import Constraints
from schemas.constraints_check import FieldType, field_types
from schemas.constraints_patch import patch
from schemas.constraints_rules import constraint_rules
from schemas.constraints_watch import Watch
from schemas.environment import refuse_mix_up
from schemas.errors import HistoryError, SchemaError
from schemas.features import Json
from schemas.reject import Reject, label
from schemas.rules import Rule, check
from schemas.statistics import Statistics
from streams.definition.bound import EventTime
from streams.definition.inlet import Inlet
from streams.offline.build import MANIFEST
from streams.schema.diff import Comparison, compare, findings_of
from streams.schema.source import Rows, Source
from streams.schema.stats import SHOWN, Seen

_UNREAD = 1
MOST_NEW_VALUES = 20  # of a domain that are suggested


@dataclass(frozen=True)
class Against:
    """What data is held against.

    Attributes:
        what: in words.
        rules: of a record, in order.
        constraints: of many records; None = there are none.
        event_time: where a pipeline says so, the column that rules see in milliseconds.
        key: likewise, the field whose text a record's key has to be.
    """

    what: str
    rules: tuple[Rule, ...]
    constraints: Constraints | None
    event_time: EventTime | None = None
    key: str | None = None

    @classmethod
    def of(cls, types: Mapping[str, FieldType], constraints: Constraints | None, schema: str) -> Against:
        """A schema and its constraints."""
        if constraints is None:
            return cls(schema, (), None)
        what = f"{constraints.source} version {constraints.version} ({constraints.environment})"
        return cls(what, constraint_rules(constraints, types), constraints)

    @classmethod
    def of_pipeline(cls, inlet: Inlet) -> Against:
        """All that a pipeline asks of its events, or of its labels."""
        read = inlet.read
        return cls(inlet.words, read.rules, read.constraints, read.event_time, read.key)


@dataclass
class _Finding:
    """What was found under one name."""

    what: str
    where: str
    words: str
    rows: int = 0
    of: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def describe(self, rows: int) -> dict[str, Json]:
        of = self.of or rows
        examples: list[Json] = [list(each) for each in self.examples]
        share = self.rows / of if of else 0.0
        return {"what": self.what, "field": self.where, "rows": self.rows, "share": share, "words": self.words, "examples": examples}


class Validation:
    """Holds data against what is asked of it, some rows at a time.

    Args:
        types: of the schema's columns.
        against: what is asked.
    """

    def __init__(self, types: Mapping[str, FieldType], against: Against) -> None:
        self._types, self._against = types, against
        self.seen = Seen(types)
        self.refused: Counter[str] = Counter()
        self._broken: dict[str, _Finding] = {}
        in_ms = () if against.event_time is None else (against.event_time.column,)
        self._watch = None if against.constraints is None else Watch(against.constraints, types, in_ms)
        self._watched: dict[str, _Finding] = {}
        self.not_looked_at: list[str] = []

    def add(self, rows: Rows) -> None:
        """Look at some rows."""
        self.seen.add(rows)
        columns = dict(rows.columns)
        time = self._against.event_time
        if time is not None:
            columns[time.column] = time.to_ms(columns[time.column])
        unread = np.where(rows.usable, 0, _UNREAD).astype(np.uint8)
        self._check_keys(rows, columns, unread)
        codes = check(self._against.rules, columns, unread)
        self.refused.update(trouble.reason for trouble in rows.troubles.values())
        names = [rule.name for rule in self._against.rules]
        for code, count in enumerate(np.bincount(codes).tolist()):
            if code != _UNREAD and code and count:
                self.refused[label(code, names)] += count
        for rule in self._against.rules:
            broken = rows.usable & ~rule.holds(columns)
            if broken.any():
                found = self._broken.setdefault(rule.name, _Finding(rule.name, ", ".join(rule.columns), f"wanted {rule.wanted}"))
                self._note(found, broken, rows, lambda row, rule=rule: rule.explain(columns, row))
        self._look(rows, columns, np.asarray(codes == 0))

    def _check_keys(self, rows: Rows, columns: Mapping[str, Any], codes: NDArray[np.uint8]) -> None:
        """Records whose key is missing, or not the text of its field: a worker refuses these before it looks at any rule."""
        if self._against.key is None or rows.keys is None:
            return
        absent = np.array([key is None for key in rows.keys], np.bool_)
        other = ~absent & ~same_text(PackedBytes.pack([key or b"" for key in rows.keys]), columns[self._against.key])
        for broken, reject, words in (
            (absent, Reject.NULL_KEY, "the record has no key"),
            (other, Reject.KEY_MISMATCH, "its key says otherwise"),
        ):
            broken = broken & rows.usable
            codes[broken] = reject
            if broken.any():
                found = self._broken.setdefault(reject.label, _Finding(reject.label, self._against.key, words))
                self._note(found, broken, rows, lambda row: "")

    def _look(self, rows: Rows, columns: Mapping[str, Any], passed: Mask) -> None:
        if self._watch is None or self._watch.is_empty:
            return
        if self._watch.constraints.freshness is not None and rows.arrived_ms is None and not self.not_looked_at:
            self.not_looked_at.append("freshness: a file does not say when its records arrived")
        for name, watched in self._watch.look(columns, passed, rows.arrived_ms).items():
            found = self._watched.setdefault(name, _Finding(name, self._watch.fields[name], ""))
            found.of += watched.looked
            if watched.broken.any():
                self._note(found, watched.broken, rows, lambda row: "")

    def _note(self, found: _Finding, broken: Any, rows: Rows, explain: Any) -> None:
        found.rows += int(np.count_nonzero(broken))
        for row in np.flatnonzero(broken)[: SHOWN - len(found.examples)].tolist():
            found.examples.append((rows.place(row), explain(row)))

    def findings(self) -> list[dict[str, Json]]:
        """What is wrong, most rows first; then what is wrong with all of them together."""
        rows = self.seen.rows
        troubles = []
        for (reason, name), count in self.seen.troubles.counts.items():
            told = _Finding(reason, name, "can't be read", count, examples=list(self.seen.troubles.examples[reason, name]))
            troubles.append(told)
        found = [each.describe(rows) for each in sorted([*troubles, *self._broken.values()], key=lambda each: (-each.rows, each.what))]
        for name, count in self.seen.troubles.unexpected.items():
            found.append(_Finding("unexpected_field", name, "the schema does not know it", count).describe(rows))
        if self._watch is not None:
            for name, words in self._watch.broken().items():
                self._watched[name].words = words
                found.append(self._watched[name].describe(rows))
        return found

    @property
    def statistics(self) -> Statistics:
        """Of the rows that can be read."""
        return self.seen.statistics


def validate(source: Source, against: Against, baseline: tuple[str, Statistics] | None, comparison: Comparison) -> dict[str, Any]:
    """Hold a source against what is asked of it, and against what data was like before.

    Raises:
        HistoryError: it is broken, or holds nothing.
    """
    types = field_types(source.schema)
    run = Validation(types, against)
    for rows in source.rows():
        run.add(rows)
    if not run.seen.rows:
        raise HistoryError(f"{source.name} holds no rows")
    findings = run.findings()
    comparisons: list[dict[str, Any]] = []
    if baseline is not None:
        comparisons = compare(baseline[1], run.statistics, against.constraints, comparison)
        findings += [finding for each in comparisons for finding in findings_of(each, comparison)]
    refused = sum(run.refused.values())
    constraints = against.constraints
    suggested = (
        "" if constraints is None else patch(Path(constraints.source), constraints.environment, _changes(constraints, findings, run))
    )
    return {
        "source": source.name,
        "against": against.what,
        "rows": run.seen.rows,
        "passed": run.seen.rows - refused,
        "refused": refused,
        "reasons": dict(sorted(run.refused.items(), key=lambda item: (-item[1], item[0]))),
        "findings": findings,
        "not_looked_at": run.not_looked_at,
        "baseline": None if baseline is None else baseline[0],
        "comparisons": comparisons,
        "patch": suggested,
        "statistics": {name: each.describe() for name, each in run.statistics.fields.items()},
    }


def refuse(facts: Mapping[str, Any]) -> None:
    """End with the exit code of data that is not as it should be.

    Raises:
        SchemaError: there is a finding.
    """
    if facts["findings"]:
        raise SchemaError(f"{facts['source']}: {len(facts['findings'])} findings, {facts['refused']:,} of {facts['rows']:,} rows refused")


def check_environment(given: Sequence[str], environment: str) -> None:
    """Data that says of which environment it is (`millrace features` does) is held against no other's constraints.

    Raises:
        DefinitionError: it would be.
    """
    for each in given:
        for folder in (Path(each), *Path(each).parents[:2]):
            if (folder / MANIFEST).is_file():
                said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                refuse_mix_up(said.get("environment"), environment, str(folder))
                break


def _changes(constraints: Constraints, findings: Sequence[Mapping[str, Any]], run: Validation) -> dict[tuple[str, str], Any]:
    """What the constraints would have to say for the data to pass, where that can be said."""
    found = {each["what"] for each in findings}
    changes: dict[tuple[str, str], Any] = {}
    for name, each in constraints.fields.items():
        word, seen = name.replace(".", "_"), run.statistics.fields[name]
        if f"{word}_range" in found:
            whole = seen.type.kind in ("int", "long") and not seen.is_time
            low, high = (int(end) if whole else seen.say(end) for end in (seen.low, seen.high))
            wider = _wider(each.low, each.high, low, high)
            if wider is not None:
                changes[name, "range"] = wider
        if f"{word}_domain" in found or f"{word}_domain_share" in found:
            known = list(each.domain or ())
            new = [value for value, _ in seen.values() if value not in map(str, known)]
            if 0 < len(new) <= MOST_NEW_VALUES and seen.type.kind == "string":
                changes[name, "domain"] = [*known, *new]
        if f"{word}_presence" in found or f"{word}_presence_share" in found:
            changes[name, "presence"] = max(int(seen.presence * 100 - 1) / 100, 0.0)
        if f"{word}_valency" in found:
            most = None if each.most_items is None else max(each.most_items, int(seen.high))
            changes[name, "valency"] = [min(each.least_items or 0, int(seen.low)), most]
    return changes


def _wider(low: Any, high: Any, seen_low: Any, seen_high: Any) -> list[Any] | None:
    """A range that has room for what was seen; None if that is no number."""
    ends = []
    for end, seen, pick in ((low, seen_low, min), (high, seen_high, max)):
        if end is not None and type(end) is not type(seen) and not (isinstance(end, int | float) and isinstance(seen, int | float)):
            return None
        ends.append(None if end is None else pick(end, seen))
    return ends


def validate_words(facts: Mapping[str, Any]) -> str:
    """The account, and a table of findings."""
    lines = [
        f"{facts['source']} against {facts['against']}",
        f"{facts['rows']:,} rows = {facts['passed']:,} pass + {facts['refused']:,} refused",
        *(f"  {count:,} {reason}" for reason, count in facts["reasons"].items()),
    ]
    findings = facts["findings"]
    lines += [f"not looked at: {each}" for each in facts["not_looked_at"]]
    if findings:
        width = max(len(each["what"]) for each in findings)
        where = max(len(each["field"]) for each in findings)
        lines.append(f"{'what':{width}}  {'where':{where}}  {'rows':>9}  {'share':>8}  found")
        for each in findings:
            rows = "" if each["rows"] is None else f"{each['rows']:,}"
            share = "" if each["share"] is None else f"{each['share']:.3%}"
            lines.append(f"{each['what']:{width}}  {each['field']:{where}}  {rows:>9}  {share:>8}  {each['words']}")
            lines += [f"    {place}{': ' if words else ''}{words}" for place, words in each["examples"]]
    else:
        lines.append("nothing is wrong")
    if facts["patch"]:
        lines += ["a change that this data would pass with; right only if the data is:", facts["patch"].rstrip()]
    return "\n".join(line.rstrip() for line in lines)
