"""What an Avro container says of itself."""

from __future__ import annotations

from pathlib import Path

import fastavro
from fastavro.schema import SchemaParseException

from schemas.avro import AvroSchema
from schemas.errors import SchemaError


def container_schema(path: Path) -> AvroSchema:
    """The schema that a container was written with.

    Raises:
        SchemaError: it is no sound container, or its records are none.
    """
    try:
        with path.open("rb") as file:
            found = AvroSchema(fastavro.block_reader(file).writer_schema)
        found.fields  # noqa: B018 - refuses what is no record
    except (OSError, ValueError, EOFError, KeyError, TypeError, SchemaParseException) as error:
        raise SchemaError(f"events {path}: no sound Avro container: {type(error).__name__}: {error}") from error
    return found
