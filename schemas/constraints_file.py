"""Files of constraints: ``payments.constraints.yaml``, beside ``payments.avsc``.

    format: 1
    version: 3
    owner: payments@bank.example
    description: What a payment has to be.
    event_time: event_time                      # what unique and freshness go by
    freshness: {within: 2d, ahead: 5m}
    environments:                               # what differs from the rest of the file, by environment
      SERVING: {}
      TRAINING:
        fields: {amount: {range: [0, 100000]}}
    fields:
      payment_id: {presence: required, regex: "P[0-9]+", unique: 1h}
      amount: {range: [0, 50000], drift: {psi: 0.3}}
      currency: {domain: [EUR, CHF]}
      shop: {presence: 0.95, domain: {values: [web, till], share: 0.99}}
      lines: {valency: [1, 20]}
      is_fraud: {environments: [TRAINING], presence: required}
    relations:
      - {name: paid_after_order, holds: ordered_at <= paid_at}
    thresholds:
      drift: {psi: 0.2}

docs/data-checks.md has the words one by one. Whatever is wrong is said in one line, for every environment, wherever the file is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from schemas.avro import AvroSchema
from schemas.constraints import COMPARISONS, MEASURES, Constraints, End, FieldConstraints, Freshness, Relation
from schemas.constraints_check import hold_against
from schemas.environment import NAME, SERVING
from schemas.errors import SchemaError

FORMAT = 1
SUFFIX = ".constraints.yaml"

_TOP = (
    "format", "version", "owner", "description", "event_time", "freshness", "environments", "fields", "relations", "thresholds",
)  # fmt: skip
_FIELD = ("description", "presence", "valency", "domain", "range", "regex", "unique", "environments", "default", *COMPARISONS)
_OVERRIDE = ("fields", "relations", "freshness", "thresholds")
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(\d+)(ms|d|h|m|s)")
_ABSENT = object()


def find_constraints(schema: Path, topic: str | None = None) -> Path | None:
    """The file beside a schema: named for the topic, or as the schema is without its id and ``-value``.

    Raises:
        SchemaError: there are two.
    """
    stem = re.sub(r"^\d+-", "", schema.stem).removesuffix("-value")
    names = dict.fromkeys(name for name in (topic, stem, schema.stem) if name)
    found = [path for name in names if (path := schema.with_name(f"{name}{SUFFIX}")).is_file()]
    if len(found) > 1:
        raise SchemaError(f"{found[0]} and {found[1].name} are both constraints of {schema.name}; wanted one of them")
    return found[0] if found else None


def load_constraints(path: Path, schema: AvroSchema, environment: str = SERVING) -> Constraints:
    """What a file says for an environment, held against the schema it stands beside; all its environments are looked at.

    Raises:
        SchemaError: it is missing, broken, contradicts itself or the schema, or knows no such environment; one line.
    """
    said = _read(path)
    where = str(path)
    known = _environments(said, where)
    if environment not in known:
        raise SchemaError(f"{where}: no environment {environment!r}; {_meant(environment, known)}")
    found = {name: _resolved(said, where, name, known) for name in known}
    for each in found.values():
        hold_against(each, schema)
    return found[environment]


def environments_of(path: Path) -> tuple[str, ...]:
    """The environments that a file knows.

    Raises:
        SchemaError: it is missing or broken.
    """
    return _environments(_read(path), str(path))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), _Once)
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"constraints {path} can't be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SchemaError(f"constraints {path} are no YAML: {' '.join(str(error).split())[:200]}") from error
    given = _Given(str(path), "", said).of(_TOP)
    if given.get("format") != FORMAT:
        raise SchemaError(f"{path}: format {given.get('format')!r}, wanted {FORMAT}")
    version = given.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SchemaError(f"{path}: version {version!r}, wanted a whole number from 1 on, raised with every change")
    for word in ("owner", "description"):
        if not isinstance(given.get(word), str) or not given[word].strip():
            raise SchemaError(f"{path}: {word} is {given.get(word)!r}; wanted it said, since somebody will have to ask")
    return given


def _environments(said: Mapping[str, Any], where: str) -> tuple[str, ...]:
    given = said.get("environments")
    if given is None:
        return ("SERVING", "TRAINING")
    if isinstance(given, list):
        given = {name: {} for name in given} if all(isinstance(each, str) for each in given) else given
    if not isinstance(given, Mapping) or not given or not all(isinstance(name, str) and NAME.fullmatch(name) for name in given):
        raise SchemaError(f"{where}: environments {given!r}, wanted names such as SERVING and TRAINING")
    return tuple(given)


def _resolved(said: Mapping[str, Any], where: str, environment: str, known: Sequence[str]) -> Constraints:
    """The file as one environment has it."""
    given = said.get("environments")
    of_environment = given.get(environment) if isinstance(given, Mapping) else None
    own = _Given(where, f"environments.{environment}", of_environment or {}).of(_OVERRIDE)
    fields = _fields(said, own, where, environment)
    made: dict[str, FieldConstraints] = {}
    absent: dict[str, tuple[str, ...]] = {}
    defaults: dict[str, Any] = {}
    for name, each in fields.items():
        there = each.names("environments", known)
        if there and environment not in there:
            absent[name] = there
            continue
        made[name] = each.constraints()
        if each.get("default", _ABSENT) is not _ABSENT:
            defaults[name] = each.get("default")
    event_time = said.get("event_time")
    if event_time is not None and not isinstance(event_time, str):
        raise SchemaError(f"{where}: event_time {event_time!r}, wanted the name of a field")
    thresholds = {**(said.get("thresholds") or {}), **(own.get("thresholds") or {})}
    return Constraints(
        source=where,
        version=said["version"],
        owner=said["owner"],
        description=said["description"],
        environment=environment,
        environments=tuple(known),
        event_time=event_time,
        fields=made,
        absent=absent,
        defaults=defaults,
        relations=tuple(_relations([*(said.get("relations") or ()), *(own.get("relations") or ())], where)),
        freshness=_freshness(own.get("freshness", said.get("freshness")), where),
        thresholds=_Given(where, "thresholds", thresholds).thresholds(COMPARISONS),
    )


def _fields(said: Mapping[str, Any], own: Mapping[str, Any], where: str, environment: str) -> dict[str, _Field]:
    base = _mapping(said.get("fields"), where, "fields")
    more = _mapping(own.get("fields"), where, f"environments.{environment}.fields")
    merged: dict[str, _Field] = {}
    for name in dict.fromkeys((*base, *more)):
        if not isinstance(name, str):
            raise SchemaError(f"{where}: fields has {name!r}, wanted the name of a field")
        at = f"fields.{name}"
        merged[name] = _Field(where, at, {**_mapping(base.get(name), where, at), **_mapping(more.get(name), where, at)}, name)
    return merged


def _mapping(given: Any, where: str, at: str) -> Mapping[Any, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise SchemaError(f"{where}: {at} is {given!r}, wanted words and what they hold")
    return given


def _relations(given: Sequence[Any], where: str) -> Iterable[Relation]:
    names: set[str] = set()
    for number, each in enumerate(given):
        said = _Given(where, f"relations[{number}]", each).of(("name", "holds", "description"))
        name, holds = said.get("name"), said.get("holds")
        if not isinstance(name, str) or not name.isidentifier():
            raise SchemaError(f"{where}: relations[{number}] has name {name!r}, wanted a word, since it becomes a metric label")
        if not isinstance(holds, str):
            raise SchemaError(f"{where}: relation {name} holds {holds!r}, wanted one such as 'ordered_at <= paid_at'")
        if name in names:
            raise SchemaError(f"{where}: two relations are named {name!r}")
        names.add(name)
        yield Relation(name, holds, str(said.get("description", "")))


def _freshness(given: Any, where: str) -> Freshness | None:
    if given is None:
        return None
    said = _Given(where, "freshness", given).of(("within", "ahead"))
    within, ahead = (
        None if said.get(word) is None else _duration(said[word], f"{where}: freshness.{word}") for word in ("within", "ahead")
    )
    if within is None and ahead is None:
        raise SchemaError(f"{where}: freshness says nothing; wanted within: or ahead:")
    return Freshness(within, ahead)


@dataclass(frozen=True)
class _Given:
    """A part of the file: what it says, and where it stands."""

    where: str
    at: str
    said: Any

    def of(self, words: Sequence[str]) -> Mapping[str, Any]:
        """The mapping it has to be, with these words and no others."""
        if not isinstance(self.said, Mapping):
            raise self.wrong(f"is {self.said!r}, wanted words such as {', '.join(words[:3])}")
        for word in self.said:
            if word not in words:
                raise self.wrong(f"has {word!r}; {_meant(str(word), words)}")
        return self.said

    def thresholds(self, comparisons: Sequence[str]) -> dict[str, dict[str, float]]:
        """By comparison and measure."""
        found = {}
        for comparison, given in self.of(comparisons).items():
            measures = replace(self, at=f"{self.at}.{comparison}", said=given)
            found[comparison] = {name: measures.number(name, value) for name, value in measures.of(MEASURES).items()}
        return found

    def number(self, word: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.wrong(f"has {word} {value!r}, wanted a number of 0 or more")
        return float(value)

    def wrong(self, words: str) -> SchemaError:
        return SchemaError(f"{self.where}: {self.at} {words}" if self.at else f"{self.where} {words}")


@dataclass(frozen=True)
class _Field(_Given):
    """What is said of one field."""

    name: str = ""

    def get(self, word: str, otherwise: Any = None) -> Any:
        return self.of(_FIELD).get(word, otherwise)

    def names(self, word: str, known: Sequence[str]) -> tuple[str, ...]:
        given = self.get(word)
        if given is None:
            return ()
        if not isinstance(given, list) or not given:
            raise self.wrong(f"has {word} {given!r}, wanted a list of some of {', '.join(known)}")
        for each in given:
            if each not in known:
                raise self.wrong(f"names environment {each!r}; {_meant(str(each), known)}")
        return tuple(given)

    def constraints(self) -> FieldConstraints:
        domain, share = self._domain()
        low, high = self._pair("range")
        least, most = self._pair("valency")
        for items in (least, most):
            if items is not None and (not isinstance(items, int) or isinstance(items, bool) or items < 0):
                raise self.wrong(f"has valency {self.get('valency')!r}, wanted the least and the most number of items")
        regex, unique = self.get("regex"), self.get("unique")
        if regex is not None and not isinstance(regex, str):
            raise self.wrong(f"has regex {regex!r}, wanted a text in quotes")
        said = {name: self.get(name) for name in COMPARISONS if self.get(name) is not None}
        return FieldConstraints(
            self.name,
            str(self.get("description", "")),
            self._presence(),
            least,
            most,
            domain,
            share,
            _end(low),
            _end(high),
            regex,
            None if unique is None else _duration(unique, f"{self.where}: {self.at}.unique"),
            replace(_Given(self.where, self.at, said)).thresholds(COMPARISONS),
        )

    def _presence(self) -> float | None:
        given = self.get("presence")
        if given is None:
            return None
        if given == "required":
            return 1.0
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
            raise self.wrong(f"has presence {given!r}, wanted 'required', or a share from 0 to 1")
        return float(given)

    def _domain(self) -> tuple[tuple[Any, ...] | None, float]:
        given = self.get("domain")
        if given is None:
            return None, 1.0
        share: Any = 1.0
        if isinstance(given, Mapping):
            said = replace(_Given(self.where, f"{self.at}.domain", given)).of(("values", "share"))
            given, share = said.get("values"), said.get("share", 1.0)
        if not isinstance(given, list) or not given or not all(isinstance(each, str | int | float) for each in given):
            raise self.wrong(f"has domain {given!r}, wanted a list of values")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise self.wrong(f"has a domain's share {share!r}, wanted more than 0 and at most 1")
        return tuple(dict.fromkeys(given)), float(share)

    def _pair(self, word: str) -> tuple[Any, Any]:
        given = self.get(word)
        if given is None:
            return None, None
        if not isinstance(given, list) or len(given) != 2 or given == [None, None]:
            raise self.wrong(f"has {word} {given!r}, wanted two ends, such as [0, 100] or [0, null]")
        for each in given:
            if each is not None and (isinstance(each, bool) or not isinstance(each, int | float | str | date)):
                raise self.wrong(f"has {word} {given!r}, wanted numbers, times or null")
            if isinstance(each, float) and not math.isfinite(each):
                raise self.wrong(f"has {word} {given!r}, wanted null for an open end")
        return given[0], given[1]


def _end(given: Any) -> End:
    return given.isoformat() if isinstance(given, date | datetime) else given


def _duration(text: Any, at: str) -> int:
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) == 0:
        raise SchemaError(f"{at} is {text!r}, wanted a number with d, h, m, s or ms, such as 2d")
    return int(found[1]) * _UNITS_MS[found[2]]


def _meant(wrong: str, known: Sequence[str]) -> str:
    close = get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


class _Once(yaml.SafeLoader):
    """YAML in which a word stands once: the second of two would hide the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: {key!r} stands twice")
            seen.add(key if isinstance(key, str | int | float | bool) else id(key_node))
        return super().construct_mapping(node, deep)
