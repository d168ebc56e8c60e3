"""Workers killed at every point of the commit, and Redis wiped and killed under them: nothing lost, twice, or wrong."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.live.conftest import SetUp
from tests.live.scene import Scene, payments, wait_for
from tests.redis_server import RedisServer

RECORDS = 4_000
SMALL_BATCHES = "100"


@pytest.mark.parametrize(("point", "seed"), [("before_commit", 1), ("after_commit", 2), ("after_write", 3)])
def test_a_worker_killed_anywhere_in_its_commits_loses_and_repeats_nothing(scene: Scene, point: str, seed: int) -> None:
    nth = random.Random(seed)
    scene.send_payments(payments(RECORDS))
    for _ in range(2):
        killed = scene.worker(FAULT=f"{point}:{nth.randint(2, 12)}", WORKER__BATCH_RECORDS=SMALL_BATCHES)
        assert killed.ends() == -signal.SIGKILL, killed.log
        assert scene.faults(at_rest=False) == []
    last = scene.worker(WORKER__BATCH_RECORDS=SMALL_BATCHES)
    scene.drained(last)
    assert last.stop() == 0, last.log
    assert scene.faults() == []
    assert scene.positions() == scene.committed()
    # A block with a later batch's bytes would be found, and rebuilt from the log, when the next worker reads it.
    assert not any("state_dropped" in worker.log for worker in scene.workers)


def test_what_a_dead_worker_left_open_is_ended_by_its_successor_and_nobody_waits_for_its_timeout(scene: Scene) -> None:
    scene.send_payments(payments(RECORDS))
    minutes = "600000"
    killed = scene.worker(
        "a", FAULT="before_commit:5", KAFKA__TRANSACTION_TIMEOUT_MS=minutes, WORKER__BATCH_RECORDS=SMALL_BATCHES
    )  # its outputs are there, its offsets are not
    assert killed.ends() == -signal.SIGKILL, killed.log
    successor = scene.worker("b", KAFKA__TRANSACTION_TIMEOUT_MS=minutes)
    scene.drained(successor)
    assert "fenced_by_name" in successor.log
    assert successor.stop() == 0, successor.log
    assert scene.faults() == []


def test_redis_wiped_and_killed_under_a_worker_and_while_it_is_down(set_up: SetUp, own_redis: RedisServer) -> None:
    scene = set_up(redis_url=own_redis.url)
    scene.send_payments(payments(RECORDS // 2))
    worker = scene.worker(WORKER__BATCH_RECORDS="10")
    scene.progressed(500, worker)
    own_redis.ask("FLUSHALL")
    # A worker that was quick is done with all there was by now; what comes next shows it that the state is gone.
    scene.send_payments(payments(RECORDS // 2, first=RECORDS // 2))
    worker.says("starting_over")
    own_redis.kill()
    scene.send_payments(payments(500, first=RECORDS))
    worker.says("take_over_later")
    own_redis.start()
    scene.drained(worker)
    assert scene.faults() == []

    worker.kill()
    own_redis.ask("FLUSHALL")
    scene.send_payments(payments(500, first=RECORDS + 500))
    after = scene.worker()
    scene.drained(after)
    assert after.stop() == 0
    assert scene.faults() == []
    assert scene.positions() == scene.committed()


def test_a_stop_under_load_ends_well_and_a_second_one_at_once(set_up: SetUp, own_redis: RedisServer) -> None:
    scene = set_up(redis_url=own_redis.url)
    scene.send_payments(payments(RECORDS))
    stopped = scene.worker(WORKER__BATCH_RECORDS="5")
    scene.progressed(100, stopped)
    assert stopped.stop() == 0, stopped.log
    assert sum(each or 0 for each in scene.committed().values()) < RECORDS, "it should have been stopped in the middle"
    assert scene.positions() == scene.committed()

    impatient = scene.worker(WORKER__BATCH_RECORDS="5", WORKER__STOP_BUDGET_SECONDS="60")
    impatient.says("taken_over")
    with own_redis.held_still():  # what is under way can't be finished
        impatient.signal(signal.SIGTERM)
        impatient.says("stopping budget_seconds")
        wait_for("still stopping", lambda: impatient.lives)
        began = time.monotonic()
        impatient.signal(signal.SIGTERM)
        assert impatient.ends(10) == 130
        assert time.monotonic() - began < 5

    last = scene.worker()
    scene.drained(last)
    assert last.stop() == 0
    assert scene.faults() == []


def test_a_stop_whose_budget_is_over_abandons_what_is_under_way(set_up: SetUp, own_redis: RedisServer) -> None:
    scene = set_up(redis_url=own_redis.url)
    scene.send_payments(payments(RECORDS))
    worker = scene.worker(WORKER__BATCH_RECORDS="5", WORKER__STOP_BUDGET_SECONDS="1")
    scene.progressed(100, worker)
    with own_redis.held_still():
        assert worker.stop() == 0
        assert "abandoned" in worker.log
    last = scene.worker()
    scene.drained(last)
    assert scene.faults() == []
