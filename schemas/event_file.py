"""Files of events: JSON lines, or an Avro container; each event as the bare Avro bytes of one schema."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException

from schemas.avro import AvroSchema, write_value
from schemas.errors import RecordError, SchemaError
from schemas.json_record import WrittenNumber, as_it_travels, avro_of_record, record_of_json

AVRO_MAGIC = b"Obj\x01"


@dataclass(frozen=True, slots=True)
class FileEvent:
    """One event of a file: its bytes, or why it has none."""

    number: int  # from 1: the line of a JSON file, the record of a container
    value: bytes | None
    key: bytes | None = None  # the text of the key's field
    trouble: RecordError | None = None


def read_events(path: Path, schema: AvroSchema, key: str) -> Iterator[FileEvent]:
    """The events of a file, in order. An event that can't be the schema's is told of and the next one read; empty lines are passed over.

    Args:
        path: of the file; a container is known by its first bytes.
        schema: what the events are to be written as.
        key: dotted path of the field that their keys are the text of.

    Raises:
        SchemaError: the file can't be read, or is a container whose schema can't become this one.
    """
    try:
        with path.open("rb") as file:
            container = file.read(len(AVRO_MAGIC)) == AVRO_MAGIC
        yield from _container(path, schema, key) if container else _lines(path, schema, key)
    except OSError as error:
        raise SchemaError(f"events {path} can't be read: {error}") from error


def _lines(path: Path, schema: AvroSchema, key: str) -> Iterator[FileEvent]:
    travelling, plain = record_of_json(schema), as_it_travels(schema)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    record = travelling(_loaded(line))
                    value = avro_of_record(record, plain)
                except RecordError as error:
                    yield FileEvent(number, None, None, error)
                else:
                    yield FileEvent(number, value, _key(record, key))


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line, parse_float=WrittenNumber)
    except ValueError as error:
        raise RecordError("not_encodable", f"no JSON: {error}") from error


def _container(path: Path, schema: AvroSchema, key: str) -> Iterator[FileEvent]:
    """Record by record, with values as they travel: a time that no calendar has must reach the rules, not stop the file here."""
    reader, number = as_it_travels(schema), 0
    try:
        with path.open("rb") as file:
            blocks = fastavro.block_reader(file)
            writer = as_it_travels(AvroSchema(blocks.writer_schema))
            for block in blocks:
                for _ in range(block.num_records):
                    number += 1
                    record: Any = fastavro.schemaless_reader(block.bytes_, writer, reader)  # type: ignore[attr-defined]
                    yield FileEvent(number, write_value(record, reader), _key(record, key))
    except (SchemaResolutionError, SchemaParseException) as error:
        raise SchemaError(f"events {path}: their schema can't be read as the pipeline's: {error}") from error
    except (ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error) as error:
        raise SchemaError(f"events {path}: no sound Avro container after {number} records: {type(error).__name__}: {error}") from error


def _key(record: Any, path: str) -> bytes | None:
    for name in path.split("."):
        record = record.get(name) if isinstance(record, dict) else None
    if record is None or isinstance(record, bytes):
        return record
    return str(record).encode()
