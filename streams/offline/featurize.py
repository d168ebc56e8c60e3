"""Featurize: past events through a worker's first steps, in their log's order, with all state in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from inference.float32 import to_float32
from schemas.avro import AvroType, Field, Primitive, Record, Union
from schemas.codec import Decoder
from schemas.columns import Ints, Mask, PackedBytes, Symbols
from schemas.errors import HistoryError, RecordError
from schemas.framing import HeadersByRow
from schemas.layout import is_covered
from schemas.reject import Reject
from schemas.table import Table, chosen, strings, table_of, to_arrow
from streams.batch import Batch, Span
from streams.definition.bound import Bound
from streams.extract import Extract, ExtractHop
from streams.hop import HopSchema
from streams.planning.stage import Stage
from streams.refusal import refusal
from streams.refusals import Refusals
from streams.scored_event import TIMINGS
from streams.transform import Transform
from transforms.fixed_point import numbers
from transforms.label import LabelRows, event_id_hashes
from transforms.shard import ShardState

TOKEN = 0
EVERY_KEY = 1 << 40  # none leaves memory
VERDICT = ("timing", "refused", "refused_detail")  # what a row says of itself, beside its features


@dataclass(frozen=True, slots=True)
class Past:
    """Some records of one log, as they stand in it.

    Attributes:
        source: what the log is called.
        partition: which log of the source.
        offsets: shape (n,): where each record stands.
        next_offset: behind the last record.
        values: n records, as the decoder reads them.
        keys: n texts.
        arrived_ms: shape (n,): when each came in.
        absent: shape (n,): records without a value; None = all have one.
        first_offsets: shape (n,): where a record that came back stood first (`pack.first_offsets`), else -1; None = no row did.
        headers: by row, of the records that have any.
    """

    source: str
    partition: int
    offsets: Ints
    next_offset: int
    values: PackedBytes
    keys: Sequence[bytes | None]
    arrived_ms: Ints
    absent: Mask | None = None
    first_offsets: Ints | None = None
    headers: HeadersByRow = field(default_factory=dict)

    def batch(self) -> Batch:
        """The same as a worker's batch."""
        n = len(self.offsets)
        first = int(self.offsets[0]) if n else self.next_offset
        return Batch(
            spans=(Span(self.source, self.partition, 0, n, first, self.next_offset),),
            offsets=self.offsets,
            arrived_ms=self.arrived_ms,
            keys=self.keys,
            raw=self.values,
            absent=np.zeros(n, np.bool_) if self.absent is None else self.absent,
            headers=self.headers,
            columns={},
            rejected=np.zeros(n, np.uint8),
            tokens={self.partition: TOKEN},
            first_offsets=self.first_offsets,
        )


class Featurize:
    """Computes the features of past records: by the steps of a worker, so that they are those it would have served.

    Each partition has a state of its own, which begins empty. `read` and `remember` may run in two threads, each in the log's order.

    Args:
        bound: the pipeline.
        decoder: for its records.
        max_record_bytes: larger ones are refused, as a worker would.
        labelled: whether labels stand among the records.
        stage: the only one whose steps are taken, over records of its own input; None = all stages' in one pass, over the pipeline's input.

    Attributes:
        decoder: for its records.
        names: derived columns and window features of the pipeline.

    Raises:
        HistoryError: an entity counts labels, which are not among the events.
    """

    def __init__(
        self, bound: Bound, decoder: Decoder, max_record_bytes: int = 2**31 - 1, labelled: bool = False, stage: Stage | None = None
    ) -> None:
        counting = [entity.name for entity in bound.pipeline.entities if entity.has_labels]
        if counting and not labelled and stage is None:
            raise HistoryError(
                f"entity {counting[0]!r} counts labels, and events alone do not tell them; "
                "wanted labels with them (`--labels`, or `labels=` of `Bound.transform`), or a pipeline without LabelCount and LabelRate"
            )
        self._bound, self._stage = bound, stage
        self.decoder = decoder
        self._extract: Callable[[Batch], Batch] = Extract(bound, decoder, Refusals(), max_record_bytes, unknown_schema_retry_seconds=0)
        if stage is not None and stage.kind == "hop":
            hop = HopSchema.of(bound, stage)
            self.decoder, self._extract = hop.decoder(), ExtractHop(hop)
        self._partitions: dict[int, int] = {}
        self._states: dict[int, ShardState] = {}
        self._entities = bound.pipeline.entities if stage is None else stage.entities
        self._transform = Transform(bound, self._open, lambda: self._partitions, stage)
        windows = [name for entity in bound.pipeline.entities for name in entity.feature_names]
        derived = [each.name for each in bound.pipeline.derived]
        self.names = (*derived, *windows)

    @property
    def state_bytes(self) -> int:
        """The memory of all state."""
        return sum(state.size_bytes for state in self._states.values())

    @property
    def keys(self) -> dict[str, int]:
        """By entity, how many keys are remembered."""
        return dict(self._transform.resident_keys())

    def read(self, past: Past, is_label: Mask | None = None, value: Ints | None = None) -> Batch:
        """Records as checked columns.

        Args:
            past: the records; a label stands there as a copy of its event.
            is_label: shape (n,): which of them are labels; None = none. A stage's records say so themselves.
            value: shape (n,): what these say, 0 or 1.

        Raises:
            StateError: a stage's record was written by another definition of the pipeline.
        """
        batch = self._extract(past.batch())
        if self._bound.labels is None or self._stage is not None:
            return batch
        none = np.zeros(len(batch), np.int64)
        ids = event_id_hashes(batch.columns[self._bound.event_id])
        return replace(batch, labels=LabelRows(none != 0 if is_label is None else is_label, none if value is None else value, ids))

    def remember(self, batch: Batch) -> Batch:
        """The same records with derived columns and window features; the state moves on.

        A row whose model inputs are not all finite as float32 has no score, and is refused here as it would be there.
        """
        self._partitions = {span.partition: TOKEN for span in batch.spans}
        batch = self._transform(batch)
        if self._stage is not None and not self._stage.is_last:
            return batch
        rows = np.flatnonzero(batch.usable)
        inputs = np.empty((len(rows), len(self._bound.features.names)))
        for place, name in enumerate(self._bound.features.names):
            inputs[:, place] = numbers(name, batch.columns[name])[rows]
        failed = np.zeros(len(batch), np.bool_)
        failed[rows[~to_float32(inputs).finite]] = True
        return batch.rejecting(failed, Reject.NON_FINITE_SCORE)

    def forget(self, partition: int) -> None:
        """A log is over: its state is of no more use."""
        self._partitions.pop(partition, None)
        self._states.pop(partition, None)

    def features(self, batch: Batch, troubles: Mapping[int, RecordError] | None = None) -> Table:
        """What the events of a batch came to: derived columns and window features, null in refused rows, and each one's verdict.

        Args:
            batch: as `remember` gave it.
            troubles: by row, why a record could not even be read; takes the place of what the decoder says.
        """
        usable = batch.usable
        arrays = {name: to_arrow(batch.columns[name], None, usable) for name in self.names}
        return _events_of(batch, table_of({**arrays, **self._verdicts(batch, usable, troubles or {})}))

    def events(self, batch: Batch) -> Table:
        """The events themselves, by their schema; null where a record could not be read. Event times are in milliseconds."""
        read = batch.usable | (batch.rejected >= Reject.NULL_KEY)
        arrays = {}
        for name, kind in leaf_types(self._bound.schema.fields):
            is_time = name == self._bound.event_time.column
            if is_covered(kind):
                arrays[name] = to_arrow(batch.columns[name], Primitive("long", "timestamp-millis") if is_time else kind, read)
        return _events_of(batch, table_of(arrays))

    def _verdicts(self, batch: Batch, usable: Mask, troubles: Mapping[int, RecordError]) -> dict[str, Table]:
        assert batch.timing is not None
        timing = to_arrow(Symbols(batch.timing.astype(np.int32), TIMINGS), None, usable)
        reasons: list[str | None] = [None] * len(batch)
        details: list[str | None] = [None] * len(batch)
        refused = ~usable if batch.labels is None else ~usable & ~batch.labels.is_label
        for row in np.flatnonzero(refused).tolist():
            error = troubles.get(row) or refusal(self._bound, self.decoder, batch, row)[0]
            reasons[row], details[row] = error.reason, error.detail
        return dict(zip(VERDICT, (timing, strings(reasons), strings(details)), strict=True))

    def _open(self, partition: int) -> ShardState:
        state = ShardState(str(partition), self._entities, None, self._bound.event_time.column, EVERY_KEY)
        self._states[partition] = state
        return state


def _events_of(batch: Batch, table: Table) -> Table:
    """A batch's rows without its labels."""
    return table if batch.labels is None else chosen(table, ~batch.labels.is_label, {})


def leaf_types(fields: Sequence[Field], above: str = "") -> Iterator[tuple[str, AvroType]]:
    """The columns of a record's fields, by dotted path, each with its type."""
    for each in fields:
        kind = each.type
        inner = kind.nullable if isinstance(kind, Union) and kind.nullable is not None else kind
        if isinstance(inner, Record):
            yield from leaf_types(inner.fields, f"{above}{each.name}.")
        else:
            yield f"{above}{each.name}", kind
