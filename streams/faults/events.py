"""Events made up for any pipeline from a seed: values as its schema and rules ask for, keys that come again, some late, some broken.

What they say is of no matter to the checker, which reads them from the topic; they should only be many, alike to real ones, and bad now and
then in every way that a record can be bad.
"""

from __future__ import annotations

import io
import random
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro

from schemas.avro import Array, AvroType, Enum, Fixed, Map, Primitive, Record, Union
from schemas.framing import Framing
from schemas.rules import Rule
from streams.definition.bound import Bound
from streams.definition.event_columns import EventColumn
from transforms.fixed_point import FixedPoint

START_MS = 1_704_067_200_000
STEP_MS = 7_000  # of event time, from one event to the next
HOUR_MS = 3_600_000
LATE_MS = (1_000, 60_000, 1_800_000, 2 * HOUR_MS, 5 * HOUR_MS)
WORDS = ("a", "bc", "def", "ghij", "klmno")
NULL_SHARE = 0.05
LABELLED_SHARE = 0.3
LABEL_DELAY = 200  # events

Sent = tuple[bytes | None, bytes | None]  # key and value


@dataclass
class Events:
    """A stream of records for a pipeline's input, and for its labels if it has some.

    Args:
        bound: the pipeline.
        schema_id: the input's; `label_schema_id` the labels'.
        keys: how many different values a key has.
        broken_share: of records that can't be used.
    """

    bound: Bound
    seed: int
    schema_id: int
    label_schema_id: int = 0
    keys: int = 500
    broken_share: float = 0.02
    label_waits: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)
    count: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._schema = fastavro.parse_schema(_definition(self.bound.schema.definition))
        labels = self.bound.labels
        self._label_schema = None if labels is None else fastavro.parse_schema(_definition(labels.schema.definition))
        entities = self.bound.pipeline.entities
        self._key_columns = {self.bound.key, *(name for entity in entities for name in entity.key_columns)}
        self._label_keys = {name for entity in entities if entity.has_labels for name in entity.key_columns}
        self._amounts = {a.value.column: a.value for entity in entities for a in entity.aggregates if isinstance(a.value, FixedPoint)}
        self._ranges, self._choices = _asked_for(self.bound.rules)

    def event(self, *, broken: bool | None = None, schema_id: int | None = None) -> Sent:
        """The next record of the input."""
        number, chance = self.count, self._chance
        self.count += 1
        said = self._record(number)
        key = _text(_value_at(said, self.bound.key))
        value = self._framed(self._schema, said, self.schema_id if schema_id is None else schema_id, self.bound.input.framing)
        if broken if broken is not None else chance.random() < self.broken_share:
            return self._broken(key, value)
        if self.bound.labels is not None and chance.random() < LABELLED_SHARE:
            self.label_waits.append((number + chance.randrange(1, LABEL_DELAY), said))
        return key, value

    def labels(self) -> list[Sent]:
        """Labels that are due by now; some come again, some are for nobody."""
        found: list[Sent] = []
        while self.label_waits and self.label_waits[0][0] <= self.count:
            _, event = self.label_waits.popleft()
            for _ in range(self._chance.choice((1, 1, 1, 2))):
                found.append(self._label(event))
        return found

    def _label(self, event: Mapping[str, Any]) -> Sent:
        labels = self.bound.labels
        assert labels is not None
        said = self._fields(labels.schema.root, "", self.count, labels.columns, labels.event_time.column, labels.event_id)
        for name in self._label_keys:
            _put(said, name, _value_at(event, name))
        unknown = self._chance.random() < 0.02
        event_id = f"nobody-{self.count}" if unknown else _value_at(event, self.bound.event_id)
        _put(said, labels.event_id, event_id)
        _put(said, labels.event_time.column, _value_at(event, self.bound.event_time.column))
        value = self._chance.randrange(2)
        _put(said, labels.value, bool(value) if labels.columns[labels.value].type == "boolean" else value)
        key = _text(_value_at(said, labels.key))
        sent = self._framed(self._label_schema, said, self.label_schema_id, labels.topic.framing)
        return (key, sent[:-1]) if self._chance.random() < self.broken_share else (key, sent)

    def _record(self, number: int) -> dict[str, Any]:
        bound = self.bound
        made = self._fields(bound.schema.root, "", number, bound.columns, bound.event_time.column, bound.event_id)
        return dict(made)

    def _fields(
        self, kind: AvroType, path: str, number: int, columns: Mapping[str, EventColumn], event_time: str, event_id: str
    ) -> dict[str, Any]:
        assert isinstance(kind, Record)
        said: dict[str, Any] = {}
        for each in kind.fields:
            name = f"{path}{each.name}"
            inner = each.type.nullable if isinstance(each.type, Union) and each.type.nullable is not None else each.type
            if isinstance(inner, Record):
                said[each.name] = self._fields(inner, f"{name}.", number, columns, event_time, event_id)
            elif name == event_time:
                units = 1_000 if columns[name].logical == "timestamp-micros" else 1
                late_ms = self._chance.choice(LATE_MS) if self._chance.random() < 0.05 else 0
                said[each.name] = (START_MS + number * STEP_MS - late_ms) * units
            elif name == event_id:
                said[each.name] = f"e{number}"
            elif columns[name].nullable and name != self.bound.key and self._chance.random() < NULL_SHARE:
                said[each.name] = None
            else:
                said[each.name] = self._value(name, inner)
        return said

    def _value(self, name: str, kind: AvroType) -> Any:
        chance = self._chance
        if name in self._choices:
            return chance.choice(self._choices[name])
        if name in self._amounts:
            return self._amount(self._amounts[name], kind, *self._ranges.get(name, (None, None)))
        if name in self._key_columns:
            number = min(int(chance.expovariate(3.0 / self.keys)), self.keys)  # some come often, most now and then
            if kind.kind in ("int", "long"):
                return number
            if not isinstance(kind, Fixed | Enum):
                return f"{name[:1].upper()}{number}" if kind.kind == "string" else f"{number}".encode()
        return self._any(kind, self._ranges.get(name))

    def _amount(self, amount: FixedPoint, kind: AvroType, low: float | None, high: float | None) -> Any:
        least = max(-amount.largest, low if low is not None else -amount.largest)
        most = min(amount.largest, high if high is not None else amount.largest, least + 1_000)
        units = self._chance.randint(int(least * amount.scale), int(most * amount.scale))
        return units // amount.scale if kind.kind in ("int", "long") else units / amount.scale

    def _any(self, kind: AvroType, span: tuple[float, float] | None = None) -> Any:
        chance = self._chance
        low, high = span or (0, 100)
        match kind:
            case Enum(symbols=symbols):
                return chance.choice(symbols)
            case Fixed(size_bytes=size):
                return bytes(chance.randrange(1, 100) for _ in range(size))
            case Array(items=items):
                return [self._any(items) for _ in range(chance.randrange(1, 4))]
            case Map(values=values):
                return {word: self._any(values) for word in chance.sample(WORDS, 2)}
            case Union(branches=branches):
                return self._any(chance.choice([each for each in branches if each.kind != "null"] or branches))
            case Record(fields=fields):
                return {each.name: self._any(each.type) for each in fields}
            case Primitive(kind="boolean"):
                return chance.random() < 0.5
            case Primitive(kind="int" | "long"):
                return chance.randint(max(int(low), -1 << 30), min(int(high), 1 << 30))
            case Primitive(kind="float" | "double"):
                return chance.randint(max(int(low), -1 << 20), min(int(high), 1 << 20)) / 1.0
            case Primitive(kind="bytes"):
                return bytes([chance.randrange(1, 100)])
            case Primitive(kind="string"):
                return chance.choice(WORDS)
        return None

    def _framed(self, schema: Any, said: Mapping[str, Any], schema_id: int, framing: Framing) -> bytes:
        out = io.BytesIO()
        if framing == "confluent":
            out.write(b"\0" + struct.pack(">i", schema_id))
        fastavro.schemaless_writer(out, schema, dict(said))
        return out.getvalue()

    def _broken(self, key: bytes | None, value: bytes) -> Sent:
        """A record that nothing can be made of, in one of the ways that producers find."""
        ways: Sequence[Sent] = (
            (key, None),
            (key, b""),
            (key, value[: self._chance.randrange(1, len(value))]),
            (key, value + b"\0"),
            (None, value),
            (b"nobody's key", value),
            (key, b"\0\x7f\xff\xff\xff" + value[5:]) if self.bound.input.framing == "confluent" else (key, b"\xff" * 12),
        )
        return self._chance.choice(ways)


def _asked_for(rules: Sequence[Rule]) -> tuple[dict[str, tuple[float, float]], dict[str, list[Any]]]:
    """What the rules of known kinds ask of columns: ranges, and values to choose from."""
    ranges: dict[str, tuple[float, float]] = {}
    choices: dict[str, list[Any]] = {}
    for rule in rules:
        match rule.definition:
            case ["in_range", str(name), int() | float() as low, int() | float() as high]:
                before = ranges.get(name, (low, high))
                ranges[name] = max(low, before[0]), min(high, before[1])
            case ["one_of", str(name), list(values)]:
                choices[name] = values
    return ranges, choices


def _definition(definition: Any) -> Any:
    """Without logical types: values are written as they travel."""
    if isinstance(definition, dict):
        return {name: _definition(each) for name, each in definition.items() if name != "logicalType"}
    return [_definition(each) for each in definition] if isinstance(definition, list) else definition


def _value_at(said: Mapping[str, Any], name: str) -> Any:
    value: Any = said
    for part in name.split("."):
        value = None if value is None else value[part]
    return value


def _put(said: dict[str, Any], name: str, value: Any) -> None:
    *parts, last = name.split(".")
    for part in parts:
        said = said[part]
    said[last] = value


def _text(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()
