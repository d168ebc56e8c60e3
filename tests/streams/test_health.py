"""What the health pages say, with a clock of our own."""

from __future__ import annotations

from streams.health import Health, rendered, together


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def health_of(ends: dict[int, int]) -> tuple[Health, Clock]:
    """The health of a worker that took partition 0 over at offset 0."""
    clock = Clock()
    health = Health(stalled_seconds=60.0, ends=lambda: ends, beat=clock, clock=clock)
    health.started = True
    health.owns(0, 0)
    return health, clock


def test_a_partition_with_records_waiting_that_does_not_move_fails_liveness() -> None:
    health, clock = health_of({0: 5})
    clock.seconds = 59.0
    assert health.livez()[0]
    clock.seconds = 61.0
    assert rendered(health.livez())[0] == 503


def test_progress_keeps_it_alive() -> None:
    health, clock = health_of({0: 5})
    clock.seconds = 59.0
    health.moved(0, 3)
    clock.seconds = 110.0
    assert health.livez()[0]


def test_an_idle_partition_is_alive_and_its_clock_starts_when_records_come() -> None:
    ends = {0: 0}
    health, clock = health_of(ends)
    clock.seconds = 1_000.0
    assert health.livez()[0]
    ends[0] = 3
    clock.seconds = 1_030.0
    assert health.livez()[0]
    clock.seconds = 1_061.0
    assert not health.livez()[0]


def test_a_partition_that_left_is_not_missed() -> None:
    health, clock = health_of({0: 5})
    health.gone(0)
    clock.seconds = 1_000.0
    assert health.livez()[0]


def test_a_worker_waiting_for_redis_is_alive_but_not_ready_until_it_moves_again() -> None:
    health, _ = health_of({0: 5})
    assert health.readyz()[0]
    health.trouble(0, "redis is away")
    ready, facts = health.readyz()
    assert not ready
    assert "redis is away" in str(facts)
    assert health.livez()[0]
    health.moved(0, 3)
    assert health.readyz()[0]


def test_a_worker_is_not_ready_before_it_started() -> None:
    health, _ = health_of({})
    health.started = False
    assert rendered(health.readyz())[0] == 503


def test_taking_over_again_and_again_is_no_progress() -> None:
    health, clock = health_of({0: 5})
    for seconds in range(0, 70, 5):
        clock.seconds = seconds
        health.trouble(0, "redis is away")
        health.owns(0, 0)
    assert not health.livez()[0]


def test_a_source_whose_thread_does_not_turn_is_not_alive_however_little_lag_it_last_saw() -> None:
    clock = Clock()
    health = Health(stalled_seconds=60.0, ends=lambda: {0: 0}, beat=lambda: 10.0, clock=clock)
    health.owns(0, 0)
    clock.seconds = 69.0
    assert health.livez()[0]
    clock.seconds = 71.0
    assert not health.livez()[0]


def test_lag_is_counted_from_what_is_committed() -> None:
    health, _ = health_of({0: 500, 1: 7})
    health.moved(0, 480)
    assert health.lag() == {0: 20}


def test_a_worker_is_as_well_as_all_its_stages_and_not_ready_before_it_has_any() -> None:
    well, ill = (True, {"partitions": 1}), (False, {"partitions": 2})
    assert together({"a": well, "b": well}, before=False) == (True, {"stages": {"a": {"partitions": 1}, "b": {"partitions": 1}}})
    assert not together({"a": well, "b": ill}, before=True)[0]
    assert together({}, before=True) == (True, {"stages": {}})
    assert not together({}, before=False)[0]


def test_coming_to_the_same_place_again_and_again_is_no_progress() -> None:
    health, clock = health_of({0: 500})
    for seconds in range(0, 80, 5):  # each time the same records are read into the state, and the same thing goes wrong
        clock.seconds = seconds
        health.owns(0, 0)
        health.moved(0, 100)
        health.trouble(0, "redis is full")
    assert not health.livez()[0]
    assert not health.readyz()[0]


def test_a_state_that_was_lost_and_is_rebuilt_from_the_beginning_makes_progress() -> None:
    health, clock = health_of({0: 1_000})
    health.moved(0, 900)
    clock.seconds = 10.0
    health.trouble(0, "its seal is broken")
    health.owns(0, 0)
    for seconds in range(20, 200, 20):
        clock.seconds = seconds
        health.moved(0, seconds)
        assert health.livez()[0]
    assert health.readyz()[0]


def test_a_partition_taken_over_once_more_at_its_end_is_well() -> None:
    health, clock = health_of({0: 100})
    health.moved(0, 100)
    health.trouble(0, "redis is away")
    health.owns(0, 100)
    health.moved(0, 100)
    clock.seconds = 100.0
    assert health.livez()[0]
    assert health.readyz()[0]


def test_a_partition_that_was_idle_and_unobserved_for_long_has_its_whole_time_once_records_come() -> None:
    ends = {0: 0}
    health, clock = health_of(ends)
    clock.seconds = 1_000.0
    health.looked()  # as the source does twice a second, whether anybody asks for the page or not
    ends[0] = 3
    clock.seconds = 1_030.0
    assert health.livez()[0]
    clock.seconds = 1_061.0
    assert not health.livez()[0]


def test_a_partition_that_waits_for_others_is_alive_for_as_long_as_it_is_held_and_its_clock_starts_when_it_is_not() -> None:
    health, clock = health_of({0: 5, 1: 5})
    health.owns(1, 0)
    for seconds in range(0, 300, 30):  # 0 is held until 1 has come as far; 1 moves
        clock.seconds = seconds
        health.held(0)
        health.moved(1, seconds + 1)
        assert health.livez()[0]
    clock.seconds = 270 + 59.0
    health.moved(1, 1_000)
    assert health.livez()[0]
    clock.seconds = 270 + 61.0
    good, facts = health.livez()
    assert not good
    assert facts == {"stalled_seconds": {"0": 61.0}, "partitions": 2}


def test_whom_the_others_wait_for_is_stuck_and_not_they() -> None:
    health, clock = health_of({0: 5, 1: 5})
    health.owns(1, 0)
    for seconds in range(0, 90, 30):
        clock.seconds = seconds
        health.held(0)
    clock.seconds = 61.0
    good, facts = health.livez()
    assert not good
    assert facts == {"stalled_seconds": {"1": 61.0}, "partitions": 2}


def test_a_partition_that_is_held_still_waits_for_what_it_waited_for_and_one_that_left_does_not_come_back() -> None:
    health, _ = health_of({0: 5})
    health.trouble(0, "redis is away")
    health.held(0)
    assert not health.readyz()[0]
    health.gone(0)
    health.held(0)
    assert health.livez() == (True, {"stalled_seconds": {}, "partitions": 0})
