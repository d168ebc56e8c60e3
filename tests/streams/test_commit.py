"""The order of a commit, with a broker that does what the test says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from schemas.codec import Encoder
from schemas.columns import Column, Constant, PackedBytes
from schemas.reject import Reject
from streams.batch import Batch
from streams.commit import Commit
from streams.dead_letters import HaltLimit, Letter, TooManyRefused
from streams.kafka import TopicPartition
from streams.output import Output, as_read
from streams.ownership import Ownership
from streams.recovery import CommitNote
from streams.refusals import Refusals
from streams.scored_event import Stamp, output_schema, scored_columns
from streams.transaction import Header, Void
from tests.streams.payments import SOME_DAY_MS, card_fraud, payments_batch
from transforms.memory_store import MemoryStore
from transforms.store import Writes

NOW_MS = SOME_DAY_MS + 1_000_000


class Broker:
    """An outbox that writes down what happens, in order, and refuses what it is told to."""

    ids = ("a", "b")

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.sent: list[tuple[str, bytes | None, int]] = []
        self.headers: dict[bytes | None, Sequence[Header]] = {}  # by value
        self.offsets: list[TopicPartition] = []
        self.member: Any = None
        self.refuse: list[bytes] | None = None  # None = commit; else void, with these refused

    def begin(self) -> Broker:
        self.sent = []
        return self

    def send(self, topic: str, values: Iterable[bytes], keys: Iterable[bytes | None], timestamps_ms: Iterable[int]) -> None:
        self.sent += [(topic, value, at) for value, _, at in zip(values, keys, timestamps_ms, strict=True)]

    def send_one(self, topic: str, value: bytes | None, key: bytes | None, timestamp_ms: int, headers: Sequence[Header]) -> None:
        self.sent.append((topic, value, timestamp_ms))
        self.headers[value] = headers

    def settled(self) -> bool:
        return not any(value in (self.refuse or ()) for _, value, _ in self.sent)

    def commit(self, offsets: list[TopicPartition], member: Any) -> None:
        if self.refuse is not None:
            raise Void("refused", self.refuse)
        self.offsets, self.member = offsets, member
        self.told.append("committed")

    def reopen(self) -> None:
        self.told.append("reopened")

    def close(self) -> None:
        pass


class Watched(MemoryStore):
    """A store that says when it is written to."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self.told = told

    def write(self, shard: str, writes: tuple[Writes, ...], position: int) -> None:
        super().write(shard, writes, position)
        self.told.append(f"wrote {shard} up to {position}")


def _letters(batch: Batch, rows: Sequence[int], refused_before: Sequence[int]) -> list[Letter]:
    return [
        Letter(row, "payments.dlq", None if before else batch.raw[row], batch.keys[row], 5, ())
        for row, before in zip(rows, refused_before, strict=True)
    ]


class Bench:
    """A commit step with its surroundings."""

    def __init__(self, *, after_ms: int = 2**62, halt_share: float = 1.0) -> None:
        self.told: list[str] = []
        self.broker, self.store = Broker(self.told), Watched(self.told)
        self.store.claim("3", {})
        self.ownership, self.refusals = Ownership(), Refusals()
        self.ownership.capture("generation 7")
        self.token = self.ownership.grant(3)
        self.final: list[Batch] = []
        self.settled: list[tuple[int, int]] = []
        bound = card_fraud()
        stamp = Stamp("card_fraud", "m", "1", "champion", 0.5, "f" * 16, bound.features.names, "payment_id", "event_time")
        encoder = Encoder(output_schema(bound), "confluent", 2)
        self.commit = Commit(
            outputs=[Output("payments.scored", encoder, partial(scored_columns, stamp=stamp), as_read, "event_time", (2**62, after_ms))],
            write_letters=_letters,
            letter_bounds_ms={"payments.dlq": (2**62, 2**62)},
            outbox=self.broker,
            ownership=self.ownership,
            refusals=self.refusals,
            store=self.store,
            state="s" * 16,
            pipeline="p" * 16,
            limit=HaltLimit(halt_share, 1),
            final=lambda batch, seconds: self.final.append(batch),
            settled=lambda partition, position: self.settled.append((partition, position)),
            now_ms=lambda: NOW_MS,
        )

    def scored(self, rows: int, *, first_offset: int = 0, rejected: Sequence[int] = (), replay: bool = False) -> Batch:
        """A batch as it comes out of `score`."""
        batch = payments_batch([1.0] * rows, first_offset=first_offset, token=self.token, replay=replay)
        columns: dict[str, Column] = {name: np.zeros(rows) for name in card_fraud().features.names}
        columns |= {
            "payment_id": Constant(b"P", rows),
            "event_time": SOME_DAY_MS + np.arange(rows, dtype=np.int64) * 1_000_000,
            "amount": np.ones(rows),
            "currency": PackedBytes.pack([b"EUR"] * rows),
        }
        verdicts = np.zeros(rows, np.uint8)
        verdicts[list(rejected)] = Reject.MALFORMED
        return replace(
            batch, columns=columns, rejected=verdicts, timing=np.zeros(rows, np.uint8), scores=np.linspace(0, 1, rows, dtype=np.float32)
        )


def test_the_state_follows_the_transaction_and_never_leads_it() -> None:
    bench = Bench()
    bench.commit(bench.scored(3))
    assert bench.told == ["committed", "wrote 3 up to 3"]
    assert bench.broker.member == "generation 7"


def test_scores_letters_and_offsets_go_out_together() -> None:
    bench = Bench()
    bench.commit(bench.scored(4, first_offset=10, rejected=[1]))
    assert [topic for topic, _, _ in bench.broker.sent] == ["payments.scored"] * 3 + ["payments.dlq"]
    (offset,) = bench.broker.offsets
    assert (offset.topic, offset.partition, offset.offset) == ("payments", 3, 14)
    assert CommitNote.load(offset.metadata) == CommitNote("s" * 16, {}, "p" * 16)


def test_refused_schemas_travel_with_the_offset() -> None:
    bench = Bench()
    bench.refusals.refuse_schema(3, 9, 2)
    bench.commit(bench.scored(3))
    assert CommitNote.load(bench.broker.offsets[0].metadata) == CommitNote("s" * 16, {9: 2}, "p" * 16)


def test_a_record_with_headers_goes_out_in_its_place_among_the_others() -> None:
    bench = Bench()
    bench.commit(bench.scored(3))
    alike = bench.broker.sent
    bench.commit.outputs = [replace(output, headers=lambda batch, rows: {1: (("came", b"back"),)}) for output in bench.commit.outputs]
    bench.token = bench.ownership.grant(3)
    bench.commit(bench.scored(3))
    assert bench.broker.sent == alike
    assert [bench.broker.headers[value] for _, value, _ in alike] == [(), (("came", b"back"),), ()]


def test_a_void_transaction_leaves_the_state_where_it_was() -> None:
    bench = Bench()
    bench.broker.refuse = []
    with pytest.raises(Void):
        bench.commit(bench.scored(3))
    assert bench.told == ["reopened"]
    assert not bench.final


def test_a_batch_whose_partition_left_is_neither_committed_nor_written() -> None:
    bench = Bench()
    batch = bench.scored(3)
    bench.ownership.revoke(3)
    with pytest.raises(Void, match="left"):  # so that its other partitions are read again
        bench.commit(batch)
    assert bench.told == []
    assert not bench.final


def test_a_replay_writes_state_and_puts_nothing_out() -> None:
    bench = Bench()
    bench.commit(bench.scored(3, replay=True))
    assert bench.told == ["wrote 3 up to 3"]
    assert bench.broker.sent == []


def test_an_output_the_broker_refuses_becomes_a_letter_at_the_next_try() -> None:
    bench = Bench()
    bench.commit(bench.scored(3))
    bench.token = bench.ownership.grant(3)
    bench.store.drop("3")
    bench.store.claim("3", {})
    bench.broker.refuse = [value for _, value, _ in bench.broker.sent[1:2] if value is not None]
    with pytest.raises(Void):
        bench.commit(bench.scored(3))
    bench.broker.refuse = None
    bench.commit(bench.scored(3))
    assert [topic for topic, _, _ in bench.broker.sent] == ["payments.scored"] * 2 + ["payments.dlq"]
    assert bench.final[-1].rejected.tolist() == [0, Reject.OUTPUT_REFUSED, 0]


def test_a_letter_the_broker_refuses_goes_out_without_its_value() -> None:
    bench = Bench()
    batch = bench.scored(2, rejected=[0])
    bench.broker.refuse = [batch.raw[0]]
    with pytest.raises(Void):
        bench.commit(batch)
    bench.broker.refuse = None
    bench.commit(batch)
    assert bench.broker.sent[-1][:2] == ("payments.dlq", None)


def test_timestamps_are_the_events_own_as_far_as_the_topic_takes_them() -> None:
    bench = Bench(after_ms=500_000)
    bench.commit(bench.scored(3))
    assert [at for _, _, at in bench.broker.sent] == [SOME_DAY_MS, SOME_DAY_MS + 1_000_000, NOW_MS + 440_000]


def test_state_is_called_settled_only_after_the_next_write() -> None:
    bench = Bench()
    bench.commit(bench.scored(3))
    assert bench.settled == []
    bench.commit(bench.scored(3, first_offset=3))
    assert bench.settled == [(3, 3)]


def test_a_write_of_an_earlier_assignment_is_not_called_settled() -> None:
    bench = Bench()
    bench.commit(bench.scored(3))
    bench.token = bench.ownership.grant(3)
    bench.commit(bench.scored(3, first_offset=3))
    assert bench.settled == []


def test_too_many_refused_records_stop_the_worker_before_they_are_final() -> None:
    bench = Bench(halt_share=0.5)
    with pytest.raises(TooManyRefused):
        bench.commit(bench.scored(4, rejected=[0, 1, 2]))
    assert bench.told == []


def test_a_batch_that_comes_after_later_ones_is_never_committed() -> None:
    bench = Bench()
    bench.commit(bench.scored(3, first_offset=3))
    with pytest.raises(AssertionError, match=r"payments\[3\]@0..3 comes after a batch up to 6"):
        bench.commit(bench.scored(3))
    assert bench.told == ["committed", "wrote 3 up to 6"]
