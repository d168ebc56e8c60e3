"""Alignment: records of several partitions go on in about the order of their timestamps, however unevenly a backlog is fetched.

What one partition's records become in a later stage's log lies among what the others' become. Were a backlog put through partition
by partition, a terminal's payments of one week would all lie before those that other customers made in the same week, and those
would be too late for its windows. So what was read too far ahead waits here until the other partitions have come as far, or have ended.
The log is the truth in any case; this makes it tell nearly what a log that never stood still would have told.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from streams.kafka import KafkaError, Record

LIVE_MS: Final = 1_000  # who is no further behind than that has no backlog, and nothing waits for it
NO_LIMIT: Final = 2**62
PATIENCE_POLLS: Final = 20  # without any record: who is waited for may have lost its leader
ROOM_RECORDS: Final = 100_000  # that wait; with more of them memory comes before order


@dataclass(slots=True)
class _Waiting:
    """What was read of a partition and has not gone on, oldest first."""

    records: list[Record] = field(default_factory=list)  # the end of the partition among them, as the client reports it
    times_ms: list[int] = field(default_factory=list)  # of each; never decreasing: a record waits for those before it
    at_end: bool = False  # whether there was nothing after them

    def add(self, records: Sequence[Record], now_ms: int) -> int:
        """Queue records; the time the last goes by."""
        latest_ms = self.times_ms[-1] if self.times_ms else 0
        stamps_ms = [latest_ms, *(record.timestamp()[1] for record in records)]  # the end of a partition has -1
        self.records += records
        self.times_ms += list(accumulate(stamps_ms, max))[1:]
        self.cap(now_ms)
        self.at_end = records[-1].error() is not None
        return self.times_ms[-1]

    def cap(self, now_ms: int) -> None:
        """Let nothing be in the future, where it would wait: a record's clock may be ahead, and ours may have been."""
        if self.times_ms and self.times_ms[-1] > now_ms:
            self.times_ms = [min(time_ms, now_ms) for time_ms in self.times_ms]

    def until(self, limit_ms: int) -> int:
        return bisect_right(self.times_ms, limit_ms)

    def leave(self, count: int) -> list[Record]:
        gone = self.records[:count]
        del self.records[:count], self.times_ms[:count]
        return gone


class Alignment:
    """Says which of the records read may go on.

    Args:
        most: records that go on at a time.
        others_ms: a timestamp before which all that must not be overtaken has gone on, apart from the partitions themselves.
        now_ms: milliseconds since the epoch.
    """

    def __init__(
        self, most: int, others_ms: Callable[[], int] | None = None, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._most = most
        self._others_ms = others_ms
        self._now_ms = now_ms
        self._waiting: dict[int, _Waiting] = {}
        self._come_ms: dict[int, int] = {}  # how far each partition was read
        self._silent_polls = 0
        self.has_more = False  # that could go on at once, had it not been too much
        self.held: Sequence[int] = ()  # partitions of which nothing may go on; never the one that is furthest behind

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read before some of it has gone on."""
        return sum(len(waiting.records) for waiting in self._waiting.values()) >= ROOM_RECORDS

    def forget(self, partition: int) -> None:
        """Drop what waits of a partition: it left, or is read anew."""
        self._waiting.pop(partition, None)
        self._come_ms.pop(partition, None)

    def passed(self, messages: Sequence[Record], partitions: Collection[int]) -> list[Record]:
        """What may go on of what was read now and before, each partition's in the order of its log.

        Args:
            messages: of one poll: records, ends of partitions and errors, which wait for nothing.
            partitions: those being read. What another partition has is dropped.
        """
        passed = self._take(messages, partitions)
        self.has_more, self.held = False, ()
        queued = {partition: waiting for partition, waiting in self._waiting.items() if waiting.records}
        if not queued:
            return passed
        now_ms = self._now_ms()
        for waiting in queued.values():
            waiting.cap(now_ms)
        limit_ms = self._limit_ms(partitions)
        due = [waiting for waiting in queued.values() if waiting.times_ms[0] <= limit_ms]
        until_ms = _latest_with(due, self._most, limit_ms)
        room = self._most
        for waiting in due:
            gone = waiting.leave(min(waiting.until(until_ms), room))
            room -= len(gone)
            passed += gone
        self.has_more = any(waiting.until(limit_ms) for waiting in due)
        self.held = [partition for partition, waiting in queued.items() if waiting.records and waiting.times_ms[0] > limit_ms]
        return passed

    def _take(self, messages: Sequence[Record], partitions: Collection[int]) -> list[Record]:
        """Queue what was read; what needs no queue is given back."""
        self._silent_polls = 0 if messages else self._silent_polls + 1
        errors: list[Record] = []
        found: dict[int, list[Record]] = {}
        for message in messages:
            error, partition = message.error(), message.partition()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                errors.append(message)
            elif partition in found:
                found[partition].append(message)
            elif partition in partitions:
                found[partition] = [message]
        now_ms = self._now_ms()
        for partition, records in found.items():
            waiting = self._waiting.get(partition) or self._waiting.setdefault(partition, _Waiting())
            self._come_ms[partition] = max(waiting.add(records, now_ms), self._come_ms.get(partition, 0))
        return errors

    def _limit_ms(self, partitions: Collection[int]) -> int:
        """Up to which timestamp records may go on."""
        behind = [self._come_ms.get(p, 0) for p in partitions if p not in self._waiting or not self._waiting[p].at_end]
        limit_ms = min(behind, default=NO_LIMIT)
        if limit_ms > self._now_ms() - LIVE_MS or self.is_full or self._silent_polls >= PATIENCE_POLLS:
            limit_ms = NO_LIMIT
        return limit_ms if self._others_ms is None else min(limit_ms, self._others_ms() - 1)


def _latest_with(due: Sequence[_Waiting], most: int, limit_ms: int) -> int:
    """The latest timestamp up to which no more than so many records wait, or the earliest there is; `limit_ms` if they are fewer."""
    if sum(waiting.until(limit_ms) for waiting in due) <= most:
        return limit_ms
    low, high = min(waiting.times_ms[0] for waiting in due), limit_ms
    high = min(high, max(waiting.times_ms[-1] for waiting in due))
    while low < high:
        middle = (low + high + 1) // 2
        if sum(waiting.until(middle) for waiting in due) <= most:
            low = middle
        else:
            high = middle - 1
    return low
