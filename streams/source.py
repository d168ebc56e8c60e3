"""The source: one thread that polls the input and hands on batches, and owns everything that may change between two polls.

Partitions arrive, are taken over from whoever had them, are read, and leave. Whatever goes wrong below (Redis or the broker away, a
transaction void, a fence lost) ends here as well: `start_over` makes the batches under way void, and the partition is taken over
once more as if it had just been assigned. There is no other way to recover.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from schemas.errors import FenceLost, MillraceError, RetryLater
from streams.alignment import Alignment
from streams.batch import Batch
from streams.fault_points import passing
from streams.kafka import Consumer, KafkaDown, KafkaError, KafkaException, Record, TopicPartition, cause
from streams.ownership import InFlight, Ownership
from streams.pack import pack
from streams.reading import Reading, Taken
from streams.recovery import Start, repartitioned

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.05
ANSWER_SECONDS = 0.01  # how soon a question is answered while waiting for batches
LOOK_SECONDS = 0.5
ASK_SECONDS = 5.0  # how often the broker is asked where partitions end that bring nothing
LATEST = -1  # in place of a time
COUNT_SECONDS = 5.0
COUNT_ANSWER_SECONDS = 0.5
CAPTURE_SECONDS = 0.05  # asking who we are holds the interpreter until the client answers; an outdated answer costs one refused commit
LARGE_RECORDS = 500  # of a batch: from then on batches overlap
LARGE_SHARE = 0.25  # the same, where that many are not taken at a time
ROOM_SECONDS = 1.0  # how long a full pipeline may keep the poll waiting before the group is served without it


class Watcher(Protocol):
    """Is told which partitions come and go (`streams.account`)."""

    def owns(self, partition: int, next_offset: int) -> None: ...

    def waits(self, partition: int, why: str) -> None: ...

    def gone(self, partition: int) -> None: ...

    def looked(self) -> None: ...

    def held(self, partition: int) -> None: ...


class Takeover(Protocol):
    """Decides where a partition starts and becomes the owner of its state (`streams.takeover`)."""

    def take(self, consumer: Consumer, partition: int) -> Start: ...

    def release(self, partition: int) -> None: ...

    def forget(self, partition: int) -> None: ...


class Source:
    """Reads one input topic as a member of a group.

    Args:
        topic: the input.
        connect: makes the consumer, given the callbacks for assigned, revoked and lost partitions.
        takeover: takes partitions over.
        ownership: gets a token for each partition taken over.
        in_flight: counts the batches between here and their commit.
        hand_on: receives each batch, and whether it is alone: none is under way, and none will be before it has ended. May block.
        batch_records: the most records of a batch.
        drain_seconds: how long a revocation or a stop waits for batches under way.
        watcher: is told which partitions come and go.
        partitions: of the input, when its state began; another number stops the source. 0 = any.
        alignment: holds back what is read too far ahead; None = nothing is.
    """

    def __init__(
        self,
        topic: str,
        connect: Callable[[Any, Any, Any], Consumer],
        takeover: Takeover,
        ownership: Ownership,
        in_flight: InFlight,
        hand_on: Callable[[Batch, bool], None],
        batch_records: int,
        drain_seconds: float,
        watcher: Watcher,
        partitions: int = 0,
        alignment: Alignment | None = None,
    ) -> None:
        self._topic = topic
        self._connect = connect
        self._takeover = takeover
        self._ownership = ownership
        self._in_flight = in_flight
        self._hand_on = hand_on
        self._batch_records = batch_records
        self._drain_seconds = drain_seconds
        self._watcher = watcher
        self._partitions = partitions
        self._alignment = alignment
        self._counted = time.monotonic()  # when the partitions were
        self._stopping = threading.Event()
        self._faults: dict[int, float] = {}  # partition -> seconds to wait; written by other threads
        self._faults_lock = threading.Lock()
        self._arrivals: dict[int, float] = {}  # partition -> not to be taken over before (monotonic seconds)
        self._questions: deque[tuple[Callable[[Consumer], Any], Future[Any]]] = deque()
        self._ends: dict[int, int] = {}
        self._told: dict[int, int] = {}  # where partitions that bring nothing end, as the broker said last
        self._asked = 0.0
        self.beat_seconds = time.monotonic()  # when the thread was last seen to turn
        self._looked = 0.0
        self._captured = 0.0
        self._last_records = 0  # of the last batch
        self._held: list[Record] = []  # records that came while the group was served without room for them
        self.reading: dict[int, Reading] = {}
        self._consumer: Consumer

    def ask(self, question: Callable[[Consumer], T]) -> T:
        """Let the source's thread do something with the client, and wait for it. Called from other threads.

        The client serialises its calls: another thread's would wait for ever behind one poll after the other.
        """
        asked: Future[T] = Future()
        self._questions.append((question, asked))
        return asked.result()

    def ends(self) -> dict[int, int]:
        """Where the partitions that are ours end, as of a moment ago; those waiting to be taken over among them. Called from any thread."""
        return dict(self._ends)

    # --- the thread ---

    def run(self) -> None:
        """Read until `stop`, then leave the group cleanly."""
        self._consumer = self._connect(self._assigned, self._revoked, self._lost)
        try:
            while not self._stopping.is_set():
                self.beat_seconds = time.monotonic()
                self._take_over_what_is_due()
                self._look_at_the_ends()
                self._count_the_partitions()
                # Room first, then the poll: a batch then holds all that arrived while the pipeline was full.
                if not self._room():
                    self._serve_the_group()
                    continue
                for batch in self._batches(self._read()):
                    while not self._room():
                        self._serve_the_group()
                    self._send_on(batch)
        finally:
            self._drain()
            self._consumer.close()

    def stop(self) -> None:
        """Stop polling; what is under way is finished, within the budget."""
        self._stopping.set()

    def abandon(self) -> None:
        """Stop polling, and wait for nothing that is under way: the steps don't run any more."""
        self._drain_seconds = 0.0
        self._stopping.set()

    def start_over(self, tokens: Mapping[int, int], error: MillraceError) -> None:
        """What was read under these tokens is void, and its partitions are taken over again. Called from any thread."""
        seconds = error.after_seconds if isinstance(error, RetryLater) else 0.0
        live = self._ownership.tokens()
        # Voiding waits for a commit under way, which may be asking the source something: it must not hold what the source needs.
        self._ownership.void(tokens)
        with self._faults_lock:
            for partition, token in tokens.items():
                if live.get(partition) == token:
                    self._faults[partition] = seconds
                    log.warning("starting_over at=%s[%d] because=%r", self._topic, partition, str(error))

    def _room(self) -> bool:
        """Wait a while for room for one more batch.

        Batches overlap only when they are large. Small ones follow each other: more of them at a time would bring each event no nearer
        to its commit, and cost the broker a transaction for a handful of records.
        """
        deadline = time.monotonic() + ROOM_SECONDS
        most = None if self._overlap else 1
        while not (room := self._in_flight.room(ANSWER_SECONDS, most)) and time.monotonic() < deadline:
            self._answer()
        return room

    @property
    def _overlap(self) -> bool:
        """Whether the next batch may begin before the last one has ended."""
        return self._last_records >= min(LARGE_RECORDS, self._batch_records * LARGE_SHARE)

    def _send_on(self, batch: Batch) -> None:
        """Hand on a batch that there is room for."""
        self._last_records = len(batch)
        alone = not self._overlap and not len(self._in_flight)
        self._in_flight.enter()
        passing("polled")
        self._hand_on(batch, alone)

    def _drain(self) -> bool:
        """Wait for the batches under way, within the budget, answering what they ask."""
        deadline = time.monotonic() + self._drain_seconds
        while not (drained := self._in_flight.drained(ANSWER_SECONDS)) and time.monotonic() < deadline:
            self._answer()
        return drained

    def _answer(self) -> None:
        while self._questions:
            question, asked = self._questions.popleft()
            try:
                asked.set_result(question(self._consumer))
            except KafkaException as error:
                asked.set_exception(error)

    # --- reading ---

    def _read(self) -> list[Record]:
        """What is to go on now: what was polled, if nothing is held back."""
        if self._alignment is None:
            return self._poll()
        full = self._alignment.is_full
        passed = self._alignment.passed([] if full else self._poll(0 if self._alignment.has_more else POLL_SECONDS), self.reading)
        if full and not passed:
            self._serve_the_group()
            self._stopping.wait(POLL_SECONDS)
        for partition in self._alignment.held:
            self._watcher.held(partition)
        return passed

    def _poll(self, seconds: float = POLL_SECONDS) -> list[Record]:
        self._answer()
        messages, self._held = self._held, []
        if not messages:
            first = cast(Record | None, self._consumer.poll(seconds))
            messages = [] if first is None else [first]
        if messages:
            messages += cast(list[Record], self._consumer.consume(max(self._batch_records - len(messages), 0), 0))
            if time.monotonic() > self._captured + CAPTURE_SECONDS:
                self._capture()
        return messages

    def _capture(self) -> None:
        self._captured = time.monotonic()
        member = self._consumer.consumer_group_metadata()
        # After the session was lost the metadata names nobody, and the broker takes a commit of nobody's without a check.
        if self._consumer.memberid():
            self._ownership.capture(member)

    def _batches(self, messages: list[Record]) -> Iterable[Batch]:
        """Sort a poll into a batch to replay and a batch to score; either may be missing.

        Where a partition ends behind the markers of transactions, that goes along with records, or alone when a poll brings nothing:
        a log that is written in transactions ends anew after each of them, and a commit for each would be one too many.
        """
        ends: dict[int, int] = {}
        found: dict[int, list[Record]] = {}
        for message in messages:
            error, partition = message.error(), message.partition()
            if error is None:
                found.setdefault(partition, []).append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[partition] = message.offset()
            else:
                self._read_error(error, partition)
        old, new = Taken(), Taken()
        due = bool(found) or not messages
        for partition, reading in self.reading.items():
            reading.end = ends.get(partition, reading.end)
            records = found.get(partition, [])
            if records and records[0].offset() < reading.position:
                records = [message for message in records if message.offset() >= reading.position]
            if self._went_back(partition, records):
                continue
            if due and (records or reading.end is not None):
                reading.take(partition, records, old, new)
        tokens = self._ownership.tokens()
        for taken, replay in ((old, True), (new, False)):
            ours = {partition: offset for partition, offset in taken.next_offsets.items() if partition in tokens}
            if ours:
                yield pack(self._topic, taken.records, ours, tokens, replay)

    def _went_back(self, partition: int, records: list[Record]) -> bool:
        """Whether the client brings a partition out of order; then it is taken over again, since nobody knows what is missing.

        Seen where a partition was paused and resumed soon after a seek: 950 records, and behind them, in one poll, the first of them again.
        """
        offsets = np.array([message.offset() for message in records], np.int64)
        back = np.flatnonzero(offsets[1:] <= offsets[:-1])
        if not len(back):
            return False
        before, after = offsets[back[0]], offsets[back[0] + 1]
        self._take_anew(partition, f"the client went back from {before} to {after}", 0.0)
        return True

    def _take_anew(self, partition: int, why: str, seconds: float) -> None:
        """What `start_over` does, for the source's own thread, which a commit under way may be waiting for."""
        log.warning("starting_over at=%s[%d] because=%r", self._topic, partition, why)
        while not self._ownership.revoke(partition, ANSWER_SECONDS):
            self._answer()
        with self._faults_lock:
            self._faults[partition] = seconds

    def _look_at_the_ends(self) -> None:
        """Remember where the partitions end, now and then."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        known = {each: self._consumer.get_watermark_offsets(TopicPartition(self._topic, each), cached=True)[1] for each in self.reading}
        if time.monotonic() >= self._asked + ASK_SECONDS:
            self._asked = time.monotonic()
            self._told = self._ask_for_ends([each for each, reading in self.reading.items() if known[each] <= reading.position])
        for partition, end in known.items():
            self._ends[partition] = max(end, self._told.get(partition, end))
        self._watcher.looked()

    def _ask_for_ends(self, quiet: list[int]) -> dict[int, int]:
        """Where partitions end of which nothing comes, as the broker says: a client that no longer fetches would never notice."""
        if not quiet:
            return {}
        try:
            found = self._consumer.offsets_for_times([TopicPartition(self._topic, each, LATEST) for each in quiet], COUNT_ANSWER_SECONDS)
        except KafkaException:
            return {}  # a broker that is away is found out elsewhere
        return {each.partition: each.offset for each in found if each.error is None and each.offset > 0}

    def _count_the_partitions(self) -> None:
        """Ask how many there are, now and then.

        Raises:
            StateError: not as many as there were.
        """
        if not self._partitions or time.monotonic() < self._counted + COUNT_SECONDS:
            return
        self._counted = time.monotonic()
        try:
            known = self._consumer.list_topics(self._topic, COUNT_ANSWER_SECONDS).topics.get(self._topic)
        except KafkaException:
            return  # a broker that is away is found out elsewhere
        if known is not None and known.error is None and len(known.partitions) not in (0, self._partitions):
            raise repartitioned(self._topic, self._partitions, len(known.partitions))

    def _read_error(self, error: KafkaError, partition: int) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            # The client says so once, and is no member any more: the group has our name for somebody else, or for our last life.
            raise KafkaDown(f"{self._topic}: the client has given up: {error.str()}")
        if error.code() == KafkaError._AUTO_OFFSET_RESET or error.code() == KafkaError.OFFSET_OUT_OF_RANGE:
            # The records we were to read next are gone: taking over again says so, and refuses.
            if partition in self._ownership.tokens():
                self._take_anew(partition, error.str(), 1.0)
        else:
            log.warning("read_error at=%s[%d] detail=%r", self._topic, partition, error.str())

    def _serve_the_group(self) -> None:
        """Answer the group while there is no room for records, so that a slow dependency does not cost the membership."""
        self._answer()
        self.beat_seconds = time.monotonic()
        self._look_at_the_ends()
        owned = [TopicPartition(self._topic, partition) for partition in self.reading]
        self._consumer.pause(owned)
        message = cast(Record | None, self._consumer.poll(0))
        if message is not None:
            self._held.append(message)
        self._consumer.resume([tp for tp in owned if tp.partition in self.reading])

    # --- partitions come and go ---

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([TopicPartition(self._topic, tp.partition, 0) for tp in partitions])
        consumer.pause(partitions)
        self._capture()
        for tp in partitions:
            log.info("assigned at=%s[%d]", self._topic, tp.partition)
            self._arrivals[tp.partition] = 0.0

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._capture()
        drained = self._drain()
        for tp in partitions:
            log.info("revoked at=%s[%d] drained=%s", self._topic, tp.partition, drained)
            self._let_go(tp.partition, clean=drained)
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            log.warning("lost at=%s[%d]", self._topic, tp.partition)
            self._let_go(tp.partition, clean=False)
        consumer.incremental_unassign(partitions)

    def _let_go(self, partition: int, clean: bool) -> None:
        while not self._ownership.revoke(partition, ANSWER_SECONDS):
            self._answer()  # the commit under way may be waiting for us
        self.reading.pop(partition, None)
        self._ends.pop(partition, None)
        self._told.pop(partition, None)
        self._watcher.gone(partition)
        self._forget_held({partition})
        taken = self._arrivals.pop(partition, None) is None
        if clean and taken:
            try:
                self._takeover.release(partition)
                return
            except MillraceError as error:
                log.warning("not_released at=%s[%d] because=%r", self._topic, partition, str(error))
        self._takeover.forget(partition)

    def _forget_held(self, partitions: Collection[int]) -> None:
        self._held = [message for message in self._held if message.partition() not in partitions]
        if self._alignment is not None:
            for partition in partitions:
                self._alignment.forget(partition)

    def _take_over_what_is_due(self) -> None:
        self._put_faults_back()
        now = time.monotonic()
        for partition, not_before in list(self._arrivals.items()):
            if not_before <= now and partition in self._arrivals:
                self._take_over(partition)

    def _put_faults_back(self) -> None:
        with self._faults_lock:
            faults, self._faults = self._faults, {}
        if not faults:
            return
        again = {partition: seconds for partition, seconds in faults.items() if partition in self.reading}
        self._consumer.pause([TopicPartition(self._topic, partition) for partition in again])
        self._forget_held(again)
        for partition, seconds in again.items():
            del self.reading[partition]
            self._arrivals[partition] = time.monotonic() + seconds

    def _take_over(self, partition: int) -> None:
        # What is still under way is void; its last touch of the partition's state must be over before the state is read anew.
        while not self._in_flight.drained(ANSWER_SECONDS):
            self._serve_the_group()
            if partition not in self._arrivals:
                return
        self._takeover.forget(partition)
        here = TopicPartition(self._topic, partition)
        try:
            start = self._takeover.take(self._consumer, partition)
            self._read_from(TopicPartition(self._topic, partition, start.replay_from))
        except RetryLater as error:
            self._wait(partition, str(error), error.after_seconds)
            return
        except FenceLost as error:  # somebody else claimed it meanwhile: the group decides whose it is
            self._wait(partition, str(error), 1.0)
            return
        except KafkaException as error:
            self._wait(partition, cause(error).str(), 1.0)
            return
        del self._arrivals[partition]
        self._ownership.grant(partition)
        self._watcher.owns(partition, start.replay_from)
        self.reading[partition] = Reading(start.replay_from, start.live_from, start.live_from if start.committed else -1)
        self._consumer.resume([here])
        self._wake(here)
        log.info("taken_over at=%s[%d] replay_from=%d live_from=%d", self._topic, partition, start.replay_from, start.live_from)

    def _wake(self, here: TopicPartition) -> None:
        """Let the client fetch now: its thread for a broker looks at what was resumed once a second, or when it has anything to send."""
        try:
            self._consumer.get_watermark_offsets(here, COUNT_ANSWER_SECONDS)
        except KafkaException:
            pass  # then it fetches a little later

    def _read_from(self, here: TopicPartition) -> None:
        try:
            self._consumer.seek(here)
        except KafkaException:
            # After an error the client has given up fetching the partition, and only an assignment begins anew.
            self._consumer.incremental_unassign([here])
            self._consumer.incremental_assign([here])
            self._consumer.pause([here])

    def _wait(self, partition: int, why: str, seconds: float) -> None:
        log.warning("take_over_later at=%s[%d] because=%r", self._topic, partition, why)
        self._watcher.waits(partition, why)
        self._arrivals[partition] = time.monotonic() + seconds
