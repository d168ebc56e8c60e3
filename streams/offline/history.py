"""History: where past events are read from, in the order of their log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from schemas.codec import Decoder
from schemas.columns import Ints, Mask, PackedBytes
from schemas.errors import HistoryError, RecordError, SchemaError
from schemas.event_file import FileEvent, read_events
from schemas.features import Json
from schemas.table import Table
from schemas.table_file import TableFile, open_table_file
from streams.definition.bound import Bound
from streams.offline.featurize import Past
from streams.offline.past_table import PastTable

TABLE_SUFFIXES = (".parquet", ".csv")
EVENT_SUFFIXES = (".avro", ".jsonl", ".ndjson", ".json")
TOPIC_PREFIX = "kafka:"
TURN_ROWS = 50_000
EVENT_TURN = 5_000
MOST_WORDS = 300  # of a message: a schema that does not fit is told of whole


@dataclass(frozen=True, slots=True)
class Turn:
    """Some events of a history.

    Attributes:
        past: as records.
        table: columns to go with them; None = none.
        has_events: whether the events themselves are among these columns, as they were given.
        troubles: by row, why it could not be read.
        wanted: whether features of them are asked for; else they only fill the windows.
        is_label: shape (n,): which of the records are labels, which have no row in `table`; None = none.
        value: shape (n,): what these say.
    """

    past: Past
    table: Table | None = None
    has_events: bool = False
    troubles: Mapping[int, RecordError] = field(default_factory=dict)
    wanted: bool = True
    is_label: Mask | None = None
    value: Ints | None = None


class History(Protocol):
    """Past events of one log or several.

    Attributes:
        decoder: for their values.
        rows: how many there are; None = not known before the end.
        max_record_bytes: larger records are refused.
        labelled: whether labels stand among the events.
    """

    decoder: Decoder
    rows: int | None
    max_record_bytes: int
    labelled: bool

    def turns(self) -> Iterator[Turn]:
        """All events: each partition's together, in the order of its log.

        Raises:
            HistoryError: a file is broken, or is not what the pipeline reads.
            KafkaDown: the broker does not answer.
        """

    def describe(self) -> Json:
        """Where they come from, for the metadata of what is made of them: the same for the same history on any machine."""


class TableHistory:
    """Parquet or CSV files of one shape, one after the other, as one log: row 0 of the first file stands at offset 0.

    Args:
        bound: the pipeline.
        files: in order.
        time_zone: of times that have none.
        arrived: the column of arrival times.

    Raises:
        HistoryError: a file is missing, empty, broken, of another shape than the first, or lacks a column.
    """

    max_record_bytes = 2**31 - 1
    labelled = False

    def __init__(self, bound: Bound, files: Sequence[Path], time_zone: str | None = None, arrived: str | None = None) -> None:
        self._files = [open_table_file(path) for path in files]
        first = self._files[0]
        for other in self._files[1:]:
            _same_shape(first, other)
        self._more = [
            name for name in first.shape.column_names if name.partition(".")[0] not in {each.name for each in bound.schema.fields}
        ]
        self._text, self._time_zone = first.text, time_zone
        self._past = PastTable(bound, first.shape, str(first.path), time_zone=time_zone, arrived=arrived, text=first.text)
        self.decoder = self._past.decoder
        counts = [file.rows for file in self._files]
        self.rows = None if None in counts else sum(count for count in counts if count is not None)

    def turns(self) -> Iterator[Turn]:
        """See `History`."""
        offset = 0
        for file in self._files:
            row = 0
            for table in file.tables(TURN_ROWS):
                # What was text goes out as what it meant; columns that the schema does not know stay text.
                more = table.select(self._more) if self._text else table
                yield Turn(self._past.past(table, offset, row, str(file.path)), more, has_events=not self._text)
                row += len(table)
                offset += len(table)

    def describe(self) -> Json:
        """See `History`."""
        files: list[Json] = [{"name": file.path.name, "bytes": file.path.stat().st_size} for file in self._files]
        return {"files": files, **({"time_zone": self._time_zone} if self._time_zone and not self._text else {})}


class EventFileHistory:
    """Avro containers or JSON lines, one after the other, as one log.

    An event that can't be the schema's is refused under the decoder's words, and the next one read.
    """

    rows: int | None = None
    max_record_bytes = 2**31 - 1
    labelled = False

    def __init__(self, bound: Bound, files: Sequence[Path]) -> None:
        for path in files:
            if not path.is_file():
                raise HistoryError(f"{path} is missing")
            if path.stat().st_size == 0:
                raise HistoryError(f"{path} is empty")
        self._bound, self._files = bound, files
        self.decoder = Decoder(bound.schema, "bare", None)

    def turns(self) -> Iterator[Turn]:
        """See `History`."""
        offset = 0
        for path in self._files:
            waiting: list[FileEvent] = []
            for event in self._events(path):
                waiting.append(event)
                if len(waiting) == EVENT_TURN:
                    yield self._turn(path, waiting, offset)
                    offset += len(waiting)
                    waiting = []
            if waiting:
                yield self._turn(path, waiting, offset)
                offset += len(waiting)

    def describe(self) -> Json:
        """See `History`."""
        return {"files": [{"name": path.name, "bytes": path.stat().st_size} for path in self._files]}

    def _events(self, path: Path) -> Iterator[FileEvent]:
        try:
            yield from read_events(path, self._bound.schema, self._bound.key)
        except SchemaError as error:
            words = str(error)
            raise HistoryError(words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}...") from error

    def _turn(self, path: Path, events: list[FileEvent], offset: int) -> Turn:
        n = len(events)
        past = Past(
            source=str(path),
            partition=0,
            offsets=np.arange(offset, offset + n, dtype=np.int64),
            next_offset=offset + n,
            values=PackedBytes.pack([event.value or b"" for event in events]),
            keys=[event.key for event in events],
            arrived_ms=np.zeros(n, np.int64),
        )
        return Turn(past, troubles={row: event.trouble for row, event in enumerate(events) if event.trouble is not None})


def open_files(bound: Bound, sources: Sequence[str], time_zone: str | None = None, arrived: str | None = None) -> History:
    """The history in some files.

    Args:
        bound: the pipeline.
        sources: files, folders or patterns; files of a folder or pattern are taken in the order of their names, numbers by value.
        time_zone: of times that have none.
        arrived: the column of arrival times.

    Raises:
        HistoryError: there is no file, they are of several kinds, or one is not what the pipeline reads.
    """
    files = [path for source in sources for path in files_of(source)]
    kinds = {path.suffix.lower() for path in files}
    if len(kinds) > 1:
        raise HistoryError(f"{', '.join(sources)}: files of several kinds ({', '.join(sorted(kinds))}); wanted one")
    kind = kinds.pop()
    if kind in TABLE_SUFFIXES:
        return TableHistory(bound, files, time_zone, arrived)
    if kind in EVENT_SUFFIXES:
        guarded = [entity.name for entity in bound.pipeline.entities if entity.guard]
        if guarded:
            raise HistoryError(
                f"{files[0]}: the guard of entity {guarded[0]!r} needs the time each record arrived at, which such a file does not tell"
            )
        return EventFileHistory(bound, files)
    raise HistoryError(f"{files[0]}: {kind or 'no'} suffix; wanted one of {', '.join((*TABLE_SUFFIXES, *EVENT_SUFFIXES))}")


def files_of(source: str) -> list[Path]:
    """The files that a source names, in order.

    Raises:
        HistoryError: there is none.
    """
    path = Path(source)
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.is_file() and each.suffix.lower() in (*TABLE_SUFFIXES, *EVENT_SUFFIXES)]
        found = [each for each in found if not any(part.startswith((".", "_")) for part in each.relative_to(path).parts)]
        wanted = "a file that ends in " + " or ".join((*TABLE_SUFFIXES, *EVENT_SUFFIXES))
    elif any(sign in source for sign in "*?["):
        base = Path(path.anchor) if path.is_absolute() else Path()
        found = [each for each in base.glob(str(path.relative_to(path.anchor) if path.is_absolute() else path)) if each.is_file()]
        wanted = "a file of such a name"
    else:
        return [path]
    if not found:
        raise HistoryError(f"nothing at {source}; wanted {wanted}")
    return sorted(found, key=lambda each: _natural(str(each)))


def _natural(name: str) -> list[tuple[int, str]]:
    """A name to sort by: part-9 before part-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _same_shape(first: TableFile, other: TableFile) -> None:
    missing = [name for name in first.shape.column_names if name not in other.shape.column_names]
    added = [name for name in other.shape.column_names if name not in first.shape.column_names]
    if missing or added:
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"adds {', '.join(added)}"] if added else []
        raise HistoryError(f"{other.path} {' and '.join(said)}; wanted the columns of {first.path}")
