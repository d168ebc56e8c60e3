"""Features for a table in memory: what `Bound.transform` does."""

from __future__ import annotations

from schemas.table import Frame, as_table, beside, concat, rows_of_table
from streams.ahead import ahead
from streams.bound import Bound
from streams.featurize import Featurize
from streams.past_table import PastTable

TURN_ROWS = 50_000  # a turn's records stay in the processor's cache, more or less


def transform_table(bound: Bound, frame: Frame, *, time_zone: str | None = None, arrived: str | None = None) -> Frame:
    """A table with the features of its rows: see `Bound.transform`."""
    table = as_table(frame)
    rows = PastTable(bound, table, "the table", time_zone=time_zone, arrived=arrived)
    featurize = Featurize(bound, rows.decoder)
    turns = ((first, rows_of_table(table, first, min(first + TURN_ROWS, len(table)))) for first in range(0, max(len(table), 1), TURN_ROWS))
    # One core reads while the other computes.
    batches = ahead(featurize.read(rows.past(turn, first)) for first, turn in turns)
    return beside(frame, concat([featurize.features(featurize.remember(batch)) for batch in batches]))
