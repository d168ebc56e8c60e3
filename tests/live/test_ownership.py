"""Several workers on several partitions: they come, leave, stall and die, and each payment is scored once, with the right features."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.live.conftest import SetUp
from tests.live.scene import CUSTOMERS_ONLY, Scene, Worker, payment, wait_for
from tests.live.stall import STALLING

PARTITIONS = 4


@contextmanager
def under_load(scene: Scene, records: int = 40, every_seconds: float = 0.02) -> Iterator[None]:
    """Send payments of many customers all the time, until the block ends."""
    enough = threading.Event()
    sent = 0

    def feed() -> None:
        nonlocal sent
        while not enough.wait(every_seconds):
            scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(sent, sent + records))
            sent += records

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def taken_over(worker: Worker, since: int = 0) -> dict[int, int]:
    """Partitions that a worker says it took over, each with the offset it goes on from."""
    lines = [line for line in worker.log[since:].splitlines() if "taken_over at=" in line]
    return {int(line.split("[")[1].split("]")[0]): int(line.split("live_from=")[1]) for line in lines}


def test_workers_join_leave_and_die_under_load(set_up: SetUp) -> None:
    scene = set_up(partitions=PARTITIONS, changes=CUSTOMERS_ONLY, environment={"KAFKA__TRANSACTION_TIMEOUT_MS": "60000"})
    with under_load(scene):
        first = scene.worker("a")
        first.says("taken_over", PARTITIONS)
        second = scene.worker("b")
        second.says("taken_over")
        assert "revoked" in first.log
        scene.progressed(sum(each or 0 for each in scene.committed().values()) + 500, second)
        assert second.stop() == 0, second.log

        # The third dies with a transaction open; it would stay open for a minute, had the first no way to end it by name.
        third = scene.worker("c", FAULT="offsets_sent:40")
        third.says("taken_over")
        moved = taken_over(third)
        assert third.ends() == -signal.SIGKILL
        died, known = time.monotonic(), len(first.log)
        wait_for("its partitions taken over", lambda: moved.keys() <= taken_over(first, known).keys(), 40)
        live_from = taken_over(first, known)
        wait_for("new scores of all its partitions", lambda: all((scene.positions()[p] or 0) > live_from[p] for p in moved), 40)
        seconds = time.monotonic() - died
    print(f"{seconds:.1f} s from kill -9 to the first new score of its partitions (session timeout 2 s, transaction timeout 60 s)")
    assert seconds < 30
    assert "fenced_by_name" in first.log
    scene.drained(first)
    assert first.stop() == 0
    assert scene.faults() == []
    assert scene.positions() == scene.committed()


def test_a_batch_that_outlives_the_revocation_of_its_partition_is_not_committed(set_up: SetUp) -> None:
    scene = set_up(partitions=2, changes={**CUSTOMERS_ONLY, **STALLING})
    stall = scene.folder / "stall"
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(1_000))
    slow = scene.worker("slow", TEST_STALL=str(stall), WORKER__STOP_BUDGET_SECONDS="1", WORKER__BATCH_RECORDS="5000")
    scene.drained(slow)

    stall.touch()  # what it polls from now on is held before its windows are computed
    for first in range(1_000, 1_500, 100):  # several batches, most of them with rows of both partitions
        scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(first, first + 100))
    other = scene.worker("other")
    slow.says("drained=False")
    other.says("taken_over")
    (moved,) = taken_over(other)
    ends = scene.ends()
    wait_for("the other's scores", lambda: scene.committed()[moved] == ends[moved])
    stall.unlink()
    scene.drained(slow)  # its own partition, whose rows were in the batch that came to nothing
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(1_500, 1_700))
    scene.drained(slow)
    assert (slow.stop(), other.stop()) == (0, 0)
    assert scene.faults() == []


def test_a_worker_frozen_past_its_session_changes_nothing_when_it_wakes(set_up: SetUp) -> None:
    scene = set_up(partitions=2, changes=CUSTOMERS_ONLY)
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(3_000))
    frozen = scene.worker("frozen", WORKER__BATCH_RECORDS="5")
    scene.progressed(200, frozen)
    frozen.signal(signal.SIGSTOP)  # with batches at every step, some of them committing
    other = scene.worker("other")
    scene.drained(other)
    frozen.signal(signal.SIGCONT)
    frozen.says("lost at=")
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(3_000, 3_500))
    scene.drained(other)
    assert frozen.stop() == 0, frozen.log
    assert other.stop() == 0
    assert scene.faults() == []
    assert scene.positions() == scene.committed()
