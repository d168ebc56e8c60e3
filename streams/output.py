"""An output: which rows of a batch a stage writes to a topic, as what, and under which key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.codec import Encoder
from schemas.columns import Columns, Ints
from streams.batch import Batch
from transforms.fixed_point import numbers

EARLIEST_STAMP_MS = 1  # of a record
CLOCK_MARGIN_MS = 60_000

Keys = Callable[[Batch, Ints], Sequence[bytes | None]]
Headers = Sequence[tuple[str, bytes | None]]
GoAlong = Callable[[Batch, Ints], Mapping[int, Headers]]


def _nothing(batch: Batch, rows: Ints) -> Mapping[int, Headers]:
    return {}


@dataclass(frozen=True, slots=True)
class Parcel:
    """Records on their way to one topic: values, keys and timestamps, and the rows of the batch they were made of.

    Few records have headers; they stand by row.
    """

    topic: str
    rows: Ints
    values: Sequence[bytes]
    keys: Sequence[bytes | None]
    stamps_ms: Sequence[int]
    headers: Mapping[int, Headers] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """What a stage writes to one topic.

    Attributes:
        topic: where.
        encoder: of the records.
        columns: of a batch's records, a row for each row of the batch.
        keys: of the records of some rows.
        event_time: the column that stamps them.
        bounds_ms: how far before and after now the topic takes timestamps.
        headers: by row, those of the records that have any.
        abreast: whether a batch's partitions go out in the order of their records' arrival, and not one after the other.
    """

    topic: str
    encoder: Encoder
    columns: Callable[[Batch], Columns]
    keys: Keys
    event_time: str
    bounds_ms: tuple[int, int]
    headers: GoAlong = _nothing
    abreast: bool = False

    def parcel(self, batch: Batch, now_ms: int) -> Parcel:
        """The records of a batch's outgoing rows."""
        rows = np.flatnonzero(batch.outgoing)
        if not len(rows):
            return Parcel(self.topic, rows, (), (), ())
        if self.abreast and len(batch.spans) > 1:
            rows = rows[np.argsort(_arrivals(batch)[rows], kind="stable")]
        values = list(self.encoder.encode(self.columns(batch), rows))
        event_ms = numbers(self.event_time, batch.columns[self.event_time])[rows]
        stamps_ms = clamped(event_ms, self.bounds_ms, now_ms).tolist()
        return Parcel(self.topic, rows, values, self.keys(batch, rows), stamps_ms, self.headers(batch, rows))


def _arrivals(batch: Batch) -> Ints:
    """When each row arrived, none before those that stand before it in its partition."""
    return np.concatenate([np.maximum.accumulate(batch.arrived_ms[span.rows]) for span in batch.spans])


def as_read(batch: Batch, rows: Ints) -> Sequence[bytes | None]:
    """The keys the records came with."""
    return [batch.keys[row] for row in rows.tolist()]


def clamped(stamps_ms: Ints, bounds_ms: tuple[int, int], now_ms: int) -> Ints:
    """Timestamps as a topic takes them, with a margin for the time they are under way and for clocks that differ."""
    before, after = (bound - min(CLOCK_MARGIN_MS, bound // 2) for bound in bounds_ms)
    # Never 0: the client takes that for "now".
    return np.clip(stamps_ms, max(now_ms - before, EARLIEST_STAMP_MS), now_ms + after)
