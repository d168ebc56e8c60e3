"""Commit: make one batch final. The order of this module is the guarantee.

    outputs, dead letters and offsets      one Kafka transaction: the decision
    the state that follows from them       one fenced write a partition, sent and not awaited

A crash between the two leaves the state behind the log, never ahead of it, and the log is read again to catch it up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from schemas.reject import Reject
from streams.batch import Batch
from streams.dead_letters import BAREST, HaltLimit, Letter, TooManyRefused
from streams.fault_points import passing
from streams.kafka import TopicPartition
from streams.output import Output, Parcel, clamped
from streams.ownership import Ownership
from streams.recovery import CommitNote
from streams.refusals import Refusals, place_of, rows_at
from streams.transaction import Outbox, Turn, Void
from transforms.store import Store

HUNT_SECONDS = 3.0  # for telling records apart within one transaction


@dataclass(frozen=True, slots=True)
class Sent:
    """What a batch puts out."""

    parcels: Sequence[Parcel] = ()
    letters: Sequence[Letter] = ()

    def values(self) -> Iterator[tuple[int, bytes]]:
        """Row and value of everything."""
        for parcel in self.parcels:
            yield from zip(parcel.rows.tolist(), parcel.values, strict=True)
        for each in self.letters:
            yield each.row, each.value or b""


@dataclass(slots=True)
class Commit:
    """Makes batches final, one after the other: the step of the `load` agent.

    Args:
        outputs: what is written of the rows that go on.
        write_letters: makes the dead letters of rows; the numbers say how often the broker refused each.
        letter_bounds_ms: by topic of dead letters, how far before and after now it takes timestamps.
        outbox: begins transactions.
        ownership: says whether the batch may still become final.
        refusals: learns of outputs the broker will never take.
        store: keeps the state.
        state: the state's fingerprint, noted with each committed offset.
        pipeline: the pipeline's fingerprint, noted likewise.
        limit: stops the worker when too much is refused.
        final: is told of each batch made final, with the seconds its transaction took.
        settled: is told how far a partition's state is safely in the store.
        partitions: of the input, noted likewise; 0 = not known.
    """

    outputs: Sequence[Output]
    write_letters: Callable[[Batch, Sequence[int], Sequence[int]], Sequence[Letter]]
    letter_bounds_ms: Mapping[str, tuple[int, int]]
    outbox: Outbox
    ownership: Ownership
    refusals: Refusals
    store: Store
    state: str
    pipeline: str
    limit: HaltLimit
    final: Callable[[Batch, float], None]
    settled: Callable[[int, int], None]
    partitions: int = 0
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    _written: dict[int, tuple[int, int]] = field(default_factory=dict)  # partition -> token and position of its last write
    _counted: dict[int, int] = field(default_factory=dict)  # partition -> next offset of what the limit has judged

    def __call__(self, batch: Batch) -> Batch:
        """Make a batch final, if its partitions are still ours.

        Raises:
            Void: the transaction came to nothing.
            StoreDown, FenceLost: it is final, and its state has yet to be replayed.
            TooManyRefused: the worker should not go on.
        """
        if not batch.replay:
            batch = self._refuse_again(batch)
            self._judge(batch)
        sent = self._make(batch)
        with self.ownership.holding(batch.tokens) as member:
            if member is None:
                raise Void("a partition of the batch left before it was committed")  # the others' rows have to be read again
            self._check_order(batch)
            begun = time.perf_counter()
            if not batch.replay:
                self._decide(batch, sent, member)
            passing("after_commit")
            self.final(batch, time.perf_counter() - begun)
            self._follow(batch)
            passing("after_write")
        return batch

    def _check_order(self, batch: Batch) -> None:
        """A bug elsewhere must not become a wrong score: what comes after later batches of its partition was computed on their state."""
        for span in batch.spans:
            written_as, position = self._written.get(span.partition, (0, 0))
            in_order = written_as != batch.tokens[span.partition] or position <= span.first_offset
            assert in_order, f"{span} comes after a batch up to {position}"

    def _judge(self, batch: Batch) -> None:
        """Count what is refused, each record once however often it is tried."""
        for span in batch.spans:
            if span.next_offset > self._counted.get(span.partition, -1):
                self._counted[span.partition] = span.next_offset
                judged = batch.rejected[span.rows]
                self.limit.count(judged[judged != Reject.UNMATCHED_LABEL])  # labels of a past that is gone say nothing of the worker

    def _decide(self, batch: Batch, sent: Sent, member: object) -> None:
        """Outputs, dead letters and offsets, together or not at all."""
        note = [CommitNote(self.state, self.refusals.schemas(s.partition), self.pipeline, self.partitions).dump() for s in batch.spans]
        offsets = [TopicPartition(s.topic, s.partition, s.next_offset, text) for s, text in zip(batch.spans, note, strict=True)]
        guilty: int | None = None
        try:
            turn = self.outbox.begin()
            if self.refusals.suspects:
                guilty = self._send_apart(turn, batch, sent)
            else:
                self._send(turn, sent)
            passing("before_commit")
            turn.commit(offsets, member)
        except Void as error:
            self._learn(batch, sent, error, guilty)
            self.outbox.reopen()
            raise
        for span in batch.spans:
            self.refusals.forget(span.partition, span.next_offset)

    def _follow(self, batch: Batch) -> None:
        """Let the state follow what was committed: one fenced write a partition."""
        for span in batch.spans:
            partition, token = span.partition, batch.tokens[span.partition]
            self.store.write(str(partition), batch.writes.get(partition, ()), span.next_offset)
            # A write settles the one before it, which is therefore safe; one of an earlier assignment may never have arrived.
            written_as, position = self._written.get(partition, (0, 0))
            if written_as == token:
                self.settled(partition, position)
            self._written[partition] = token, span.next_offset

    def _make(self, batch: Batch) -> Sent:
        if batch.replay or not len(batch):
            return Sent()
        parcels = [output.parcel(batch, self.now_ms()) for output in self.outputs]
        refused = np.flatnonzero(batch.rejected).tolist()
        if not refused:
            return Sent(parcels)
        return Sent(parcels, self.write_letters(batch, refused, [self.refusals.letters[place_of(batch, row)] for row in refused]))

    def _send(self, turn: Turn, sent: Sent) -> None:
        for parcel in sent.parcels:
            if parcel.headers:
                for _, send in _one_by_one(turn, parcel):
                    send()
            else:
                turn.send(parcel.topic, parcel.values, parcel.keys, parcel.stamps_ms)
        for each in sent.letters:
            self._send_letter(turn, each)

    def _send_letter(self, turn: Turn, each: Letter) -> None:
        stamp_ms = int(clamped(np.array([each.timestamp_ms]), self.letter_bounds_ms[each.topic], self.now_ms())[0])
        turn.send_one(each.topic, each.value, each.key, stamp_ms, each.headers)

    def _send_apart(self, turn: Turn, batch: Batch, sent: Sent) -> int | None:
        """Send each suspect in a request of its own, in its place; the row that the broker refuses, if there is one.

        A broker refuses a request as a whole: one record of it is at fault, and many are told that they were refused.

        Raises:
            Void: there are more suspects than a transaction has time for; those that were taken are cleared.
        """
        suspects = set(rows_at(self.refusals.suspects, batch))
        ways = [way for parcel in sent.parcels for way in _one_by_one(turn, parcel)]
        ways += [(each.row, partial(self._send_letter, turn, each)) for each in sent.letters]
        deadline = time.monotonic() + HUNT_SECONDS
        for row, send in ways:
            if row not in suspects:
                send()
            elif turn.settled():
                send()
                if not turn.settled():
                    return row
                self.refusals.suspects.discard(place_of(batch, row))
                if time.monotonic() > deadline:
                    raise Void(f"{len(self.refusals.suspects)} records are still to be told apart from one that the broker refuses")
        return None

    def _refuse_again(self, batch: Batch) -> Batch:
        """Reject rows whose output the broker refused when they were tried before."""
        rows = rows_at(self.refusals.outputs, batch)
        if not rows:
            return batch
        refused = np.zeros(len(batch), np.bool_)
        refused[rows] = True
        return batch.rejecting(refused, Reject.OUTPUT_REFUSED)

    def _learn(self, batch: Batch, sent: Sent, error: Void, guilty: int | None) -> None:
        """Remember what the broker refused, so that the next try puts it out as a letter, or as a letter without a value.

        Where several records were refused together, they are suspects: the next try tells which of them it is.
        """
        refused = list(dict.fromkeys(row for row, value in sent.values() if value in error.refused)) if error.refused else []
        if guilty is None and len(refused) == 1:
            guilty = refused[0]
        for row in refused if guilty is None else [guilty]:
            place = place_of(batch, row)
            if guilty is None:
                self.refusals.suspects.add(place)
                continue
            self.refusals.suspects.discard(place)
            if not batch.rejected[row]:
                self.refusals.outputs.add(place)
            elif self.refusals.letters[place] < BAREST:
                self.refusals.letters[place] += 1
            else:
                at = batch.address(row)
                raise TooManyRefused(f"the broker takes no dead letter of {at}, not even one without key and value") from error


def _one_by_one(turn: Turn, parcel: Parcel) -> Iterator[tuple[int, Callable[[], None]]]:
    """The rows of a parcel in their order, each with what sends its record."""
    for row, value, key, stamp_ms in zip(parcel.rows.tolist(), parcel.values, parcel.keys, parcel.stamps_ms, strict=True):
        yield row, partial(turn.send_one, parcel.topic, value, key, stamp_ms, parcel.headers.get(row, ()))
