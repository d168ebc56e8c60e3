"""The parts of an event's way, each as a round of work that can be timed and whose answer is asserted.

`benchmarks.compare` runs them for two revisions in turn. This file is run as a process of one revision's code: ``python -m benchmarks.parts
NAME`` says when the part is ready, then does a round for each line it reads, and answers with the CPU and wall time a unit took.

| part | a unit is |
|---|---|
| decode | a payment of six fields in the wire format, to columns |
| encode | a scored event with one score and twenty features, from columns |
| windows | an event of one entity, three windows, four aggregates: keys, look-up, windows, features, writes |
| forest | a row through 100 trees, by the compiled loop |
| onnx | a row through the same trees, by ONNX Runtime, a batch a call |
| store | an event's state written to Redis: about two small SETRANGEs in a fenced EXEC a batch |
| transaction | a record sent in a transaction of 1,000, offsets and all |
| commit | a whole transaction of one record, offsets and all |

``python -m benchmarks.parts --keep`` measures them all on this checkout, and keeps the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Round = Callable[[], int]  # does a round's work, asserts its answer, gives its units

ROWS = 5_000
BATCH = 1_000
KEYS = 2_000
LIVE = 60
BATCHES = 5  # in a round of windows or store
REPEATS = 10  # in a round of what takes microseconds: a clock is read at its ends alone
TRANSACTIONS = 3  # in a round
SMALL_TRANSACTIONS = 20
BROKER = "MILLRACE_BENCH_BROKER"  # where the comparison has one


def decode() -> Round:
    from benchmarks.codec import Ids
    from benchmarks.workloads import framed, payment_schemas, payments
    from schemas.codec import Decoder

    schemas, records = payment_schemas(), payments(ROWS)
    values = framed(records, [1] * ROWS, schemas)
    decoder = Decoder(schemas[1], "confluent", Ids(schemas))
    wanted = np.array([record["amount"] for record in records])

    def work() -> int:
        for _ in range(REPEATS):
            decoded = decoder.decode(values)
        assert not decoded.rejected.any()
        assert np.array_equal(np.asarray(decoded.columns["amount"]), wanted)
        return REPEATS * ROWS

    return work


def encode() -> Round:
    from benchmarks.workloads import scored_events
    from schemas.codec import Decoder, Encoder

    schema, columns = scored_events(ROWS)
    encoder = Encoder(schema, "bare")
    again = Decoder(schema, "bare").decode(encoder.encode(columns))
    assert np.array_equal(np.asarray(again.columns["source_offset"]), np.asarray(columns["source_offset"]))
    size = len(encoder.encode(columns).data)

    def work() -> int:
        for _ in range(REPEATS):
            written = encoder.encode(columns)
        assert len(written.data) == size
        return REPEATS * ROWS

    return work


def windows() -> Round:
    from benchmarks.kernel import CUSTOMER, Log, check
    from transforms.memory_store import MemoryStore
    from transforms.shard import ShardState

    log = Log.make(KEYS, LIVE, seed=1)
    batches = list(log.batches())
    store = MemoryStore()
    usable = np.ones(BATCH, np.bool_)
    features: list[Any] = []

    def fresh() -> ShardState:
        store.claim("s", {})
        state = ShardState("s", (CUSTOMER,), store, "t", 2 * KEYS)
        features.clear()
        for first, columns in batches[: len(batches) // 2]:
            advance(state, first, columns)
        return state

    def advance(state: ShardState, first: int, columns: Any) -> None:
        features.append(state.advance(columns, usable, np.arange(first, first + BATCH)).features)
        state.acknowledge(first + BATCH)

    state = fresh()
    left = iter(batches[len(batches) // 2 :])

    def work() -> int:
        for done in range(BATCHES):
            turn = next(left, None)
            if turn is None:  # asserted and done: a longer comparison goes on with what it has
                return done * BATCH
            advance(state, *turn)
        return BATCHES * BATCH

    whole = fresh()
    for turn in batches[len(batches) // 2 :]:
        advance(whole, *turn)
    check(log, np.concatenate(features), KEYS)
    features.clear()
    return work


def _forest(compiled: bool) -> Round:
    from benchmarks.scoring import INPUTS, workload
    from examples.card_fraud.history import History
    from examples.card_fraud.train import export, fit
    from inference.load_model import load_model
    from inference.model_card import ModelCard, write_card

    rows, label = workload(2 * BATCH)
    model = fit(History(rows, np.zeros(len(rows), np.int64), label.astype(np.int8)), trees=100, seed=0)
    graph = export(model, INPUTS)
    write_card(graph, ModelCard("bench", "1", tuple(f"f{place}" for place in range(INPUTS)), "0" * 16, 0.5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph.SerializeToString())
        scorer, judge = load_model(path, compile_forest=compiled), load_model(path, compile_forest=False)
    batch = rows[:BATCH]
    wanted = judge.score(batch)

    def work() -> int:
        for _ in range(REPEATS):
            scores = scorer.score(batch)
        assert np.array_equal(scores, wanted)
        return REPEATS * BATCH

    return work


def forest() -> Round:
    return _forest(True)


def onnx() -> Round:
    return _forest(False)


def store() -> Round:
    from contextlib import ExitStack

    from benchmarks.store import EVENTS, KEYS, RECORDS, Mirror, check_blocks, make_log
    from tests.redis_server import running
    from transforms.redis_store import RedisStore

    log = make_log(60 * BATCHES)
    server = ExitStack()
    url = server.enter_context(running()).url
    kept = RedisStore(url, "parts")
    kept.claim("0", {})
    mirror = Mirror(log)
    old = KEYS * RECORDS
    kept.write("0", mirror.writes(0, old), old)
    kept.settle("0")
    at = old

    def work() -> int:
        nonlocal at
        for _ in range(BATCHES):
            kept.write("0", mirror.writes(at, at + EVENTS), at + EVENTS)
            at += EVENTS
        kept.settle("0")
        return BATCHES * EVENTS

    work()
    check_blocks(kept, "0", log, at)
    _at_exit.append(server.close)
    return work


def transaction() -> Round:
    return _transaction(BATCH, TRANSACTIONS)


def commit() -> Round:
    return _transaction(1, SMALL_TRANSACTIONS)


def _transaction(records: int, transactions: int) -> Round:
    from streams.kafka import NewTopic, TopicPartition, admin, plain_consumer, transactional_producer
    from streams.settings import KafkaSettings
    from streams.transaction import Transactions

    settings = KafkaSettings(bootstrap_servers=os.environ[BROKER])
    name = f"parts-{os.getpid()}"
    client = admin(settings)
    for made in client.create_topics([NewTopic(name, 1, 1)]).values():
        made.result()
    outbox = Transactions(name, lambda each: transactional_producer(settings, each, 1_000_000))
    consumer = plain_consumer(settings, name)
    values, keys, times = [b"v" * 250] * records, [b"k%04d" % row for row in range(records)], [1_700_000_000_000] * records
    sent = 0

    def work() -> int:
        nonlocal sent
        for _ in range(transactions):
            turn = outbox.begin()
            turn.send(name, values, keys, times)
            sent += records
            turn.commit([TopicPartition(name, 0, sent)], consumer.consumer_group_metadata())
        return transactions * records

    work()
    (committed,) = consumer.committed([TopicPartition(name, 0)], 10.0)
    assert committed.offset == sent, f"committed {committed.offset}, wanted {sent}"
    _at_exit.extend((outbox.close, consumer.close))
    return work


PARTS: dict[str, Callable[[], Round]] = {
    "decode": decode,
    "encode": encode,
    "windows": windows,
    "forest": forest,
    "onnx": onnx,
    "store": store,
    "transaction": transaction,
    "commit": commit,
}
NEED_A_BROKER = ("transaction", "commit")
_at_exit: list[Callable[[], object]] = []


def serve(name: str) -> None:
    """Make a part ready, then do a round for each line that comes."""
    try:
        work = PARTS[name]()
        work()
        print(json.dumps({"ready": name}), flush=True)
        for _ in sys.stdin:
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            units = work()
            cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
            print(json.dumps({"units": units, "cpu_us": cpu / max(units, 1) / 1e3, "wall_us": wall / max(units, 1) / 1e3}), flush=True)
    finally:
        for each in _at_exit:
            each()


def measure_all(rounds: int) -> dict[str, dict[str, float]]:
    """Every part on this checkout, each in a process of its own: medians over the rounds."""
    from benchmarks.compare import WARM_ROUNDS, Side, environment_for

    found = {}
    with tempfile.TemporaryDirectory(prefix="millrace-parts-") as folder, environment_for(tuple(PARTS), Path(folder)) as environment:
        for name in PARTS:
            side = Side("this checkout", Path(__file__).resolve().parents[1], name, environment)
            try:
                times = [side.round() for _ in range(WARM_ROUNDS + rounds)][WARM_ROUNDS:]
            finally:
                side.close()
            found[name] = {"cpu_us": round(float(np.median(times)), 4), "p10_us": round(float(np.percentile(times, 10)), 4)}
            print(f"{name:12} {found[name]['cpu_us']:10.3f} us of CPU a unit, p10 {found[name]['p10_us']:.3f}", flush=True)
    return found


def main() -> None:
    """Serve one part, or measure all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, help="serve this one")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    wanted = parser.parse_args()
    if wanted.part:
        serve(wanted.part)
        return
    from benchmarks.result import circumstances, command_line, keep, signals_interrupt

    result = circumstances(command_line())
    with signals_interrupt():
        result["parts"] = measure_all(wanted.rounds)
    if wanted.keep:
        keep("parts", result)


if __name__ == "__main__":
    main()
