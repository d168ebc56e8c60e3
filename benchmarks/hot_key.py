"""One key with a third of all events: ``python -m benchmarks.hot_key``.

10,000 customers; in the *hot* log one of them makes every third payment, so that it has some hundred thousand in its longest window.
Windows of 1, 7 and 30 days with count and mean, exact and on declared grids (10 minutes, 1 hour, 6 hours); batches of 1,000, each log
in order and with 2 % of its events up to an hour late. Measured over the later half: CPU time of the calling thread an event, bytes
that go to the store an event, and memory.

The answer is asserted for the hot key and for some others: counts and means of events all over the log, by a look at every event before
them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Columns, Ints, PackedBytes
from transforms.aggregate import Count, Mean
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState
from transforms.window import Window, days, hours, minutes

BOUNDS = Path(__file__).with_name("bounds.json")
BATCH = 1_000
HOT = 7
CHECKED_KEYS, CHECKED_ROWS = 5, 200
AMOUNT = FixedPoint("amount", 100, 50_000)
EXACT = tuple(Window(days(n)) for n in (1, 7, 30))
ON_GRIDS = (Window(days(1), grid_ms=minutes(10)), Window(days(7), grid_ms=hours(1)), Window(days(30), grid_ms=hours(6)))


@dataclass(frozen=True)
class Log:
    """Payments of 60 days, in the order they arrive."""

    customers: Ints
    times: Ints
    cents: Ints
    names: PackedBytes

    @classmethod
    def make(cls, keys: int, events: int, hot_share: float, late_share: float, seed: int) -> Log:
        """`hot_share` of the events are one customer's."""
        chance = np.random.default_rng(seed)
        count = events // BATCH * BATCH
        customers = chance.integers(0, keys, count)
        customers[chance.random(count) < hot_share] = HOT
        times = np.sort(chance.integers(0, days(60), count)) + days(365)
        late = chance.random(count) < late_share
        times = times - np.where(late, chance.integers(0, hours(1), count), 0)
        names = PackedBytes.pack([b"C%013d" % i for i in range(keys)]).take(customers)
        return cls(customers, times, chance.integers(0, 5_000_000, count), names)

    def batch(self, first: int) -> Columns:
        """The columns of a batch."""
        rows = slice(first, first + BATCH)
        return {"customer": self.names.take(rows), "t": self.times[rows], "amount": self.cents[rows] / 100}


@dataclass(frozen=True)
class Run:
    """What one pass came to."""

    batch_us: NDArray[np.float64]  # CPU an event, batch by batch, over the later half
    features: NDArray[np.float64]
    written_bytes: float  # an event, over the later half
    state_bytes: int


def run(log: Log, keys: int, windows: tuple[Window, ...]) -> Run:
    """Let a log pass."""
    entity = Entity("customer", "customer", windows, (Count(), Mean(AMOUNT)), lateness_ms=hours(1), max_records=1 << 24)
    store = MemoryStore()
    store.claim("s", {})
    state = ShardState("s", (entity,), store, "t", 2 * keys)
    usable = np.ones(BATCH, np.bool_)
    spent, features, written = [], [], 0
    for first in range(0, len(log.times), BATCH):
        columns = log.batch(first)
        began = time.thread_time()
        done = state.advance(columns, usable, np.arange(first, first + BATCH))
        spent.append((time.thread_time() - began) / BATCH * 1e6)
        state.acknowledge(first + BATCH)
        features.append(done.features)
        if first >= len(log.times) // 2:
            written += sum(int((each.data.ends - each.data.starts).sum()) for each in done.writes)
    return Run(np.array(spent[len(spent) // 2 :]), np.concatenate(features), written / (len(log.times) / 2), state.size_bytes)


def check(log: Log, found: Run, windows: tuple[Window, ...], keys: int) -> int:
    """Hold features of the hot key and of some others against a look at every event before them; how many were compared."""
    compared = 0
    for key in (HOT, *np.linspace(0, keys - 1, CHECKED_KEYS).astype(int).tolist()):
        rows = np.flatnonzero(log.customers == key)
        times, cents = log.times[rows], log.cents[rows]
        for place in np.unique(np.linspace(0, len(rows) - 1, CHECKED_ROWS).astype(int)).tolist():
            wanted = []
            for window in windows:
                cells = times[: place + 1] // window.grid_ms
                newest = times[place] // window.grid_ms
                inside = (cells <= newest) & (cells > newest - window.length_ms // window.grid_ms)
                count = int(inside.sum())
                wanted += [float(count), int(cents[: place + 1][inside].sum()) / (count * 100)]
            assert found.features[rows[place]].tolist() == wanted, f"customer {key}, its payment {place}"
            compared += len(wanted)
    return compared


def main() -> None:
    """Print the figures, and fail if a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--no-floors", action="store_true", help="measure only")
    wanted = parser.parse_args()
    run(Log.make(100, 2 * BATCH, 0.3, 0.1, 0), 100, EXACT)  # compile, or load what was compiled
    compared, quick = 0, {}
    print(f"{wanted.events:,} events of {wanted.keys:,} keys in 60 days, batches of {BATCH}: CPU us an event (median, p10), bytes")
    for share, late in ((0.0, 0.0), (1 / 3, 0.0), (0.0, 0.02), (1 / 3, 0.02)):
        log = Log.make(wanted.keys, wanted.events, share, late, 1)
        held = int(((log.customers == HOT) & (log.times > log.times.max() - days(30))).sum())
        print(
            f"  {'hot' if share else 'even'}, {'2 % late' if late else 'in order'}: {held:,} events of one customer in its longest window"
        )
        for name, windows in (("exact", EXACT), ("grids", ON_GRIDS)):
            found = run(log, wanted.keys, windows)
            compared += check(log, found, windows, wanted.keys)
            quick[share > 0, late > 0, name] = float(np.percentile(found.batch_us, 10))
            print(
                f"    {name:6} {np.median(found.batch_us):7.3f} {quick[share > 0, late > 0, name]:7.3f} us   "
                f"{found.written_bytes:9,.0f} to the store an event   {found.state_bytes / 1e6:7,.0f} MB of memory"
            )
    print(f"  {compared:,} features equal to the definition")
    if not wanted.no_floors:
        floor = json.loads(BOUNDS.read_text())["hot_key"]["times_an_even_log"]
        for late, name in product((False, True), ("exact", "grids")):
            times = quick[True, late, name] / quick[False, late, name]
            if times > floor:
                raise SystemExit(f"with a hot key an event takes {times:.1f} times as long as without ({name}), the floor is {floor}")


if __name__ == "__main__":
    main()
