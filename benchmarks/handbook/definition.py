"""The features by their definitions, without any window code: as published, and over each terminal's own log."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.handbook.transactions import DAY_MS, LABEL_DELAY_DAYS, Transactions
from schemas.columns import Floats, Ints

SPANS = (1, 7, 30)  # days
DELAY_MS = LABEL_DELAY_DAYS * DAY_MS
LATENESS_MS = DAY_MS
REACH_MS = LATENESS_MS + DELAY_MS + SPANS[-1] * DAY_MS


def customer_features(rows: Transactions) -> Floats:
    """Shape (n, 6): count and mean amount over (t - span, t] of the customer's rows up to this one, for each span."""
    found = np.empty((len(rows), 2 * len(SPANS)))
    order, first, place = _by_key(rows.customer, rows.time_ms)
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(rows.cents[order])))
    for column, span in enumerate(SPANS):
        start = first + older(rows.customer, rows.time_ms, span * DAY_MS)
        count = place + 1 - start
        found[:, 2 * column] = count
        found[:, 2 * column + 1] = (sums[place + 1] - sums[start]) / (count * 100.0)
    return found


def terminal_features(rows: Transactions) -> Floats:
    """Shape (n, 6): count and share of frauds over (t - 7 d - span, t - 7 d] of the terminal's rows, for each span."""
    found = np.empty((len(rows), 2 * len(SPANS)))
    order, first, _ = _by_key(rows.terminal, rows.time_ms)
    frauds = np.concatenate((np.zeros(1, np.int64), np.cumsum(rows.fraud[order])))
    stop = first + older(rows.terminal, rows.time_ms, DELAY_MS)
    for column, span in enumerate(SPANS):
        start = first + older(rows.terminal, rows.time_ms, DELAY_MS + span * DAY_MS)
        count, fraud = stop - start, frauds[stop] - frauds[start]
        found[:, 2 * column] = count
        found[:, 2 * column + 1] = np.divide(fraud, count, out=np.zeros(len(rows)), where=count > 0)
    return found


def _by_key(keys: Ints, times: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows by key and then time (ties as they come); where each row's key begins in that order, and where it stands itself."""
    order = np.lexsort((np.arange(len(keys)), times, keys))
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys))
    return order, np.searchsorted(keys[order], keys), place


def older(keys: Ints, times: Ints, by_ms: int) -> Ints:
    """Shape (n,): how many rows of its key are at least so much older than each row.

    Sorted by key and then time the rows form one increasing sequence, in which a binary search for (key, t - by) gives the place
    where the key's older rows end.
    """
    order, first, _ = _by_key(keys, times)
    begin = int(times.min()) - 2 * REACH_MS
    span = int(times.max()) - begin + 1
    line = keys[order] * span + times[order] - begin
    ends: Ints = np.searchsorted(line, keys * span + times - begin - by_ms, side="right") - first
    return ends


@dataclass(frozen=True, slots=True)
class LogRow:
    """A record of the terminals' topic."""

    terminal: int
    transaction: int
    time_ms: int
    label: int | None  # None = the transaction itself


@dataclass(slots=True)
class _Terminal:
    """A terminal's past, sorted by time, ties as they came."""

    newest_ms: int | None = None
    times: list[int] = field(default_factory=list)
    transactions: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class OverLogs:
    """What each terminal's log says of its transactions."""

    features: dict[int, tuple[float, ...]]  # by transaction: count and share of frauds for each span
    unmatched: int  # labels that found no transaction


def over_logs(log: Iterable[LogRow]) -> OverLogs:
    """Terminal features from the order of each terminal's own log, one record after the other.

    Args:
        log: records of any partitions; those of one terminal in the order of its partition.
    """
    terminals: dict[int, _Terminal] = defaultdict(_Terminal)
    features: dict[int, tuple[float, ...]] = {}
    unmatched = 0
    for row in log:
        past = terminals[row.terminal]
        if row.label is not None:
            place = past.transactions.index(row.transaction) if row.transaction in past.transactions else None
            # What no window can see any more has no label to set either.
            if place is None or past.newest_ms is None or past.times[place] <= past.newest_ms - REACH_MS:
                unmatched += 1
            else:
                past.labels[place] = row.label
            continue
        oldest_ms = row.time_ms if past.newest_ms is None else past.newest_ms - LATENESS_MS
        now_ms = max(row.time_ms, oldest_ms)
        features[row.transaction] = _at(past, now_ms - DELAY_MS)
        if row.time_ms >= oldest_ms:
            place = bisect_right(past.times, row.time_ms)
            past.times.insert(place, row.time_ms)
            past.transactions.insert(place, row.transaction)
            past.labels.insert(place, 0)
            past.newest_ms = row.time_ms if past.newest_ms is None else max(past.newest_ms, row.time_ms)
    return OverLogs(features, unmatched)


def _at(past: _Terminal, until_ms: int) -> tuple[float, ...]:
    stop = bisect_right(past.times, until_ms)
    found: list[float] = []
    for span in SPANS:
        start = bisect_right(past.times, until_ms - span * DAY_MS)
        count = stop - start
        found += [float(count), sum(past.labels[start:stop]) / count if count else 0.0]
    return tuple(found)
