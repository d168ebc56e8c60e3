"""Constraints held against their schema, and against each other: what can't be meant is said in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

from schemas.avro import AvroSchema, AvroType, Enum, Field, Record, Union
from schemas.constraints import Constraints, End, FieldConstraints, Value
from schemas.constraints_pattern import BadPattern, compile_pattern
from schemas.constraints_relation import BadRelation, Comparison, Expression, is_field, is_text, name_of, parse_relation
from schemas.default import encode_default
from schemas.errors import SchemaError
from schemas.layout import is_covered, is_small_decimal

_NUMBERS = ("int", "long", "float", "double", "decimal")
_STAMPS_PER_MS = {"timestamp-millis": 1, "timestamp-micros": 1_000, "local-timestamp-millis": 1, "local-timestamp-micros": 1_000}


@dataclass(frozen=True, slots=True)
class FieldType:
    """A column of a schema as constraints see it.

    Attributes:
        kind: of the Avro value without its null; ``decimal`` for a column of unscaled integers, ``opaque`` for what no column holds.
        logical: its logical type.
        scale: of a decimal.
        symbols: of an enum.
        nullable: whether a row may be null.
    """

    kind: str
    logical: str | None = None
    scale: int = 0
    symbols: tuple[str, ...] = ()
    nullable: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it has an order and can be computed with."""
        return self.kind in _NUMBERS

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.kind in ("string", "enum")

    def __str__(self) -> str:
        return self.logical if self.logical and self.logical != "decimal" else self.kind


def field_types(schema: AvroSchema) -> dict[str, FieldType]:
    """The columns of a schema, by dotted path.

    Raises:
        SchemaError: it describes no record, or two of its fields give one name.
    """
    found: dict[str, FieldType] = {}
    for name, kind in _types(schema.fields, "", False):
        if name in found:
            raise SchemaError(f"schema {schema}: two fields are called {name!r}")
        found[name] = kind
    return found


def _types(fields: tuple[Field, ...], above: str, nullable: bool) -> Iterator[tuple[str, FieldType]]:
    for each in fields:
        kind: AvroType = each.type
        may_be_null = nullable
        if isinstance(kind, Union) and kind.nullable is not None and is_covered(kind.nullable):
            kind, may_be_null = kind.nullable, True
        path = f"{above}{each.name}"
        if isinstance(kind, Record):
            yield from _types(kind.fields, f"{path}.", may_be_null)
            continue
        logical = getattr(kind, "logical", None)
        symbols = kind.symbols if isinstance(kind, Enum) else ()
        if not is_covered(kind):
            yield path, FieldType("opaque", nullable=may_be_null)
        elif is_small_decimal(kind):
            yield path, FieldType("decimal", logical, getattr(kind, "scale", 0), nullable=may_be_null)
        else:
            yield path, FieldType(kind.kind, logical, symbols=symbols, nullable=may_be_null)


def hold_against(constraints: Constraints, schema: AvroSchema) -> None:
    """Look for what can't be meant.

    Raises:
        SchemaError: a field is not there or not of a type that a constraint makes sense for, or two constraints contradict each other.
    """
    check = _Check(constraints, field_types(schema))
    for name in (*constraints.fields, *constraints.absent, *constraints.defaults):
        check.type_of(name, f"fields.{name}")
    for name in constraints.absent:
        check.may_be_absent(name)
    check.event_time()
    for each in constraints.fields.values():
        check.field(each)
    for relation in constraints.relations:
        check.relation(relation.name, relation.holds)
    check.relations_together()
    for name, value in constraints.defaults.items():
        check.default(name, value, schema)


@dataclass(frozen=True, slots=True)
class _Check:
    constraints: Constraints
    types: Mapping[str, FieldType]

    def wrong(self, words: str) -> SchemaError:
        return SchemaError(f"{self.constraints.source}, environment {self.constraints.environment}: {words}")

    def type_of(self, name: str, what: str) -> FieldType:
        if name not in self.types:
            inside = [path for path in self.types if path.startswith(f"{name}.")]
            if inside:
                raise self.wrong(f"{what}: {name!r} is a record; wanted one of its fields, such as {inside[0]!r}")
            close = get_close_matches(name, self.types, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {_some(self.types)}"
            raise self.wrong(f"{what}: the schema has no field {name!r}; {hint}")
        return self.types[name]

    def may_be_absent(self, name: str) -> None:
        if not self.types[name].nullable:
            raise self.wrong(f"{name} is not there, and the schema demands it; wanted a field that may be null, with null as its default")

    def event_time(self) -> None:
        given = self.constraints
        needed = [each.name for each in given.fields.values() if each.unique_ms is not None]
        if given.event_time is None:
            if given.freshness is not None or needed:
                raise self.wrong(
                    f"{'freshness' if given.freshness is not None else f'unique {needed[0]}'} needs event_time: the field it goes by"
                )
            return
        kind = self.type_of(given.event_time, "event_time")
        if given.event_time in given.absent:
            raise self.wrong(f"event_time {given.event_time!r} is not there")
        if kind.logical not in _STAMPS_PER_MS:
            raise self.wrong(f"event_time {given.event_time!r} is {kind}, wanted timestamp-millis or timestamp-micros")

    def field(self, each: FieldConstraints) -> None:
        name, kind = each.name, self.types[each.name]
        if each.has_range:
            self._range(each, kind)
        if each.domain is not None:
            self._domain(each, kind)
        if each.regex is not None:
            self._regex(each, kind)
        if each.least_items is not None or each.most_items is not None:
            if kind.kind not in ("array", "map"):
                raise self.wrong(f"{name} is {kind}: valency counts the items of an array or a map")
            if each.least_items is not None and each.most_items is not None and each.least_items > each.most_items:
                raise self.wrong(f"{name} contradicts itself: no array has at least {each.least_items} and at most {each.most_items} items")
        if each.unique_ms is not None and kind.kind in ("array", "map", "opaque", "boolean", "null"):
            raise self.wrong(f"{name} is {kind}: unique needs a value that tells one thing from another")

    def _range(self, each: FieldConstraints, kind: FieldType) -> None:
        if not kind.is_number:
            raise self.wrong(f"{each.name} is {kind}: a range is for numbers and times")
        low, high = (self._end(each.name, end, kind, up) for end, up in ((each.low, True), (each.high, False)))
        if low is not None and high is not None and low > high:
            raise self.wrong(f"{each.name} contradicts itself: nothing is from {each.low} to {each.high}")

    def _end(self, name: str, end: End, kind: FieldType, up: bool) -> int | float | None:
        try:
            return column_end(end, kind, up)
        except ValueError as error:
            raise self.wrong(f"{name} is {kind}: {error}") from error

    def _domain(self, each: FieldConstraints, kind: FieldType) -> None:
        assert each.domain is not None
        for value in each.domain:
            trouble = _not_of(value, kind)
            if trouble:
                raise self.wrong(f"{each.name} is {kind}: its domain has {_shown(value)}, {trouble}")
        if each.has_range:
            low, high = column_end(each.low, kind, True), column_end(each.high, kind, False)
            outside = [v for v in each.domain if not isinstance(v, str) and not _between(column_value(v, kind), low, high)]
            if outside:
                raise self.wrong(f"{each.name} contradicts itself: {_shown(outside[0])} is in its domain and outside of its range")
        if each.regex is not None and kind.kind == "string":
            pattern = self._pattern(each)
            odd = [value for value in each.domain if not pattern.matches(str(value).encode())]
            if odd:
                raise self.wrong(f"{each.name} contradicts itself: {_shown(odd[0])} is in its domain and does not match {each.regex!r}")

    def _regex(self, each: FieldConstraints, kind: FieldType) -> None:
        if kind.kind != "string":
            raise self.wrong(f"{each.name} is {kind}: a regex is for text")
        if not self._pattern(each).accepts.any():
            raise self.wrong(f"{each.name} contradicts itself: nothing matches {each.regex!r}")

    def _pattern(self, each: FieldConstraints) -> Any:
        try:
            return compile_pattern(str(each.regex))
        except BadPattern as error:
            raise self.wrong(f"{each.name}: {error}") from error

    def relation(self, name: str, holds: str) -> None:
        expression = self.parsed(name, holds)
        for field in expression.fields:
            self.type_of(field, f"relation {name}")
            if field in self.constraints.absent:
                there = ", ".join(self.constraints.absent[field])
                raise self.wrong(f"relation {name} names {field!r}, which only {there} has; put it under environments.{there}.relations")
        for left, sign, right in expression.comparisons():
            self._comparable(name, left, sign, right)

    def parsed(self, name: str, holds: str) -> Expression:
        try:
            return parse_relation(holds)
        except BadRelation as error:
            raise self.wrong(f"relation {name}: {error}") from error

    def _comparable(self, name: str, left: Any, sign: str, right: Any) -> None:
        kinds = [self._side(name, each) for each in (left, right)]
        if "text" in kinds and (kinds != ["text", "text"] or sign not in ("==", "!=")):
            raise self.wrong(f"relation {name} compares {kinds[0]} {sign} {kinds[1]}; wanted numbers, or texts with == or !=")
        scales = {self.types[field].scale for each in (left, right) if (field := name_of(each)) and self.types[field].kind == "decimal"}
        fields = [field for each in (left, right) for field in _fields_in(each)]
        if any(self.types[field].kind == "decimal" for field in fields) and (
            len(scales) != 1 or len(fields) != 2 or any(self.types[field].kind != "decimal" for field in fields)
        ):
            raise self.wrong(f"relation {name} compares a decimal; wanted another decimal of the same scale on the other side")
        units = {_STAMPS_PER_MS.get(self.types[field].logical or "") for field in fields} - {None}
        if len(units) > 1:
            raise self.wrong(f"relation {name} compares milliseconds with microseconds")

    def _side(self, name: str, side: Any) -> str:
        if is_text(side):
            return "text"
        kinds = {field: self.types[field] for field in _fields_in(side)}
        for field, kind in kinds.items():
            if not (kind.is_number or kind.is_text or kind.kind == "boolean"):
                raise self.wrong(f"relation {name} names {field!r}, which is {kind}; wanted numbers and texts")
        texts = [field for field, kind in kinds.items() if kind.is_text]
        if texts and name_of(side) is None:
            raise self.wrong(f"relation {name} computes with {texts[0]!r}, which is text")
        return "text" if texts else "number"

    def relations_together(self) -> None:
        """Two comparisons of the same two fields, and one that the fields' ranges leave no room for."""
        seen: dict[tuple[Any, Any], list[tuple[str, str]]] = {}
        for relation in self.constraints.relations:
            found = self.parsed(relation.name, relation.holds).comparison
            if found is None:
                continue
            self._within_ranges(relation.name, found)
            signs = seen.setdefault((found.left, found.right), [])
            if is_field(found.left) and is_field(found.right) and (found.right, found.left) in seen and found.left != found.right:
                signs = seen[found.right, found.left]
                found = Comparison(found.right, _TURNED[found.sign], found.left)
            for other, sign in signs:
                if not _SAYS[sign] & _SAYS[found.sign]:
                    raise self.wrong(f"relations {other} and {relation.name} contradict each other")
            signs.append((relation.name, found.sign))

    def _within_ranges(self, name: str, found: Comparison) -> None:
        left, right = self._ends(found.left), self._ends(found.right)
        if left is None or right is None:
            return
        if is_field(found.left) and found.left == found.right and found.sign in ("<", ">", "!="):
            raise self.wrong(f"relation {name} contradicts itself: nothing is {found.sign} itself")
        can = set()
        if _less(left[0], right[1]):
            can.add("<")
        if _less(right[0], left[1]):
            can.add(">")
        if not _beyond(left[0], right[1]) and not _beyond(right[0], left[1]):
            can.add("=")
        if not can & _SAYS[found.sign]:
            raise self.wrong(f"relation {name} contradicts the ranges of its fields: it could never hold")

    def _ends(self, side: Any) -> tuple[float | None, float | None] | None:
        if not is_field(side):
            return None if isinstance(side, str) else (side, side)
        if not self.types[side].is_number:
            return None
        given = self.constraints.fields.get(side)
        if given is None:
            return None, None
        return column_end(given.low, self.types[side], True), column_end(given.high, self.types[side], False)

    def default(self, name: str, value: Any, schema: AvroSchema) -> None:
        found = next((each for each in schema.fields if each.name == name), None)
        if found is None:
            raise self.wrong(f"{name} has a default; wanted that of a field of the outermost record")
        if name in self.constraints.absent:
            raise self.wrong(f"{name} has a default and is not there")
        try:
            encode_default(found.type, value, schema.named, name)
        except SchemaError as error:
            raise self.wrong(str(error)) from error


_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_SAYS: dict[str, set[str]] = {"<": {"<"}, "<=": {"<", "="}, ">": {">"}, ">=": {">", "="}, "==": {"="}, "!=": {"<", ">"}}


def _less(low: float | None, high: float | None) -> bool:
    return low is None or high is None or low < high


def _beyond(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high


def _between(value: float, low: float | None, high: float | None) -> bool:
    return not _beyond(low, value) and not _beyond(value, high)


def column_end(end: End, kind: FieldType, up: bool, per_ms: int | None = None) -> int | float | None:
    """An end of a range as the column has it: a time in its unit, a decimal unscaled, rounded into the range.

    Args:
        end: as the file has it.
        kind: of the field.
        up: whether it is the lower end.
        per_ms: how many of the column's units are a millisecond, where that is not the schema's.

    Raises:
        ValueError: it is none of the field's values.
    """
    if end is None:
        return None
    if kind.kind == "decimal":
        try:
            scaled = Decimal(str(end)).scaleb(kind.scale)
        except InvalidOperation as error:
            raise ValueError(f"{end!r} is no number") from error
        return int(scaled.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))
    if isinstance(end, str):
        return _moment(end, kind, per_ms)
    if kind.logical in _STAMPS_PER_MS and per_ms is not None and per_ms != _STAMPS_PER_MS[kind.logical]:
        units = _STAMPS_PER_MS[kind.logical] // per_ms
        return -(-end // units) if up else end // units
    return end


def _moment(text: str, kind: FieldType, per_ms: int | None) -> int:
    try:
        if kind.logical == "date":
            return (date.fromisoformat(text) - date(1970, 1, 1)).days
        if kind.logical in _STAMPS_PER_MS:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
            return micros * (per_ms or _STAMPS_PER_MS[kind.logical]) // 1_000
    except ValueError as error:
        raise ValueError(f"{text!r} is no time; wanted ISO 8601") from error
    raise ValueError(f"{text!r} is no number")


_MICROSECOND = datetime(1970, 1, 1, 0, 0, 0, 1) - datetime(1970, 1, 1)


def column_value(value: Value, kind: FieldType) -> Any:
    """A value of a domain as the column has it."""
    return int(Decimal(str(value)).scaleb(kind.scale)) if kind.kind == "decimal" else value


def _not_of(value: Value, kind: FieldType) -> str:
    """Why a value can't be one of a field's; empty if it can."""
    if kind.kind == "enum":
        return "" if value in kind.symbols else f"which is no symbol of its; there are {', '.join(kind.symbols[:20])}"
    if kind.kind in ("string", "bytes", "fixed"):
        return "" if isinstance(value, str) else "which is no text; write it in quotes"
    if kind.kind == "boolean":
        return "" if isinstance(value, bool) else "wanted true or false"
    if kind.kind in ("int", "long"):
        return "" if isinstance(value, int) and not isinstance(value, bool) else "wanted whole numbers"
    if kind.kind in ("float", "double", "decimal"):
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "wanted numbers"
    return "and a domain is for texts, numbers and booleans"


def _fields_in(side: Any) -> tuple[str, ...]:
    return Expression("", side).fields


def _shown(value: Value) -> str:
    return {True: "true", False: "false"}.get(value, "") if isinstance(value, bool) else repr(value)


def _some(names: Mapping[str, FieldType]) -> str:
    return ", ".join(list(names)[:10]) + (" ..." if len(names) > 10 else "")
