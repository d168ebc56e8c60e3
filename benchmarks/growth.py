"""How memory grows with keys: ``python -m benchmarks.growth``.

One entity with 15 and then with 60 records a key (windows of 1, 7 and 30 days), for 10,000, 100,000 and 1,000,000 keys: what the
worker's state takes a key, what Redis takes a key, and CPU an event while the records come in, mirrored batch by batch.

The answer is asserted: in the end the 30-day count of sampled keys equals the records that were sent for them.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.result import circumstances, command_line, keep
from tests.redis_server import RedisServer, running
from transforms.aggregate import Count, Mean
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.redis_store import RedisStore
from transforms.shard import ShardState
from transforms.window import Window, days

BATCH = 5_000
START_MS = 1_700_000_000_000
SAMPLED = 1_000

ENTITY = Entity("customer", "customer", tuple(Window(days(n)) for n in (1, 7, 30)), (Count(), Mean(FixedPoint("amount", 100, 10_000))))


def grow(server: RedisServer, keys: int, records: int) -> dict[str, Any]:
    """Bytes a key, and CPU an event, with so many records of so many keys."""
    server.ask("FLUSHALL")
    before = _redis_bytes(server)
    store = RedisStore(server.url, f"growth.{keys}.{records}")
    store.claim("0", {})
    state = ShardState("0", (ENTITY,), store, "t", keys)
    random = np.random.default_rng(keys + records)
    step_ms = days(29) / (keys * records)
    sent, cpu_seconds, wall_seconds = 0, 0.0, 0.0
    for _ in range(records):
        order = random.permutation(keys)
        for first in range(0, keys, BATCH):
            of = order[first : first + BATCH]
            positions = sent + np.arange(len(of))
            columns = {
                "customer": of,
                "t": START_MS + (positions * step_ms).astype(np.int64),
                "amount": random.integers(1, 500_000, len(of)) / 100,
            }
            began, cpu = time.perf_counter(), time.process_time()
            done = state.advance(columns, np.ones(len(of), np.bool_), positions)
            sent += len(of)
            store.write("0", done.writes, sent)
            state.acknowledge(sent - len(of))
            wall_seconds, cpu_seconds = wall_seconds + time.perf_counter() - began, cpu_seconds + time.process_time() - cpu
    store.settle("0")
    sample = random.choice(keys, min(SAMPLED, keys), replace=False)
    at_end = {"customer": sample, "t": np.full(len(sample), START_MS + days(29)), "amount": np.ones(len(sample))}
    seen = state.advance(at_end, np.ones(len(sample), np.bool_), sent + np.arange(len(sample)))
    assert (seen.features[:, 4] == records + 1).all(), "the state lost records"
    result = {
        "keys": keys,
        "records_a_key": records,
        "worker_bytes_a_key": round(state.size_bytes / keys),
        "redis_bytes_a_key": round((_redis_bytes(server) - before) / keys),
        "cpu_us_an_event": round(cpu_seconds / sent * 1e6, 2),
        "events_per_second": round(sent / wall_seconds),
    }
    store.close()
    return result


def _redis_bytes(server: RedisServer) -> int:
    memory: Any = server.ask("INFO", "memory")
    return int(memory["used_memory"])


def main() -> None:
    """Measure, print, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most-keys", type=int, default=1_000_000)
    parser.add_argument("--most-events", type=int, default=16_000_000, help="larger cases are left out")
    wanted = parser.parse_args()
    found = []
    with running() as server:
        for records in (15, 60):
            for keys in (10_000, 100_000, 1_000_000):
                if keys <= wanted.most_keys and keys * records <= wanted.most_events:
                    found.append(grow(server, keys, records))
                    print("  ".join(f"{name} {value:,}" for name, value in found[-1].items()))
    keep("growth", circumstances(command_line()) | {"cases": found})


if __name__ == "__main__":
    main()
