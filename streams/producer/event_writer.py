"""Writes events for a topic that a pipeline reads: checked before they are sent, keyed and framed as the pipeline reads them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from schemas.avro import AvroSchema, load_schema
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import DefinitionError, RecordError
from schemas.framing import Headers, loaded
from schemas.json_record import as_it_travels, avro_of_record, record_of_json
from schemas.reject import FIRST_RULE, label
from schemas.rules import Rule, check
from streams.definition.bound import Bound, EventTime
from streams.definition.event_columns import event_columns
from streams.definition.load import load_bound
from streams.definition.pipeline import Topic
from streams.load_settings import load_settings
from streams.local.addresses import local_settings
from streams.producer.wire import wire
from streams.settings import Settings

E = TypeVar("E")

CHUNK_EVENTS = 500


class EventWriter(Generic[E]):
    """Sends events of one type, each a mapping or a dataclass with the fields of the topic's schema.

        with EventWriter[Payment].of("pipeline.py") as payments:
            payments.send(Payment(...))

    An event is held against the schema and the rules before anything is sent, so what a worker would refuse never leaves. Fields the
    schema doesn't know are refused as well: they would be lost. Times may be `datetime` (UTC if they name no zone), milliseconds or
    ISO 8601 text; decimals `Decimal`. The record's key is the text of the key's field, placed as Java's client would; the producer is
    idempotent. Values and headers are framed as the topic says: a `CloudEvents` topic gets binary mode. Calls must not overlap.

    Args:
        topic: with its schema and key.
        folder: where the schema's path starts.
        rules: what an event must be.
        settings: for broker and registry; None = those that hold here, as for `millrace`.

    Raises:
        SchemaError: the schema is missing, broken, or not the registered one.
        TopicError: the topic is missing.
        RetryLater: broker or registry do not answer.
    """

    def __init__(self, topic: Topic, *, folder: Path | str = ".", rules: Sequence[Rule] = (), settings: Settings | None = None) -> None:
        if topic.schema is None or topic.key is None:
            raise DefinitionError(f"topic {topic.name!r} needs schema=... and key=... to be written to")
        given = load_settings(None, os.environ, local_settings()) if settings is None else settings
        path = Path(folder) / topic.schema
        self._topic = topic
        self._schema = load_schema(path)
        with_files = dataclasses.replace(topic, framing=loaded(topic.framing, Path(folder)))
        self._dress = wire(with_files, self._schema, path.parent, given, "`millrace schema register` registers it")
        self._key = topic.key.split(".")
        self._check = _Check(topic, self._schema, tuple(rules))
        from streams.producer.sending import EventSending  # a pipeline file that imports all names waits for no client

        self._sending = EventSending(topic.name, given.kafka)

    @classmethod
    def of(cls, pipeline: Path | str, name: str | None = None, settings: Settings | None = None) -> EventWriter[E]:
        """For the input of a pipeline, with all its rules, implicit ones included.

        Args:
            pipeline: its file.
            name: which, if the file defines several.
            settings: as above.

        Raises:
            DefinitionError: the file is broken.
        """
        bound: Bound = load_bound(pipeline, name)
        return cls(bound.input, folder=bound.folder, rules=bound.rules, settings=settings)

    def send(self, event: E, headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
        """Send one event.

        Raises:
            RecordError: it is not what the schema and the rules want; nothing is sent.
            KafkaDown: the broker does not take events.
        """
        self._sending.send(*self._checked([event], headers)[0])

    def send_all(self, events: Iterable[E]) -> int:
        """Send events in order, and tell how many; much faster than one by one. Those before the first that is wrong are sent.

        Raises:
            RecordError: an event is not what the schema and the rules want; says which.
            KafkaDown: the broker does not take events.
        """
        sent = 0
        remaining = iter(events)
        while chunk := list(islice(remaining, CHUNK_EVENTS)):
            trouble: RecordError | None = None
            try:
                ready = self._checked(chunk)
            except _At as error:
                trouble = RecordError(error.reason, f"event {sent + error.row}: {error.detail}")
                ready = self._checked(chunk[: error.row]) if error.row else []
            for key, value, headers in ready:
                self._sending.send(key, value, headers)
            sent += len(ready)
            if trouble is not None:
                raise trouble
        return sent

    def flush(self) -> None:
        """Wait until the broker has all that was sent.

        Raises:
            RecordError: it refused some of it; says how many, and what of the first.
            KafkaDown: it does not answer.
        """
        self._sending.finish()

    def __enter__(self) -> EventWriter[E]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Everything sent arrives, also what was sent before an error."""
        if error is None:
            self.flush()
        else:
            self._sending.wait()

    def _checked(self, events: Sequence[E], headers: Headers = ()) -> list[tuple[bytes, bytes, Headers]]:
        """Keys, values and headers; raises at the first event that is wrong, before any is sent."""
        made = [self._check.record(row, event) for row, event in enumerate(events)]
        values = [value for _, value in made]
        self._check.rules(values)
        ready: list[tuple[bytes, bytes, Headers]] = []
        for row, (record, avro) in enumerate(made):
            key = _key(record, self._key)
            if key is None:
                raise _At(row, "null_key", f"{self._topic.key} is null; wanted a value, since the record's key is its text")
            try:
                value, around = self._dress(avro, headers)
            except RecordError as error:
                raise _At(row, error.reason, error.detail) from error
            if len(value) > self._sending.most_bytes:
                raise _At(row, "too_large", f"{len(value)} bytes are more than {self._topic.name} takes ({self._sending.most_bytes})")
            ready.append((key, value, around))
        return ready


class _At(RecordError):
    """An event of several is wrong."""

    def __init__(self, row: int, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.row = row


class _Check:
    """Holds events against schema and rules, as a worker's extraction does."""

    def __init__(self, topic: Topic, schema: AvroSchema, rules: tuple[Rule, ...]) -> None:
        self._schema, self._rules = schema, rules
        self._to_record, self._plain = record_of_json(schema), as_it_travels(schema)
        self._decoder = Decoder(schema, "bare")
        self._fields = frozenset(field.name for field in schema.fields)
        columns = event_columns(schema)
        time = columns.get(topic.event_time or "")
        self._time = EventTime(time.name, 1_000 if time.logical == "timestamp-micros" else 1) if time is not None else None

    def record(self, row: int, event: object) -> tuple[Any, bytes]:
        """An event as it travels, and its bytes."""
        given = _plain(event)
        if not isinstance(given, dict):
            raise _At(row, "not_encodable", f"the event is {type(event).__name__}, wanted a mapping or a dataclass")
        unknown = [str(name) for name in given if name not in self._fields]
        if unknown:
            raise _At(row, "not_encodable", f"{unknown[0]!r} is no field of {self._schema}; there are {', '.join(sorted(self._fields))}")
        try:
            record = self._to_record(given)
            return record, avro_of_record(record, self._plain)
        except RecordError as error:
            raise _At(row, error.reason, error.detail) from error

    def rules(self, values: Sequence[bytes]) -> None:
        """Raise at the first event that breaks a rule."""
        decoded = self._decoder.decode(PackedBytes.pack(values))
        columns = dict(decoded.columns)
        if self._time is not None:
            columns[self._time.column] = self._time.to_ms(columns[self._time.column])
        rejected = check(self._rules, columns, decoded.rejected)
        if not rejected.any():
            return
        row = int(np.flatnonzero(rejected)[0])
        code = int(rejected[row])
        if code >= FIRST_RULE:
            rule = self._rules[code - FIRST_RULE]
            raise _At(row, rule.name, rule.explain(columns, row))
        raise _At(row, label(code), self._decoder.explain(values[row]).detail)


def _plain(value: Any) -> Any:
    """Python's own types as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _key(record: Any, path: Sequence[str]) -> bytes | None:
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    if record is None or isinstance(record, bytes):
        return record
    return str(record).encode()
