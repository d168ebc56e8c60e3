"""Card transactions in the order of their ids, which is the order of time: the handbook's, or made up ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from schemas.columns import Columns, Ints, PackedBytes

DAY_MS = 86_400_000
LABEL_DELAY_DAYS = 7
START_MS = 1_522_540_800_000  # 2018-04-01T00:00:00Z, the handbook's first day


@dataclass(frozen=True)
class Transactions:
    """Columns of n transactions; row i has the id i."""

    time_ms: Ints  # never falling
    customer: Ints
    terminal: Ints
    cents: Ints
    fraud: Ints  # 0 or 1

    def __len__(self) -> int:
        return len(self.time_ms)

    @property
    def day(self) -> Ints:
        """Shape (n,): days since the first."""
        days: Ints = (self.time_ms - START_MS) // DAY_MS
        return days

    def columns(self, rows: Ints) -> Columns:
        """What goes out on the transactions' topic."""
        return {
            "transaction_id": _texts(rows),
            "event_time": self.time_ms[rows],
            "customer_id": _texts(self.customer[rows]),
            "terminal_id": _texts(self.terminal[rows]),
            "amount": self.cents[rows] / 100,
        }

    def label_columns(self, rows: Ints) -> Columns:
        """What goes out on the labels' topic."""
        return {
            "transaction_id": _texts(rows),
            "event_time": self.time_ms[rows],
            "terminal_id": _texts(self.terminal[rows]),
            "fraud": self.fraud[rows].astype(np.int32),
            "label_time": self.time_ms[rows] + LABEL_DELAY_DAYS * DAY_MS,
        }


def published(file: Path, days: int = 10_000, every: int = 1, first_day: int = 0) -> Transactions:
    """The handbook's transactions, from its Parquet file: from `first_day` to before `days`, at every so many-th terminal."""
    within = pl.col("TX_TIME_DAYS").is_between(first_day, days, closed="left") & (pl.col("TERMINAL_ID") % every == 0)
    table = pl.read_parquet(file).filter(within).sort("TRANSACTION_ID")

    def column(name: str) -> Ints:
        return table[name].to_numpy().astype(np.int64)

    cents = np.rint(table["TX_AMOUNT"].to_numpy() * 100).astype(np.int64)
    time_ms = START_MS + column("TX_TIME_SECONDS") * 1_000
    return Transactions(time_ms, column("CUSTOMER_ID"), column("TERMINAL_ID"), cents, column("TX_FRAUD"))


def made_up(rows: int, days: int, seed: int = 0) -> Transactions:
    """Transactions of some hundred customers at as many terminals, one in ten a fraud, seconds shared by many."""
    random = np.random.default_rng(seed)
    keys = max(rows // 120, 5)
    time_ms = START_MS + np.sort(random.integers(days * DAY_MS // 1_000, size=rows)) * 1_000
    customer, terminal = random.integers(keys, size=rows), random.integers(keys, size=rows)
    return Transactions(time_ms, customer, terminal, random.integers(100_000, size=rows), (random.random(rows) < 0.1).astype(np.int64))


def _texts(numbers: Ints) -> PackedBytes:
    return PackedBytes.pack([b"%d" % number for number in numbers.tolist()])
