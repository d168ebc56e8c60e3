"""Dress: puts an event's Avro bytes into its topic's framing, in its value and in its headers; the way back is `schemas/undress.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from schemas.avro import AvroSchema, read_value
from schemas.cloud_event import CONTENT_TYPE, PREFIX, CloudEvent, binary_headers
from schemas.errors import RecordError, SchemaError
from schemas.framing import SINGLE_OBJECT, VALUE_SCHEMA_ID, CloudEvents, Framing, Header, Headers, SingleObject, without
from schemas.json_record import as_it_travels, json_of_record

Dressed: TypeAlias = tuple[bytes, tuple[Header, ...]]
Dress: TypeAlias = Callable[[bytes, Headers], Dressed]  # Avro bytes and other headers to a value and all headers

JSON = "application/json"
AVRO = "application/avro"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bare(avro: bytes, headers: Headers) -> Dressed:
    """Nothing around it."""
    return avro, tuple(headers)


def with_prefix(prefix: bytes) -> Dress:
    """Something that stands before the Avro bytes; a header that would name another schema goes."""
    return lambda avro, headers: (prefix + avro, without(headers, (VALUE_SCHEMA_ID,)))


def id_before(schema_id: int) -> Dress:
    """Confluent's framing, as it has been from the start."""
    return with_prefix(b"\0" + schema_id.to_bytes(4, "big"))


def guid_in_header(guid: UUID) -> Dress:
    """Confluent's framing with the schema's GUID in a header."""
    return lambda avro, headers: (avro, (*without(headers, (VALUE_SCHEMA_ID,)), (VALUE_SCHEMA_ID, b"\x01" + guid.bytes)))


def single_object(schema: AvroSchema) -> Dress:
    """Avro's single-object encoding."""
    return with_prefix(SINGLE_OBJECT + schema.rabin)


class JsonText:
    """Writes an event as a JSON object: times as numbers in their field's unit, decimals and bytes as text."""

    def __init__(self, schema: AvroSchema) -> None:
        self._plain, self._json = as_it_travels(schema), json_of_record(schema)

    def __call__(self, avro: bytes, headers: Headers) -> Dressed:
        """See `Dress`.

        Raises:
            RecordError: it holds a number that JSON does not have.
        """
        return self.text(self.event(avro)), tuple(headers)

    def event(self, avro: bytes) -> Any:
        """What the Avro bytes say, as JSON has it."""
        return self._json(read_value(avro, self._plain))

    def text(self, event: Any) -> bytes:
        """As a JSON object."""
        try:
            return json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as error:
            raise RecordError("not_encodable", f"the event holds NaN or an infinity, which JSON does not have: {error}") from error


class CloudEventText:
    """Writes an event as a CloudEvent in binary mode.

    Args:
        schema: of its data.
        framing: how data are written.
        avro: how Avro data are framed.
        topic: the source, if the framing says none.
        event_id: the field whose text is the event's id, if the framing says none.
        event_time: the field that is its time, likewise; None = it has none.
        units_per_ms: of that field.
    """

    def __init__(
        self, schema: AvroSchema, framing: CloudEvents, avro: Dress, topic: str, event_id: str, event_time: str | None, units_per_ms: int
    ) -> None:
        self._framing, self._avro, self._json = framing, avro, JsonText(schema)
        self._id, self._time, self._units_per_ms = framing.id or event_id, framing.time or event_time, units_per_ms
        self._source, self._type = framing.source or topic, framing.type or str(schema)

    def __call__(self, avro: bytes, headers: Headers) -> Dressed:
        """See `Dress`.

        Raises:
            RecordError: it has no id, a time that no calendar has, or a number that JSON does not have.
        """
        event = self._json.event(avro)
        as_json = self._framing.data == "json"
        time = None if self._time is None else _iso(self._time, _at(event, self._time), self._units_per_ms)
        given = _at(event, self._id)
        id_ = "" if given is None else str(given)
        if not id_:
            raise RecordError("not_encodable", f"{self._id} is empty, and a CloudEvent needs an id")
        told = CloudEvent(id_, self._source, self._type, time, JSON if as_json else AVRO, None)
        value, rest = (self._json.text(event), without(headers, (VALUE_SCHEMA_ID,))) if as_json else self._avro(avro, headers)
        return value, binary_headers(told, [each for each in rest if each[0] not in (CONTENT_TYPE, PREFIX + "time")])


def dress(
    schema: AvroSchema,
    framing: Framing,
    schema_id: int | None,
    guid: UUID | None,
    topic: str,
    event_id: str,
    event_time: tuple[str, int] | None,
) -> Dress:
    """How events of a schema are written to a topic.

    Args:
        schema: of the Avro bytes.
        framing: the topic's.
        schema_id: what the registry calls the schema, for Confluent's framing.
        guid: likewise, where it goes into a header.
        topic: its name.
        event_id: the field that names an event.
        event_time: the field that says when it happened, and its units in a millisecond; None = there is none.

    Raises:
        SchemaError: the registry has no GUID for the schema.
    """
    if isinstance(framing, SingleObject):
        return single_object(schema)
    if isinstance(framing, CloudEvents):
        inner = bare if schema_id is None else id_before(schema_id)
        name, units_per_ms = event_time or (None, 1)
        return CloudEventText(schema, framing, inner, topic, event_id, name, units_per_ms)
    if framing == "confluent-header":
        if guid is None:
            raise SchemaError(f"the registry has no GUID for the schema of {topic}; wanted one that has, or framing='confluent'")
        return guid_in_header(guid)
    if framing == "json":
        return JsonText(schema)
    if framing == "bare":
        return bare
    assert schema_id is not None, "asked for before"
    return id_before(schema_id)


def _at(event: Any, path: str) -> Any:
    for name in path.split("."):
        event = event.get(name) if isinstance(event, dict) else None
    return event


def _iso(name: str, value: Any, units_per_ms: int) -> str | None:
    """A time as RFC 3339 has it."""
    if value is None:
        return None
    try:
        moment = _EPOCH + timedelta(microseconds=value * (1_000 // units_per_ms))
    except OverflowError as error:
        raise RecordError("not_encodable", f"{name} is {value}, which no calendar has, and a CloudEvent's time is a date") from error
    digits = "milliseconds" if units_per_ms == 1 else "microseconds"
    return moment.isoformat(timespec=digits).replace("+00:00", "Z")
