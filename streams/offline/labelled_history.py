"""Labels among past events, each where a stream would have had it: before the event with which the log's newest time reaches its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from schemas.columns import Ints, Mask, PackedBytes
from schemas.errors import HistoryError
from schemas.features import Json
from schemas.reject import Reject
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.offline.featurize import Featurize, Past
from streams.offline.history import History, Turn
from streams.offline.known_labels import LONG_AGO, Labels, read_labels
from transforms.fixed_point import numbers
from transforms.label import event_id_hashes


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A label that is not known yet, as a copy of its event."""

    known_ms: int
    place: int  # among all labels; of those that become known together the first comes first
    value: bytes
    key: bytes | None
    arrived_ms: int


class LabelledHistory:
    """A history with labels in it; as `Bound.transform` has them, but a turn at a time.

    An event whose label comes later is kept until then, so memory holds the labels, and the events of as long as labels take.
    A label that is known before its event, or is of no event, is left out: it would be a dead letter.

    Args:
        bound: the pipeline, which has labels.
        history: the events.
        labels: what became of them.
        source: where the labels are from, for the metadata.
    """

    labelled = True

    def __init__(self, bound: Bound, history: History, labels: Labels, source: Json) -> None:
        self._bound, self._history, self._labels, self._source = bound, history, labels, source
        self.decoder, self.rows, self.max_record_bytes = history.decoder, history.rows, history.max_record_bytes
        self._read = Featurize(bound, history.decoder, history.max_record_bytes, labelled=True).read
        self._partition: int | None = None
        self._newest_ms = LONG_AGO
        self._waiting: list[_Waiting] = []

    def turns(self) -> Iterator[Turn]:
        """See `History`."""
        for turn in self._history.turns():
            if turn.past.partition != self._partition:
                self._partition, self._newest_ms, self._waiting = turn.past.partition, LONG_AGO, []
            yield self._with_labels(turn)

    def describe(self) -> Json:
        """See `History`."""
        said = self._history.describe()
        assert isinstance(said, dict)
        return {**said, "labels": self._source}

    def _with_labels(self, turn: Turn) -> Turn:
        past, n = turn.past, len(turn.past.offsets)
        batch = self._read(past)
        newest = self._newest(batch)
        self._waiting += self._labels_of(batch, past, newest)
        self._waiting.sort(key=lambda label: (label.known_ms, label.place))
        # Those known by the end of this turn go into it, each before the event that reaches its time.
        until = self._newest_ms = int(newest[-1]) if n else self._newest_ms
        known = [label for label in self._waiting if label.known_ms <= until]
        self._waiting = self._waiting[len(known) :]
        places = np.searchsorted(newest, [label.known_ms for label in known])
        order = np.argsort(np.concatenate((np.arange(n) + 0.5, places)), kind="stable")
        is_label = order >= n
        said = np.array([int(self._labels.values[label.place]) for label in known], np.int64)
        value = np.concatenate((np.zeros(n, np.int64), said))[order]
        rows = np.flatnonzero(~is_label)
        troubles = {int(rows[row]): error for row, error in turn.troubles.items()}
        return replace(turn, past=_merged(past, known, places, order), is_label=is_label, value=value, troubles=troubles)

    def _newest(self, batch: Batch) -> Ints:
        """Shape (n,): the log's newest event time, each event included; those that can't be read have none."""
        column = numbers("time", batch.columns[self._bound.event_time.column]).astype(np.int64)
        read = batch.usable | (batch.rejected >= Reject.NULL_KEY)
        return np.maximum(np.maximum.accumulate(np.where(read, column, LONG_AGO)), self._newest_ms)

    def _labels_of(self, batch: Batch, past: Past, newest: Ints) -> Iterator[_Waiting]:
        """The labels of a turn's events that become known after them; of events with one id the first has them."""
        labels = self._labels
        rows = np.flatnonzero(batch.usable)
        ids, first = np.unique(event_id_hashes(batch.columns[self._bound.event_id])[rows], return_index=True)
        start, end = np.searchsorted(labels.ids, ids), np.searchsorted(labels.ids, ids, side="right")
        for found in np.flatnonzero(end > start).tolist():
            row = int(rows[first[found]])
            for place in range(int(start[found]), int(end[found])):
                if not labels.matched[place]:
                    labels.matched[place] = True
                    if labels.known_ms[place] > newest[row]:
                        known_ms, arrived_ms = int(labels.known_ms[place]), int(past.arrived_ms[row])
                        yield _Waiting(known_ms, place, past.values[row], past.keys[row], arrived_ms)


def _merged(past: Past, known: list[_Waiting], places: Ints, order: Ints) -> Past:
    """Events and labels in one order; a label stands at the offset of the event after it."""
    n = len(past.offsets)
    keys = [*past.keys, *(label.key for label in known)]
    absent: Mask = np.zeros(n, np.bool_) if past.absent is None else past.absent
    first = np.full(n, -1, np.int64) if past.first_offsets is None else past.first_offsets
    nothing = np.zeros(len(known), np.int64)
    arrived = np.array([label.arrived_ms for label in known], np.int64)
    return replace(
        past,
        offsets=np.concatenate((past.offsets, past.offsets[places]))[order],
        values=PackedBytes.pack([*past.values, *(label.value for label in known)]).take(order),
        keys=[keys[row] for row in order.tolist()],
        arrived_ms=np.concatenate((past.arrived_ms, arrived))[order],
        absent=np.concatenate((absent, nothing != 0))[order],
        first_offsets=np.concatenate((first, nothing - 1))[order],
    )


def with_labels(bound: Bound, history: History, file: Path, known_at: str | None = None, time_zone: str | None = None) -> LabelledHistory:
    """A history with the labels in a Parquet or CSV file: the event's id and the label under the names the pipeline's labels have.

    Args:
        bound: the pipeline.
        history: the events.
        file: of the labels.
        known_at: the column that says when each became known; None = the one that the pipeline's labels name as their time.
        time_zone: of times that have none.

    Raises:
        HistoryError: the pipeline has no labels or they name no time, or the file is missing, broken, or lacks a column.
    """
    declared = bound.pipeline.labels
    if bound.labels is None or declared is None:
        raise HistoryError(f"pipeline {bound.name!r} has no labels; wanted Labels(...) in it, or a history of events alone")
    known_at = known_at or declared.time
    if known_at is None:
        raise HistoryError(
            f"the labels of pipeline {bound.name!r} name no time; wanted --known-at, the column that says when they were known"
        )
    found = read_labels(file, bound.labels.event_id, bound.labels.value, known_at, time_zone)
    return LabelledHistory(bound, history, found, {"file": file.name, "bytes": file.stat().st_size})
