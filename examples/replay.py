"""Play a table of past events to pipelines on a broker of their own, as fast as they go, and read what they scored.

What `python -m examples.anomaly` and `python -m examples.bikes` are made of: the workers are those of `millrace run`, on a Kafka and a
Redis that are started for the occasion.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from inference.model_card import ModelCard, write_card
from schemas.codec import Decoder, Encoder
from schemas.columns import Columns, Floats, PackedBytes, Ragged
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import TopicPartition, plain_consumer, plain_producer
from streams.local import services as local
from streams.local.process import choose_port
from streams.planning.create_topics import create
from streams.scored_event import output_schema
from streams.settings import KafkaSettings, RedisSettings, Settings
from transforms.fixed_point import numbers

ROOT = Path(__file__).parents[1]
HEADER_BYTES = 5  # of Confluent's framing
STOP_SECONDS = 30
PATIENCE_SECONDS = 60.0  # without any progress
LOG_CHARACTERS = 2_000
READ_AT_ONCE = 20_000


class WorkerStopped(Exception):
    """A worker ended, or stands still."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What came out for n events, in the order of their numbers."""

    scores: NDArray[np.float32]  # shape (n,)
    features: Floats  # shape (n, k)


@dataclass
class Player:
    """One pipeline: its files, its worker, and how far its output was read.

    Attributes:
        bound: the pipeline.
        version: of its model.
        worker: None = it is stopped.
    """

    bound: Bound
    settings: Settings
    partitions: int
    version: int = 0
    worker: subprocess.Popen[bytes] | None = None
    _next: dict[int, int] = field(default_factory=dict)

    def start(self) -> None:
        """Run it."""
        variables = {
            "MILLRACE_KAFKA__BOOTSTRAP_SERVERS": self.settings.kafka.bootstrap_servers,
            "MILLRACE_KAFKA__INSTANCE": f"{self.bound.name}-{os.getpid()}",
            "MILLRACE_KAFKA__START": "earliest",
            "MILLRACE_REDIS__URL": self.settings.redis.url.get_secret_value(),
            "MILLRACE_HEALTH__PORT": str(choose_port(None)),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "millrace", "run", "pipeline.py", "--pipeline", self.bound.name]
        with self._log.open("ab") as log:
            self.worker = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log, cwd=self.bound.folder)

    def stop(self) -> None:
        """End it in good order.

        Raises:
            WorkerStopped: it did not end well.
        """
        if self.worker is None:
            return
        self.worker.send_signal(signal.SIGTERM)
        code = self.worker.wait(STOP_SECONDS)
        self.worker = None
        if code:
            raise WorkerStopped(f"{self.bound.name} ended with {code}\n{self._said}")

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()

    def read(self, count: int) -> Scored:
        """The next `count` scored events. Events are called by their numbers, each one more than the one before.

        Raises:
            WorkerStopped: they do not come.
        """
        values: list[bytes] = []
        consumer = plain_consumer(self.settings.kafka, "millrace-replay")
        topic = self.bound.output.name
        consumer.assign([TopicPartition(topic, partition, self._next.get(partition, 0)) for partition in range(self.partitions)])
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while len(values) < count:
                for message in consumer.consume(READ_AT_ONCE, 0.2):
                    value, partition, offset = message.value(), message.partition(), message.offset()
                    if message.error() is None and value is not None and partition is not None and offset is not None:
                        values.append(value)
                        self._next[partition] = offset + 1
                        deadline = time.monotonic() + PATIENCE_SECONDS
                if self.worker is None or self.worker.poll() is not None or time.monotonic() > deadline:
                    raise WorkerStopped(f"{self.bound.name}: {len(values)} of {count} events were scored\n{self._said}")
        finally:
            consumer.close()
        return self._columns(values)

    def _columns(self, values: Sequence[bytes]) -> Scored:
        decoded = Decoder(output_schema(self.bound), "bare", None).decode(PackedBytes.pack([value[HEADER_BYTES:] for value in values]))
        ids, scores = decoded.columns["event_id"], decoded.columns["scores"]
        assert isinstance(ids, PackedBytes) and isinstance(scores, Ragged) and isinstance(scores.items, Mapping)
        features = np.column_stack([numbers(name, decoded.columns[f"features.{name}"]) for name in self.bound.features.names])
        order = np.argsort(np.array([int(text) for text in ids]), kind="stable")
        return Scored(numbers("score", scores.items["score"])[scores.starts][order], features[order])

    @property
    def _log(self) -> Path:
        return self.bound.folder / f"{self.bound.name}.log"

    @property
    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:]


class Replay:
    """Some pipelines of one file, which read the same topic.

    Args:
        file: of the pipelines.
        names: of those that are wanted.
        folder: a scratch folder, which gets copies of their files, their models and their logs.
        services: a broker and a Redis.
        partitions: of every topic.
    """

    def __init__(self, file: Path, names: Sequence[str], folder: Path, services: local.Services, partitions: int) -> None:
        shutil.copytree(file.parent, folder, ignore=shutil.ignore_patterns("models", "__pycache__"), dirs_exist_ok=True)
        kafka = KafkaSettings(bootstrap_servers=services.bootstrap_servers)
        settings = Settings(kafka=kafka, redis=RedisSettings(url=services.redis_url))  # type: ignore[arg-type]
        self.players = {name: Player(load_bound(folder / file.name, name), settings, partitions) for name in names}
        self._bound = next(iter(self.players.values())).bound
        self._producer = plain_producer(kafka)
        for player in self.players.values():
            create(player.bound, settings, partitions, 1)

    @contextmanager
    def running(self, models: Mapping[str, onnx.ModelProto]) -> Iterator[None]:
        """While all pipelines run, each with a model."""
        try:
            self.replace(models)
            yield
            for player in self.players.values():
                player.stop()
        finally:
            for player in self.players.values():
                player.kill()

    def replace(self, models: Mapping[str, onnx.ModelProto]) -> None:
        """Stop pipelines, give them other models, and start them where they were."""
        for name in models:
            self.players[name].stop()
        for name, model in models.items():
            player = self.players[name]
            player.version += 1
            features = player.bound.features
            write_card(model, ModelCard(player.bound.model.name, str(player.version), features.names, features.fingerprint, 0.5))
            player.bound.model_path.parent.mkdir(exist_ok=True)
            onnx.save(model, str(player.bound.model_path))
            player.start()

    def send(self, columns: Columns) -> None:
        """Send events, in order, each under its key."""
        topic = self._bound.input
        encoder = Encoder(self._bound.schema, "confluent", int(Path(topic.schema or "").name.split("-", 1)[0]))
        keys = columns[self._bound.key]
        assert isinstance(keys, PackedBytes)
        for number, (value, key) in enumerate(zip(encoder.encode(columns), keys, strict=True)):
            self._producer.produce(topic.name, value, key)
            if number % READ_AT_ONCE == 0:
                self._producer.poll(0)
        assert self._producer.flush(60.0) == 0, f"the broker did not take all records of {topic.name}"


@contextmanager
def replay(file: Path, names: Sequence[str], partitions: int = 1, services: local.Services | None = None) -> Iterator[Replay]:
    """Pipelines in a scratch folder, on services of their own unless some are given; what was started is ended again."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-replay-"))
    try:
        started = services or local.up(folder / "services", say=lambda words: print(f"  {words}"))
        yield Replay(file, names, folder / "pipelines", started, partitions)
    finally:
        if services is None:
            local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)
