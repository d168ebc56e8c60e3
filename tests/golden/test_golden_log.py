"""A small log with its expected scores and features: whole in memory, and with a stop and resume at every offset, equal to the byte."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from inference.load_model import load_model
from inference.scorer import Scorer
from schemas.codec import Decoder, Encoder
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.extract import Extract
from streams.refusals import Refusals
from streams.score import Score
from streams.scored_event import TIMINGS, Stamp, output_schema, scored_columns
from streams.transform import Transform
from tests.golden.make import EVENTS, EXPECTED, encoded, expected, line
from tests.live.model import write_model
from tests.oracles.payments import DECISION_THRESHOLD
from tests.streams.batches import batch_of
from tests.streams.payments import Schemas, card_fraud
from transforms.memory_store import Memory, MemoryStore
from transforms.shard import ShardState

PARTITION = 0


@dataclass(frozen=True)
class Put:
    """What a worker put out: text to compare with what is committed, and the very bytes."""

    lines: list[str]
    values: dict[int, bytes]  # by offset


class Worker:
    """The steps of a worker over one store, from a fresh start; another one over the same memory is a restart."""

    def __init__(self, bound: Bound, scorer: Scorer, memory: Memory, max_keys: int = 1_000) -> None:
        self.store = MemoryStore(memory)
        self.position = self.store.claim(str(PARTITION), {}).position or 0
        names = bound.features.names
        self.steps = (
            Extract(bound, Decoder(bound.schema, "confluent", Schemas(1)), Refusals(), 1_000_000, 0),
            Transform(
                bound,
                lambda p: ShardState(str(p), bound.pipeline.entities, self.store, bound.event_time.column, max_keys),
                lambda: {PARTITION: 1},
            ),
            Score(scorer, names),
        )
        self.names = names
        self.encoder = Encoder(output_schema(bound), "confluent", 2)
        self.stamp = Stamp(
            "card_fraud", "m", "1", "champion", DECISION_THRESHOLD, bound.features.fingerprint, names, "payment_id", "event_time"
        )

    def score(self, keys: list[bytes], values: list[bytes]) -> Put:
        """Take these in where the state stands, as one batch, and let the state follow."""
        first = self.position
        batch = batch_of(values, keys, partition=PARTITION, first_offset=first)
        for step in self.steps:
            batch = step(batch)
        self.position += len(values)
        self.store.write(str(PARTITION), batch.writes[PARTITION], self.position)
        self.store.settle(str(PARTITION))
        rows = np.flatnonzero(batch.usable)
        put = list(self.encoder.encode(scored_columns(batch, self.stamp), rows))
        return Put(self._lines(batch), {first + row: value for row, value in zip(rows.tolist(), put, strict=True)})

    def _lines(self, batch: Batch) -> list[str]:
        assert batch.scores is not None and batch.timing is not None
        lines = []
        for row, offset in enumerate(batch.offsets.tolist()):
            features = [(name, float(np.asarray(batch.columns[name])[row])) for name in self.names]
            scored = line(offset, TIMINGS[batch.timing[row]], float(batch.scores[row]), features)
            lines.append(f"{offset} refused" if batch.rejected[row] else scored)
        return lines


@dataclass(frozen=True)
class Log:
    """The golden log, and what scores it."""

    keys: list[bytes]
    values: list[bytes]
    bound: Bound
    scorer: Scorer

    def worker(self, memory: Memory, max_keys: int = 1_000) -> Worker:
        return Worker(self.bound, self.scorer, memory, max_keys)

    def between(self, first: int, end: int) -> tuple[list[bytes], list[bytes]]:
        return self.keys[first:end], self.values[first:end]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    bound = card_fraud()
    model = tmp_path_factory.mktemp("golden") / "models" / "stumps.onnx"
    write_model(bound, model)
    events = json.loads(EVENTS.read_text())
    return Log([event["customer_id"].encode() for event in events], encoded(events), bound, load_model(Path(model)))


@pytest.fixture(scope="module")
def whole(log: Log) -> Put:
    return log.worker(Memory()).score(log.keys, log.values)


def test_the_golden_log_run_whole_gives_what_is_committed(whole: Put) -> None:
    assert whole.lines == EXPECTED.read_text().splitlines()


def test_what_is_committed_is_what_the_slow_computation_says() -> None:
    lines = expected(json.loads(EVENTS.read_text()))
    assert lines == EXPECTED.read_text().splitlines()
    kinds = Counter(each.split()[1] for each in lines)
    assert min(kinds[kind] for kind in ("on_time", "late", "too_late", "refused")) >= 5, kinds


def test_a_stop_and_resume_at_any_offset_changes_no_byte(log: Log, whole: Put) -> None:
    for offset in range(1, len(log.values)):
        memory = Memory()
        before = log.worker(memory).score(*log.between(0, offset))
        resumed = log.worker(memory)
        assert resumed.position == offset
        after = resumed.score(*log.between(offset, len(log.values)))
        assert before.lines + after.lines == whole.lines, f"stopped at {offset}"
        assert before.values | after.values == whole.values, f"stopped at {offset}"


@pytest.mark.parametrize("max_keys", [1, 1_000])
def test_a_stop_and_resume_at_all_offsets_changes_no_byte(log: Log, whole: Put, max_keys: int) -> None:
    memory = Memory()
    lines: list[str] = []
    values: dict[int, bytes] = {}
    for offset in range(len(log.values)):
        put = log.worker(memory, max_keys).score(*log.between(offset, offset + 1))
        lines += put.lines
        values |= put.values
    assert lines == whole.lines
    assert values == whole.values


def test_one_worker_with_room_for_one_key_changes_no_byte(log: Log, whole: Put) -> None:
    worker, lines = log.worker(Memory(), max_keys=1), []
    for offset in range(len(log.values)):
        lines += worker.score(*log.between(offset, offset + 1)).lines
    assert lines == whole.lines
