"""Rows of a table as the records that a producer would have sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from schemas.avro import AvroSchema
from schemas.codec import Decoder, Encoder
from schemas.columns import Ints, PackedBytes
from schemas.errors import HistoryError
from schemas.read_table import TableReader
from schemas.table import Table, texts_of
from streams.definition.bound import Bound
from streams.offline.featurize import Past
from transforms.fixed_point import numbers
from transforms.label import event_id_hashes

SCHEMA_ID = 1  # what the one schema of a table's records is called


class PastTable:
    """Makes records of the rows of tables of one shape: each is encoded, so that whatever follows is what would follow on a topic.

    Args:
        bound: the pipeline.
        table: of the shape; it may have no rows.
        where: what messages call it.
        time_zone: of times that have none; None = such times are refused.
        arrived: the column that says when the broker took each record in; needed where an entity has a guard.
        text: whether every column is text to be parsed.

    Raises:
        HistoryError: a column is missing, or stands twice.
    """

    def __init__(
        self,
        bound: Bound,
        table: Table,
        where: str,
        *,
        time_zone: str | None = None,
        arrived: str | None = None,
        text: bool = False,
    ) -> None:
        self._reader = TableReader.of(table, bound.schema, where, time_zone, text)
        self._key, self._event_id, self._event_time = bound.key, bound.event_id, bound.event_time
        self._arrived = arrived
        guarded = [entity.name for entity in bound.pipeline.entities if entity.guard]
        if guarded and arrived is None:
            raise HistoryError(
                f"{where}: the guard of entity {guarded[0]!r} needs the time each record arrived at; wanted the name of its column"
            )
        if arrived is not None and arrived not in table.column_names:
            raise HistoryError(f"{where} has no column {arrived!r} of arrival times; it has {', '.join(table.column_names)}")
        self._encoder = Encoder(self._reader.schema, "confluent", SCHEMA_ID)
        self.decoder = Decoder(bound.schema, "confluent", OneSchema(self._reader.schema))

    def ids_and_times(self, table: Table) -> tuple[Ints, Ints]:
        """Of each row the hash of its event's id, and its event time in milliseconds.

        Raises:
            HistoryError: as `past`.
        """
        columns = self._reader.columns(table, 0)
        times = self._event_time.to_ms(columns[self._event_time.column])
        return event_id_hashes(columns[self._event_id]), numbers(self._event_time.column, times).astype(np.int64)

    def past(self, table: Table, first_offset: int, first_row: int | None = None, where: str | None = None) -> Past:
        """A table's rows as records, at consecutive offsets.

        Args:
            table: of the shape.
            first_offset: of its first row.
            first_row: what that row is called in messages; the same by default.
            where: what messages call the table; as at the beginning by default.

        Raises:
            HistoryError: a value is missing or of another type; names column and row.
        """
        row = first_offset if first_row is None else first_row
        reader = self._reader if where is None else replace(self._reader, where=where)
        columns = reader.columns(table, row)
        n = len(table)
        try:
            values = self._encoder.encode(columns) if n else PackedBytes.pack([])
        except (ValueError, TypeError) as error:
            raise HistoryError(f"{reader.where}, rows {row} to {row + n - 1}: {error}") from error
        return Past(
            source=reader.where,
            partition=0,
            offsets=np.arange(first_offset, first_offset + n, dtype=np.int64),
            next_offset=first_offset + n,
            values=values,
            keys=texts_of(columns[self._key]) if self._key in columns else [None] * n,
            arrived_ms=self._arrivals(reader, table, row),
        )

    def _arrivals(self, reader: TableReader, table: Table, first_row: int) -> Ints:
        if self._arrived is None:
            return np.zeros(len(table), np.int64)
        return reader.times_ms(table, self._arrived, first_row)


class OneSchema:
    """A registry that knows the schema of a table's records."""

    def __init__(self, schema: AvroSchema) -> None:
        self._schema = schema

    def schema(self, schema_id: int) -> AvroSchema | None:
        return self._schema if schema_id == SCHEMA_ID else None

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        return None

    def register(self, subject: str, schema: AvroSchema) -> int:
        raise AssertionError("tables register no schema")
