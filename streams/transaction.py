"""Outputs and offsets, made final together.

`Transactions` is the `exactly_once` way: two transactional producers used in turn. With one, each transaction would meet the broker
still writing the markers of the last, and the client waits 20 ms before it asks again; two, with commits strictly in order, avoid
that. `Deliveries` is the `at_least_once` way: outputs acknowledged, then offsets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from schemas.errors import MillraceError
from streams.bounded_call import BoundedCalls, CallStuck
from streams.fault_points import passing
from streams.kafka import KafkaDown, KafkaError, KafkaException, Message, Producer, TopicPartition, cause

log = logging.getLogger(__name__)

STUCK_SECONDS = 6.0  # after which a call that should have come back long ago is given up, and its producer with it
ATTEMPT_SECONDS = 2.0  # how long one call to the coordinator may take before it is said in the log and made again

Header = tuple[str, bytes | None]


class Void(MillraceError):
    """The transaction came to nothing: everything sent in it, and all state derived after it, is void.

    `refused` holds the values of records that the broker will never take as they are.
    """

    def __init__(self, detail: str, refused: Iterable[bytes] = ()) -> None:
        super().__init__(detail)
        self.refused = frozenset(refused)


class Turn(Protocol):
    """One batch's outputs on their way to being final."""

    def send(self, topic: str, values: Iterable[bytes], keys: Iterable[bytes | None], timestamps_ms: Iterable[int]) -> None:
        """Queue records. A record too large for the client is remembered, and makes the commit void."""

    def send_one(self, topic: str, value: bytes | None, key: bytes | None, timestamp_ms: int, headers: Sequence[Header]) -> None:
        """Queue one record with headers."""

    def settled(self) -> bool:
        """Wait for the broker's answer to all that was queued; False when it refused some of it, and the commit will be void."""

    def commit(self, offsets: list[TopicPartition], member: Any) -> None:
        """Make it final, with these offsets, for the group member that polled them.

        Raises:
            Void: nothing of it is visible, nor will be.
        """


class Outbox(Protocol):
    """Begins turns, one at a time."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of its producers, by which another worker can end what they left open."""

    def begin(self) -> Turn:
        """Start the next turn; the one before has been committed or is void."""

    def reopen(self) -> None:
        """Be ready after a `Void`: replaces producers that were fenced."""

    def close(self) -> None:
        """Abandon what is open."""


class _Sending:
    """Queues records on a producer, and remembers those that are refused."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.refused: list[bytes] = []
        self.failure: KafkaError | None = None

    def send(self, topic: str, values: Iterable[bytes], keys: Iterable[bytes | None], timestamps_ms: Iterable[int]) -> None:
        produce, failed = self.producer.produce, self._failed
        for value, key, timestamp_ms in zip(values, keys, timestamps_ms, strict=True):
            try:
                produce(topic, value, key, -1, failed, None, timestamp_ms)
            except KafkaException as error:
                self._note(cause(error), value)

    def send_one(self, topic: str, value: bytes | None, key: bytes | None, timestamp_ms: int, headers: Sequence[Header]) -> None:
        try:
            self.producer.produce(topic, value, key, on_delivery=self._failed, timestamp=timestamp_ms, headers=list(headers))
        except KafkaException as error:
            self._note(cause(error), value or b"")

    def settled(self) -> bool:
        while self._serve(lambda: self.producer.flush(ATTEMPT_SECONDS)) and self.failure is None:
            log.warning("waiting for the broker to take %d records", len(self.producer))
        return self.failure is None

    def _serve(self, call: Callable[[], int]) -> int:
        """Make a call that serves the client's reports.

        A client that was fenced raises its fatal error from whatever call serves it, and goes on to report records with that exception
        pending: Python then breaks in the report, on its first look-up or call.
        """
        try:
            return call()
        except KafkaException as error:
            self.failure = self.failure or cause(error)
        except (AttributeError, SystemError) as error:
            self.failure = self.failure or KafkaError(KafkaError._FENCED, f"the client broke down: {error}", True)
        return 0

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._note(error, message.value() or b"")

    def _note(self, error: KafkaError, value: bytes) -> None:
        self.failure = self.failure or error
        if error.code() in REFUSED_FOR_GOOD:
            self.refused.append(value)


# What a broker answers to a record it will never take, however often it is sent.
REFUSED_FOR_GOOD = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG}
)


class Transactions:
    """Two transactional producers in turn, ids ``<prefix>-0`` and ``<prefix>-1``."""

    def __init__(self, prefix: str, make: Callable[[str], Producer]) -> None:
        self.ids: tuple[str, ...] = (f"{prefix}-0", f"{prefix}-1")
        self._make = make
        self._producers = [self._open(name) for name in self.ids]
        self._calls = [BoundedCalls(name) for name in self.ids]
        self._next = 0

    def _open(self, name: str) -> Producer:
        producer = self._make(name)
        begun = time.monotonic()
        while True:
            try:
                producer.init_transactions(ATTEMPT_SECONDS)
                return producer
            except KafkaException as error:
                if not cause(error).retriable():
                    raise
                log.warning(
                    "waiting for the transaction coordinator id=%s seconds=%.0f detail=%r",
                    name,
                    time.monotonic() - begun,
                    cause(error).str(),
                )

    def begin(self) -> _Transaction:
        producer, calls = self._producers[self._next], self._calls[self._next]
        self._next = 1 - self._next
        try:
            producer.begin_transaction()
        except KafkaException as error:
            raise Void(f"no transaction could be begun: {cause(error).str()}") from error
        return _Transaction(producer, calls)

    def reopen(self) -> None:
        """New producers with the old names: whatever the old ones still had under way is fenced by that."""
        self.close()
        self._producers = [self._open(name) for name in self.ids]
        self._calls = [BoundedCalls(name) for name in self.ids]
        self._next = 0

    def close(self) -> None:
        for producer, calls in zip(self._producers, self._calls, strict=True):
            if not calls.stuck:  # another call would wait behind the one that does not come back
                _abandon(producer)
            calls.close()


class _Transaction(_Sending):
    def __init__(self, producer: Producer, calls: BoundedCalls) -> None:
        super().__init__(producer)
        self._calls = calls

    def commit(self, offsets: list[TopicPartition], member: Any) -> None:
        producer = self.producer
        try:
            self._insist("send_offsets", lambda: producer.send_offsets_to_transaction(offsets, member, ATTEMPT_SECONDS))
            if not self.settled():
                raise KafkaException(self.failure)
            passing("offsets_sent")
            self._insist("commit", lambda: producer.commit_transaction(ATTEMPT_SECONDS))
        except KafkaException as error:
            if not cause(error).fatal():
                self._abort()
            # Reports of failed records are served by poll: without it, those that were refused would stay unknown.
            self._serve(lambda: producer.poll(0))
            raise Void(f"transaction aborted: {cause(error).str()}", self.refused) from error
        except CallStuck as error:
            raise Void(f"transaction given up: {error}") from error

    def _insist(self, what: str, call: Callable[[], object]) -> None:
        """Make a transactional call until it has an answer: one that timed out may have happened, and only a repeat tells."""
        while True:
            try:
                self._calls(call, STUCK_SECONDS)
                return
            except KafkaException as error:
                if not cause(error).retriable():
                    raise
                log.warning("transaction_call_repeated call=%s detail=%r", what, cause(error).str())

    def _abort(self) -> None:
        try:
            self._insist("abort", lambda: self.producer.abort_transaction(ATTEMPT_SECONDS))
        except KafkaException as error:
            log.warning("transaction_not_aborted detail=%r", cause(error).str())
        except CallStuck as error:
            log.warning("transaction_not_aborted detail=%r", str(error))


def _abandon(producer: Producer) -> None:
    """Abort what may be open, without insisting: the broker ends it by its timeout, or the next owner by name."""
    try:
        producer.abort_transaction(ATTEMPT_SECONDS)
    except KafkaException as error:
        log.debug("nothing to abort: %s", cause(error).str())


def fence(producers: Iterable[str], make: Callable[[str], Producer]) -> None:
    """End the open transactions of a worker that is gone, by its producers' names, so that nobody waits for their timeout.

    All at once: for each that is open the client waits half a second before it asks again whether it has ended.

    Raises:
        KafkaDown: one of them could not be ended.
    """

    def end(name: str) -> None:
        try:
            make(name).init_transactions(10.0)
            log.warning("fenced_by_name id=%s", name)
        except KafkaException as error:
            raise KafkaDown(f"the transaction of {name} could not be ended: {cause(error).str()}") from error

    with ThreadPoolExecutor(thread_name_prefix="fence") as threads:
        list(threads.map(end, producers))


class Deliveries:
    """`at_least_once`: a batch is final when its outputs are acknowledged and its offsets committed; a crash between repeats it."""

    ids: tuple[str, ...] = ()

    def __init__(self, producer: Producer, commit: Callable[[list[TopicPartition]], object]) -> None:
        self._producer = producer
        self._commit = commit

    def begin(self) -> _Delivery:
        return _Delivery(self._producer, self._commit)

    def reopen(self) -> None:
        self._producer.purge()
        self._producer.flush(ATTEMPT_SECONDS)

    def close(self) -> None:
        self._producer.purge()


class _Delivery(_Sending):
    def __init__(self, producer: Producer, commit: Callable[[list[TopicPartition]], object]) -> None:
        super().__init__(producer)
        self._commit = commit

    def commit(self, offsets: list[TopicPartition], member: Any) -> None:
        if not self.settled() and self.failure is not None:
            raise Void(f"an output was not taken: {self.failure.str()}", self.refused)
        passing("offsets_sent")
        try:
            self._commit(offsets)
        except KafkaException as error:
            raise Void(f"offsets not committed: {cause(error).str()}") from error
