"""Letters on their way out: back to the input, or closed; each chunk in one transaction with its receipt.

    records, their receipt, the group's offsets      one Kafka transaction a chunk

A letter with a receipt has been dealt with and one without it has not. Whoever begins a run ends the open transaction of an earlier one,
by the producer's name, before the receipts are read: a run that was killed and is started again goes on where it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from streams.come_back import COUNTED, COUNTED_AT, COUNTED_OFFSET, REPLAY
from streams.dead_letters import Header
from streams.definition.inlet import Inlet
from streams.dlq.letters import StoredLetter
from streams.dlq.receipts import Receipt, Run, audit_topic, make_audit_topic, read_ledger
from streams.dlq.second_look import Verdict
from streams.fault_points import passing
from streams.kafka import (
    KafkaDown,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicFacts,
    TopicPartition,
    admin,
    cause,
    plain_consumer,
    topic_id,
    transactional_producer,
)
from streams.progress import progress
from streams.settings import KafkaSettings

log = logging.getLogger(__name__)

CHUNK_LETTERS = 200
ATTEMPT_SECONDS = 2.0
PATIENCE_SECONDS = 30.0  # with a broker that does not answer
RECEIPT_ROOM_BYTES = 65_536
CLOCK_MARGIN_MS = 60_000
AGAIN = "the same run again goes on where it was"


def chunks(letters: Iterable[StoredLetter]) -> Iterator[list[StoredLetter]]:
    """Letters, as many at a time as are judged and sent together."""
    remaining = iter(letters)
    while chunk := list(islice(remaining, CHUNK_LETTERS)):
        yield chunk


def group_of(inlet: Inlet, kafka: KafkaSettings) -> str:
    """The group whose offsets say up to where letters are dealt with."""
    return f"{kafka.group or inlet.bound.name}{'.labels' if inlet.is_labels else ''}.dlq"


class Sending:
    """One run's producer and receipts. Entering it ends whatever an earlier run left open; a later run ends this one."""

    def __init__(self, inlet: Inlet, kafka: KafkaSettings, given: TopicFacts, run: Run) -> None:
        """
        Args:
            inlet: whose letters they are.
            kafka: where its topics are.
            given: its topic, as the broker has it.
            run: what its receipts say.

        Raises:
            TopicError: a topic is missing.
            KafkaDown: the broker does not answer.
        """
        self.run = run
        self._inlet = inlet
        self._input = given
        self._topic_id = topic_id(admin(kafka), inlet.topic.dead_letters)
        make_audit_topic(inlet, kafka)
        room = given.max_record_bytes + RECEIPT_ROOM_BYTES
        self._producer: Producer = transactional_producer(kafka, f"{inlet.bound.name}-dlq{'-labels' if inlet.is_labels else ''}", room)
        self._group = plain_consumer(kafka, group_of(inlet, kafka))
        self._failure: KafkaError | None = None
        self._first_open: dict[int, int] = {}
        self._open_transaction = False
        self._insist("begin", lambda: self._producer.init_transactions(ATTEMPT_SECONDS))
        self.ledger = read_ledger(inlet, kafka)

    def __enter__(self) -> Sending:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open_transaction:
            try:
                self._producer.abort_transaction(ATTEMPT_SECONDS)
            except KafkaException as error:
                log.debug("left to the next run to abort: %s", cause(error).str())
        self._group.close()

    def every(
        self, letters: Iterable[StoredLetter], choose: Callable[[list[StoredLetter]], Sequence[StoredLetter | Verdict]], total: int
    ) -> int:
        """Deal with letters, a chunk at a time; how many were dealt with.

        Args:
            letters: all there are.
            choose: from some of them, those to close, with the verdicts of those to send.
            total: how many are expected, for whoever watches.
        """
        done = 0
        with progress(f"letters {self.run.action}", total) as shown:
            for chunk in chunks(letters):
                chosen = choose(chunk)
                closed = [each.draft.letter if isinstance(each, Verdict) else each for each in chosen]
                offsets = self._offsets(chunk, {letter.place for letter in closed})
                if closed:
                    self._commit(closed, [each for each in chosen if isinstance(each, Verdict)], offsets)
                done += len(closed)
                shown(len(closed))
        return done

    def _offsets(self, letters: Sequence[StoredLetter], closed: set[tuple[int, int]]) -> list[TopicPartition]:
        """Up to where everything is dealt with, so that the group's lag tells of letters that wait."""
        ends: dict[int, int] = {}
        for letter in letters:
            partition, offset = letter.place
            ends[partition] = offset + 1
            if letter.place not in closed and self.ledger.fate(letter.place) is None:
                self._first_open.setdefault(partition, offset)
        topic = self._inlet.topic.dead_letters
        return [TopicPartition(topic, p, min(end, self._first_open.get(p, end))) for p, end in ends.items()]

    def _commit(self, closed: Sequence[StoredLetter], sent: Sequence[Verdict], offsets: list[TopicPartition]) -> None:
        """One chunk: its records, its receipt, its offsets; all or nothing."""
        producer = self._producer
        now_ms = time.time_ns() // 1_000_000
        receipt = Receipt.of(self.run, self._topic_id, now_ms, closed)
        try:
            producer.begin_transaction()
            self._open_transaction = True
            for verdict in sent:
                self._send(verdict, now_ms)
            producer.produce(audit_topic(self._inlet), receipt.dump(), self.run.name.encode(), on_delivery=self._delivered)
            passing("before_commit")
            self._insist(
                "offsets",
                lambda: producer.send_offsets_to_transaction(offsets, self._group.consumer_group_metadata(), ATTEMPT_SECONDS),
            )
            if producer.flush(PATIENCE_SECONDS) or self._failure is not None:
                raise KafkaDown(f"the broker does not take what comes back: {self._failure.str() if self._failure else 'no answer'}")
            passing("offsets_sent")
            self._insist("commit", lambda: producer.commit_transaction(ATTEMPT_SECONDS))
            self._open_transaction = False
        except KafkaException as error:
            raise KafkaDown(f"letters are not {self.run.action}: {cause(error).str()}; {AGAIN}") from error
        passing("after_commit")

    def _send(self, verdict: Verdict, now_ms: int) -> None:
        draft = verdict.draft
        source = draft.letter.source
        assert source is not None, "nothing else passes"
        # A record under another key belongs where that key's records go.
        partition = source.partition if draft.key == draft.letter.key or draft.letter.shortened else -1
        before, after = (bound - min(CLOCK_MARGIN_MS, bound // 2) for bound in self._input.clamp_bounds_ms())
        stamp_ms = min(max(draft.letter.timestamp_ms, now_ms - before, 1), now_ms + after)
        self._producer.produce(
            self._inlet.topic.name,
            draft.value,
            draft.key,
            partition,
            on_delivery=self._delivered,
            timestamp=stamp_ms,
            headers=list(returning_headers(verdict, self.run)),
        )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = self._failure or error

    def _insist(self, what: str, call: Callable[[], object]) -> None:
        """Make a transactional call until it has an answer: one that timed out may have happened, and only a repeat tells."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                call()
                return
            except KafkaException as error:
                if not cause(error).retriable() or time.monotonic() > deadline:
                    raise KafkaDown(f"the broker's transaction coordinator does not {what}: {cause(error).str()}; {AGAIN}") from error


def returning_headers(verdict: Verdict, run: Run) -> Iterator[Header]:
    """The record's own headers, and where it first stood: a record that came back before keeps its first address."""
    letter = verdict.draft.letter
    source = letter.source
    assert source is not None, "nothing else passes"
    yield from ((name, text) for name, text in verdict.draft.given if not name.startswith(REPLAY))
    before = {name: text or b"" for name, text in verdict.draft.given}
    first = {"topic": source.topic, "partition": source.partition, "offset": source.offset}
    for name, value in first.items():
        yield REPLAY + name, before.get(REPLAY + name, str(value).encode())
    yield REPLAY + "attempt", str(int(before.get(REPLAY + "attempt", b"1")) + 1).encode()
    yield COUNTED, b"true" if letter.counted else b"false"
    if letter.counted:
        # What came back and was counted then is held under that offset for good; else this record was the first to be counted.
        yield COUNTED_OFFSET, before.get(COUNTED_OFFSET, str(source.offset).encode())
        yield from ((COUNTED_AT + topic, f"{partition}@{offset}".encode()) for topic, (partition, offset) in verdict.counted_at.items())
    yield REPLAY + "reason", letter.reason.encode()
    yield REPLAY + "run", run.name.encode()
