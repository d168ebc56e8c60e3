"""Where windows begin and end, drawn. One key; `o` is remembered, `x` the event that looks; [ ] is what it sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.oracles.play import Event, play
from transforms.aggregate import Count, Last, RatioToMean, Sum
from transforms.entity import Entity, Guard
from transforms.fixed_point import FixedPoint
from transforms.shard import ShardState
from transforms.window import Window

units = FixedPoint("amount", 1, 1_000)
ON_TIME, LATE, TOO_LATE = 0, 1, 2


def counts(times: Sequence[int], window: Window, lateness_ms: int = 0, guard: Guard | None = None) -> tuple[list[int], list[int]]:
    """What each event of one key counts, and its timing."""
    entity = Entity("e", "key", (window,), (Count(),), lateness_ms, guard=guard)
    features, timing = play([Event(1, t, 1, arrived=100) for t in times], (entity,), ())
    return features[:, 0].astype(int).tolist(), timing.tolist()


def test_an_event_exactly_one_length_old_is_outside() -> None:
    #   0    5    10   15
    #   o    o    x          (0, 10] sees 5 and itself
    #        o    o    x     (5, 15]
    assert counts([0, 5, 10, 15], Window(10))[0] == [1, 2, 2, 2]


def test_an_event_one_tick_younger_than_the_length_is_inside() -> None:
    #   1 .. 10
    #   o    x       (0, 10]
    assert counts([1, 10], Window(10))[0] == [1, 2]


def test_of_two_events_at_one_time_the_later_in_the_log_sees_the_earlier_only() -> None:
    #   3
    #   o x o'
    assert counts([3, 3, 3], Window(10))[0] == [1, 2, 3]


def test_without_itself_an_event_sees_its_past_only() -> None:
    assert counts([1, 2, 2, 12], Window(10, include_self=False))[0] == [0, 1, 2, 0]


def test_a_delayed_window_ends_that_much_earlier_and_holds_what_is_exactly_that_old() -> None:
    #   0    1         7    8    17
    #   o    o         x         .      (-10+7-7, 7-7] = (-10, 0] holds 0
    #   o    o              x           (-9, 1] holds 0 and 1
    #                             x     (0, 10] holds 1, 7 and 8
    assert counts([0, 1, 7, 8, 17], Window(10, delay_ms=7))[0] == [0, 0, 1, 2, 3]


def test_on_a_grid_the_old_edge_stands_still_while_the_cell_of_the_event_fills() -> None:
    #   cells of 5:  [0..4] [5..9] [10..14] [15..19];  length 10 = two cells
    #    4  5     9  10    14  15
    #    o [o     x]                  at 9: cells 0..9, so 4, too
    #    o [o     o  x]               at 10: cells 5..14: 5, 9, 10
    #      [o     o  o     x]         at 14: 5, 9, 10, 14
    #                               at 15: cells 10..19: 10, 14, 15
    assert counts([4, 5, 9, 10, 14, 15], Window(10, grid_ms=5))[0] == [1, 2, 3, 3, 4, 3]


def test_on_a_grid_a_delay_is_never_undercut() -> None:
    #   cells of 5, delay 5, length 5: at 14 the last cell wholly at or before 9 is 5..9; at 13, one tick short of it, 0..4
    assert counts([4, 9, 13, 14], Window(5, delay_ms=5, grid_ms=5))[0] == [0, 1, 1, 1]
    entity = Entity("e", "key", (Window(5, 5, 5),), (Last(units),))
    features, _ = play([Event(1, 4, 40), Event(1, 9, 90), Event(1, 13, 0), Event(1, 14, 0)], (entity,), ())
    assert features[:, 0].tolist() == [0.0, 40.0, 40.0, 90.0]


def test_a_late_event_sees_what_was_before_its_time_and_later_results_see_it() -> None:
    #   0        8   10  12
    #   o            o
    #            x            late by 2: sees 0 and itself, not 10
    #                    x    sees 8, too
    assert counts([0, 10, 8, 12], Window(12), lateness_ms=2) == ([1, 2, 2, 3], [ON_TIME, ON_TIME, LATE, ON_TIME])


def test_a_too_late_event_is_scored_at_the_oldest_admissible_time_and_forgotten() -> None:
    #   0    5    10   lateness 3: seen as if at 7
    #   o    o    o
    #        x         2 -> 7: sees 0, 5 and itself
    #                  11 does not see it
    assert counts([0, 5, 10, 2, 11], Window(20), lateness_ms=3) == ([1, 2, 3, 3, 4], [ON_TIME, ON_TIME, ON_TIME, TOO_LATE, ON_TIME])


def test_a_late_event_on_a_grid_sees_what_is_already_known_of_its_cell() -> None:
    #   cells of 10: 12 and 18 are known when 14 arrives late; Last gives 18, the newest
    entity = Entity("e", "key", (Window(10, grid_ms=10),), (Count(), Last(units)), lateness_ms=10)
    features, _ = play([Event(1, 12, 120), Event(1, 18, 180), Event(1, 14, 140)], (entity,), ())
    assert features.tolist() == [[1.0, 120.0], [2.0, 180.0], [3.0, 180.0]]


def test_of_events_at_one_time_the_last_is_the_one_that_came_last_even_if_it_came_late() -> None:
    #   5      7      9
    #   50            90
    #   55                    late, at the same time as 50
    #          x              late: the newest it sees is 55
    entity = Entity("e", "key", (Window(10, include_self=False),), (Last(units),), lateness_ms=10)
    features, _ = play([Event(1, 5, 50), Event(1, 9, 90), Event(1, 5, 55), Event(1, 7, 70)], (entity,), ())
    assert features[:, 0].tolist() == [0.0, 50.0, 50.0, 55.0]


def test_lateness_is_measured_against_the_key_itself_and_no_other() -> None:
    entity = Entity("e", "key", (Window(10),), (Count(),))
    _, timing = play([Event(1, 100, 1), Event(2, 50, 1), Event(2, 49, 1)], (entity,), ())
    assert timing.tolist() == [ON_TIME, ON_TIME, TOO_LATE]


def test_the_timing_of_a_row_is_the_worst_of_its_entities() -> None:
    strict = Entity("strict", "key", (Window(10),), (Count(),))
    patient = Entity("patient", "key", (Window(10),), (Count(),), lateness_ms=5)
    log = [Event(1, 10, 1), Event(1, 8, 1), Event(1, 12, 1)]
    assert play(log, (patient,), ())[1].tolist() == [ON_TIME, LATE, ON_TIME]
    assert play(log, (patient, strict), ())[1].tolist() == [ON_TIME, TOO_LATE, ON_TIME]
    assert play(log, (strict, patient), ())[1].tolist() == [ON_TIME, TOO_LATE, ON_TIME]


def test_an_unbelievable_time_is_scored_late_and_does_not_push_its_key_ahead() -> None:
    #   arrival 100, believed 40..110
    #   60   70          9999
    #   o    o           x      seen at 70 - 0: 60, 70 and itself; 80 is on time afterwards
    guard = Guard(oldest_ms=60, ahead_ms=10)
    assert counts([60, 70, 9_999, 80], Window(100), guard=guard) == ([1, 2, 3, 3], [ON_TIME, ON_TIME, TOO_LATE, ON_TIME])
    assert counts([60, 70, 9_999, 80], Window(100)) == ([1, 2, 1, 2], [ON_TIME, ON_TIME, ON_TIME, TOO_LATE])


def test_a_first_event_that_cannot_be_believed_stands_alone_and_is_forgotten() -> None:
    guard = Guard(oldest_ms=60, ahead_ms=10)
    assert counts([39, 40, 111, 110], Window(200), guard=guard) == ([1, 1, 2, 2], [TOO_LATE, ON_TIME, TOO_LATE, ON_TIME])


def test_the_ratio_leaves_the_event_itself_out_of_the_mean() -> None:
    entity = Entity("e", "key", (Window(10),), (RatioToMean(units, empty=-1.0), Sum(units)))
    features, _ = play([Event(1, 0, 4), Event(1, 1, 2), Event(1, 2, 9), Event(1, 2, -15)], (entity,), ())
    # 4 alone; 2 / 4; 9 / 3; -15 / 5
    assert features[:, 0].tolist() == [-1.0, 0.5, 3.0, -3.0]


def test_two_entities_of_one_event_have_their_own_pasts() -> None:
    by_key = Entity("by_key", "key", (Window(10),), (Count(),))
    by_shop = Entity("by_shop", "shop", (Window(10),), (Count(),))
    features, _ = play([Event(1, 0, 3), Event(2, 1, 3), Event(2, 2, 4)], (by_key, by_shop), (1,))
    assert features.tolist() == [[1.0, 1.0], [1.0, 2.0], [2.0, 1.0]]


def test_rows_that_are_not_usable_take_no_part_and_get_zeros() -> None:
    entity = Entity("e", "key", (Window(10),), (Count(empty=-1.0),))
    features, timing = play([Event(1, 0, 1), Event(1, 90, 1, usable=False), Event(1, 1, 1)], (entity,), ())
    assert features[:, 0].tolist() == [1.0, 0.0, 2.0]
    assert timing.tolist() == [ON_TIME, ON_TIME, ON_TIME]


def test_an_event_time_outside_the_calendar_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        play([Event(1, np.iinfo(np.int64).max, 1)], (Entity("e", "key", (Window(10),), (Count(),)),), ())


def test_a_guard_without_arrival_times_is_a_bug_of_the_caller() -> None:
    from transforms.memory_store import MemoryStore

    entity = Entity("guarded", "key", (Window(10),), (Count(),), guard=Guard(1, 1))
    state = ShardState("s", (entity,), MemoryStore(), "t", 10)
    with pytest.raises(ValueError, match="'guarded' needs each record's arrival time"):
        state.advance({"key": np.array([1]), "t": np.array([1])}, np.array([True]), np.array([0]))
