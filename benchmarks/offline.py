"""Features over history beside polars, duckdb and pandas: ``python -m benchmarks.offline`` (needs ``pip install 'millrace[bench]'``).

One entity with three windows (1, 7 and 30 days; count and mean) over payments of 20,000 customers in the order of time. Each engine is
given the same columns in memory and asked for the same six numbers; ours also checks and decodes every event, as a worker would.
`state` is the window code alone, with its state and what it would write to the store; `transform` is `Bound.transform` of a table: each
row is encoded as a record, decoded, checked by every rule and then computed; `build` reads a Parquet file and writes another one.

The answers are asserted: ours against the integers of the peers, where the peers give exact ones. Where theirs differ:

- **ties**: a peer's `RANGE` window holds all rows of one time, those that come later in the log included; ours holds those before it;
- **means**: theirs are running or blocked sums of floats, ours one division of whole numbers: within 1e-9 of each other, and not equal;
- **late rows**: theirs sort by time first, and so see what was not known yet; ours go by the log. In this workload no row is late;
- **order**: theirs give rows by customer or need a sort and a join to get back to the log's order, which is left out of their time.

Wall time and CPU time are both told: on a machine that others use, CPU time is the one to compare.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.result import circumstances, command_line, keep
from schemas.columns import Columns, Floats, Ints, PackedBytes
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.offline.build import BuildOptions, build_features
from streams.offline.history import open_files
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState
from transforms.window import days

SPANS = (1, 7, 30)
DAYS = 60
TURN = 50_000
PIPELINE = """
from millrace import *

amount = FixedPoint("amount", scale=100, largest=50_000)
customer = Entity("customer", key="customer_id", windows=tuple(Window(days(n)) for n in (1, 7, 30)), aggregates=(Count(), Mean(amount)))

pipeline = Pipeline(
    "offline",
    input=Topic("payments", schema="payments.avsc", key="customer_id", event_time="event_time", event_id="payment_id"),
    rules=(in_range("amount", 0, 50_000),),
    entities=(customer,),
    model=Model("offline", path="offline.onnx", inputs=customer.feature_names),
    output=Topic("payments.scored"),
)
"""
SCHEMA = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "customer_id", "type": "string"},
        {"name": "amount", "type": "double"},
    ],
}


@dataclass(frozen=True)
class Spent:
    """What a run took, in microseconds an event."""

    wall: float
    cpu: float


def workload(events: int, customers: int, seed: int = 1) -> pl.DataFrame:
    """Payments in the order of time, no two of a customer at one."""
    random = np.random.default_rng(seed)
    times = np.sort(random.choice(days(DAYS), events, replace=False) if events < days(DAYS) // 50 else _distinct(random, events))
    return pl.DataFrame(
        {
            "payment_id": [f"p{n:09d}" for n in range(events)],
            "event_time": times + 1_700_000_000_000,
            "customer_id": pl.Series(random.integers(0, customers, events)).cast(pl.String).str.zfill(9),
            "amount": random.integers(0, 5_000_000, events) / 100,
        }
    ).with_columns(pl.from_epoch("event_time", "ms").dt.replace_time_zone("UTC"))


def _distinct(random: np.random.Generator, events: int) -> Ints:
    """Times a step apart, each moved within its own step."""
    step = days(DAYS) // events
    return np.arange(events, dtype=np.int64) * step + random.integers(0, step, events)


def timed(events: int, rounds: int, run: Callable[[], Any]) -> tuple[Spent, Any]:
    """The quickest of some rounds, by CPU time; and what the last one gave."""
    best, found = Spent(np.inf, np.inf), None
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        spent = Spent((time.perf_counter() - wall) / events * 1e6, (time.process_time() - cpu) / events * 1e6)
        best = min(best, spent, key=lambda each: each.cpu)
    return best, found


def by_state(bound: Bound, frame: pl.DataFrame) -> Callable[[], Floats]:
    """The window code alone, over columns: to be timed."""
    names = PackedBytes.pack([name.encode() for name in frame["customer_id"].to_list()])
    times, amounts = frame["event_time"].dt.epoch("ms").to_numpy(), frame["amount"].to_numpy()

    def run() -> Floats:
        store = MemoryStore()
        store.claim("s", {})
        state = ShardState("s", bound.pipeline.entities, store, "event_time", 1 << 40)
        found = []
        for first in range(0, len(frame), TURN):
            rows = slice(first, min(first + TURN, len(frame)))
            columns: Columns = {"customer_id": names.take(rows), "event_time": times[rows], "amount": amounts[rows]}
            count = rows.stop - first
            found.append(state.advance(columns, np.ones(count, np.bool_), np.arange(first, rows.stop)).features)
        return np.concatenate(found)

    return run


def by_polars(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Polars' rolling, a call a window."""
    rows = frame.with_row_index("row").sort("customer_id", "event_time")
    return [
        rows.rolling("event_time", period=f"{n}d", group_by="customer_id")
        .agg(pl.col("row").last(), pl.len().alias("n"), pl.col("amount").mean().alias("mean"))
        .sort("row")
        for n in SPANS
    ]


def by_duckdb(frame: pl.DataFrame) -> pl.DataFrame:
    """Duckdb's RANGE windows, one query; a window of (t - n days, t] ends a millisecond short of its length."""
    import duckdb

    events = frame.with_row_index("row").with_columns(pl.col("event_time").dt.epoch("ms").alias("t")).to_arrow()
    windows = ", ".join(f"w{n} AS (PARTITION BY customer_id ORDER BY t RANGE {days(n) - 1} PRECEDING)" for n in SPANS)
    asked = ", ".join(f"count(*) OVER w{n} AS n{n}, avg(amount) OVER w{n} AS mean{n}" for n in SPANS)
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("events", events)
        found: pl.DataFrame = connection.sql(f"SELECT row, {asked} FROM events WINDOW {windows} ORDER BY row").pl()
        return found


def by_pandas(table: Any) -> list[Any]:
    """Pandas' rolling by group, a call a window and a number."""
    grouped = table.set_index("event_time").groupby("customer_id", sort=True)["amount"]
    found = []
    for n in SPANS:
        rolling = grouped.rolling(f"{n}D")
        found += [rolling.count().to_numpy(), rolling.mean().to_numpy()]
    return found


def main() -> None:
    """Print the figures, append them to the results, and fail if an answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", default="polars,duckdb,pandas")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results")
    wanted = parser.parse_args()
    peers = [name for name in wanted.peers.split(",") if name and find_spec(name) is not None]
    folder = Path(tempfile.mkdtemp(prefix="millrace-offline-"))
    try:
        figures = measure(folder, wanted.events, wanted.customers, wanted.rounds, peers)
    finally:
        shutil.rmtree(folder)
    print(f"{wanted.events:,} events of {wanted.customers:,} customers, three windows: us an event")
    print(f"  {'':10} {'wall':>8} {'CPU':>8} {'events/s':>12}")
    for name, spent in figures.items():
        print(f"  {name:10} {spent.wall:8.3f} {spent.cpu:8.3f} {1e6 / spent.wall:12,.0f}")
    for name in wanted.peers.split(","):
        if name and name not in peers:
            print(f"  {name} is not installed, and left out")
    print("  answers equal: counts to the last one, means within 1e-9")
    if wanted.save:
        us_per_event = {name: {"wall": round(spent.wall, 3), "cpu": round(spent.cpu, 3)} for name, spent in figures.items()}
        asked = {"events": wanted.events, "customers": wanted.customers}
        keep("offline", circumstances(command_line()) | asked | {"us_per_event": us_per_event})


def measure(folder: Path, events: int, customers: int, rounds: int, peers: list[str]) -> dict[str, Spent]:
    """Every engine's time, with its answers compared to ours."""
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "payments.avsc").write_text(json.dumps(SCHEMA))
    bound = load_bound(folder / "pipeline.py")
    frame = workload(events, customers)
    table = frame.to_arrow()
    bound.transform(frame[:1000])  # compile, or load what was compiled
    figures = {}
    figures["state"], ours = timed(events, rounds, by_state(bound, frame))
    figures["transform"], made = timed(events, rounds, lambda: bound.transform(table))
    for place, name in enumerate(bound.features.names):
        assert np.array_equal(made[name].to_numpy().view(np.int64), np.ascontiguousarray(ours[:, place]).view(np.int64)), name
    frame.write_parquet(folder / "events.parquet")

    def build() -> dict[str, Any]:
        options = BuildOptions(overwrite=True)
        return dict(build_features(bound, open_files(bound, [str(folder / "events.parquet")]), folder / "features", options))

    figures["build"], account = timed(events, rounds, build)
    assert account["events"] == events
    assert account["refused"] == 0
    if "polars" in peers:
        figures["polars"], frames = timed(events, rounds, lambda: by_polars(frame))
        for place, found in enumerate(frames):
            _agree("polars", ours[:, 2 * place], ours[:, 2 * place + 1], found["n"].to_numpy(), found["mean"].to_numpy())
    if "duckdb" in peers:
        figures["duckdb"], answer = timed(events, rounds, lambda: by_duckdb(frame))
        for place, n in enumerate(SPANS):
            _agree("duckdb", ours[:, 2 * place], ours[:, 2 * place + 1], answer[f"n{n}"].to_numpy(), answer[f"mean{n}"].to_numpy())
    if "pandas" in peers:
        pandas = frame.to_pandas()
        order = np.lexsort((np.arange(events), frame["customer_id"].to_numpy().astype("U9")))
        figures["pandas"], columns = timed(events, 1, lambda: by_pandas(pandas))
        for place in range(len(SPANS)):
            _agree("pandas", ours[order, 2 * place], ours[order, 2 * place + 1], columns[2 * place], columns[2 * place + 1])
    return figures


def _agree(who: str, count: Any, mean: Any, their_count: Any, their_mean: Any) -> None:
    assert np.array_equal(count, their_count.astype(np.float64)), f"{who} counts otherwise"
    assert np.allclose(mean, their_mean, rtol=1e-9, atol=1e-9), f"{who} has other means"


if __name__ == "__main__":
    main()
