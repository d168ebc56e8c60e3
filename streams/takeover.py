"""Take a partition over: learn what was committed, become the owner of its state, and decide where its work starts.

The order is part of the protocol. First the committed offset, read so that it waits for a transaction that is still open; then the
claim, which shuts out every older owner; then the state's position. What was read in another order could still move.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from schemas.errors import StateError
from streams.fault_points import passing
from streams.kafka import Consumer, KafkaDown, KafkaException, TopicPartition, cause
from streams.log_reach import shortfall
from streams.recovery import CommitNote, Declared, Log, OnConflict, Start, repartitioned, where_to_start
from streams.refusals import Refusals
from transforms.store import Claim, Store

log = logging.getLogger(__name__)

STABLE_SECONDS = 2.0  # how long an open transaction of another worker is waited for before it is ended by name
ANSWER_SECONDS = 5.0
ENDED_SECONDS = 30.0  # within which a worker's producers are ended once for all the partitions it leaves


@dataclass(slots=True)
class PartitionTakeover:
    """Takes partitions of one input topic over, and lets go of them.

    Args:
        topic: the input.
        store: keeps the state.
        state: the state's fingerprint.
        pipeline: the pipeline's fingerprint, which decides what is rejected.
        refusals: learns what was refused.
        declared: where to begin when nothing was ever committed.
        on_conflict: what to do when offsets and state contradict each other.
        producers: names of this worker's transactional producers.
        fence: ends the open transactions of producers, by name.
        retention_ms: how far back the windows look.
        reader: makes a reader of committed records; None = a lost state is rebuilt however short the log is.
        partitions: of the topic; 0 = not known.
        stateless: nothing is remembered: the state is the committed offset alone, and nothing is ever replayed.
    """

    topic: str
    store: Store
    state: str
    pipeline: str
    refusals: Refusals
    declared: Declared
    on_conflict: OnConflict
    producers: Iterable[str] = ()
    fence: Callable[[Iterable[str]], None] | None = None
    retention_ms: int = 0
    reader: Callable[[], Consumer] | None = None
    partitions: int = 0
    stateless: bool = False
    damaged: set[int] = field(default_factory=set)  # partitions whose state is dropped and rebuilt when they are taken
    _dead: dict[str, list[str]] = field(default_factory=dict)  # producers that may have left a transaction open, by shard
    _ended: dict[str, tuple[float, set[str]]] = field(default_factory=dict)  # when they were fenced, and the shards taken since

    def take(self, consumer: Consumer, partition: int) -> Start:
        """Become the owner of a partition.

        Returns:
            Where to read from.

        Raises:
            RetryLater: Kafka or the store does not answer; nothing is owned.
            StateError: offsets and state contradict each other.
        """
        here = TopicPartition(self.topic, partition)
        shard, where = str(partition), f"{self.topic}[{partition}]"
        committed, note = self._committed(consumer, here, shard)
        before = self._partitions_before(consumer, partition, note)
        claim = self._claim(shard)
        self._end_what_is_open(shard, claim)
        passing("claimed")
        if partition in self.damaged:
            log.warning("state_dropped at=%s because a block of it was damaged: it is rebuilt from the log", where)
            self.store.drop(shard)
            claim = self._claim(shard)
        if self.stateless and claim.position != committed:
            self.store.drop(shard)
            claim = self._claim(shard)
        log_now = self._log(consumer, here)
        start = where_to_start(committed, claim.position, log_now, self.declared, self.on_conflict, where)
        if self.stateless:
            start = replace(start, replay_from=start.live_from)
        if before and self.on_conflict == "rebuild" and committed is not None:
            start = Start(min(log_now.start, committed), committed, drop=True, committed=False)
        if start.drop:
            self.store.drop(shard)
            self._claim(shard)
        self.refusals.learn(partition, note.refused if note else {})
        if claim.position is None and committed is not None and not self.stateless:
            self._say_what_is_missing(note, start, where)
            self._check_reach(here, log_now, start)
        if start.replays and note is not None and note.pipeline not in ("", self.pipeline):
            log.warning(
                "replayed_by_other_rules at=%s records=%d: the pipeline changed since they were scored; what it rejects now is not counted",
                where, start.replays,
            )  # fmt: skip
        self.damaged.discard(partition)
        return start

    def release(self, partition: int) -> None:
        """Give a partition up cleanly: nothing of it is under way."""
        self.store.release(str(partition))

    def forget(self, partition: int) -> None:
        """Drop what is held for a partition, without a word to the store."""
        self.store.forget(str(partition))

    def _claim(self, shard: str) -> Claim:
        return self.store.claim(shard, {"producers": json.dumps(list(self.producers))})

    def _committed(self, consumer: Consumer, here: TopicPartition, shard: str) -> tuple[int | None, CommitNote | None]:
        try:
            return _read_committed(consumer, here, STABLE_SECONDS)
        except KafkaDown:
            # Perhaps a dead worker's transaction is still open. A worker that left cleanly cleared its producers' names, so
            # that a healthy one, which may own other partitions, is not shut out by mistake.
            if not self._end_what_is_open(shard, self._claim(shard)):
                raise
            return _read_committed(consumer, here, ANSWER_SECONDS)

    def _end_what_is_open(self, shard: str, claim: Claim) -> bool:
        """End the transactions of an owner that did not leave cleanly; whether there was one.

        One that has outputs and no offsets yet keeps nobody from reading offsets, but readers of the outputs would wait for its timeout.
        """
        found = json.loads(claim.notes.get("producers", "[]"))
        if set(found) - set(self.producers):
            self._dead[shard] = found  # our claim has replaced them, and this may have to be tried again
        if self.fence is None or shard not in self._dead:
            return False
        now = time.monotonic()
        names = [name for name in self._dead[shard] if not self._is_ended(name, shard, now)]
        self.fence(names)
        self._ended.update({name: (now, set()) for name in names})
        for name in self._dead.pop(shard):
            self._ended[name][1].add(shard)
        return True

    def _is_ended(self, name: str, shard: str, now: float) -> bool:
        """Whether a producer was ended just now, for another shard. One that is met again on the same shard came back, and died again."""
        when, shards = self._ended.get(name, (-ENDED_SECONDS, {shard}))
        return shard not in shards and now <= when + ENDED_SECONDS

    def _partitions_before(self, consumer: Consumer, partition: int, note: CommitNote | None) -> int:
        """How many partitions the topic had, if not as many as now; 0 = as many, or nobody said.

        A partition that was added says nothing of itself, but the others do.

        Raises:
            StateError: it had another number, and nothing was declared for that.
            KafkaDown: the broker does not answer.
        """
        if not self.partitions:
            return 0
        if partition >= self.partitions:
            raise repartitioned(self.topic, self.partitions, partition + 1)
        notes = [note]
        if note is None:
            all_here = [TopicPartition(self.topic, p) for p in range(self.partitions) if p != partition]
            notes = [CommitNote.load(found.metadata) for found in _ask_committed(consumer, all_here, ANSWER_SECONDS)] if all_here else []
        before = next((each.partitions for each in notes if each is not None and each.partitions not in (0, self.partitions)), 0)
        if before and self.on_conflict == "refuse":
            raise repartitioned(self.topic, before, self.partitions)
        return before

    def _log(self, consumer: Consumer, here: TopicPartition) -> Log:
        try:
            start, end = consumer.get_watermark_offsets(here, ANSWER_SECONDS)
        except KafkaException as error:
            raise KafkaDown(f"{here.topic}[{here.partition}] does not say what its log holds: {cause(error).str()}") from error
        return Log(start, end)

    def _say_what_is_missing(self, note: CommitNote | None, start: Start, where: str) -> None:
        if note is not None and note.state != self.state:
            log.warning(
                "other_state at=%s found=%s ours=%s: the windows' definitions changed; their state is built anew from the log",
                where,
                note.state,
                self.state,
            )

    def _check_reach(self, here: TopicPartition, log_now: Log, start: Start) -> None:
        """Raises:
        StateError: the log does not hold all that a lost state would hold, and nothing was declared for that.
        KafkaDown: the broker gives no record.
        """
        if self.reader is None or not start.committed or log_now.start == 0:
            return
        reader = self.reader()
        try:
            short = shortfall(reader, here, log_now, start.live_from, self.retention_ms)
        finally:
            reader.close()
        if short is None:
            return
        where = f"{here.topic}[{here.partition}]"
        if self.on_conflict == "refuse":
            raise StateError(
                f"{where} has no state in the store, and the log alone can't give it back: {short}. "
                "`millrace state rebuild PIPELINE --from FOLDER` begins with a snapshot; "
                "`millrace run PIPELINE --on-conflict rebuild` makes do with what the log has"
            )
        log.warning("log_is_short at=%s because=%r: the state is rebuilt from what is left", where, str(short))


def _ask_committed(consumer: Consumer, places: list[TopicPartition], timeout_seconds: float) -> list[TopicPartition]:
    try:
        return consumer.committed(places, timeout_seconds)
    except KafkaException as error:
        where = f"{places[0].topic}[{places[0].partition}]"
        raise KafkaDown(f"{where} does not say what is committed: {cause(error).str()}") from error


def _read_committed(consumer: Consumer, here: TopicPartition, timeout_seconds: float) -> tuple[int | None, CommitNote | None]:
    (found,) = _ask_committed(consumer, [here], timeout_seconds)
    if found.error is not None:
        raise KafkaDown(f"{here.topic}[{here.partition}] does not say what is committed: {found.error.str()}")
    if found.offset < 0:
        return None, None
    return found.offset, CommitNote.load(found.metadata)
