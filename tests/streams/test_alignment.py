"""Records of several partitions go on abreast, whatever order they were fetched in, and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from streams import alignment
from streams.alignment import LIVE_MS, PATIENCE_POLLS, Alignment
from streams.kafka import KafkaError, Record

NOW_MS = 1_000_000


@dataclass(frozen=True)
class At:
    """A record, or an error in its place."""

    of: int
    time_ms: int = 0
    fault: int | None = None

    def partition(self) -> int:
        return self.of

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time_ms

    def error(self) -> KafkaError | None:
        return None if self.fault is None else KafkaError(self.fault)


def records(partition: int, times_ms: Iterable[int]) -> list[At]:
    return [At(partition, time_ms) for time_ms in times_ms]


def end(partition: int) -> At:
    return At(partition, time_ms=-1, fault=KafkaError._PARTITION_EOF)  # the client gives it no time


def passed(aligned: Alignment, messages: Sequence[At], partitions: Sequence[int] = (0, 1)) -> list[At]:
    return cast("list[At]", aligned.passed(cast("list[Record]", list(messages)), partitions))


def aligned(most: int = 1_000, **options: Any) -> Alignment:
    return Alignment(most, now_ms=lambda: NOW_MS, **options)


def test_what_is_read_too_far_ahead_waits_until_the_other_partition_has_come_as_far() -> None:
    these = aligned()
    early, late = records(0, range(100, 1_000, 100)), records(0, range(1_000, 3_000, 100))
    assert passed(these, [*early, *late]) == [], "nothing is known of the other"
    assert passed(these, records(1, [1_000])) == [*early, late[0], At(1, 1_000)]
    assert these.held == [0]
    assert passed(these, [At(1, 5_000)]) == late[1:], "now the other is ahead"
    assert these.held == [1]


def test_an_end_lets_the_others_go_on_until_there_is_more() -> None:
    these = aligned()
    assert passed(these, [*records(0, [100, 9_000]), end(1)]) == [At(0, 100), At(0, 9_000), end(1)]
    assert passed(these, [At(1, 9_020), *records(0, [9_010, 20_000])]) == [At(0, 9_010), At(1, 9_020)]
    assert passed(these, [end(1), end(0)]) == [At(0, 20_000), end(0), end(1)], "an end goes on after the records before it"


def test_where_there_is_no_backlog_nothing_waits() -> None:
    these = aligned()
    live = [At(0, NOW_MS), At(1, NOW_MS - LIVE_MS + 1)]
    assert passed(these, live) == live
    assert passed(aligned(), [At(0, NOW_MS), At(1, NOW_MS - LIVE_MS)]) == [At(1, NOW_MS - LIVE_MS)]


def test_a_partition_that_left_or_was_never_ours_is_waited_for_by_nobody() -> None:
    these = aligned()
    assert passed(these, [At(0, 9_000), At(1, 100), At(2, 50)]) == [At(1, 100)]
    these.forget(1)
    assert passed(these, [], partitions=(0,)) == [At(0, 9_000)]


def test_what_only_waits_for_its_turn_is_not_held_back() -> None:
    these = aligned(most=2)
    assert passed(these, [*records(0, [100, 200, 300]), *records(1, [400, 9_000])]) == [At(0, 100), At(0, 200)]
    assert (these.has_more, these.held) == (True, [1])
    assert passed(these, records(0, [500])) == [At(0, 300), At(1, 400)]
    assert (these.has_more, these.held) == (True, [1])
    assert passed(these, []) == [At(0, 500)]
    assert (these.has_more, these.held) == (False, [1])


def test_errors_wait_for_nothing() -> None:
    broken = At(0, fault=KafkaError.OFFSET_OUT_OF_RANGE)
    assert passed(aligned(), [At(0, 9_000), broken]) == [broken]


def test_a_clock_that_is_ahead_does_not_keep_its_partition_back() -> None:
    these = aligned()
    assert passed(these, [At(0, NOW_MS * 9), At(1, 100)]) == [At(1, 100)]
    assert passed(these, [At(1, NOW_MS - 10)]) == [At(0, NOW_MS * 9), At(1, NOW_MS - 10)]


def test_a_silent_partition_is_not_waited_for_for_ever() -> None:
    these = aligned()
    assert passed(these, [At(0, 9_000), At(1, 0)]) == [At(1, 0)]
    for _ in range(PATIENCE_POLLS - 1):
        assert passed(these, []) == []
    assert passed(these, []) == [At(0, 9_000)]


def test_memory_comes_before_order(monkeypatch: Any) -> None:
    monkeypatch.setattr(alignment, "ROOM_RECORDS", 10)
    these = aligned(most=4)
    found = records(0, range(9_000, 9_010))
    assert passed(these, found[:9]) == []
    assert passed(these, found[9:]) == found[:4]
    assert not these.is_full
    assert passed(these, []) == []


def test_what_others_have_not_passed_waits_whatever_the_room_and_the_patience(monkeypatch: Any) -> None:
    monkeypatch.setattr(alignment, "ROOM_RECORDS", 2)
    come_ms = 0
    these = aligned(others_ms=lambda: come_ms)
    found = records(0, [100, 200])
    for _ in range(PATIENCE_POLLS + 1):
        assert passed(these, found, partitions=(0,)) == []
        found = []
    assert these.is_full
    come_ms = 200
    assert passed(these, [end(0)], partitions=(0,)) == [At(0, 100)], "200 is not before 200"
    come_ms = 201
    assert passed(these, [], partitions=(0,)) == [At(0, 200), end(0)]


def test_a_clock_that_is_set_back_leaves_nothing_waiting_for_its_old_time_to_come_again() -> None:
    now_ms = come_ms = NOW_MS
    these = Alignment(1_000, lambda: come_ms, lambda: now_ms)
    assert passed(these, [At(0, NOW_MS)], partitions=(0,)) == []
    now_ms = NOW_MS - 500_000
    come_ms = now_ms - 1
    assert passed(these, [], partitions=(0,)) == [], "what was before it is not through"
    come_ms = now_ms = now_ms + 1_000
    assert passed(these, [], partitions=(0,)) == [At(0, NOW_MS)]


@given(
    times=st.lists(st.lists(st.integers(0, 500), max_size=30), min_size=1, max_size=4),
    most=st.integers(1, 20),
    seed=st.randoms(),
)
def test_each_partition_keeps_its_order_nothing_is_lost_and_none_runs_ahead(times: list[list[int]], most: int, seed: Any) -> None:
    these = aligned(most)
    logs = [[*records(p, each), end(p)] for p, each in enumerate(times)]
    left = [list(log) for log in logs]
    came: list[At] = []
    while any(left):
        partition = seed.choice([p for p, log in enumerate(left) if log])
        count = seed.randint(1, 10)
        polled, left[partition] = left[partition][:count], left[partition][count:]
        turn = passed(these, polled, range(len(logs)))
        assert len(turn) <= most
        came += turn
    while turn := passed(these, [], range(len(logs))):
        assert len(turn) <= most
        came += turn
    assert [[each for each in came if each.of == p] for p in range(len(logs))] == logs
    if most == 1:  # in larger turns the partitions of one turn stand one after the other
        newest, reached = 0, [0] * len(logs)
        for each in came:
            if each.fault is None:
                reached[each.of] = max(reached[each.of], each.time_ms)
                assert reached[each.of] >= newest
                newest = max(newest, reached[each.of])
