"""Features for a table in memory: what `Bound.transform` does."""

from __future__ import annotations

import numpy as np

from schemas.columns import Ints, Mask
from schemas.errors import HistoryError
from schemas.table import Frame, Table, as_table, beside, concat, rows_at, rows_of_table
from streams.definition.bound import Bound
from streams.offline.ahead import ahead
from streams.offline.featurize import Featurize
from streams.offline.known_labels import among, labels_of
from streams.offline.past_table import PastTable

TURN_ROWS = 50_000  # a turn's records stay in the processor's cache, more or less


def transform_table(
    bound: Bound,
    frame: Frame,
    *,
    labels: Frame | None = None,
    known_at: str | None = None,
    time_zone: str | None = None,
    arrived: str | None = None,
) -> Frame:
    """A table with the features of its rows: see `Bound.transform`."""
    table = as_table(frame)
    rows = PastTable(bound, table, "the table", time_zone=time_zone, arrived=arrived)
    featurize = Featurize(bound, rows.decoder, labelled=labels is not None)
    is_label, value = np.zeros(len(table), np.bool_), np.zeros(len(table), np.int64)
    if labels is not None:
        table, is_label, value = _with_labels(bound, rows, table, as_table(labels), known_at, time_zone)
    turns = [slice(first, min(first + TURN_ROWS, len(table))) for first in range(0, max(len(table), 1), TURN_ROWS)]
    # One core reads while the other computes.
    batches = ahead(
        featurize.read(rows.past(rows_of_table(table, turn.start, turn.stop), turn.start), is_label[turn], value[turn]) for turn in turns
    )
    return beside(frame, concat([featurize.features(featurize.remember(batch)) for batch in batches]))


def _with_labels(
    bound: Bound, rows: PastTable, table: Table, labels: Table, known_at: str | None, time_zone: str | None
) -> tuple[Table, Mask, Ints]:
    """Events and labels as one log, a label as a copy of its event; which are labels; and what these say."""
    declared = bound.pipeline.labels
    if bound.labels is None or declared is None:
        raise HistoryError(f"pipeline {bound.name!r} has no labels; wanted Labels(...) in it, or a table of events alone")
    known_at = known_at or declared.time
    if known_at is None:
        raise HistoryError(
            f"the labels of pipeline {bound.name!r} name no time; wanted known_at=..., the column that says when they were known"
        )
    found = labels_of(labels, "the table of labels", bound.labels.event_id, bound.labels.value, known_at, time_zone)
    ids, times = rows.ids_and_times(table)
    order, is_label, value = among(times, ids, found)
    return rows_at(table, order), is_label, value
