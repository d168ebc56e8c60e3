"""Online reads: a key's current features from Redis, one key and a hundred at a time: ``python -m benchmarks.online_reads``.

The example's customers, 10,000 of them with some 60 payments each in 30 days, stand in a Redis of the benchmark's own. Asked are one
key, and a hundred, each drawn by chance, at the end of the log: at rest, and beside a worker's end that goes on writing batches of
payments. A read's time runs from the call to the typed answer.

The answer is asserted: of every key read at rest, count and mean of each window are held against a slow count over the log; beside the
writer, every key's count of 30 days against the number of its payments below the position that the read says.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import circumstances, command_line, keep
from millrace import FeatureReader, KeyFeatures
from schemas.columns import Columns, Ints, PackedBytes
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.planning.stage import stages
from streams.settings import Settings
from tests.redis_server import running
from transforms.redis_store import RedisStore
from transforms.shard import ShardState
from transforms.window import days

BOUNDS = Path(__file__).with_name("bounds.json")
PIPELINE = Path(__file__).parents[1] / "examples" / "card_fraud" / "pipeline.py"
START_MS = 1_700_000_000_000
WINDOWS = (1, 7, 30)  # days
BATCH = 500
MANY = 100

Ask = Callable[[NDArray[np.int64]], list[KeyFeatures]]


@dataclass(frozen=True)
class Log:
    """Payments in the order of their time."""

    customer: Ints
    event_ms: Ints
    cents: Ints

    @classmethod
    def of(cls, customers: int, payments: int) -> Log:
        """So many payments over 30 days, each by a customer drawn by chance."""
        random = np.random.default_rng(0)
        times = np.sort(random.integers(0, days(30), payments)) + START_MS
        return cls(random.integers(0, customers, payments), times, random.integers(1, 20_000, payments))

    def columns(self, rows: slice) -> Columns:
        """As the example's events have them."""
        return {
            "customer_id": PackedBytes.pack([b"C%06d" % each for each in self.customer[rows].tolist()]),
            "terminal_id": PackedBytes.pack([b"T%06d" % (each % 1_000) for each in self.customer[rows].tolist()]),
            "event_time": self.event_ms[rows],
            "amount": self.cents[rows] / 100,
        }


class Keeper:
    """A worker's end of the state."""

    def __init__(self, bound: Bound, url: str, log: Log) -> None:
        (stage,) = stages(bound, 1)
        self._log = log
        self._store = RedisStore(url, stage.namespace)
        self._store.claim("0", {})
        self._state = ShardState("0", stage.entities, self._store, bound.event_time.column, 1_000_000)
        self.position = 0

    def take(self, count: int) -> None:
        """The next payments of the log, into the state."""
        rows = slice(self.position, min(self.position + count, len(self._log.event_ms)))
        n = rows.stop - rows.start
        done = self._state.advance(self._log.columns(rows), np.ones(n, np.bool_), np.arange(rows.start, rows.stop))
        self.position = rows.stop
        self._store.write("0", done.writes, self.position)
        self._store.settle("0")


@contextmanager
def writing(keeper: Keeper, least: int) -> Iterator[None]:
    """Let the keeper go on, batch after batch, until the block ends or the log does."""
    enough = threading.Event()

    def go_on() -> None:
        while not enough.is_set() and keeper.position < least:
            keeper.take(BATCH)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def timed(reads: int, ask: Ask, wanted: int, customers: int) -> tuple[dict[str, float], list[KeyFeatures]]:
    """Percentiles of some reads in milliseconds, CPU of each, and all answers."""
    random = np.random.default_rng(1)
    keys = [random.integers(0, customers, wanted) for _ in range(reads)]
    ask(keys[0])
    took, answers = [], []
    cpu = time.thread_time()
    for some in keys:
        begin = time.perf_counter()
        answers += ask(some)
        took.append(time.perf_counter() - begin)
    cpu = time.thread_time() - cpu
    p50, p99, p999 = (round(1e3 * float(np.percentile(took, share)), 3) for share in (50, 99, 99.9))
    return {"p50_ms": p50, "p99_ms": p99, "p99.9_ms": p999, "cpu_ms": round(1e3 * cpu / reads, 3)}, answers


def check_at_rest(log: Log, answers: list[KeyFeatures], at_ms: int) -> int:
    """Hold count and mean of every window against the log; how many keys were held."""
    by_key = {str(each.key[0]): each for each in answers}
    order = np.argsort(log.customer, kind="stable")
    starts = np.searchsorted(log.customer[order], np.arange(log.customer.max() + 2))
    for key, found in by_key.items():
        number = int(key[1:])
        own = order[starts[number] : starts[number + 1]]
        for window in WINDOWS:
            inside = own[(log.event_ms[own] > at_ms - days(window)) & (log.event_ms[own] <= at_ms)]
            count = found.features[f"customer_count_{window}d"]
            assert count == len(inside), f"{key}: {count} payments in {window} days, wanted {len(inside)}"
            mean = float(log.cents[inside].sum()) / (len(inside) * 100.0) if len(inside) else 0.0
            assert found.features[f"customer_amount_mean_{window}d"] == mean, f"{key}: another mean of {window} days"
    return len(by_key)


def check_while_writing(log: Log, answers: list[KeyFeatures]) -> int:
    """Hold each count of 30 days against the payments below the position that the read names; how many positions there were."""
    order = np.argsort(log.customer, kind="stable")
    starts = np.searchsorted(log.customer[order], np.arange(log.customer.max() + 2))
    for found in answers:
        number = int(str(found.key[0])[1:])
        own = order[starts[number] : starts[number + 1]]
        wanted = int(np.searchsorted(own, found.position))
        assert found.features["customer_count_30d"] == wanted, f"{found.key[0]!r} at {found.position}: wanted {wanted}"
    return len({found.position for found in answers})


def main() -> None:
    parser = argparse.ArgumentParser(description="Current features from Redis.")
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--reads", type=int, default=5_000, help="of one key; a tenth of them of a hundred")
    parser.add_argument("--quick", action="store_true", help="500 customers and few reads, to see that it works")
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    given = parser.parse_args()
    customers, reads = (500, 200) if given.quick else (given.customers, given.reads)
    log, bound = Log.of(customers, customers * 60), load_bound(PIPELINE)
    at_ms = int(log.event_ms[-1])
    results: dict[str, Any] = {"customers": customers, "reads": reads}
    with running() as server:
        settings = Settings.model_validate({"redis": {"url": server.url}})
        keeper = Keeper(bound, server.url, log)
        first = len(log.event_ms) // 2
        while keeper.position < first:
            keeper.take(min(20_000, first - keeper.position))
        with FeatureReader(bound, settings, partitions=1) as reader:

            def ask(numbers: NDArray[np.int64]) -> list[KeyFeatures]:
                keys = [f"C{number:06}" for number in numbers.tolist()]
                # Before 30 days are over, all payments so far are within the longest window.
                return reader.get_many("customer", keys, at=at_ms, unknown="empty")

            with writing(keeper, len(log.event_ms)):
                results["one, beside a writer"], one = timed(reads, ask, 1, customers)
                results["hundred, beside a writer"], many = timed(max(reads // 10, 20), ask, MANY, customers)
            results["positions seen"] = check_while_writing(log, one + many)
            while keeper.position < len(log.event_ms):
                keeper.take(20_000)
            results["one"], one = timed(reads, ask, 1, customers)
            results["hundred"], many = timed(max(reads // 10, 20), ask, MANY, customers)
            results["keys held"] = check_at_rest(log, one + many, at_ms)
    assert results["positions seen"] > 1, "the writer should have gone on meanwhile"
    print(json.dumps(results, indent=2))
    if given.keep:
        keep("online_reads", circumstances(command_line()) | results)
    if given.quick:
        return
    for what, most_ms in json.loads(BOUNDS.read_text())["online_reads"].items():
        found_ms = results[what]["p99_ms"]
        assert found_ms <= most_ms, f"{what}: p99 {found_ms} ms, wanted {most_ms} at most"


if __name__ == "__main__":
    main()
