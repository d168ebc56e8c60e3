"""A record's bytes as plain Python values, by fastavro alone: so reads the checker, which is to share no mistake with the engine's decoder.

Times stay the integers they travel as, nested fields get dotted names, and an unscaled decimal is an integer: the names and units that
an event's columns have.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from schemas.avro import Array, AvroType, Enum
from schemas.columns import Column, Nullable, PackedBytes, Ragged, Symbols
from streams.definition.event_columns import EventColumn

MAGIC = b"\0"
HEADER_BYTES = 5
_SCHEMA_FILE = re.compile(r"(\d+)-.+\.avsc")
_NUMBERS = {"boolean": np.bool_, "int": np.int32, "long": np.int64, "float": np.float32, "double": np.float64, "decimal": np.int64}
_BROKEN = (EOFError, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError, struct.error)

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """What a record says. Without fields it can't be read."""

    schema_id: int  # -1 where there is none
    fields: Fields | None


class PlainReader:
    """Reads records of one schema, whoever wrote them.

    Args:
        definition: of the reader's schema.
        framing: ``confluent`` or ``bare``.
        folder: where writers' schemas are; not needed for bare records.
    """

    def __init__(self, definition: Any, framing: str, folder: Path | None = None) -> None:
        self._reader = _parsed(definition)
        self._framing = framing
        self._writers: dict[int, Any] = {}
        for file in sorted(folder.iterdir()) if folder else ():
            if named := _SCHEMA_FILE.fullmatch(file.name):
                self._writers[int(named[1])] = _parsed(json.loads(file.read_text(encoding="utf-8")))

    def read(self, value: bytes | None) -> Read:
        """One record."""
        if self._framing == "bare":
            return Read(-1, None if value is None else self.body(value))
        if value is None or len(value) < HEADER_BYTES or not value.startswith(MAGIC):
            return Read(-1, None)
        schema_id = int(struct.unpack(">i", value[1:HEADER_BYTES])[0])
        writer = self._writers.get(schema_id)
        return Read(schema_id, None if writer is None else self.body(value[HEADER_BYTES:], writer))

    def body(self, body: bytes, writer: Any = None) -> Fields | None:
        """What bare bytes say, as their writer's schema has them; None = the reader's own. None where they can't be read."""
        rest = io.BytesIO(body)
        try:
            said: Any = fastavro.schemaless_reader(rest, writer or self._reader, self._reader if writer else None)
        except _BROKEN:
            return None
        return None if rest.read(1) else said


def flat(said: Fields, columns: Mapping[str, EventColumn]) -> dict[str, Any]:
    """A record's values by the names of an event's columns; a record that is null makes all in it null."""
    found: dict[str, Any] = {}
    for name, column in columns.items():
        value: Any = said
        for part in name.split("."):
            value = None if value is None else value[part]
        if column.type == "decimal" and value is not None:
            value = int.from_bytes(value, "big", signed=True)
        found[name] = value
    return found


def column_of(values: Sequence[Any], kind: EventColumn, avro: AvroType) -> Column:
    """A column as a user's rule or derived column is given it."""
    if kind.nullable:
        valid = np.array([value is not None for value in values], np.bool_)
        filler = next((value for value in values if value is not None), _ZERO.get(kind.type, 0))
        filled = [filler if value is None else value for value in values]
        return Nullable(_column(filled, kind.type, avro), valid)
    return _column(values, kind.type, avro)


_ZERO: dict[str, Any] = {"string": "", "bytes": b"", "fixed": b"", "array": [], "boolean": False}


def _column(values: Sequence[Any], kind: str, avro: AvroType) -> Column:
    if kind in _NUMBERS:
        return np.array(values, _NUMBERS[kind])
    if kind == "string":
        return PackedBytes.pack([value.encode() for value in values])
    if kind in ("bytes", "fixed"):
        return PackedBytes.pack(list(values))
    if kind == "enum" and isinstance(avro, Enum):
        places = {symbol: code for code, symbol in enumerate(avro.symbols)}
        return Symbols(np.array([places.get(value, 0) for value in values], np.int32), avro.symbols)
    if kind == "array" and isinstance(avro, Array) and avro.items.kind in (*_NUMBERS, "string", "bytes"):
        ends = np.cumsum([len(value) for value in values], dtype=np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if len(values) else ends
        return Ragged(_column([item for value in values for item in value], avro.items.kind, avro.items), starts, ends)
    made = np.empty(len(values), np.object_)
    made[:] = list(values)
    return made


def _parsed(definition: Any) -> Any:
    return fastavro.parse_schema(_without_logical_types(definition))


def _without_logical_types(definition: Any) -> Any:
    if isinstance(definition, dict):
        return {name: _without_logical_types(each) for name, each in definition.items() if name != "logicalType"}
    if isinstance(definition, list):
        return [_without_logical_types(each) for each in definition]
    return definition
