"""Constraints: what the records of a topic have to be beyond their schema, in one environment.

Two kinds of them, told apart by what they follow from:

- *of a record*: a required value, a range, a domain, a pattern, a number of items, a relation between fields. It follows from the record
  alone, so a worker that reads its log again refuses what it refused before. These become rules (`schemas/constraints_rules.py`).
- *of many records*: a share that has to be present or within a domain, a value that may come once in a while, how old events may be. A
  record is not at fault by itself. These are counted (`schemas/constraints_watch.py`), by a worker as metrics and by
  ``millrace schema validate`` as findings, and refuse nothing.

A null breaks only `presence`: whether a value has to be there is one question, and what it has to be if it is there another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from schemas.features import Json, fingerprint

Value: TypeAlias = str | int | float | bool
End: TypeAlias = int | float | str | None  # of a range: a number, a time in ISO 8601, or open

MEASURES = ("jensen_shannon", "l_infinity", "psi", "presence")
COMPARISONS = ("drift", "skew")
# What a difference has to reach to be told of where the file says nothing. PSI above 0.2 is called a large shift wherever it is used;
# the other two are as large for two halves of one set of ten thousand rows as never happens by chance.
DEFAULT_THRESHOLDS: Mapping[str, float] = {"jensen_shannon": 0.05, "l_infinity": 0.1, "psi": 0.2, "presence": 0.05}


@dataclass(frozen=True, slots=True)
class FieldConstraints:
    """What one field has to be.

    Attributes:
        name: its dotted path.
        presence: the share of records that have a value; 1 = each of them must.
        least_items, most_items: of an array or a map.
        domain: the values there may be.
        domain_share: of the values that are there, how many are in the domain; 1 = each of them must be.
        low, high: both belong to the range; None = open.
        regex: what a text has to match as a whole (`schemas/constraints_pattern.py` has the syntax).
        unique_ms: within so much of event time, a value comes once.
        thresholds: by comparison and measure, where they differ from the file's.
    """

    name: str
    description: str = ""
    presence: float | None = None
    least_items: int | None = None
    most_items: int | None = None
    domain: tuple[Value, ...] | None = None
    domain_share: float = 1.0
    low: End = None
    high: End = None
    regex: str | None = None
    unique_ms: int | None = None
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)

    @property
    def required(self) -> bool:
        """Whether a record without a value is refused."""
        return self.presence == 1

    @property
    def has_range(self) -> bool:
        """Whether there is an end at all."""
        return self.low is not None or self.high is not None


@dataclass(frozen=True, slots=True)
class Relation:
    """What has to hold between fields of a record, such as ``ordered_at <= paid_at`` (`schemas/constraints_relation.py`)."""

    name: str
    holds: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old events may be when they arrive, and how far ahead of their arrival their time may be; None = no matter."""

    within_ms: int | None
    ahead_ms: int | None


@dataclass(frozen=True)
class Constraints:
    """What a file of constraints says for one environment.

    Attributes:
        source: the file, for messages.
        version: its author's, raised with every change that matters.
        owner: whom to ask.
        description: in their words.
        environment: the one this holds in.
        environments: all that the file knows.
        event_time: the field that `unique` and `freshness` go by.
        fields: by dotted path, in the order of the file.
        absent: fields of the schema that this environment does not have, each with those that do.
        defaults: by field, what stands for a value that the writer left out, in place of the schema's default.
        relations: in the order of the file.
        freshness: of events.
        thresholds: by comparison and measure.
    """

    source: str
    version: int
    owner: str
    description: str
    environment: str
    environments: tuple[str, ...]
    event_time: str | None = None
    fields: Mapping[str, FieldConstraints] = field(default_factory=dict)
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    relations: tuple[Relation, ...] = ()
    freshness: Freshness | None = None
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def threshold(self, comparison: str, measure: str, name: str) -> float:
        """What a measure of a field has to stay below: the field's own, else the file's, else the usual."""
        of_field = self.fields[name].thresholds if name in self.fields else {}
        of_file = self.thresholds.get(comparison, {})
        return of_field.get(comparison, {}).get(measure, of_file.get(measure, DEFAULT_THRESHOLDS[measure]))

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides about a record or a comparison: no descriptions, no owner, no version."""
        return fingerprint(self.describe()["holds"])

    def describe(self) -> dict[str, Any]:
        """In full, as JSON."""
        holds: dict[str, Json] = {
            "environment": self.environment,
            "event_time": self.event_time,
            "fields": [_told(each) for each in self.fields.values()],
            "absent": sorted(self.absent),
            "defaults": dict(self.defaults),
            "relations": [[each.name, each.holds] for each in self.relations],
            "freshness": None if self.freshness is None else [self.freshness.within_ms, self.freshness.ahead_ms],
            "thresholds": {name: dict(given) for name, given in self.thresholds.items()},
        }
        about = {"source": self.source, "version": self.version, "owner": self.owner, "description": self.description}
        return {**about, "environments": list(self.environments), "holds": holds}


def no_constraints(environment: str) -> Constraints:
    """Of a topic that nobody wrote any for."""
    return Constraints("", 0, "", "", environment, (environment,))


def _told(given: FieldConstraints) -> dict[str, Json]:
    told: dict[str, Json] = {"field": given.name}
    for name in ("presence", "least_items", "most_items", "low", "high", "regex", "unique_ms"):
        value = getattr(given, name)
        if value is not None:
            told[name] = value
    if given.domain is not None:
        told |= {"domain": list(given.domain), "domain_share": given.domain_share}
    if given.thresholds:
        told["thresholds"] = {name: dict(measures) for name, measures in given.thresholds.items()}
    return told
