"""Batches of CloudEvents: their attributes as columns, their data as Avro bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np

from schemas.avro import AvroSchema
from schemas.cloud_event import CloudEvent, microseconds, read_event
from schemas.columns import Column, Ints, Mask, Nullable, PackedBytes
from schemas.decode_kernel import PREFIX
from schemas.errors import RecordError
from schemas.framing import CloudEvents, HeadersByRow
from schemas.json_body import JsonBodies
from schemas.reject import Reject
from schemas.undress import BARE, Undressed, confluent


class CloudEventRecords:
    """CloudEvents, binary and structured, with data that are JSON or Avro.

    Args:
        reader: of the data, with defaults for the fields that the attributes go to.
        framing: which these are.
        units_per_ms: of the field that the time goes to.
        nullable: those of the fields that may be null.
    """

    def __init__(self, reader: AvroSchema, framing: CloudEvents, units_per_ms: int, nullable: frozenset[str]) -> None:
        self._framing, self._units_per_ms, self._nullable = framing, units_per_ms, nullable
        self._json = JsonBodies(reader)

    def __call__(self, values: PackedBytes, absent: Mask | None, headers: HeadersByRow) -> Undressed:
        n = len(values)
        bodies, numbers = [b""] * n, np.full(n, BARE, np.int64)
        ids, times = [b""] * n, np.zeros(n, np.int64)
        refused: dict[int, RecordError] = {}
        avro: list[int] = []
        for row, value in enumerate(values):
            if absent is not None and absent[row]:
                continue
            try:
                event = read_event(value, headers.get(row, ()))
                ids[row], times[row] = self._said(event)
                if self._is_avro(event):
                    bodies[row] = event.data or b""
                    avro.append(row)
                else:
                    bodies[row] = self._json_body(event)
            except RecordError as error:
                refused[row] = error
        guids: Mapping[int, UUID] = {}
        if self._framing.avro == "confluent" and avro:
            framed = {place: headers[row] for place, row in enumerate(avro) if row in headers}
            inner = confluent(PackedBytes.pack([bodies[row] for row in avro]), None, framed)
            guids = inner.guids
            for place, row in enumerate(avro):
                bodies[row] = inner.bodies[place]
                numbers[row] = PREFIX if inner.numbers is None else inner.numbers[place]
                if place in inner.refused:
                    refused[row] = inner.refused[place]
        return Undressed(PackedBytes.pack(bodies), numbers, refused, self._columns(ids, times), guids)

    def _said(self, event: CloudEvent) -> tuple[bytes, int]:
        """Id and time, in the units of their field."""
        try:
            id_ = event.id.encode()
        except UnicodeEncodeError as error:
            raise RecordError(Reject.BAD_ENVELOPE.label, f"the id {event.id!r:.60} is no UTF-8: {error.reason}") from error
        if self._framing.time is None:
            return id_, 0
        if event.time is None:
            raise RecordError(Reject.BAD_ENVELOPE.label, f"the event has no time, and field {self._framing.time!r} is to hold it")
        return id_, microseconds(event.time) // (1_000 // self._units_per_ms)

    def _is_avro(self, event: CloudEvent) -> bool:
        if event.is_json or event.is_avro:
            return event.is_avro
        if event.media:
            raise RecordError(Reject.BAD_ENVELOPE.label, f"the data are {event.media!r:.60}, wanted JSON or Avro")
        return self._framing.data == "avro"

    def _json_body(self, event: CloudEvent) -> bytes:
        if event.data is not None:
            return self._json.of_text(event.data) if event.data else b""
        if event.value is None:
            raise RecordError(Reject.BAD_ENVELOPE.label, "the event has no data")
        return self._json.of_value(event.value)

    def _columns(self, ids: Sequence[bytes], times: Ints) -> dict[str, Column]:
        made: dict[str, Column] = {}
        if self._framing.id is not None:
            made[self._framing.id] = PackedBytes.pack(ids)
        if self._framing.time is not None:
            made[self._framing.time] = times
        all_there = np.ones(len(times), np.bool_)
        return {name: Nullable(column, all_there) if name in self._nullable else column for name, column in made.items()}
