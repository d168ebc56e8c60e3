"""Sources of data to look at: files and topics, read as a schema's columns, with every row that can't be read told of.

    orders.jsonl    orders.avro    orders/*.parquet    orders.csv    kafka:orders

A row of a table is encoded as the record that a producer would have sent and read again, so what a check says of a file is what a worker
would say of the topic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from schemas.avro import AvroSchema
from schemas.codec import Decoder, Encoder
from schemas.columns import Columns, Ints, Mask, PackedBytes
from schemas.container import container_schema
from schemas.errors import HistoryError, RecordError
from schemas.event_file import AVRO_MAGIC, read_events
from schemas.framing import Framing
from schemas.infer import Infinite, Profile, no_constant
from schemas.json_record import WrittenNumber, as_it_travels, avro_of_record, record_of_json
from streams.offline.history import EVENT_SUFFIXES, TABLE_SUFFIXES, TOPIC_PREFIX, files_of
from streams.settings import Settings

TURN_ROWS = 5_000
_FIELD = re.compile(r"([A-Za-z_][\w.]*?)(?:\[\d+\])?(?:, at byte \d+ of \d+)?(?: is |: )")
FramingChoice = Literal["confluent", "bare", "json"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a row can't be read.

    Attributes:
        reason: one of a small set of words.
        field: whose value is at fault; empty if no field's.
        words: what was found, what was wanted.
    """

    reason: str
    field: str
    words: str

    @classmethod
    def of(cls, error: RecordError) -> Trouble:
        """From what a reader says."""
        found = _FIELD.match(error.detail)
        return cls(error.reason, found[1] if found and found[1] not in ("the", "no") else "", error.detail)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a source.

    Attributes:
        columns: of n rows; what stands in one that can't be read means nothing.
        usable: shape (n,): those that can be read.
        troubles: why the others can't, by row.
        place: what messages call a row: ``orders.jsonl:17``, ``orders.csv row 17``, ``orders[0]@17``.
        arrived_ms: shape (n,): when the broker took them in; None = that is not known.
        unexpected: fields that the schema does not know, with the number of rows that have them.
        keys: of n records; None = they have none, as in a file.
    """

    columns: Columns
    usable: Mask
    troubles: Mapping[int, Trouble]
    place: Callable[[int], str]
    arrived_ms: Ints | None = None
    unexpected: Mapping[str, int] = field(default_factory=dict)
    keys: Sequence[bytes | None] | None = None

    def __len__(self) -> int:
        return len(self.usable)


class Source(Protocol):
    """Where data is.

    Attributes:
        name: what messages call it.
        schema: of its records, as it is read.
    """

    name: str
    schema: AvroSchema

    def rows(self) -> Iterator[Rows]:
        """All of it, in order.

        Raises:
            HistoryError: it is broken from some place on.
            KafkaDown: the broker does not answer.
        """


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    Attributes:
        schema: what their records are; None = drafted from them.
        time_zone: of times that have none; None = such times are refused.
        limit: rows of each file or partition; None = all.
        settings: for the broker and the registry; needed for topics.
        framing: of a topic's values, a pipeline's or one of `FramingChoice`; None = told from the first of them.
        folder: of schemas, where no registry is set.
        name: of a drafted record.
    """

    schema: AvroSchema | None = None
    time_zone: str | None = None
    limit: int | None = None
    settings: Callable[[], Settings] | None = None
    framing: Framing | None = None
    folder: Path = Path()
    name: str = "Event"


def open_source(given: Sequence[str], how: Reading) -> Source:
    """The data in some files of one kind, or in a topic (``kafka:NAME``).

    Raises:
        HistoryError: there is none, or it is of no kind that can be read.
        SchemaError: no schema can be drafted from it.
        TopicError: there is no such topic.
    """
    if any(each.startswith(TOPIC_PREFIX) for each in given):
        if len(given) > 1:
            raise HistoryError(f"{', '.join(given)}: wanted one topic, or files")
        from streams.schema.topic_source import TopicSource

        return TopicSource(given[0].removeprefix(TOPIC_PREFIX), how)
    files = [path for each in given for path in files_of(each)]
    for path in files:
        if not path.is_file():
            raise HistoryError(f"{path} is missing")
        if path.stat().st_size == 0:
            raise HistoryError(f"{path} is empty")
    kinds = {path.suffix.lower() for path in files}
    if len(kinds) > 1:
        raise HistoryError(f"{', '.join(given)}: files of several kinds ({', '.join(sorted(kinds))}); wanted one")
    if kinds <= set(TABLE_SUFFIXES):
        from streams.schema.table_source import TableSource

        return TableSource(files, how)
    if kinds <= set(EVENT_SUFFIXES):
        return EventSource(files, how)
    raise HistoryError(f"{files[0]}: {kinds.pop() or 'no'} suffix; wanted one of {', '.join((*TABLE_SUFFIXES, *EVENT_SUFFIXES))}")


class EventSource:
    """JSON lines or Avro containers."""

    def __init__(self, files: Sequence[Path], how: Reading) -> None:
        self._files, self._how = files, how
        self.name = str(files[0]) if len(files) == 1 else f"{files[0]} (+{len(files) - 1})"
        self._containers = [_is_container(path) for path in files]
        self.profile: Profile | None = None  # of a drafted schema
        self.schema = how.schema if how.schema is not None else self._draft()

    def _draft(self) -> AvroSchema:
        if all(self._containers):
            return container_schema(self._files[0])
        self.profile = Profile()
        for path in self._files:
            with path.open("rb") as lines:
                for line in islice(lines, self._how.limit):
                    if line.strip():
                        profile_line(self.profile, line)
        return self.profile.schema(self._how.name)

    def rows(self) -> Iterator[Rows]:
        """See `Source`."""
        for path, container in zip(self._files, self._containers, strict=True):
            yield from self._container(path) if container else self._lines(path)

    def _lines(self, path: Path) -> Iterator[Rows]:
        reader = JsonReader(self.schema)
        with path.open("rb") as file:
            numbered = ((number, line) for number, line in enumerate(islice(file, self._how.limit), 1) if line.strip())
            while turn := list(islice(numbered, TURN_ROWS)):
                numbers = [number for number, _ in turn]
                yield reader.rows([line for _, line in turn], lambda row, numbers=numbers: f"{path.name}:{numbers[row]}")  # type: ignore[misc]

    def _container(self, path: Path) -> Iterator[Rows]:
        decoder = Decoder(self.schema, "bare")
        events = islice(read_events(path, self.schema, ""), self._how.limit)
        while turn := list(islice(events, TURN_ROWS)):
            decoded = decoder.decode(PackedBytes.pack([event.value or b"" for event in turn]))
            troubles = {row: Trouble.of(event.trouble) for row, event in enumerate(turn) if event.trouble is not None}
            first = turn[0].number
            yield Rows(decoded.columns, decoded.rejected == 0, troubles, lambda row, first=first: f"{path.name}:{first + row}")  # type: ignore[misc]


class JsonReader:
    """Reads JSON values as a schema's columns."""

    def __init__(self, schema: AvroSchema) -> None:
        self._to_record, self._plain = record_of_json(schema), as_it_travels(schema)
        self._decoder = Decoder(schema, "bare")
        self._known = {each.name for each in schema.fields}

    def rows(self, texts: Sequence[bytes], place: Callable[[int], str]) -> Rows:
        """Some of them, in order."""
        values: list[bytes] = []
        troubles: dict[int, Trouble] = {}
        unexpected: dict[str, int] = {}
        for row, text in enumerate(texts):
            value = b""
            try:
                given = load_json(text)
                for name in given:
                    if name not in self._known:
                        unexpected[name] = unexpected.get(name, 0) + 1
                value = avro_of_record(self._to_record(given), self._plain)
            except RecordError as error:
                troubles[row] = Trouble.of(error)
            values.append(value)
        decoded = self._decoder.decode(PackedBytes.pack(values))
        usable = decoded.rejected == 0
        usable[list(troubles)] = False  # a record without fields takes no bytes
        return Rows(decoded.columns, usable, troubles, place, unexpected=unexpected)


def load_json(text: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RecordError: it is none.
    """
    try:
        given = json.loads(text, parse_float=WrittenNumber, parse_constant=no_constant)
    except Infinite as error:
        raise RecordError("bad_json", f"{error} is no number of JSON's") from error
    except UnicodeDecodeError as error:
        raise RecordError("bad_utf8", f"no UTF-8: byte {error.start} is {text[error.start]:#04x}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError("bad_json", f"no JSON: {error}") from error
    if not isinstance(given, dict):
        raise RecordError("bad_json", f"{type(given).__name__}, wanted an object")
    return given


def profile_line(profile: Profile, line: bytes) -> str:
    """Look at a line; why it is no record, if it is none."""
    try:
        profile.add(load_json(line))
    except RecordError as error:
        return error.detail
    return ""


def reencoded(columns: Columns, written: AvroSchema, schema: AvroSchema) -> Columns:
    """Columns as a reader of a schema sees them whose writer left some fields out."""
    rows = len(next(iter(columns.values()), ()))
    values = Encoder(written, "confluent", 1).encode(columns) if rows else PackedBytes.pack([])
    return Decoder(schema, "confluent", _One(written)).decode(values).columns


class _One:
    """A registry that knows one schema."""

    def __init__(self, schema: AvroSchema) -> None:
        self._schema = schema

    def schema(self, schema_id: int) -> AvroSchema | None:
        return self._schema

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        return None

    def register(self, subject: str, schema: AvroSchema) -> int:
        raise AssertionError("nothing is registered here")


def _is_container(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(AVRO_MAGIC)) == AVRO_MAGIC


def without_settings(how: Reading) -> Settings:
    """The settings, of which a topic has need."""
    if how.settings is None:
        raise HistoryError("a topic needs the settings of its broker")
    return how.settings()
