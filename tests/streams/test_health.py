"""What the health pages say, with a clock of our own."""

from __future__ import annotations

from streams.health import Health, rendered


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def health_of(lag: dict[int, int]) -> tuple[Health, Clock]:
    clock = Clock()
    health = Health(stalled_seconds=60.0, lag=lambda: lag, clock=clock)
    health.started = True
    health.owns(0)
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
    health.moved(0, 1042)
    clock.seconds = 110.0
    assert health.livez()[0]


def test_an_idle_partition_is_alive_and_its_clock_starts_when_records_come() -> None:
    lag = {0: 0}
    health, clock = health_of(lag)
    clock.seconds = 1_000.0
    assert health.livez()[0]
    lag[0] = 3
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
    health.moved(0, 1042)
    assert health.readyz()[0]


def test_a_worker_is_not_ready_before_it_started() -> None:
    health, _ = health_of({})
    health.started = False
    assert rendered(health.readyz())[0] == 503
