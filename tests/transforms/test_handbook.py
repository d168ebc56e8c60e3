"""The public card data of the Fraud Detection Handbook, against definitions computed without any window code.

The data (Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection, 2022) is not part
of the project. Put its transactions as ``handbook/transactions.parquet`` into the folder MILLRACE_DATA names.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from schemas.columns import Columns, Ints
from transforms.aggregate import Count, LabelCount, LabelRate, Mean
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.label import LabelRows, event_id_hashes
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState
from transforms.window import Window, days

ROWS = 100_000
DATA = Path(os.environ.get("MILLRACE_DATA") or Path(__file__).parents[3] / "shared" / "data") / "handbook" / "transactions.parquet"

amount = FixedPoint("amount", 100, 10_000)
SPANS = (1, 7, 30)
CUSTOMER = Entity("customer", "customer", tuple(Window(days(n)) for n in SPANS), (Count(), Mean(amount)))
RISK = Entity("terminal", "terminal", tuple(Window(days(n), delay_ms=days(7)) for n in SPANS), (Count(), LabelCount(), LabelRate()))
TERMINAL = Entity("terminal", "terminal", tuple(Window(days(n), delay_ms=days(7)) for n in SPANS), (Count(),))


def log(whole: str) -> pl.DataFrame:
    """The first 100,000 transactions of every seventeenth customer or terminal: each with its whole past of half a year."""
    if not DATA.exists():
        pytest.skip("data not present")
    return pl.read_parquet(DATA).sort("TRANSACTION_ID").filter(pl.col(whole) % 17 == 0)[:ROWS]


def counts_before(keys: Ints, times: Ints, until_ms: int) -> Ints:
    """For each row, how many rows of its key up to and including itself in the log are not younger than t - until_ms.

    Rows are in the order of time. Sorted by key and then time they form one increasing sequence, in which a binary search for
    (key, t - until) gives the place where the key's older rows end.
    """
    order = np.lexsort((np.arange(len(keys)), times, keys))
    span = int(times.max()) + 1 + days(100)
    line = keys[order] * span + times[order] + days(50)
    ends = np.searchsorted(line, keys * span + times + days(50) - until_ms, side="right")
    return ends - np.searchsorted(keys[order], keys)


@pytest.mark.parametrize(("whole", "largest_counts"), [("CUSTOMER_ID", (150, 1)), ("TERMINAL_ID", (1, 70))])
def test_customer_and_terminal_features_equal_the_published_definitions(whole: str, largest_counts: tuple[int, int]) -> None:
    rows = log(whole)
    assert len(rows) == ROWS
    keys, shops = rows["CUSTOMER_ID"].to_numpy().astype(np.int64), rows["TERMINAL_ID"].to_numpy().astype(np.int64)
    times, amounts = rows["TX_TIME_SECONDS"].to_numpy().astype(np.int64) * 1_000, rows["TX_AMOUNT"].to_numpy()
    found = _in_batches({"customer": keys, "terminal": shops, "t": times, "amount": amounts}, 997)

    cents = np.rint(amounts * 100).astype(np.int64)
    for place, n in enumerate(SPANS):
        count, total = _in_window(keys, times, cents, days(n))
        assert np.array_equal(found[:, 2 * place], count.astype(np.float64)), f"customer count {n}d"
        assert np.array_equal(found[:, 2 * place + 1], total / (count * 100.0)), f"customer mean {n}d"
        delayed = counts_before(shops, times, days(7)) - counts_before(shops, times, days(7 + n))
        assert np.array_equal(found[:, 6 + place], delayed.astype(np.float64)), f"terminal count {n}d"
    # Busy customers and terminals are among them (the largest published counts are 157 and 82).
    assert found[:, 4].max() > largest_counts[0]
    assert found[:, 8].max() > largest_counts[1]


def test_terminal_risk_equals_the_published_definition() -> None:
    """Before a day's transactions come the labels of the day a week earlier: as late as they may."""
    rows = log("TERMINAL_ID")
    ids, shops, frauds = (rows[name].to_numpy().astype(np.int64) for name in ("TRANSACTION_ID", "TERMINAL_ID", "TX_FRAUD"))
    times, of_day = (rows[name].to_numpy().astype(np.int64) for name in ("TX_TIME_SECONDS", "TX_TIME_DAYS"))
    times *= 1_000
    days_in_order = [np.flatnonzero(of_day == day) for day in range(int(of_day.max()) + 1)]

    store = MemoryStore()
    store.claim("s", {})
    state = ShardState("s", (RISK,), store, "t", 300)  # fewer than there are terminals
    found = np.empty((len(rows), len(RISK.features)))
    position = 0
    for day, events in enumerate(days_in_order):
        labels = days_in_order[day - 7] if day >= 7 else events[:0]
        batch = np.concatenate((labels, events))
        columns: Columns = {"terminal": shops[batch], "t": times[batch]}
        told = LabelRows(np.arange(len(batch)) < len(labels), frauds[batch], event_id_hashes(ids[batch]))
        done = state.advance(columns, np.ones(len(batch), np.bool_), position + np.arange(len(batch)), labels=told)
        assert done.unmatched is not None
        assert done.repeated is not None
        assert not (done.unmatched | done.repeated).any()
        position += len(batch)
        store.write("s", done.writes, position)
        store.settle("s")
        state.acknowledge(position)
        found[events] = done.features[len(labels) :]

    order = np.lexsort((np.arange(len(rows)), times, shops))
    frauds_so_far = np.concatenate((np.zeros(1, np.int64), np.cumsum(frauds[order])))
    first = np.searchsorted(shops[order], shops)
    newer = first + counts_before(shops, times, days(7))
    for place, n in enumerate(SPANS):
        older = first + counts_before(shops, times, days(7 + n))
        count, fraudulent = newer - older, frauds_so_far[newer] - frauds_so_far[older]
        risk = fraudulent / np.maximum(count, 1)
        wanted = np.column_stack((count, fraudulent, risk)).astype(np.float64)
        differs = (found[:, 3 * place : 3 * place + 3] != wanted).any(axis=1)
        assert not differs.any(), f"{n}d: {np.count_nonzero(differs)} of {len(rows)} rows differ"
    assert found[:, 6].max() > 70  # of at most 82
    assert len(np.unique(found[:, 8])) > 50


def _in_batches(columns: dict[str, NDArray[np.int64]], rows: int) -> NDArray[np.float64]:
    store = MemoryStore()
    store.claim("s", {})
    state = ShardState("s", (CUSTOMER, TERMINAL), store, "t", 3_000)  # fewer than there are keys
    features = []
    for first in range(0, ROWS, rows):
        batch: Columns = {name: column[first : first + rows] for name, column in columns.items()}
        size = len(batch["t"])
        done = state.advance(batch, np.ones(size, np.bool_), np.arange(first, first + size))
        store.write("s", done.writes, first + size)
        store.settle("s")
        state.acknowledge(first + size)
        features.append(done.features)
    return np.concatenate(features)


def _in_window(keys: Ints, times: Ints, cents: Ints, length_ms: int) -> tuple[Ints, Ints]:
    """Count and sum over (t - length, t] of the rows of a key that are not after the row itself in the log."""
    order = np.lexsort((np.arange(len(keys)), times, keys))
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys))
    first = np.searchsorted(keys[order], keys) + counts_before(keys, times, length_ms)
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(cents[order])))
    return place + 1 - first, sums[place + 1] - sums[first]
