"""Any pipeline over any partitions, its workers killed on the way: every feature equals its slow definition over each key's own log."""

from __future__ import annotations

import io
import random
import signal
import struct
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import pytest

from benchmarks.handbook.stream import write_model
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.hop import HopSchema
from streams.kafka import KafkaException, TopicPartition, plain_consumer, plain_producer
from streams.local.process import choose_port
from streams.local.services import Services
from streams.planning.create_topics import create
from streams.planning.stage import Stage, stages
from streams.scored_event import output_schema
from streams.settings import KafkaSettings, RedisSettings, Settings
from tests.live.random_pipeline import EVENT, LABEL, Made, make
from tests.live.scene import Waited, Worker, read_topic, wait_for
from tests.oracles.payments import Record
from tests.oracles.windows import UNMATCHED, Past, feature
from tests.services import Broker
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint

EVENTS = 900
FAULT_POINTS = ("before_commit", "offsets_sent", "after_commit", "after_write")
HEADER_BYTES = 5


@dataclass
class Run:
    """A made up pipeline on the run's services."""

    made: Made
    folder: Path
    services: Services

    def __post_init__(self) -> None:
        self.file = self.made.write(self.folder)
        self.bound: Bound = load_bound(self.file)
        kafka = KafkaSettings(bootstrap_servers=self.services.bootstrap_servers)
        self.settings = Settings(kafka=kafka, redis=RedisSettings(url=self.services.redis_url))  # type: ignore[arg-type]
        write_model(self.bound)
        create(self.bound, self.settings, self.made.partitions, 1)
        self.stages = stages(self.bound, self.made.partitions)
        self.broker = Broker(self.services.bootstrap_servers)
        self.workers: list[Worker] = []

    def worker(self, instance: str, fault: str = "") -> Worker:
        variables = {
            "KAFKA__BOOTSTRAP_SERVERS": self.services.bootstrap_servers,
            "KAFKA__INSTANCE": f"{self.made.name}-{instance}",
            "KAFKA__START": "earliest",
            "KAFKA__SESSION_TIMEOUT_MS": "2000",
            "REDIS__URL": self.services.redis_url,
            "HEALTH__PORT": str(choose_port(None)),
            "WORKER__BATCH_RECORDS": "40",
            "FAULT": fault,
        }
        ours = {f"MILLRACE_{name}": value for name, value in variables.items() if value}
        log = self.folder / f"worker-{len(self.workers)}.log"
        started = Worker([str(self.file)], ours, log, int(variables["HEALTH__PORT"]))
        self.workers.append(started)
        return started

    def send(self) -> None:
        """Events, and labels between them."""
        producer = plain_producer(self.settings.kafka)
        labels = deque(self.made.labels)
        for number, event in enumerate(self.made.events):
            producer.produce(self.bound.input.name, _encoded(EVENT, 1, event), event["customer"].encode())
            while labels and (labels[0][0] <= number or number == len(self.made.events) - 1):
                _, label = labels.popleft()
                producer.produce(f"{self.made.name}-labels", _encoded(LABEL, 2, label), label["event_id"].encode())
        assert producer.flush(30) == 0

    def drained(self) -> None:
        """Wait until each stage has read all there is, in the order in which they feed each other."""
        for stage in sorted(self.stages, key=lambda each: each.kind != "labels"):
            reader = plain_consumer(self.settings.kafka, stage.group(self.settings.kafka))
            here = [TopicPartition(stage.input.name, p) for p in range(self.made.partitions)]
            ends = {tp.partition: reader.get_watermark_offsets(tp, 10.0)[1] for tp in here}
            wait_for(f"all of {stage.name}: {self.logs}", partial(self._committed, reader, here, ends))
            reader.close()

    def _committed(self, reader: Any, here: list[TopicPartition], ends: Mapping[int, int]) -> bool:
        if not any(worker.lives for worker in self.workers):
            raise Waited(f"no worker lives: {self.logs}")
        try:
            return all(max(tp.offset, 0) >= ends[tp.partition] for tp in reader.committed(here, 10.0))
        except KafkaException:
            return False  # a transaction is open

    @property
    def logs(self) -> str:
        return "\n".join(worker.log[-1_500:] for worker in self.workers)

    def read(self, topic: str, schema: Any, header_bytes: int) -> list[tuple[Record, dict[str, Any]]]:
        """A topic's committed records and what they say, partition after partition."""
        parsed = fastavro.parse_schema(schema)
        records = sorted(read_topic(self.broker, topic), key=lambda each: (each.partition, each.offset))
        return [(each, _decoded(parsed, (each.value or b"")[header_bytes:])) for each in records]


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_a_random_pipeline_equals_its_definition_over_each_keys_log(services: Services, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed * 1_000)
    run = Run(make(f"r{uuid.uuid4().hex[:10]}", seed, EVENTS), tmp_path, services)
    run.send()
    try:
        doomed = run.worker("a", fault=f"{chance.choice(FAULT_POINTS)}:{chance.randint(2, 9)}")
        doomed.says("taken_over")
        other = run.worker("b")
        assert doomed.ends() == -signal.SIGKILL, doomed.log
        again = run.worker("a")
        run.drained()
        assert [again.stop(), other.stop()] == [0, 0], run.logs
    finally:
        for worker in run.workers:
            if worker.lives:
                worker.kill()

    expected, unmatched = expectations(run)
    for stage in run.stages:
        if stage.kind == "hop":
            assert_handed_on_as_sent(run, stage, {str(number) for number in expected})
    found = run.read(run.bound.output.name, output_schema(run.bound).definition, HEADER_BYTES)
    assert sorted(int(said["event_id"]) for _, said in found) == sorted(expected), "missing or twice"
    for _, said in found:
        assert {name: said["features"][name] for name in expected[int(said["event_id"])]} == expected[int(said["event_id"])], said
    assert len(read_topic(run.broker, run.bound.input.dead_letters)) == EVENTS - len(expected)
    if run.bound.labels is not None:
        assert len(read_topic(run.broker, f"{run.made.name}-labels.dlq")) == unmatched > 0


def assert_handed_on_as_sent(run: Run, stage: Stage, scored: set[str]) -> None:
    """What a stage is handed says of each event and label what its producer said: what follows from it is judged by these records."""
    handed = Counter(
        (said["kind"], said["event_id"], said["event_time"], said["label"], *said["keys"].values())
        for _, said in run.read(stage.input.name, HopSchema.of(run.bound, stage).schema.definition, 0)
    )
    keys = HopSchema.of(run.bound, stage).key_columns
    labels = [each for _, each in run.made.labels] if stage.counts_labels else []
    sent = Counter(("label", each["event_id"], each["event_time"], int(each["fraud"]), *(each[name] for name in keys)) for each in labels)
    said = [("event", each["event_id"], each["event_time"], 0, *(each[name] for name in keys)) for each in run.made.events]
    assert handed == sent + Counter(each for each in said if each in handed), "something was handed on as what nobody sent"
    assert {each[1] for each in said if each in handed} >= scored


def expectations(run: Run) -> tuple[dict[int, dict[str, float]], int]:
    """Features by event, of those that no entity refuses, and how many labels found no event."""
    entities = run.bound.pipeline.entities
    refusing = {name for entity in entities if entity.missing_key == "refuse" for name in entity.key_columns}
    taken = {int(e["event_id"]): e for e in run.made.events if not any(e[name] is None for name in refusing)}
    found: dict[int, dict[str, float]] = {number: {} for number in taken}
    unmatched = 0
    for stage in run.stages:
        if stage.kind == "labels":
            continue
        log = _log(run, stage)
        for entity in stage.entities:
            pasts: dict[tuple[str, ...], Past] = defaultdict(partial(Past, entity.windows, entity.lateness_ms))
            for number, label, event in log:
                key = tuple(event[name] for name in entity.key_columns)
                if label is not None:
                    if entity.has_labels:
                        unmatched += pasts[key].label(number, event["event_time"], label) == UNMATCHED
                elif number in taken:
                    found[number] |= _features(entity, pasts[key] if None not in key else None, taken[number])
    return found, unmatched


def _log(run: Run, stage: Stage) -> list[tuple[int, int | None, dict[str, Any]]]:
    """What a stage reads, in its order: the event's number, the label if it is one, its keys and time."""
    if stage.kind == "events":
        return [(int(said["event_id"]), None, said) for _, said in run.read(stage.input.name, EVENT, HEADER_BYTES)]
    rows: list[tuple[int, int | None, dict[str, Any]]] = []
    for _, said in run.read(stage.input.name, HopSchema.of(run.bound, stage).schema.definition, 0):
        number = int(said["event_id"]) if said["event_id"].isdigit() else -1
        rows.append((number, said["label"] if said["kind"] == "label" else None, {**said["keys"], "event_time": said["event_time"]}))
    return rows


def _features(entity: Entity, past: Past | None, event: Mapping[str, Any]) -> dict[str, float]:
    if past is None:
        empty = [aggregate.empty for _ in entity.windows for aggregate in entity.aggregates]
        return dict(zip(entity.feature_names, empty, strict=True))
    units = [round(event["amount"] * value.scale) for value in entity.values if isinstance(value, FixedPoint)]
    _, seen = past.look(event["event_time"], tuple(units), event_id=int(event["event_id"]))
    numbers = [
        feature(aggregate, window, seen[w][entity.values.index(aggregate.value) if aggregate.value else 0], units[0] if units else 0)
        for w, window in enumerate(entity.windows)
        for aggregate in entity.aggregates
    ]
    return dict(zip(entity.feature_names, numbers, strict=True))


def _encoded(schema: Any, schema_id: int, record: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), dict(record))
    return b"\0" + struct.pack(">i", schema_id) + out.getvalue()


def _decoded(schema: Any, value: bytes) -> dict[str, Any]:
    said: Any = fastavro.schemaless_reader(io.BytesIO(value), schema, None)
    return {name: round(each.timestamp() * 1_000) if isinstance(each, datetime) else each for name, each in said.items()}
