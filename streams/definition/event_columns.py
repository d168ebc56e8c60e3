"""The columns an event's schema gives: one for each field, nested records by dotted path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.avro import AvroSchema, AvroType, Field, Record, Union
from schemas.errors import SchemaError
from schemas.features import Json


@dataclass(frozen=True, slots=True)
class EventColumn:
    """A column of the event, and what it holds.

    Attributes:
        name: dotted path of the field.
        type: of the Avro value, without its null: long, string, array, decimal ...
        logical: its logical type.
        nullable: whether a row may be null.
    """

    name: str
    type: str
    logical: str | None
    nullable: bool

    def __str__(self) -> str:
        text = f"{self.type} ({self.logical})" if self.logical not in (None, self.type) else self.type
        return f"{text} or null" if self.nullable else text

    def describe(self) -> Json:
        """The definition, for a fingerprint."""
        return {"name": self.name, "type": self.type, "logical": self.logical, "nullable": self.nullable}


def event_columns(schema: AvroSchema) -> dict[str, EventColumn]:
    """The columns of a record's schema, by name.

    Raises:
        SchemaError: it describes no record, or two of its fields give one name.
    """
    columns: dict[str, EventColumn] = {}
    for column in _columns(schema.fields, "", False):
        if column.name in columns:
            raise SchemaError(f"schema {schema}: two fields are called {column.name!r}")
        columns[column.name] = column
    return columns


def _columns(fields: tuple[Field, ...], above: str, nullable: bool) -> Iterator[EventColumn]:
    for field in fields:
        kind: AvroType = field.type
        may_be_null = nullable
        if isinstance(kind, Union) and kind.nullable is not None:
            kind, may_be_null = kind.nullable, True
        if isinstance(kind, Record):
            yield from _columns(kind.fields, f"{above}{field.name}.", may_be_null)
        else:
            logical = getattr(kind, "logical", None)
            # A decimal's column holds its unscaled integers, not the bytes that travel: it is used as neither.
            yield EventColumn(f"{above}{field.name}", "decimal" if logical == "decimal" else kind.kind, logical, may_be_null)
