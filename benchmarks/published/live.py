"""The live path: for each model a pipeline of its own, all reading the same transactions and labels, fed in step with the weeks.

    handbook ────────┬─▶ by-customer ─┐
                     │                ├─▶ handbook_features.by-terminal ─▶ by-terminal ─▶ handbook_features.scored   for learning
    handbook-labels ─│▶ labels ───────┘
                     ├─▶ ...             handbook_forest.by-terminal ─▶ by-terminal ─▶ handbook_forest.scored     for judging
                     └─▶ ...

Before each test week the workers are stopped, get the models that were fitted for it, and go on where they were.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.handbook.reader import NoProgress, Reader
from benchmarks.handbook.stream import HEADER_BYTES, Run, days_of
from benchmarks.handbook.transactions import LABEL_DELAY_DAYS, Transactions
from benchmarks.handbook.worker_process import logs_in, start_worker, stop_workers
from schemas.codec import Decoder
from schemas.columns import Floats, Ints, PackedBytes, Ragged
from streams.definition.bound import Bound
from streams.scored_event import output_schema
from transforms.fixed_point import numbers

DECODED_AT_ONCE = 50_000
PARTITIONS = 1


@dataclass(frozen=True, slots=True)
class Served:
    """What came out for n transactions, in the order of their ids."""

    transaction: Ints  # shape (n,)
    features: Floats  # shape (n, k)
    scores: NDArray[np.float32]  # shape (n,)

    def followed_by(self, later: Served) -> Served:
        """Both, in order."""
        return _in_order(
            np.concatenate((self.transaction, later.transaction)),
            np.concatenate((self.features, later.features)),
            np.concatenate((self.scores, later.scores)),
        )


@dataclass
class Series:
    """A pipeline with a model that is replaced as weeks go by.

    Attributes:
        run: its files and topics.
        hop: counts what was routed to its terminals.
        out: collects what it scored.
        worker: None = it is stopped.
    """

    run: Run
    hop: Reader
    out: Reader
    worker: subprocess.Popen[bytes] | None = None

    @property
    def bound(self) -> Bound:
        """The pipeline."""
        return self.run.bound

    def start(self) -> None:
        """Start its worker."""
        instance = f"{self.bound.name}-{os.getpid()}"
        # A dozen of them begin together, and none is killed: who is out of breath for some seconds stays a member.
        patience = {"MILLRACE_KAFKA__SESSION_TIMEOUT_MS": "30000"}
        self.worker = start_worker(self.run.folder, instance, self.run.bootstrap_servers, self.run.redis_url, **patience)

    def await_counts(self, routed: int, scored: int) -> None:
        """Wait until so many records were routed to its terminals, and so many transactions scored.

        Raises:
            NoProgress: its worker ended, or stands still.
        """
        assert self.worker is not None
        try:
            self.hop.await_count(routed, [self.worker])
            self.out.await_count(scored, [self.worker])
        except NoProgress as error:
            raise NoProgress(f"{error}\n{logs_in(self.run.folder)}") from None

    def close(self) -> None:
        """End its worker, whatever state that is in."""
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        self.hop.close()
        self.out.close()


@dataclass
class Live:
    """A stream of transactions and their labels, fed week by week to one pipeline a model.

    A week's transactions are sent when the labels of the week before stand in the terminals' topic; no window looks at younger ones. Within
    one partition all records keep their order.

    Args:
        folder: gets the pipelines' files, the models and the workers' logs.
        bootstrap_servers, redis_url: where the services are.
        rows: all transactions there will be.
    """

    folder: Path
    bootstrap_servers: str
    redis_url: str
    rows: Transactions
    _series: dict[str, Series] = field(default_factory=dict, init=False)
    _routed: int = field(default=0, init=False)  # transactions and labels that were sent
    _sent: int = field(default=0, init=False)  # transactions alone

    def __post_init__(self) -> None:
        self._features = self.add("features")
        self._features.out.keep = True

    @property
    def bound(self) -> Bound:
        """A pipeline; they differ in their names alone."""
        return self._features.bound

    @property
    def names(self) -> tuple[str, ...]:
        """Of all pipelines."""
        return tuple(self._series)

    def add(self, name: str) -> Series:
        """One more pipeline, whose model comes later; until then it scores by the amount."""
        word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        run = Run(self.folder / word, self.bootstrap_servers, self.redis_url, PARTITIONS, f"handbook_{word}")
        stage = next(stage for stage in run.stages if stage.counts_labels)
        hop = Reader(run.settings, stage.input.name, PARTITIONS, keep=False)
        self._series[name] = Series(run, hop, Reader(run.settings, run.bound.output.name, PARTITIONS, keep=False))
        return self._series[name]

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the workers are up.

        Raises:
            NoProgress: one did not end well.
        """
        try:
            for series in self._series.values():
                series.start()
            yield
            self._stop(list(self._series))
        finally:
            for series in self._series.values():
                series.close()

    def feed(self, days: range) -> Served:
        """Send the transactions of some days, and the labels known by then, week by week; what was served of them.

        Raises:
            NoProgress: something stands still.
        """
        running = [series for series in self._series.values() if series.worker is not None]
        for topic, columns in days_of(self.bound, self.rows, days, LABEL_DELAY_DAYS):
            self._features.run.send(topic, columns)
            count = len(columns["transaction_id"])
            self._routed += count
            for series in running:
                series.await_counts(self._routed, self._sent)
            self._sent += count if topic == self.bound.input else 0
        for series in running:
            series.await_counts(self._routed, self._sent)
        return self.served("features")

    def replace(self, models: Mapping[str, onnx.ModelProto]) -> None:
        """Give some pipelines other models, and collect what they score from here on. Those without one are over.

        Raises:
            NoProgress: a worker did not end well.
        """
        others = [name for name, series in self._series.items() if series is not self._features and series.worker is not None]
        self._stop(others)
        for name, model in models.items():
            series = self._series[name]
            onnx.save(model, str(series.bound.model_path))
            series.out.keep = True
            series.start()

    def served(self, name: str) -> Served:
        """What a pipeline scored since it was last asked."""
        series = self._series[name]
        return read_served(series.bound, series.out.take())

    def _stop(self, names: Sequence[str]) -> None:
        stop_workers([worker for name in names if (worker := self._series[name].worker) is not None])
        for name in names:
            self._series[name].worker = None


def read_served(bound: Bound, values: list[bytes]) -> Served:
    """Scored events as columns."""
    decoder = Decoder(output_schema(bound), "bare", None)
    parts = [_columns(bound, decoder, values[first : first + DECODED_AT_ONCE]) for first in range(0, len(values), DECODED_AT_ONCE)]
    ids, features, scores = zip(*parts, strict=True)
    return _in_order(np.concatenate(ids), np.concatenate(features), np.concatenate(scores))


def _columns(bound: Bound, decoder: Decoder, values: list[bytes]) -> tuple[Ints, Floats, NDArray[np.float32]]:
    decoded = decoder.decode(PackedBytes.pack([value[HEADER_BYTES:] for value in values]))
    assert not decoded.rejected.any(), "a scored event is not of the pipeline's own output schema"
    ids, scores = decoded.columns["event_id"], decoded.columns["scores"]
    assert isinstance(ids, PackedBytes) and isinstance(scores, Ragged) and isinstance(scores.items, dict)
    features = np.column_stack([numbers(name, decoded.columns[f"features.{name}"]) for name in bound.features.names])
    return np.array([int(text) for text in ids], np.int64), features, numbers("score", scores.items["score"])[scores.starts]


def _in_order(transaction: Ints, features: Floats, scores: NDArray[np.float32]) -> Served:
    order = np.argsort(transaction, kind="stable")
    assert len(np.unique(transaction)) == len(transaction), "a transaction was scored twice"
    return Served(transaction[order], features[order], scores[order])
