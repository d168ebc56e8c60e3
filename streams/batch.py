"""A batch: the records of one turn of the source, as columns that keep their addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Ints, Mask, PackedBytes
from schemas.framing import HeadersByRow
from transforms.label import LabelRows
from transforms.store import Writes


@dataclass(frozen=True, slots=True)
class Address:
    """Where a record stands in the log; prints as ``payments[3]@1042``."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Span:
    """The rows ``start`` to ``stop`` of a batch: one partition's, in log order; prints as ``payments[3]@1042..2042``.

    `next_offset` is the offset to commit once they are done. It may lie beyond the last row: transactions leave gaps in a log.
    """

    topic: str
    partition: int
    start: int
    stop: int
    first_offset: int
    next_offset: int

    @property
    def rows(self) -> slice:
        """The span's rows in the batch's columns."""
        return slice(self.start, self.stop)

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.first_offset}..{self.next_offset}"


@dataclass(frozen=True, slots=True)
class OriginPlaces:
    """Where each row of a hop's batch entered the pipeline: its record in the input, or in the labels' topic."""

    topics: tuple[str, ...]
    codes: NDArray[np.int32]  # shape (n,): into `topics`
    partitions: NDArray[np.int32]  # shape (n,)
    offsets: Ints  # shape (n,)

    def address(self, row: int) -> Address:
        """Of one row."""
        return Address(self.topics[self.codes[row]], int(self.partitions[row]), int(self.offsets[row]))


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one turn of the source, as columns of equal length.

    Rows of a partition stand together, in log order. A row is either usable or rejected; it never leaves the batch before `load`.
    A step takes a batch and returns one of the same length.
    """

    spans: tuple[Span, ...]
    offsets: Ints  # shape (n,)
    arrived_ms: Ints  # shape (n,): the record's timestamp; in a hop's batch that of its origin
    keys: Sequence[bytes | None]  # n
    raw: PackedBytes  # n values as they came, for dead letters and replay
    absent: Mask  # shape (n,): null values
    headers: HeadersByRow  # of the rows that have any
    columns: Columns  # each of length n
    rejected: NDArray[np.uint8]  # shape (n,): 0 = usable, else a `Reject` code
    tokens: Mapping[int, int] = field(default_factory=dict)  # by partition: the assignment its rows were polled under
    replay: bool = False  # only the state follows from it: outputs were committed before
    timing: NDArray[np.uint8] | None = None  # shape (n,): see `transforms.shard`
    scores: NDArray[np.float32] | None = None  # shape (n,)
    schema_ids: NDArray[np.int32] | None = None  # shape (n,): the writer's
    writes: Mapping[int, tuple[Writes, ...]] = field(default_factory=dict)  # by partition, frozen
    origins: OriginPlaces | None = None  # None: the rows are their own
    labels: LabelRows | None = None  # which rows are labels; None: no row is
    repeated: Mask | None = None  # shape (n,): labels that said nothing new
    first_offsets: Ints | None = None  # shape (n,): where a record that came back stood first (`pack.first_offsets`), else -1

    def __len__(self) -> int:
        return len(self.offsets)

    def __str__(self) -> str:
        return " ".join(map(str, self.spans))

    @property
    def usable(self) -> Mask:
        """Shape (n,): rows not rejected so far."""
        return np.equal(self.rejected, 0)

    @property
    def outgoing(self) -> Mask:
        """Shape (n,): rows that go on: usable, and no labels that have arrived where they are used."""
        return self.usable if self.labels is None else self.usable & ~self.labels.is_label

    def with_columns(self, new: Mapping[str, Column]) -> Batch:
        """The same rows with more columns."""
        return replace(self, columns={**self.columns, **new})

    def rejecting(self, rows: Mask, code: int) -> Batch:
        """The same rows, with the usable ones among `rows` rejected for `code`."""
        return replace(self, rejected=np.where(rows & self.usable, np.uint8(code), self.rejected))

    def address(self, row: int) -> Address:
        """Where a row came from."""
        span = next(s for s in self.spans if s.start <= row < s.stop)
        return Address(span.topic, span.partition, int(self.offsets[row]))

    def origin(self, row: int) -> Address:
        """Where a row entered the pipeline."""
        return self.address(row) if self.origins is None else self.origins.address(row)

    @property
    def entered_at(self) -> tuple[NDArray[np.int32], Ints]:
        """Shape (n,) each: partition and offset of where each row entered the pipeline."""
        if self.origins is not None:
            return self.origins.partitions, self.origins.offsets
        sizes = [span.stop - span.start for span in self.spans]
        return np.repeat(np.array([span.partition for span in self.spans], np.int32), sizes), self.offsets

    def partitions(self) -> Iterator[tuple[int, slice]]:
        """Each partition with its rows."""
        return ((span.partition, span.rows) for span in self.spans)
