"""Seeded schemas and records for the codec's tests, and the slow way from records to columns' values."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from schemas.avro import Array, AvroSchema, AvroType, Enum, Fixed, Map, Primitive, Record, Union, write_value
from schemas.columns import Column, Columns, Constant, Nullable, PackedBytes, Ragged, Symbols
from schemas.default import varint
from schemas.layout import is_covered, is_small_decimal, items_of

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "string", "bytes")
LOGICAL = (
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "int", "logicalType": "date"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2},
)


class _Names:
    def __init__(self) -> None:
        self.next = 0

    def __call__(self) -> str:
        self.next += 1
        return f"T{self.next}"


@st.composite
def schemas(draw: st.DrawFn, wide: bool = False) -> AvroSchema:
    """A record of up to five fields, nested at most three deep; with `wide`, also unions that columns can't hold."""
    return AvroSchema.parse(draw(_records(_Names(), 2, wide)))


@st.composite
def _records(draw: st.DrawFn, name: _Names, depth: int, wide: bool) -> Any:
    count = draw(st.integers(0 if depth < 2 else 1, 5 if depth == 2 else 3))
    own = name()
    return {"type": "record", "name": own, "fields": [{"name": f"f{i}", "type": draw(_types(name, depth, wide))} for i in range(count)]}


@st.composite
def _types(draw: st.DrawFn, name: _Names, depth: int, wide: bool) -> Any:
    kinds = ["primitive", "primitive", "logical", "fixed", "enum", "nullable"]
    kind = draw(st.sampled_from([*kinds, "record", "array", "map", *(["union"] if wide else [])] if depth else kinds[:-1]))
    if kind == "primitive":
        return draw(st.sampled_from(PRIMITIVES))
    if kind == "logical":
        return dict(draw(st.sampled_from(LOGICAL)))
    if kind == "fixed":
        decimal = {"logicalType": "decimal", "precision": 4, "scale": 1} if draw(st.booleans()) else {}
        return {"type": "fixed", "name": name(), "size": 3 if decimal else draw(st.integers(0, 9)), **decimal}
    if kind == "enum":
        return {"type": "enum", "name": name(), "symbols": list(string.ascii_uppercase[: draw(st.integers(1, 4))])}
    if kind == "record":
        return draw(_records(name, depth - 1, wide))
    if kind == "array":
        return {"type": "array", "items": draw(_types(name, depth - 1, wide))}
    if kind == "map":
        return {"type": "map", "values": draw(_types(name, depth - 1, wide))}
    if kind == "union":
        return ["string", "long", "null"]
    inner = draw(_types(name, depth - 1, wide).filter(lambda t: t != "null" and not isinstance(t, list)))
    return ["null", inner] if draw(st.booleans()) else [inner, "null"]


def values(kind: AvroType) -> st.SearchStrategy[Any]:
    """Values of a type: plain Python ones, with no logical type applied (integers for times, bytes for decimals)."""
    if isinstance(kind, Record):
        return st.fixed_dictionaries({each.name: values(each.type) for each in kind.fields})
    if isinstance(kind, Array):
        return st.lists(values(kind.items), max_size=3)
    if isinstance(kind, Map):
        return st.dictionaries(st.text(max_size=3), values(kind.values), max_size=2)
    if isinstance(kind, Union):
        return st.one_of([st.tuples(st.just(i), values(branch)) for i, branch in enumerate(kind.branches)])
    if isinstance(kind, Enum):
        return st.sampled_from(kind.symbols)
    if isinstance(kind, Fixed):
        return st.binary(min_size=kind.size_bytes, max_size=kind.size_bytes)
    assert isinstance(kind, Primitive)
    if kind.logical == "decimal":
        most = 8 if is_small_decimal(kind) else 12
        return st.binary(min_size=1, max_size=most)
    if kind.logical in ("timestamp-millis", "timestamp-micros"):
        return st.integers(-(10**13), 10**13)
    if kind.logical == "date":
        return st.integers(-100_000, 100_000)
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(1 << 31), (1 << 31) - 1),
        "long": st.integers(-(1 << 63), (1 << 63) - 1),
        "float": st.floats(width=32),
        "double": st.floats(),
        "string": st.text(max_size=12),
        "bytes": st.binary(max_size=12),
    }[kind.kind]


def plain_bytes(kind: AvroType, value: Any) -> bytes:
    """Avro's bytes, written the slow and obvious way; a union's value is a pair of its branch and the branch's value."""
    if isinstance(kind, Record):
        return b"".join(plain_bytes(each.type, value[each.name]) for each in kind.fields)
    if isinstance(kind, Array):
        return (varint(len(value)) + b"".join(plain_bytes(kind.items, item) for item in value) if value else b"") + varint(0)
    if isinstance(kind, Map):
        entries = b"".join(plain_bytes(Primitive("string"), key) + plain_bytes(kind.values, item) for key, item in value.items())
        return (varint(len(value)) + entries if value else b"") + varint(0)
    if isinstance(kind, Union):
        return varint(value[0]) + plain_bytes(kind.branches[value[0]], value[1])
    if isinstance(kind, Enum):
        return varint(kind.symbols.index(value))
    if isinstance(kind, Fixed):
        return bytes(value)
    assert isinstance(kind, Primitive)
    if kind.kind in ("bytes", "string"):
        data = value.encode() if isinstance(value, str) else value
        return varint(len(data)) + data
    return write_value(value, kind.kind)


def without_logical(definition: Any) -> Any:
    """The same schema, its logical types taken off: fastavro then gives numbers and bytes as they are."""
    if isinstance(definition, dict):
        kept = {key: without_logical(each) for key, each in definition.items() if key not in ("logicalType", "precision", "scale")}
        return kept["type"] if set(kept) == {"type"} else kept
    return [without_logical(each) for each in definition] if isinstance(definition, list) else definition


def at_row(column: Column | Mapping[str, Column], row: int) -> Any:
    """What a column holds in a row, as a plain Python value."""
    if isinstance(column, Mapping):
        return {name: at_row(each, row) for name, each in column.items()}
    if isinstance(column, Nullable):
        return at_row(column.values, row) if column.valid[row] else None
    if isinstance(column, Ragged):
        return [at_row(column.items, i) for i in range(column.starts[row], column.ends[row])]
    if isinstance(column, Symbols):
        return column.symbols[column.codes[row]]
    if isinstance(column, Constant):
        return column.value
    if isinstance(column, PackedBytes):
        return column[row]
    return column[row] if column.dtype == np.object_ else column[row].item()


def wanted(kind: AvroType, value: Any, path: str = "") -> dict[str, Any]:
    """What the columns of a type must hold for a value that fastavro has read without logical types."""
    if isinstance(kind, Record):
        found: dict[str, Any] = {}
        for each in kind.fields:
            found |= wanted(each.type, None if value is None else value[each.name], f"{path}.{each.name}" if path else each.name)
        return found
    if isinstance(kind, Union) and kind.nullable is not None and is_covered(kind):
        return wanted(kind.nullable, value, path)
    return {path: None if value is None else _plain(kind, value)}


def _plain(kind: AvroType, value: Any) -> Any:
    if not is_covered(kind):
        return value
    if isinstance(kind, Array | Map):
        items = [{"key": key, "value": each} for key, each in value.items()] if isinstance(kind, Map) else value
        inner = items_of(kind)
        columns = [wanted(inner, item) for item in items]
        return [each.get("", None) if "" in each else each for each in columns]
    if is_small_decimal(kind):
        return int.from_bytes(value, "big", signed=True)
    if kind.kind == "float":
        return float(np.float32(value))
    return value.encode() if kind.kind == "string" else value


def same(left: Any, right: Any) -> bool:
    """Equal, NaN to NaN, and 0.0 not to -0.0."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or (left == right and math.copysign(1, left) == math.copysign(1, right))
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def row_of(columns: Columns, row: int) -> dict[str, Any]:
    """All columns at a row."""
    return {name: at_row(column, row) for name, column in columns.items()}
