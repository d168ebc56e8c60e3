"""Transform: derived columns, and the windows of every entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, rows_of
from schemas.reject import Reject
from streams.batch import Batch, Span
from streams.definition.bound import Bound
from streams.planning.stage import Stage
from transforms.derive import derive
from transforms.label import LabelRows
from transforms.shard import Advance, ShardState


@dataclass(slots=True)
class Held:
    """A partition's state, as of one assignment."""

    token: int
    state: ShardState
    settled: int  # how far the state is safely in the store


class Transform:
    """Adds derived columns and window features, and moves the state of each partition on.

    Args:
        bound: the pipeline.
        open_state: makes the state of a partition, empty in memory, backed by the store.
        tokens: by partition, the assignments that are current: the state of others is freed.
        stage: which of the pipeline's; None = all in one pass.
    """

    def __init__(
        self,
        bound: Bound,
        open_state: Callable[[int], ShardState],
        tokens: Callable[[], Mapping[int, int]],
        stage: Stage | None = None,
    ) -> None:
        # Derived columns are added where events are read; what later stages need of them comes with the hop.
        self._derived = bound.pipeline.derived if stage is None or stage.kind == "events" else ()
        entities = bound.pipeline.entities if stage is None else stage.entities
        self._open_state = open_state
        self._tokens = tokens
        self._held: dict[int, Held] = {}
        self._names = tuple(name for entity in entities for name in entity.feature_names)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with derived columns, window features, timing, and the frozen writes that make the state follow.

        Raises:
            StoreDown, FenceLost: the state can't be read, or is not ours.
        """
        live = self._tokens()
        self._held = {partition: held for partition, held in self._held.items() if live.get(partition) == held.token}
        batch = replace(batch, columns=derive(batch.columns, self._derived, batch.usable))
        parts = [self._advance(batch, span) for span in batch.spans]
        features = _joined([part.features for part in parts])
        named = {name: features[:, place] for place, name in enumerate(self._names)}
        writes = {span.partition: part.writes for span, part in zip(batch.spans, parts, strict=True)}
        timing = _joined([part.timing for part in parts])
        if batch.timing is not None:
            timing = np.maximum(timing, batch.timing)
        return _judged(replace(batch.with_columns(named), timing=timing, writes=writes), parts)

    def settled(self, partition: int, position: int) -> None:
        """A partition's state is in the store up to here: what did not change since may leave memory. Called from the commit's thread."""
        held = self._held.get(partition)
        if held is not None:
            held.settled = position

    def resident_keys(self) -> Mapping[str, int]:
        """Keys in memory, by entity."""
        found: dict[str, int] = {}
        for held in list(self._held.values()):
            for entity, keys in held.state.resident_keys.items():
                found[entity] = found.get(entity, 0) + keys
        return found

    def _advance(self, batch: Batch, span: Span) -> Advance:
        held = self._held.get(span.partition)
        if held is None or held.token != batch.tokens[span.partition]:
            held = self._held[span.partition] = Held(batch.tokens[span.partition], self._open_state(span.partition), -1)
        if held.settled >= 0:
            held.state.acknowledge(held.settled)
        rows = span.rows
        columns: Mapping[str, Column] = batch.columns if len(batch.spans) == 1 else {n: rows_of(c, rows) for n, c in batch.columns.items()}
        labels = None if batch.labels is None else _rows_of(batch.labels, rows)
        first = None if batch.first_offsets is None else batch.first_offsets[rows]
        return held.state.advance(columns, batch.usable[rows], batch.offsets[rows], batch.arrived_ms[rows], labels, first)


def _rows_of(labels: LabelRows, rows: slice) -> LabelRows:
    return LabelRows(labels.is_label[rows], labels.value[rows], labels.event_ids[rows])


def _judged(batch: Batch, parts: Sequence[Advance]) -> Batch:
    """The batch with what became of its labels."""
    if batch.labels is None:
        return batch
    none = [np.zeros(span.stop - span.start, np.bool_) for span in batch.spans]
    unmatched = _joined([nobody if part.unmatched is None else part.unmatched for part, nobody in zip(parts, none, strict=True)])
    repeated = _joined([nobody if part.repeated is None else part.repeated for part, nobody in zip(parts, none, strict=True)])
    return replace(batch, repeated=repeated).rejecting(unmatched, Reject.UNMATCHED_LABEL)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
