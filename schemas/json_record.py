"""A JSON object as an Avro record, said in words where it is none.

What JSON has no way to write is taken as people write it: times and dates as numbers or ISO 8601 text (UTC if it names no zone),
bytes as text of the characters U+0000 to U+00FF (Avro's own JSON form), decimals as numbers or text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from math import inf
from typing import Any

from schemas.avro import ABSENT, Array, AvroSchema, AvroType, Enum, Fixed, Map, Primitive, Record, Recursion, Union, write_value
from schemas.errors import RecordError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"timestamp-millis": timedelta(milliseconds=1), "timestamp-micros": timedelta(microseconds=1)}
_LARGEST_FLOAT = 3.4028235677973362e38  # what is above is rounded to infinity
_EXACT = Context(prec=2_000)  # digits: more than any decimal has
_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}


class WrittenNumber(float):
    """A number of a JSON text with its digits, of which a double keeps 15 to 17; as `parse_float` of `json.loads`."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def record_of_json(schema: AvroSchema) -> Callable[[Any], Any]:
    """A function from a JSON value (as `json.loads` gives it) to what fastavro writes under `as_it_travels`.

    The function raises `RecordError` (reason ``not_encodable``) that names the field, what was found there and what was wanted.
    Fields the schema doesn't know are passed over; missing ones get their default, or null where they take it. Decimals keep all
    their digits where numbers came as `WrittenNumber`.
    """
    return lambda value: _value(schema.root, schema.named, value, "")


def as_it_travels(schema: AvroSchema) -> Any:
    """The schema without logical types, parsed for fastavro: the same bytes, with times and decimals as the numbers that travel."""
    return AvroSchema(_without_logical_types(schema.definition)).parsed


def avro_of_record(record: Any, plain: Any) -> bytes:
    """The Avro bytes of what `record_of_json` made; `plain` is `as_it_travels`.

    Raises:
        RecordError: Avro can't hold it (``not_encodable``): a surrogate that UTF-8 lacks, nesting too deep to write.
    """
    try:
        return write_value(record, plain)
    except (ArithmeticError, ValueError, RecursionError) as error:
        raise RecordError("not_encodable", f"the event can't be written as Avro: {type(error).__name__}: {error}") from error


def json_of_record(schema: AvroSchema) -> Callable[[Any], Any]:
    """The way back: a function from what fastavro reads under `as_it_travels` to what `record_of_json` takes for the same."""
    return lambda value: _told(schema.root, schema.named, value)


def _told(kind: AvroType, named: Mapping[str, AvroType], value: Any) -> Any:
    if isinstance(kind, Recursion):
        kind = named[kind.name]
    if isinstance(kind, Union) and kind.nullable is not None and value is not None:
        kind = kind.nullable
        return _told(kind, named, value)
    if isinstance(kind, Record) and isinstance(value, dict):
        return {field.name: _told(field.type, named, value[field.name]) for field in kind.fields}
    if isinstance(kind, Array) and isinstance(value, list):
        return [_told(kind.items, named, each) for each in value]
    if isinstance(kind, Map) and isinstance(value, dict):
        return {key: _told(kind.values, named, each) for key, each in value.items()}
    if isinstance(value, bytes):
        if isinstance(kind, Primitive | Fixed) and kind.logical == "decimal":
            return str(Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-kind.scale, _EXACT))
        return value.decode("latin-1")
    return value


def _value(kind: AvroType, named: Mapping[str, AvroType], value: Any, at: str) -> Any:
    """What fastavro writes under the schema without logical types."""
    if isinstance(kind, Recursion):
        kind = named[kind.name]
    if isinstance(kind, Record):
        return _record(kind, named, value, at)
    if isinstance(kind, Union):
        return _branch(kind, named, value, at)
    if kind.kind == "array":
        return [_value(kind.items, named, each, f"{at}[{place}]") for place, each in enumerate(_of(list, value, at, "an array"))]  # type: ignore[union-attr]
    if kind.kind == "map":
        return {key: _value(kind.values, named, each, f"{at}.{key}") for key, each in _of(dict, value, at, "an object").items()}  # type: ignore[union-attr]
    if isinstance(kind, Enum):
        if value not in kind.symbols:
            raise _wrong(at, value, f"one of {', '.join(kind.symbols)}")
        return value
    assert isinstance(kind, Primitive | Fixed)
    return _octets(kind, value, at) if kind.kind in ("bytes", "fixed") else _primitive(kind, value, at)


def _record(kind: Record, named: Mapping[str, AvroType], value: Any, at: str) -> dict[str, Any]:
    found = _of(dict, value, at, "an object")
    made: dict[str, Any] = {}
    for field in kind.fields:
        path = f"{at}.{field.name}".lstrip(".")
        given = found.get(field.name, field.default)
        if field.name not in found and isinstance(given, str) and _is_decimal(field.type):
            given = _unscaled(field.type, given)  # a default is as Avro has it: the characters U+0000 to U+00FF
        if given is ABSENT:
            if not _takes_null(field.type):
                raise RecordError("not_encodable", f"{path} is missing")
            given = None
        made[field.name] = _value(field.type, named, given, path)
    return made


def _is_decimal(kind: AvroType) -> bool:
    kind = kind.branches[0] if isinstance(kind, Union) else kind
    return isinstance(kind, Primitive | Fixed) and kind.logical == "decimal"


def _unscaled(kind: AvroType, text: str) -> str:
    kind = kind.branches[0] if isinstance(kind, Union) else kind
    assert isinstance(kind, Primitive | Fixed)
    return str(Decimal(int.from_bytes(text.encode("latin-1"), "big", signed=True)).scaleb(-kind.scale, _EXACT))


def _branch(kind: Union, named: Mapping[str, AvroType], value: Any, at: str) -> Any:
    if value is None and _takes_null(kind):
        return None
    trouble: RecordError | None = None
    for branch in kind.branches:
        if branch.kind == "null":
            continue
        try:
            made = _value(branch, named, value, at)
        except RecordError as error:
            trouble = trouble or error
        else:
            return (branch.name, made) if isinstance(branch, Record | Enum | Fixed | Recursion) else made
    raise trouble or _wrong(at, value, "null")


def _takes_null(kind: AvroType) -> bool:
    return kind.kind == "null" or (isinstance(kind, Union) and any(branch.kind == "null" for branch in kind.branches))


def _primitive(kind: Primitive | Fixed, value: Any, at: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.kind in _RANGES:
        low, high = _RANGES[kind.kind]
        value = _moment(kind.logical, value, at) if isinstance(value, str) and kind.logical else value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(at, value, f"a whole number from {low} to {high}" + (" or a time as ISO 8601 text" if kind.logical else ""))
        return value
    if kind.kind in ("float", "double"):
        if not number:
            raise _wrong(at, value, "a number")
        return _float(kind.kind, value, at)
    wanted = {"boolean": bool, "string": str, "null": type(None)}[kind.kind]
    return _of(wanted, value, at, {"boolean": "true or false", "string": "text", "null": "null"}[kind.kind])


def _float(kind: str, value: float, at: str) -> float:
    try:
        made = float(value)
    except OverflowError as error:
        raise _wrong(at, value, "a number that a double holds") from error
    if made in (inf, -inf) and isinstance(value, WrittenNumber):
        raise _wrong(at, value, "a number that a double holds")
    if kind == "float" and _LARGEST_FLOAT < abs(made) < inf:
        raise _wrong(at, value, "a number that a float holds")
    return made


def _moment(logical: str | None, text: str, at: str) -> int:
    try:
        if logical == "date":
            return (date.fromisoformat(text) - _EPOCH.date()).days
        if logical in _UNITS:
            moment = datetime.fromisoformat(text)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _UNITS[logical]
    except ValueError as error:
        raise _wrong(at, text, "a time as ISO 8601 text") from error
    raise _wrong(at, text, "a whole number")


def _octets(kind: Primitive | Fixed, value: Any, at: str) -> bytes:
    if kind.logical == "decimal":
        made = _decimal(kind, value, at)
    else:
        try:
            made = _of(str, value, at, "text").encode("latin-1")
        except UnicodeEncodeError as error:
            raise _wrong(at, value, "text of the characters U+0000 to U+00FF, one a byte") from error
    if isinstance(kind, Fixed) and len(made) != kind.size_bytes:
        raise _wrong(at, value, f"{kind.size_bytes} bytes")
    return made


def _decimal(kind: Primitive | Fixed, value: Any, at: str) -> bytes:
    try:
        unscaled = Decimal(str(value)).scaleb(kind.scale, _EXACT)
        fits = not unscaled or unscaled.adjusted() < kind.precision  # asked first: 1e999999 as an int takes its time
        units = int(unscaled) if unscaled and fits else 0
    except (ArithmeticError, ValueError) as error:
        raise _wrong(at, value, "a number") from error
    if isinstance(value, bool) or not fits or units != unscaled or abs(units) >= 10**kind.precision:
        raise _wrong(at, value, f"a number of at most {kind.precision} digits, {kind.scale} of them after the point")
    size = kind.size_bytes if isinstance(kind, Fixed) else (units.bit_length() // 8) + 1
    try:
        return units.to_bytes(size, "big", signed=True)
    except OverflowError as error:
        raise _wrong(at, value, f"a number that {size} bytes hold") from error


def _of(kind: type, value: Any, at: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(at, value, wanted)
    return value


def _wrong(at: str, value: Any, wanted: str) -> RecordError:
    shown = repr(value)
    return RecordError("not_encodable", f"{at or 'the event'} is {shown if len(shown) <= 60 else shown[:57] + '...'}, wanted {wanted}")


def _without_logical_types(node: Any) -> Any:
    """The same wire format, with values as they travel."""
    if isinstance(node, Mapping):
        return {key: value if key == "default" else _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    return [_without_logical_types(each) for each in node] if isinstance(node, list | tuple) else node
