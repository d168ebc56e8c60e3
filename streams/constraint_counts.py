"""Constraints of many records (`schemas/constraints_watch.py`), counted over what a worker made final."""

from __future__ import annotations

from collections.abc import Callable

from schemas.constraints_check import field_types
from schemas.constraints_watch import Watch
from streams.batch import Batch
from streams.definition.bound import Bound, BoundLabels
from streams.metrics import Metrics

Final = Callable[[Batch, float], None]


def counting_constraints(final: Final, read: Bound | BoundLabels, metrics: Metrics) -> Final:
    """What is called with each batch that is final, and counts records that constraints look at, too: events, or labels.

    Replayed batches were counted when they were final. `unique` goes by what this worker has seen: a partition that moves to another
    one is looked at anew there.
    """
    if read.constraints is None:
        return final
    watch = Watch(read.constraints, field_types(read.schema), (read.event_time.column,))
    if watch.is_empty:
        return final

    def counted(batch: Batch, seconds: float) -> None:
        final(batch, seconds)
        if batch.replay:
            return
        for name, watched in watch.look(batch.columns, batch.usable, batch.arrived_ms).items():
            metrics.constraint_records.labels(name).inc(watched.looked)
            metrics.constraint_broken.labels(name).inc(int(watched.broken.sum()))

    return counted
