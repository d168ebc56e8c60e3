"""Labels: what became of events, and when that became known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.avro import AvroSchema
from schemas.columns import Ints, Mask
from schemas.errors import HistoryError
from schemas.features import Json
from schemas.read_table import TableReader
from schemas.table import Table, is_true_or_false, is_whole
from schemas.table_file import open_table_file
from transforms.fixed_point import numbers
from transforms.label import event_id_hashes

TURN_ROWS = 50_000
LONG_AGO = np.iinfo(np.int64).min


@dataclass
class Labels:
    """Labels by the hash of their event's id, sorted by it, by when they became known, and by their place in the file."""

    ids: Ints
    known_ms: Ints  # when each became known; the least there is where that follows from the event
    values: NDArray[np.int8]
    matched: Mask = field(init=False)

    def __post_init__(self) -> None:
        order = np.lexsort((np.arange(len(self.ids)), self.known_ms, self.ids))
        self.ids, self.known_ms, self.values = self.ids[order], self.known_ms[order], self.values[order]
        self.matched = np.zeros(len(self.ids), np.bool_)

    def at(self, ids: Ints, by_ms: int) -> NDArray[np.intp]:
        """Shape (n,): for each event the place of its last label known by then; -1 = none. Whatever has an event is marked as matched."""
        first = np.searchsorted(self.ids, ids)
        end = np.searchsorted(self.ids, ids, side="right")
        edges = np.zeros(len(self.ids) + 1, np.int64)
        np.add.at(edges, first, 1)
        np.add.at(edges, end, -1)
        self.matched |= np.cumsum(edges[:-1]) > 0
        # Sorted by when they became known, those known by then come first among an event's.
        known: Ints = np.concatenate((np.zeros(1, np.int64), np.cumsum(self.known_ms <= by_ms, dtype=np.int64)))
        count: Ints = known[end] - known[first]
        return np.asarray(np.where(count > 0, first + count - 1, -1), np.intp)


def read_labels(path: Path, event_id: str, label: str, known_at: str | None, time_zone: str | None = None) -> Labels:
    """The labels in a Parquet or CSV file: an event's id, its label, and when that became known.

    Args:
        path: of the file.
        event_id: the column of ids.
        label: the column of labels: true and false, or 1 and 0.
        known_at: the column that says when each became known; None = that follows from the event's own time.
        time_zone: of times that have none.

    Raises:
        HistoryError: the file is missing, empty or broken, lacks a column, or a value is missing or of another type.
    """
    file = open_table_file(path)
    reader = _reader(file.shape, str(path), event_id, label, known_at, time_zone, file.text)
    parts: list[Labels] = []
    row = 0
    for table in file.tables(TURN_ROWS):
        parts.append(_rows(reader, table, row, event_id, label, known_at))
        row += len(table)
    if not row:
        raise HistoryError(f"{path} holds no labels")
    ids, known = np.concatenate([part.ids for part in parts]), np.concatenate([part.known_ms for part in parts])
    return Labels(ids, known, np.concatenate([part.values for part in parts]))


def labels_of(table: Table, where: str, event_id: str, label: str, known_at: str, time_zone: str | None = None) -> Labels:
    """The labels in a table; see `read_labels`.

    Raises:
        HistoryError: a column is missing, or a value is missing or of another type.
    """
    return _rows(_reader(table, where, event_id, label, known_at, time_zone, False), table, 0, event_id, label, known_at)


def among(events_ms: Ints, ids: Ints, labels: Labels) -> tuple[NDArray[np.intp], Mask, Ints]:
    """Events and their labels as one log: a label comes before the event with which the log's newest time reaches its own.

    Args:
        events_ms: shape (n,): event times, in the order of the log.
        ids: shape (n,): their ids.
        labels: those of no event here are left out.

    Returns:
        Shape (n + m,): of each place the row of the event it is or is about; whether it is a label; and what that says.
    """
    n = len(events_ms)
    by_id = np.argsort(ids, kind="stable")
    at = np.minimum(np.searchsorted(ids[by_id], labels.ids), max(n - 1, 0))
    known = np.flatnonzero(ids[by_id][at] == labels.ids) if n else np.zeros(0, np.intp)
    place = np.searchsorted(np.maximum.accumulate(events_ms), labels.known_ms[known])
    rows = np.concatenate((np.arange(n), by_id[at[known]]))
    is_label = np.concatenate((np.zeros(n, np.bool_), np.ones(len(known), np.bool_)))
    value = np.concatenate((np.zeros(n, np.int64), labels.values[known].astype(np.int64)))
    when = np.concatenate((np.zeros(n, np.int64), labels.known_ms[known]))
    order = np.lexsort((when, ~is_label, np.concatenate((np.arange(n), place))))
    return rows[order], is_label[order], value[order]


def _reader(shape: Table, where: str, event_id: str, label: str, known_at: str | None, time_zone: str | None, text: bool) -> TableReader:
    whole = not text and event_id in shape.column_names and is_whole(shape, event_id)
    truth = not text and label in shape.column_names and is_true_or_false(shape, label)
    fields: list[Json] = [{"name": event_id, "type": "long" if whole else "string"}]
    fields.append({"name": label, "type": "boolean" if truth else "long"})
    if known_at is not None:
        fields.append({"name": known_at, "type": {"type": "long", "logicalType": "timestamp-millis"}})
    schema = AvroSchema.parse({"type": "record", "name": "Label", "fields": fields})
    return TableReader.of(shape, schema, where, time_zone, text)


def _rows(reader: TableReader, table: Table, row: int, event_id: str, label: str, known_at: str | None) -> Labels:
    columns = reader.columns(table, row)
    values = numbers(label, columns[label]).astype(np.int64)
    odd = np.flatnonzero((values != 0) & (values != 1))
    if len(odd):
        raise HistoryError(f"{reader.where}, row {row + int(odd[0])}: {label} is {values[odd[0]]}, wanted 0 or 1")
    known = np.full(len(table), LONG_AGO, np.int64) if known_at is None else numbers(known_at, columns[known_at]).astype(np.int64)
    return Labels(event_id_hashes(columns[event_id]), known, values.astype(np.int8))
