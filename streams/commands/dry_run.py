"""Dry run: a file of events through the steps of a worker, in memory. Needs no broker and no store, and leaves nothing behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from inference.load_model import load_model
from inference.model_card import bind as bind_model
from inference.scorer import ConstantScorer, Scorer
from schemas.avro import read_value
from schemas.codec import Decoder, Encoder
from schemas.columns import PackedBytes
from schemas.event_file import FileEvent, read_events
from schemas.features import Json
from schemas.json_record import as_it_travels
from streams.batch import Batch, Span
from streams.definition.bound import Bound
from streams.extract import Extract
from streams.refusal import refusal
from streams.refusals import Refusals
from streams.score import Score
from streams.scored_event import DECISIONS, Stamp, output_schema, scored_columns
from streams.settings import Settings
from streams.transform import Transform
from transforms.label import LabelRows, event_id_hashes
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState

SHARD, PARTITION, TOKEN = "0", 0, 0
CONSTANT_THRESHOLD = 0.5


def dry_run(
    bound: Bound, settings: Settings, file: Path, out: TextIO, refused: TextIO, constant: float | None = None, limit: int | None = None
) -> dict[str, Json]:
    """Score the events of a file in its order, as one partition that begins with them.

    Args:
        bound: the pipeline.
        settings: for the size of batches.
        file: JSON lines, or an Avro container.
        out: gets a JSON line for each scored event.
        refused: gets a JSON line for each refused one, with its line or record number.
        constant: the score of every event, in place of the model; None = the model's.
        limit: take the first events only.

    Returns:
        The account: read = scored + refused, by reason, decision and timing.

    Raises:
        SchemaError: the file can't be read.
        ModelError: the model is missing, broken, or made for other features.
    """
    run = DryRun(bound, file.name, constant, settings.worker.max_keys)
    for events in _in_turns(islice(read_events(file, bound.schema, bound.key), limit), settings.worker.batch_records):
        run.take(events, out, refused)
    return run.account()


class DryRun:
    """A worker's steps over batches of a file's events, and the account of what came of them."""

    def __init__(self, bound: Bound, source: str, constant: float | None, max_keys: int) -> None:
        self._bound, self._source = bound, source
        scorer, self._stamp = _scorer(bound, constant)
        self._decoder = Decoder(bound.schema, "bare", None)
        self._store = MemoryStore()
        self._store.claim(SHARD, {})
        extract = Extract(bound, self._decoder, Refusals(), max_record_bytes=2**31 - 1, unknown_schema_retry_seconds=0)
        self._transform = Transform(
            bound,
            lambda partition: ShardState(SHARD, bound.pipeline.entities, self._store, bound.event_time.column, max_keys),
            lambda: {PARTITION: TOKEN},
        )
        self._steps = (extract, self._unlabelled, self._transform, Score(scorer, bound.features.names))
        schema = output_schema(bound)
        self._encoder, self._reader = Encoder(schema, "bare", 0), as_it_travels(schema)
        self._read = 0
        self._reasons: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._timings: Counter[str] = Counter()

    def take(self, events: Sequence[FileEvent], out: TextIO, refused: TextIO) -> None:
        """Score some events and write what came of each."""
        self._read += len(events)
        batch = self._batch([event for event in events if event.value is not None])
        for step in self._steps:
            batch = step(batch)
        position = events[-1].number + 1
        self._store.write(SHARD, batch.writes.get(PARTITION, ()), position)
        self._store.settle(SHARD)
        self._transform.settled(PARTITION, position)
        for event in events:
            if event.trouble is not None:
                self._refuse(refused, event.number, event.trouble.reason, "decode", event.trouble.detail)
        for row in np.flatnonzero(~batch.usable).tolist():
            error, stage = refusal(self._bound, self._decoder, batch, row)
            self._refuse(refused, int(batch.offsets[row]), error.reason, stage, error.detail)
        for scored in self._scored(batch):
            self._decisions[scored["decision"]] += 1
            self._timings[scored["timing"]] += 1
            out.write(json.dumps(scored) + "\n")

    def account(self) -> dict[str, Json]:
        """What came of all events."""
        return {
            "read": self._read,
            "scored": self._decisions.total(),
            "refused": self._reasons.total(),
            "reasons": dict(self._reasons),
            "decisions": {word: self._decisions[word] for word in DECISIONS},
            "timing": dict(self._timings),
            "model_version": self._stamp.version,
            "feature_fingerprint": self._stamp.feature_fingerprint,
        }

    def _unlabelled(self, batch: Batch) -> Batch:
        """A file has events alone: entities that count labels find every event without one."""
        if self._bound.labels is None:
            return batch
        none = np.zeros(len(batch), np.int64)
        return replace(batch, labels=LabelRows(none != 0, none, event_id_hashes(batch.columns[self._bound.event_id])))

    def _batch(self, events: Sequence[FileEvent]) -> Batch:
        count = len(events)
        numbers = np.array([event.number for event in events], np.int64)
        first, after = (int(numbers[0]), int(numbers[-1]) + 1) if count else (0, 0)
        return Batch(
            spans=(Span(self._source, PARTITION, 0, count, first, after),),
            offsets=numbers,
            arrived_ms=np.zeros(count, np.int64),
            keys=[event.key for event in events],
            raw=PackedBytes.pack([event.value or b"" for event in events]),
            absent=np.zeros(count, np.bool_),
            headers={},
            columns={},
            rejected=np.zeros(count, np.uint8),
            tokens={PARTITION: TOKEN},
        )

    def _scored(self, batch: Batch) -> Iterator[Any]:
        """The scored events as their readers will find them: through the bytes."""
        rows = np.flatnonzero(batch.usable).astype(np.int64)
        for value in self._encoder.encode(scored_columns(batch, self._stamp), rows):
            yield read_value(value, self._reader)

    def _refuse(self, refused: TextIO, number: int, reason: str, stage: str, detail: str) -> None:
        self._reasons[reason] += 1
        refused.write(json.dumps({"at": f"{self._source}:{number}", "reason": reason, "stage": stage, "detail": detail}) + "\n")


def _scorer(bound: Bound, constant: float | None) -> tuple[Scorer, Stamp]:
    if constant is not None:
        scorer: Scorer = ConstantScorer(constant)
        version, threshold = "constant", CONSTANT_THRESHOLD
    else:
        scorer = load_model(bound.model_path)
        bind_model(scorer.card, bound.features.names, bound.features.fingerprint)
        version, threshold = scorer.card.version, scorer.card.threshold
    return scorer, Stamp(
        pipeline=bound.name,
        model=bound.model.name,
        version=version,
        role="champion",
        threshold=threshold if bound.model.threshold is None else bound.model.threshold,
        feature_fingerprint=bound.features.fingerprint,
        features=bound.features.names if bound.pipeline.include_features else (),
        event_id=bound.event_id,
        event_time=bound.event_time.column,
    )


def _in_turns(events: Iterable[FileEvent], most: int) -> Iterator[list[FileEvent]]:
    remaining = iter(events)
    while turn := list(islice(remaining, most)):
        yield turn
