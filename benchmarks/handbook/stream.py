"""One run: topics, workers, a feeder that may wait for each day to be routed, and everything that came out."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.handbook.definition import LogRow
from benchmarks.handbook.reader import NoProgress, Reader
from benchmarks.handbook.transactions import LABEL_DELAY_DAYS, Transactions
from benchmarks.handbook.worker_process import logs_in, start_worker, stop_workers
from inference.model_card import ModelCard, write_card
from schemas.avro import AvroSchema
from schemas.codec import Encoder
from schemas.columns import Columns, Ints, PackedBytes
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.definition.pipeline import Topic
from streams.hop import HopSchema
from streams.kafka import Producer, plain_producer
from streams.planning.create_topics import create
from streams.planning.stage import stages
from streams.scored_event import output_schema
from streams.settings import KafkaSettings, RedisSettings, Settings

HERE = Path(__file__).parent
HEADER_BYTES = 5  # of Confluent's framing


@dataclass(frozen=True)
class Scored:
    """What came out for the transactions, a row an output."""

    transaction: Ints  # shape (n,)
    features: np.ndarray[Any, np.dtype[np.float64]]  # shape (n, 15)


@dataclass(frozen=True)
class Outcome:
    """Everything a run left on its topics."""

    scored: Scored
    log: list[LogRow]  # of the terminals' topic, partition after partition
    letters: int  # dead letters of transactions
    label_letters: int  # and of labels
    seconds: float  # from the first record sent to the last score read


@dataclass
class Run:
    """Pipeline, topics and workers of one run.

    Attributes:
        folder: gets the pipeline's files, the model and the workers' logs.
        bootstrap_servers, redis_url: where the services are.
        partitions: of every topic.
        name: of the pipeline, if it is to be told from others that read the same topics.
    """

    folder: Path
    bootstrap_servers: str
    redis_url: str
    partitions: int
    name: str | None = None

    def __post_init__(self) -> None:
        shutil.copytree(HERE, self.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "models"))
        if self.name is not None:
            _rename(self.folder / "pipeline.py", self.name)
        self.bound: Bound = load_bound(self.folder / "pipeline.py")
        kafka = KafkaSettings(bootstrap_servers=self.bootstrap_servers)
        self.settings = Settings(kafka=kafka, redis=RedisSettings(url=self.redis_url))  # type: ignore[arg-type]
        write_model(self.bound)
        create(self.bound, self.settings, self.partitions, 1)
        self.stages = stages(self.bound, self.partitions)

    def __call__(self, rows: Transactions, *, workers: int, lock_step: bool, kill: bool) -> Outcome:
        """Feed all transactions and, seven days later, their labels.

        Args:
            rows: the transactions.
            workers: processes, each with all stages.
            lock_step: whether each day's labels and transactions wait until those before them stand in the terminals' topic.
            kill: whether a worker is killed half-way, and another one started in its place.

        Raises:
            NoProgress: something stands still.
        """
        hop_topic = next(stage.input.name for stage in self.stages if stage.counts_labels)
        with self._workers(workers) as running, self._explained():
            hop, out = (Reader(self.settings, topic, self.partitions) for topic in (hop_topic, self.bound.output.name))
            letters = Reader(self.settings, f"{self.bound.input.name}.dlq", self.partitions)
            label_letters = Reader(self.settings, f"{_labels(self.bound).name}.dlq", self.partitions)
            began = time.monotonic()
            for number, (topic, columns) in enumerate(days := list(days_of(self.bound, rows, all_days(rows)))):
                self.send(topic, columns)
                if lock_step:
                    hop.await_count(sum(len(each["transaction_id"]) for _, each in days[: number + 1]), running)
                if kill and number == len(days) // 2:
                    running[-1].kill()
                    running[-1].wait()
                    running[-1] = self._worker(str(workers))
            out.await_count(len(rows), running)
            seconds = time.monotonic() - began
            hop.await_count(2 * len(rows), running)
        for reader in (hop, out, letters, label_letters):
            reader.read_to_the_end()
            reader.close()
        scored = self._scored(value for part in out.values.values() for value in part)
        log = list(self._log(value for part in hop.values.values() for value in part))
        return Outcome(scored, log, letters.count, label_letters.count, seconds)

    def send(self, topic: Topic, columns: Columns) -> None:
        """Send records, and wait until the broker has them."""
        schema = AvroSchema.parse((HERE / (topic.schema or "")).read_text(), topic.name)
        encoder = Encoder(schema, "confluent", int(Path(topic.schema or "").name.split("-", 1)[0]))
        producer = self._producer
        keys = columns[topic.key or ""]
        assert isinstance(keys, PackedBytes)
        for value, key in zip(encoder.encode(columns), keys, strict=True):
            producer.produce(topic.name, value, key)
        assert producer.flush(60.0) == 0, f"the broker did not take all records of {topic.name}"

    @property
    def _producer(self) -> Producer:
        if not hasattr(self, "_made_producer"):
            self._made_producer = plain_producer(self.settings.kafka)
        return self._made_producer

    @contextmanager
    def _workers(self, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
        running = [self._worker(str(number)) for number in range(count)]
        try:
            yield running
            stop_workers(running)
        finally:
            for worker in running:
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except NoProgress as error:
            raise NoProgress(f"{error}\n{logs_in(self.folder)}") from None

    def _worker(self, instance: str) -> subprocess.Popen[bytes]:
        return start_worker(self.folder, f"handbook-{os.getpid()}-{instance}", self.bootstrap_servers, self.redis_url)

    def _scored(self, values: Iterable[bytes]) -> Scored:
        definition: Any = output_schema(self.bound).definition
        schema, names = fastavro.parse_schema(definition), self.bound.features.names
        transactions, features = [], []
        for value in values:
            event: Any = fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), schema, None)
            transactions.append(int(event["event_id"]))
            features.append([event["features"][name] for name in names])
        return Scored(np.array(transactions, np.int64), np.array(features))

    def _log(self, values: Iterable[bytes]) -> Iterator[LogRow]:
        stage = next(stage for stage in self.stages if stage.counts_labels)
        definition: Any = HopSchema.of(self.bound, stage).schema.definition
        schema = fastavro.parse_schema(definition)
        for value in values:
            row: Any = fastavro.schemaless_reader(io.BytesIO(value), schema, None)
            label = row["label"] if row["kind"] == "label" else None
            time_ms = round(row["event_time"].timestamp() * 1_000)
            yield LogRow(int(row["keys"]["terminal_id"]), int(row["event_id"]), time_ms, label)


def all_days(rows: Transactions) -> range:
    """From the first day to the one on which the last day's labels are known."""
    return range(int(rows.day[0]), int(rows.day[-1]) + LABEL_DELAY_DAYS + 1)


def days_of(bound: Bound, rows: Transactions, days: range, at_once: int = 1) -> Iterator[tuple[Topic, Columns]]:
    """What is sent on some days, in its order: each day, or several at once, first the labels that are known by then.

    As windows over labels end as many days back as labels take, up to seven days may go together.
    """
    day = rows.day
    for first in range(days.start, days.stop, at_once):
        end = min(first + at_once, days.stop)
        known = np.flatnonzero((day >= first - LABEL_DELAY_DAYS) & (day < end - LABEL_DELAY_DAYS))
        happening = np.flatnonzero((day >= first) & (day < end))
        if len(known):
            yield _labels(bound), rows.label_columns(known)
        if len(happening):
            yield bound.input, rows.columns(happening)


def _rename(file: Path, name: str) -> None:
    """Another name for the pipeline, and an output of its own."""
    text = file.read_text()
    for old, new in (('Pipeline(\n    "handbook"', f'Pipeline(\n    "{name}"'), ('"handbook.scored"', f'"{name}.scored"')):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


def _labels(bound: Bound) -> Topic:
    assert bound.pipeline.labels is not None
    return bound.pipeline.labels.topic


def write_model(bound: Bound) -> None:
    """A tree of one split: these runs look at features, and a score for each is all that is asked of the model."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[220.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[0.0, 1.0],
    )
    inputs = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(bound.features.names)])
    graph = helper.make_graph([node], "handbook", [inputs], [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    write_card(model, ModelCard(bound.model.name, "1", bound.features.names, bound.features.fingerprint, 0.5))
    bound.model_path.parent.mkdir(exist_ok=True)
    onnx.save(model, str(bound.model_path))
