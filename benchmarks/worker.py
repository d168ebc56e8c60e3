"""The whole worker on a real broker and Redis, all of them on this machine: ``python -m benchmarks.worker``.

Measurements of one worker, ``exactly_once``, customer and terminal windows, a forest of 100 trees:

- *drain*: a preloaded topic, read as fast as the worker can: events/s, and CPU of the worker process an event, between the first
  tenth and the last record;
- *steady*: a constant rate for some time. An event's latency runs from the moment it was due to be sent to the moment a
  read_committed reader of the output had it in hand, so a feeder that falls behind is not forgiven; how far it fell behind is shown.
  Quantiles are taken over all of it, and of each slice of 5 s: the floor is held against the median of the slices' p99, since other
  work on the machine makes single slices several times slower;
- *idle*: nothing comes: its share of a core, and its memory;
- *again*: a new worker beside the state that the first has left in Redis: seconds from its process's start until a read_committed
  reader has its first score, and its memory then.

The answer is asserted: every event scored once, and for some customers and terminals every feature equal to a slow computation.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.one_schema import OneSchema
from benchmarks.pace import send_all, send_paced
from benchmarks.result import circumstances, command_line, keep
from examples.card_fraud.simulate import DAY_MS, Payments, Simulator
from examples.card_fraud.train import train
from schemas.avro import AvroSchema, load_schema
from schemas.codec import Decoder, Encoder
from schemas.columns import Columns, Floats, Ints, PackedBytes
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import TopicPartition, plain_consumer, plain_producer
from streams.local import services as local
from streams.planning.create_topics import create
from streams.scored_event import output_schema
from streams.settings import KafkaSettings, RedisSettings, Settings

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "card_fraud"
RESULTS = Path(__file__).with_name("results")
BOUNDS = Path(__file__).with_name("bounds.json")
WARM_UP_SECONDS = 5.0
SLICE_SECONDS = 5.0
LOOK_SECONDS = 0.25
START_LOOK_SECONDS = 0.05
CHECKED_KEYS = 25
IDLE_SECONDS = 20.0


@dataclass(frozen=True)
class Stand:
    """The services and the pipeline that is measured."""

    folder: Path
    bound: Bound
    settings: Settings
    simulator: Simulator
    partitions: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """For the worker's process, whose Python keeps what it has compiled, as it does where nobody told it otherwise."""
        return {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka.bootstrap_servers,
            "REDIS_URL": self.settings.redis.url.get_secret_value(),
            "MILLRACE_KAFKA__START": "earliest",
            "MILLRACE_HEALTH__PORT": "18321",
        }


@contextmanager
def stand(customers: int) -> Iterator[Stand]:
    """Services of our own in a temporary folder, topics made and a model trained; all gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    try:
        shutil.copytree(EXAMPLE, folder / "card_fraud", ignore=shutil.ignore_patterns("models", "__pycache__"))
        services = local.up(folder / "services", say=lambda words: print(f"  {words}"))
        bound = load_bound(folder / "card_fraud" / "pipeline.py")
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=services.bootstrap_servers), redis=RedisSettings(url=services.redis_url))  # type: ignore[arg-type]
        create(bound, settings)
        print("  training the forest")
        train(bound, Simulator(), bound.model_path)
        yield Stand(folder, bound, settings, Simulator(seed=11, customers=customers, terminals=2 * customers))
    finally:
        local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def worker(stand: Stand) -> Iterator[psutil.Process]:
    """A worker process, ended politely."""
    log = (stand.folder / "worker.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "millrace", "run", str(stand.bound.folder / "pipeline.py")], env=stand.environment, stdout=log, stderr=log
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        if process.wait(30) != 0:
            print((stand.folder / "worker.log").read_text()[-3_000:])
            raise SystemExit(f"the worker ended with {process.returncode}")


def events(stand: Stand) -> Encoder:
    """Encodes payments as the input topic wants them."""
    schema: AvroSchema = load_schema(stand.bound.folder / "schemas" / "1-payments-value.avsc")
    return Encoder(schema, "confluent", 1)


def preload(stand: Stand, count: int) -> Payments:
    """Send at least `count` payments; those that were sent."""
    days = int(count / stand.simulator.payments_per_day) + 1
    payments = stand.simulator.days(0, days)
    send_all(plain_producer(stand.settings.kafka), stand.bound.input.name, events(stand).encode(payments.columns()), payments.customer_id)
    return payments


def counted(metric: str) -> float:
    """A counter of the worker, summed over its labels; 0 before it answers."""
    try:
        page = urllib.request.urlopen("http://127.0.0.1:18321/metrics", timeout=2).read().decode()
    except OSError:
        return 0.0
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(metric + "{"))


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def drain(process: psutil.Process, began: float, count: int) -> dict[str, float]:
    """Wait until all was read, and say how fast that was."""
    first = 0.0
    tenth: tuple[float, float, float] | None = None
    while (done := counted("millrace_records_read_total")) < count:
        if process.status() == psutil.STATUS_ZOMBIE:
            raise SystemExit(f"the worker ended after {done:,.0f} of {count:,} events")
        now = time.monotonic()
        if done and not first:
            first = now
        if tenth is None and done > count / 10:
            tenth = (now, done, cpu_seconds(process))
        # Before the first, often, to see the start; then seldom: a page of metrics costs the worker some milliseconds.
        time.sleep(LOOK_SECONDS if done else START_LOOK_SECONDS)
    assert tenth is not None
    rows = count - tenth[1]
    return {
        "start_seconds": first - began,
        "events_per_second": rows / (time.monotonic() - tenth[0]),
        "cpu_us_per_event": (cpu_seconds(process) - tenth[2]) / rows * 1e6,
        "rss_bytes": float(process.memory_info().rss),
    }


def feed(bootstrap_servers: str, topic: str, values: list[bytes], keys: list[bytes], rate: float, begin: float, report: Any) -> None:
    """Send record i at `begin` + i / rate; reports how late it was."""
    report.put(send_paced(plain_producer(KafkaSettings(bootstrap_servers=bootstrap_servers)), topic, values, keys, rate, begin))


def steady(stand: Stand, process: psutil.Process, sent: int, first_day: int, rate: float, seconds: float) -> dict[str, float]:
    """Feed a constant rate, and time each event from when it was due until its score was read."""
    count = int(rate * seconds)
    days = int(count / stand.simulator.payments_per_day) + 1
    payments = stand.simulator.days(first_day, days)
    values = list(events(stand).encode(payments.columns()))[:count]
    keys = list(payments.customer_id)[:count]
    reader = plain_consumer(stand.settings.kafka, "benchmark")
    topic = stand.bound.output.name
    reader.assign([TopicPartition(topic, 0, reader.get_watermark_offsets(TopicPartition(topic, 0))[1])])
    report: Any = multiprocessing.get_context("spawn").Queue()
    begin = time.time() + 2.0
    arguments = (stand.settings.kafka.bootstrap_servers, stand.bound.input.name, values, keys, rate, begin, report)
    feeder = multiprocessing.get_context("spawn").Process(target=feed, args=arguments)
    feeder.start()
    seen: list[bytes] = []
    seen_at: list[float] = []
    before = cpu_seconds(process)
    deadline = begin + seconds + 30
    while len(seen) < count and time.time() < deadline:
        first = reader.poll(0.05)
        if first is None:
            continue
        found = [message.value() for message in (first, *reader.consume(10_000, 0)) if message.error() is None]
        now = time.time()
        seen += [value for value in found if value is not None]
        seen_at += [now] * len(found)
    used = cpu_seconds(process) - before
    feeder.join(10)
    reader.close()
    assert len(seen) == count, f"{len(seen)} of {count} scores were read"
    offsets = np.asarray(scored(stand, seen)["source_offset"])
    assert len(np.unique(offsets)) == count, "an event was scored twice"
    latency_ms = (np.array(seen_at) - (begin + (offsets - sent) / rate)) * 1e3
    due_seconds = (offsets - sent) / rate
    warm = due_seconds > WARM_UP_SECONDS
    slices = [
        float(np.percentile(latency_ms[(due_seconds >= start) & (due_seconds < start + SLICE_SECONDS)], 99))
        for start in np.arange(WARM_UP_SECONDS, seconds - SLICE_SECONDS / 2, SLICE_SECONDS)
    ]
    quantiles = {f"p{share:g}_ms": float(np.percentile(latency_ms[warm], share)) for share in (50, 90, 99, 99.9)}
    return {
        **quantiles,
        "max_ms": float(latency_ms[warm].max()),
        "median_p99_ms": float(np.median(slices)),
        "worst_slice_p99_ms": max(slices),
        "cpu_us_per_event": used / count * 1e6,
        "feeder_late_p99_ms": report.get() * 1e3,
    }


def idle(process: psutil.Process) -> dict[str, float]:
    """What a worker takes that has nothing to do."""
    time.sleep(WARM_UP_SECONDS)
    before = cpu_seconds(process)
    time.sleep(IDLE_SECONDS)
    return {"cores": (cpu_seconds(process) - before) / IDLE_SECONDS, "rss_bytes": float(process.memory_info().rss)}


def again(stand: Stand, payments: Payments) -> dict[str, float]:
    """How long a new worker takes until the first of these payments is scored; `payments` are sent before it starts."""
    reader = plain_consumer(stand.settings.kafka, "benchmark-again")
    topic = stand.bound.output.name
    reader.assign([TopicPartition(topic, 0, reader.get_watermark_offsets(TopicPartition(topic, 0))[1])])
    send_all(plain_producer(stand.settings.kafka), stand.bound.input.name, events(stand).encode(payments.columns()), payments.customer_id)
    began = time.monotonic()
    with worker(stand) as process:
        while (first := reader.poll(START_LOOK_SECONDS)) is None or first.error() is not None:
            assert time.monotonic() < began + 60, "the new worker scores nothing"
        found = {"start_seconds": time.monotonic() - began, "rss_bytes": float(process.memory_info().rss)}
    reader.close()
    return found


def scored(stand: Stand, values: list[bytes]) -> Columns:
    """The columns of scored events."""
    schema = output_schema(stand.bound)
    return Decoder(schema, "confluent", OneSchema(schema)).decode(PackedBytes.pack(values)).columns


def check_answers(stand: Stand, payments: Payments) -> int:
    """Read all scored events of the preloaded payments and hold them against a slow computation; how many features were compared."""
    reader = plain_consumer(stand.settings.kafka, "benchmark-check")
    reader.assign([TopicPartition(stand.bound.output.name, 0, 0)])
    values: list[bytes] = []
    while len(values) < len(payments):
        values += [v for m in reader.consume(10_000, 1.0) if m.error() is None and (v := m.value()) is not None]
    reader.close()
    columns = scored(stand, values[: len(payments)])
    offsets = np.asarray(columns["source_offset"])
    assert np.array_equal(offsets, np.arange(len(payments))), "scores are missing, twice or out of order"
    compared = 0
    for name, of, delay_ms in (("customer", payments.customer, 0), ("terminal", payments.terminal, 7 * DAY_MS)):
        for key in np.unique(of)[:: max(len(np.unique(of)) // CHECKED_KEYS, 1)]:
            rows = np.flatnonzero(of == key)
            for length in (1, 7, 30):
                suffix = f"{length}d" + ("_delay_7d" if delay_ms else "")
                counts, means = _slowly(payments.event_ms[rows], payments.amount_cents[rows], length * DAY_MS, delay_ms)
                found = np.asarray(columns[f"features.{name}_count_{suffix}"])[rows]
                assert np.array_equal(counts, found), f"{name} {key}: counts of {suffix}"
                if not delay_ms:
                    found = np.asarray(columns[f"features.{name}_amount_mean_{suffix}"])[rows]
                    assert np.array_equal(means, found), f"{name} {key}: means of {suffix}"
                compared += len(rows)
    return compared


def _slowly(event_ms: Ints, cents: Ints, length_ms: int, delay_ms: int) -> tuple[Floats, Floats]:
    counts, means = [], []
    for row, now in enumerate(event_ms.tolist()):
        inside: NDArray[np.bool_] = (event_ms[: row + 1] > now - delay_ms - length_ms) & (event_ms[: row + 1] <= now - delay_ms)
        count = int(inside.sum())
        counts.append(float(count))
        means.append(int(cents[: row + 1][inside].sum()) / (count * 100) if count else 0.0)
    return np.array(counts), np.array(means)


def main() -> None:
    """Measure, print, keep the result, and fail if a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--lead-in", type=float, default=0, help="seconds at the rate before those that are measured")
    parser.add_argument("--no-floors", action="store_true", help="measure only")
    wanted = parser.parse_args()
    result: dict[str, Any] = circumstances(command_line()) | {"settings": vars(wanted)}
    print("setting up")
    with stand(wanted.customers) as where:
        payments = preload(where, wanted.events)
        print(f"draining {len(payments):,} events")
        began = time.monotonic()
        with worker(where) as process:
            result["drain"] = drain(process, began, len(payments))
            first_day = int((payments.event_ms[-1] - where.simulator.start_ms) // DAY_MS) + 1
            print(f"{wanted.rate:,.0f} events/s for {wanted.seconds:.0f} s")
            sent = len(payments)
            if wanted.lead_in:  # a broker whose compiler optimises gets faster for minutes
                steady(where, process, sent, first_day, wanted.rate, wanted.lead_in)
                sent += int(wanted.rate * wanted.lead_in)
                first_day += int(wanted.rate * wanted.lead_in / where.simulator.payments_per_day) + 1
            result["steady"] = steady(where, process, sent, first_day, wanted.rate, wanted.seconds)
            result["idle"] = idle(process)
        next_day = first_day + int(wanted.rate * wanted.seconds / where.simulator.payments_per_day) + 1
        result["again"] = again(where, where.simulator.days(next_day))
        result["features_compared"] = check_answers(where, payments)
    for part in ("drain", "steady", "idle", "again"):
        for name, value in result[part].items():
            print(f"  {part:7} {name:20} {value:14,.3f}")
    print(f"  {result['features_compared']:,} features compared with the slow computation, all equal")
    keep("worker", result)
    if not wanted.no_floors:
        _check_floors(result)


def _check_floors(result: dict[str, Any]) -> None:
    floors = json.loads(BOUNDS.read_text())["worker"]
    drained, held, rested = result["drain"], result["steady"], result["idle"]
    missed = [
        f"{name} is {found:.2f}, the floor is {floors[name]}"
        for name, found, good in (
            ("drain_events_per_second", drained["events_per_second"], drained["events_per_second"] >= floors["drain_events_per_second"]),
            ("drain_cpu_us_per_event", drained["cpu_us_per_event"], drained["cpu_us_per_event"] <= floors["drain_cpu_us_per_event"]),
            ("steady_p99_ms", held["median_p99_ms"], held["median_p99_ms"] <= floors["steady_p99_ms"]),
            ("start_seconds", result["again"]["start_seconds"], result["again"]["start_seconds"] <= floors["start_seconds"]),
            ("idle_cores", rested["cores"], rested["cores"] <= floors["idle_cores"]),
        )
        if not good
    ]
    if missed:
        raise SystemExit("; ".join(missed))


def machine() -> dict[str, Any]:
    """What this runs on."""
    memory = psutil.virtual_memory().total
    return {"cpus": os.cpu_count(), "memory_bytes": memory, "python": platform.python_version(), "system": platform.platform()}


if __name__ == "__main__":
    main()
