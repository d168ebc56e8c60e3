"""Records read again by their addresses, from a log with gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streams.batch import Address
from streams.kafka import KafkaDown, KafkaError, TopicPartition
from streams.originals import FAR_OFFSETS, Originals


class Message:
    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self._offset, self._error = offset, error

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"k%d" % self._offset

    def value(self) -> bytes:
        return b"v%d" % self._offset

    def headers(self) -> list[tuple[str, bytes]]:
        return [("h", b"%d" % self._offset)]

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_000 + self._offset


class Log:
    """A client of one partition that holds these offsets."""

    def __init__(self, offsets: Sequence[int], silent: bool = False) -> None:
        self._offsets = offsets
        self._silent = silent
        self._at = 0
        self.assigned: list[int] = []
        self.closed = False

    def assign(self, places: list[TopicPartition]) -> None:
        (place,) = places
        self._at = place.offset
        self.assigned.append(place.offset)

    def poll(self, timeout_seconds: float) -> Any:
        if self._silent:
            return None
        left = [offset for offset in self._offsets if offset >= self._at]
        if not left:
            return Message(self._at, KafkaError(KafkaError._PARTITION_EOF))
        self._at = left[0] + 1
        return Message(left[0])

    def close(self) -> None:
        self.closed = True


def originals(log: Log) -> Originals:
    client: Any = log
    return Originals(lambda: client)


def places(*offsets: int) -> list[Address]:
    return [Address("payments", 3, offset) for offset in offsets]


def test_records_come_with_all_they_had() -> None:
    found = originals(Log(range(10))).read(places(7, 2))
    assert {at.offset for at in found} == {2, 7}
    record = found[places(7)[0]]
    assert (record.value, record.key, record.headers, record.arrived_ms) == (b"v7", b"k7", (("h", b"7"),), 1_007)
    assert record.there


def test_what_the_log_does_not_have_any_more_is_missing_and_the_rest_is_found() -> None:
    assert [at.offset for at in originals(Log([5, 6, 9])).read(places(3, 5, 7, 9, 12))] == [5, 9]


def test_near_records_are_read_in_passing_and_far_ones_asked_for() -> None:
    log = Log(range(3 * FAR_OFFSETS))
    assert len(originals(log).read(places(0, 10, FAR_OFFSETS + 20, FAR_OFFSETS + 30))) == 4
    assert log.assigned == [0, FAR_OFFSETS + 20]


def test_a_broker_that_says_nothing_is_tried_again_later() -> None:
    with pytest.raises(KafkaDown):
        originals(Log([], silent=True)).read(places(1))


def test_after_a_silence_the_next_try_has_a_client_of_its_own() -> None:
    """The old one may hold a connection that nobody is at the other end of, and would give it up after a minute."""
    silent, well = Log([], silent=True), Log([1])
    clients: list[Any] = [silent, well]
    found = Originals(lambda: clients.pop(0))
    with pytest.raises(KafkaDown):
        found.read(places(1))
    assert silent.closed
    assert len(found.read(places(1))) == 1


def test_the_client_is_made_when_it_is_needed_and_let_go_of() -> None:
    log = Log([1])
    unused = originals(log)
    unused.close()
    assert not log.closed
    used = originals(log)
    used.read(places(1))
    used.close()
    assert log.closed
