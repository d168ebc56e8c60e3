"""Two stages with labels on a real broker and Redis, all of them on this machine: ``python -m benchmarks.stages``.

Customers by the input's key, terminals with labels over a hop, a forest of 100 trees, four partitions of each topic, ``exactly_once``:

- *drain*: after some history, a preloaded topic and the labels of that history, read as fast as one process with all stages can:
  from the first stage's first tenth to the last score, events/s and CPU of the process an event;
- *steady*: a constant rate; an event's latency runs from the moment it was due to be sent to the moment a read_committed reader of
  the output had its score in hand, over both transactions;
- *apart*, *apart, steady*: both again, each stage in a process of its own: CPU an event by stage;
- *two workers*: a drain by two processes with all stages, which share the partitions.

The answer is asserted: every event scored once, and for some terminals every count of payments and of frauds equal to a slow
computation over the internal topic, which is the order they are meant in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.pace import send_all
from benchmarks.worker import EXAMPLE, RESULTS, WARM_UP_SECONDS, Stand, cpu_seconds, events, feed, machine, scored
from examples.card_fraud.simulate import DAY_MS, Payments, Simulator
from examples.card_fraud.train import export
from inference.model_card import ModelCard, write_card
from schemas.avro import load_schema
from schemas.codec import Encoder
from schemas.columns import Columns, PackedBytes
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.hop import HopSchema
from streams.kafka import KafkaError, TopicPartition, plain_consumer, plain_producer
from streams.local import services as local
from streams.local.kafka import jvm_options
from streams.local.process import choose_port
from streams.planning.create_topics import create
from streams.planning.stage import stages
from streams.settings import KafkaSettings, RedisSettings, Settings

PARTITIONS = 4
STAGES = ("by-customer", "by-terminal", "labels")
LATENESS_MS = 2 * DAY_MS  # more than partitions drift apart while a backlog is read
DELAY_MS = 7 * DAY_MS
WINDOWS_DAYS = (1, 7, 30)
CHECKED_TERMINALS = 200
LOOK_SECONDS = 0.5  # a page of metrics costs a worker some milliseconds, and a look takes several
LABEL_SCHEMA = {
    "type": "record",
    "name": "PaymentLabel",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "terminal_id", "type": "string"},
        {"name": "fraud", "type": "boolean"},
    ],
}
CHANGES = {
    "    Count,\n": "    Count,\n    LabelCount,\n    LabelRate,\n    Labels,\n",
    "    aggregates=(Count(),),\n    lateness_ms=hours(1)": "    aggregates=(Count(), LabelCount(), LabelRate()),\n    lateness_ms=days(2)",
    "entities=(customer, terminal),": "entities=(customer, terminal),\n    labels=labels,",
    "pipeline = Pipeline(": 'labels = Labels(Topic("payment-labels", schema="schemas/3-payment-labels-value.avsc", key="payment_id", '
    'event_time="event_time", event_id="payment_id"), value="fraud")\n\npipeline = Pipeline(',
}


@contextmanager
def stand(customers: int, partitions: int) -> Iterator[Stand]:
    """Services of our own in a temporary folder, topics made, a forest grown on noise: only what it costs matters."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    try:
        home = folder / "card_fraud"
        shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("models", "__pycache__", "2-*"))
        text = (home / "pipeline.py").read_text()
        for old, new in CHANGES.items():
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the example"
            text = text.replace(old, new)
        (home / "pipeline.py").write_text(text)
        (home / "schemas" / "3-payment-labels-value.avsc").write_text(json.dumps(LABEL_SCHEMA))
        services = local.up(folder / "services", say=lambda words: print(f"  {words}"))
        bound = load_bound(home / "pipeline.py")
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=services.bootstrap_servers), redis=RedisSettings(url=services.redis_url))  # type: ignore[arg-type]
        create(bound, settings, partitions)
        grow(bound)
        yield Stand(folder, bound, settings, Simulator(seed=11, customers=customers, terminals=2 * customers), partitions)
    finally:
        local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)


def grow(bound: Bound) -> None:
    """Write a forest of 100 trees over the pipeline's features."""
    random, width = np.random.default_rng(0), len(bound.features.names)
    rows = random.random((4_000, width)) * 100
    model = make_pipeline(StandardScaler(), RandomForestClassifier(100, max_depth=10, random_state=0, n_jobs=-1))
    graph = export(model.fit(rows, random.random(4_000) < rows[:, 0] / 100), width)
    write_card(graph, ModelCard(bound.model.name, "noise", bound.features.names, bound.features.fingerprint, 0.5))
    bound.model_path.parent.mkdir(parents=True, exist_ok=True)
    bound.model_path.write_bytes(graph.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Running:
    """A worker's process, the stages it runs, and the port of its pages."""

    names: Sequence[str]
    port: int
    process: psutil.Process

    def read(self, stage: str) -> float:
        """Records a stage has made final here; 0 before the process answers."""
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2).read().decode()
        except OSError:
            return 0.0
        lines = [line for line in page.splitlines() if line.startswith("millrace_records_read_total{") and f'stage="{stage}"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@contextmanager
def worker(stand: Stand, names: Sequence[str] = STAGES, instance: str = "one") -> Iterator[Running]:
    """A process that runs some stages, ended politely."""
    file, port = stand.folder / f"{'-'.join(names)}-{instance}.log", choose_port(None)
    environment = stand.environment | {"MILLRACE_HEALTH__PORT": str(port), "MILLRACE_KAFKA__INSTANCE": instance}
    command = [sys.executable, "-m", "millrace", "run", str(stand.bound.folder / "pipeline.py"), "--stages", ",".join(names)]
    with file.open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield Running(names, port, psutil.Process(process.pid))
    finally:
        process.terminate()
        if process.wait(30) != 0:
            print(file.read_text()[-3_000:])
            raise SystemExit(f"the worker of {', '.join(names)} ended with {process.returncode}")


def send(stand: Stand, payments: Payments) -> None:
    """Send payments."""
    _send(stand, stand.bound.input.name, events(stand).encode(payments.columns()), payments.customer_id)


def send_labels(stand: Stand, payments: Payments, every: int) -> int:
    """Send the labels of all frauds, and of one of so many others; how many."""
    rows = np.flatnonzero(payments.fraud | (payments.number % every == 0))
    columns: Columns = {
        "payment_id": payments.payment_id.take(rows),
        "event_time": payments.event_ms[rows],
        "terminal_id": payments.terminal_id.take(rows),
        "fraud": payments.fraud[rows],
    }
    schema = load_schema(stand.bound.folder / "schemas" / "3-payment-labels-value.avsc")
    _send(stand, "payment-labels", Encoder(schema, "confluent", 3).encode(columns), payments.payment_id.take(rows))
    return len(rows)


def backlog(stand: Stand, payments: Payments, labelled: Payments) -> dict[str, int]:
    """Preload payments, and labels of earlier ones; the records that each stage then has before it."""
    labels = send_labels(stand, labelled, every=20)
    send(stand, payments)
    print(f"draining {len(payments):,} payments and {labels:,} labels")
    return {"by-customer": len(payments), "labels": labels, "by-terminal": len(payments) + labels}


def _send(stand: Stand, topic: str, values: PackedBytes, keys: PackedBytes) -> None:
    send_all(plain_producer(stand.settings.kafka), topic, values, keys)


def drain(workers: Mapping[str, Running], wanted: Mapping[str, int]) -> dict[str, float]:
    """Wait until every stage has read so many records; events/s, and CPU by process, from the first tenth of the first stage's on.

    Of several that run the first stage each has begun by then. The last stage has a little more to do than the first: what is said of
    it is rather too much than too little.
    """
    begun: tuple[float, float, dict[str, float]] | None = None

    def done(stage: str) -> float:
        return sum(each.read(stage) for each in workers.values() if stage in each.names)

    first = next(iter(wanted))
    firsts = [each for each in workers.values() if first in each.names]
    while any(done(stage) < count for stage, count in wanted.items()):
        for name, each in workers.items():
            if each.process.status() == psutil.STATUS_ZOMBIE:
                raise SystemExit(f"the worker of {name} ended")
        if begun is None and (read := done(first)) > wanted[first] / 10 and all(each.read(first) for each in firsts):
            begun = time.monotonic(), read, {name: cpu_seconds(each.process) for name, each in workers.items()}
        time.sleep(LOOK_SECONDS)
    assert begun is not None
    rows = wanted[first] - begun[1]
    used = {f"cpu_us_per_event {name}": (cpu_seconds(each.process) - begun[2][name]) / rows * 1e6 for name, each in workers.items()}
    return {"events": rows, "events_per_second": rows / (time.monotonic() - begun[0]), **used}


def steady(stand: Stand, workers: Sequence[Running], payments: Payments, rate: float) -> dict[str, float]:
    """Feed payments at a constant rate, and time each from when it was due until its score was read."""
    reader = plain_consumer(stand.settings.kafka, "benchmark")
    here = [TopicPartition(stand.bound.output.name, p) for p in range(stand.partitions)]
    reader.assign([TopicPartition(tp.topic, tp.partition, reader.get_watermark_offsets(tp)[1]) for tp in here])
    values, keys = list(events(stand).encode(payments.columns())), list(payments.customer_id)
    report: Any = multiprocessing.get_context("spawn").Queue()
    begin = time.time() + 2.0
    arguments = (stand.settings.kafka.bootstrap_servers, stand.bound.input.name, values, keys, rate, begin, report)
    feeder = multiprocessing.get_context("spawn").Process(target=feed, args=arguments)
    feeder.start()
    seen: list[bytes] = []
    seen_at: list[float] = []
    before = sum(cpu_seconds(each.process) for each in workers)
    deadline = begin + len(payments) / rate + 30
    while len(seen) < len(payments) and time.time() < deadline:
        first = reader.poll(0.05)
        if first is None:
            continue
        found = [message.value() for message in (first, *reader.consume(10_000, 0)) if message.error() is None]
        seen += [value for value in found if value is not None]
        seen_at += [time.time()] * (len(seen) - len(seen_at))
    used = sum(cpu_seconds(each.process) for each in workers) - before
    feeder.join(10)
    reader.close()
    place = {name: number for number, name in enumerate(payments.payment_id)}
    ids: Any = scored(stand, seen)["event_id"]
    sent = np.array([place[name] for name in ids])
    assert len(np.unique(sent)) == len(sent) == len(payments), f"{len(sent)} scores of {len(payments)} events"
    latency_ms = (np.array(seen_at) - (begin + sent / rate)) * 1e3
    warm = sent / rate > WARM_UP_SECONDS
    quantiles = {f"p{share:g}_ms": float(np.percentile(latency_ms[warm], share)) for share in (50, 90, 99, 99.9)}
    return {**quantiles, "cpu_us_per_event": used / len(sent) * 1e6, "feeder_late_p99_ms": report.get() * 1e3}


def lead(stand: Stand, workers: Sequence[Running], payments: Payments, rate: float) -> None:
    """Feed payments that nobody times: a broker whose compiler optimises gets faster for minutes."""
    if len(payments):
        print(f"leading in with {len(payments):,} payments")
        steady(stand, workers, payments, rate)


@dataclass
class Past:
    """A terminal's remembered payments, and the frauds among them, in any order."""

    ids: list[bytes]
    times: list[int]
    frauds: list[int]


def check_answers(stand: Stand, sent: int) -> int:
    """Hold all scored events against the internal topic; how many counts of some terminals were worked out slowly."""
    hop = HopSchema.of(stand.bound, next(s for s in stages(stand.bound, stand.partitions) if s.name == "by-terminal"))
    found = scored(stand, read_all(stand, stand.bound.output.name))
    outputs: Any = found["event_id"]
    row_of = {name: row for row, name in enumerate(outputs)}
    assert len(row_of) == len(outputs) == sent, f"{len(outputs)} scores of {sent} events, {len(row_of)} of them different"
    rows = hop.decode(hop.decoder(), PackedBytes.pack(read_all(stand, hop.stage.input.name)), str)
    columns: Any = rows.columns
    assert np.count_nonzero(~rows.is_label) == sent, "an event crossed twice, or not at all"
    terminals, ids, times = list(columns["terminal_id"]), list(columns["payment_id"]), columns["event_time"].tolist()
    names = sorted(set(terminals))
    pasts = {name: Past([], [], []) for name in names[:: max(len(names) // CHECKED_TERMINALS, 1)]}
    compared = seen = 0
    for terminal, name, t, is_label, label in zip(terminals, ids, times, rows.is_label.tolist(), rows.labels.tolist(), strict=True):
        past = pasts.get(terminal)
        if past is None:
            continue
        if is_label:
            past.frauds = [label if each == name else fraud for each, fraud in zip(past.ids, past.frauds, strict=True)]
            continue
        newest = max(past.times, default=t)
        end = max(t, newest - LATENESS_MS) - DELAY_MS
        for days in WINDOWS_DAYS:
            inside = [fraud for time_ms, fraud in zip(past.times, past.frauds, strict=True) if end - days * DAY_MS < time_ms <= end]
            rate = sum(inside) / len(inside) if inside else 0.0
            for word, wanted in (("count", len(inside)), ("label_count", sum(inside)), ("label_rate", rate)):
                column: Any = found[f"features.terminal_{word}_{days}d_delay_7d"]
                assert column[row_of[name]] == wanted, f"{terminal}: {word} of {days}d at {name!r}"
            compared += 3
            seen += sum(inside)
        if t >= newest - LATENESS_MS:
            past.ids.append(name)
            past.times.append(t)
            past.frauds.append(0)
    assert seen, "no label was ever seen"
    return compared


def read_all(stand: Stand, topic: str) -> list[bytes]:
    """All values of a topic, partition by partition."""
    found: list[bytes] = []
    for partition in range(stand.partitions):
        reader = plain_consumer(stand.settings.kafka, "benchmark-check")
        reader.assign([TopicPartition(topic, partition, 0)])
        at_end = False
        while not at_end:
            for message in reader.consume(10_000, 1.0):
                error = message.error()
                at_end = at_end or (error is not None and error.code() == KafkaError._PARTITION_EOF)
                if error is None and (value := message.value()) is not None:
                    found.append(value)
        reader.close()
    return found


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=40, help="of simulated payments: history and drains, a like part each")
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of each topic")
    parser.add_argument("--rate", type=float, default=5_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--lead-in", type=float, default=0, help="seconds at the rate before those that are measured")
    wanted = parser.parse_args()
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "broker_jvm": jvm_options(),
        "settings": vars(wanted),
    }
    part_days = wanted.days // 4
    with stand(wanted.customers, wanted.partitions) as where:
        parts = [where.simulator.days(turn * part_days, part_days) for turn in range(4)]
        print(f"history of {len(parts[0]):,} payments")
        send(where, parts[0])
        with worker(where) as all_stages:
            drain({"all": all_stages}, {"by-customer": len(parts[0]), "by-terminal": len(parts[0])})
        per_day = where.simulator.payments_per_day
        lead_days, steady_days = (int(wanted.rate * seconds / per_day) + bool(seconds) for seconds in (wanted.lead_in, wanted.seconds))
        begins = [wanted.days + turn * (lead_days + steady_days) for turn in range(2)]
        lead_in = [where.simulator.days(day, lead_days) for day in begins]
        later = [where.simulator.days(day + lead_days, steady_days) for day in begins]

        rows = backlog(where, parts[1], parts[0])
        with worker(where) as first, worker(where, instance="two") as second:
            result["two workers"] = drain({"one": first, "two": second}, rows)

        rows = backlog(where, parts[2], parts[1])
        with worker(where) as all_stages:
            result["drain"] = drain({"all": all_stages}, rows)
            print(f"{wanted.rate:,.0f} events/s")
            lead(where, [all_stages], lead_in[0], wanted.rate)
            result["steady"] = steady(where, [all_stages], later[0], wanted.rate)

        rows = backlog(where, parts[3], parts[2])
        print("each stage in a process of its own")
        with ExitStack() as stack:
            apart = {name: stack.enter_context(worker(where, (name,))) for name in STAGES}
            result["apart"] = drain(apart, rows)
            print(f"{wanted.rate:,.0f} events/s")
            lead(where, list(apart.values()), lead_in[1], wanted.rate)
            result["apart, steady"] = steady(where, list(apart.values()), later[1], wanted.rate)
        result["load_average"] = os.getloadavg()  # of other work, too: a figure under load says little
        result["counts_compared"] = check_answers(where, sum(map(len, [*parts, *lead_in, *later])))
    for part in ("two workers", "drain", "steady", "apart", "apart, steady"):
        for name, value in result[part].items():
            print(f"  {part:14} {name:32} {value:14,.2f}")
    print(f"  {result['counts_compared']:,} counts compared with the slow computation, all equal")
    RESULTS.mkdir(exist_ok=True)
    shape = "" if wanted.partitions == PARTITIONS else f"-{wanted.partitions}-partitions"
    kind = f"stages{shape}{'-led-in' if wanted.lead_in else ''}"
    (RESULTS / f"{kind}-{datetime.now(UTC):%Y-%m-%dT%H%M}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
