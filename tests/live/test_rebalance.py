"""Partitions that move between workers: cooperatively, with either protocol, and not at all for a member that is soon back."""

from __future__ import annotations

import signal
import time

import pytest

from tests.live.conftest import SetUp
from tests.live.scene import CUSTOMERS_ONLY, Worker, payment, wait_for
from tests.live.test_ownership import taken_over, under_load
from tests.live.test_refusals import STATE, last_line

PROTOCOLS = ("classic", "consumer")


def partitions_in(worker: Worker, words: str, since: int = 0) -> set[int]:
    """Partitions that a worker's log names after these words."""
    return {int(line.split("[")[1].split("]")[0]) for line in worker.log[since:].splitlines() if f"{words} at=" in line}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_workers_that_join_and_leave_move_few_partitions_and_the_others_read_on(set_up: SetUp, protocol: str) -> None:
    scene = set_up(partitions=8, changes=CUSTOMERS_ONLY, environment={"KAFKA__GROUP_PROTOCOL": protocol})
    with under_load(scene, 5, 0.05):
        first = scene.worker("a")
        first.says("taken_over", 8)
        second = scene.worker("b")
        second.says("taken_over", 4)
        moved = partitions_in(first, "revoked")
        assert moved == set(taken_over(second)), "what one gave up the other has"
        assert len(moved) == 4
        third = scene.worker("c")
        third.says("taken_over", 2)
        known = len(first.log), len(second.log)
        assert third.stop() == 0, third.log
        wait_for(
            "all partitions with the first two",
            lambda: set(taken_over(third)) <= {*taken_over(first, known[0]), *taken_over(second, known[1])},
        )
        assert second.stop() == 0, second.log
        scene.progressed(sum(each or 0 for each in scene.committed().values()) + 500, first)
    scene.drained(first)
    assert first.stop() == 0
    assert not any("lost at=" in worker.log for worker in scene.workers), "cooperatively, and in time"
    assert scene.faults() == []
    assert scene.positions() == scene.committed()


@pytest.mark.parametrize(("protocol", "killed"), [("classic", True), ("classic", False), ("consumer", False)])
def test_a_static_member_that_is_soon_back_finds_its_partitions_as_they_were(set_up: SetUp, protocol: str, killed: bool) -> None:
    # How soon is the member's to say in the classic protocol; in the other the broker says it, and holds a killed member's name till then.
    static = {"KAFKA__GROUP_PROTOCOL": protocol, "KAFKA__STATIC_MEMBER": "true", "KAFKA__SESSION_TIMEOUT_MS": "30000"}
    scene = set_up(partitions=4, changes=CUSTOMERS_ONLY, environment=static)
    with under_load(scene, 5, 0.05):
        stays, goes = scene.worker("stays"), scene.worker("goes")
        wait_for("both have two", lambda: (len(owned(stays)), len(owned(goes))) == (2, 2))
        had, known = owned(goes), len(stays.log)
        if killed:
            goes.kill()
        else:
            assert goes.stop() == 0
        back = scene.worker("goes")
        back.says("taken_over", 2)
        assert owned(back) == had
        assert partitions_in(stays, "assigned", known) == partitions_in(stays, "revoked", known) == set(), stays.log[known:]
    scene.drained(back)
    assert (stays.stop(), back.stop()) == (0, 0)
    assert scene.faults() == []


def owned(worker: Worker) -> set[int]:
    """Partitions a worker has, as far as its log tells."""
    found: set[int] = set()
    for line in worker.log.splitlines():
        for word in ("taken_over", "revoked", "lost"):
            if f"{word} at=" in line:
                partition = int(line.split("[")[1].split("]")[0])
                found = found | {partition} if word == "taken_over" else found - {partition}
    return found


def test_partitions_added_under_a_running_worker_stop_it_with_the_way_out(set_up: SetUp) -> None:
    scene = set_up(partitions=2, changes=CUSTOMERS_ONLY)
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(500))
    worker = scene.worker()
    scene.drained(worker)
    scene.add_partitions(3)
    assert worker.ends(20) == STATE, worker.log
    said = last_line(worker.log)
    assert f"{scene.bound.input.name} has 3 partitions, and its state was made of 2" in said
    assert "--on-conflict rebuild" in said

    again = scene.worker()
    assert again.ends() == STATE, "also when it is started anew"
    assert last_line(again.log).endswith(said.partition(" has ")[2])
    before = scene.outputs()

    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(500, 800))
    rebuilding = scene.worker("a", "--on-conflict", "rebuild")
    scene.drained(rebuilding)
    assert rebuilding.stop() == 0
    assert len(scene.outputs()) == len(before) + 300
    assert scene.positions() == scene.committed()
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(800, 900))
    after = scene.worker()
    scene.drained(after)
    assert after.stop() == 0, "once rebuilt it needs no permission"
    # A key that moved has offsets in two partitions, so what of it came first is not for offsets to say.
    faults = [str(fault) for fault in scene.judge.faults(scene.evidence())]
    assert [fault for fault in faults if not fault.startswith("out_of_order")] == []


def test_a_dead_workers_partitions_are_scored_again_soon_after_its_session(set_up: SetUp) -> None:
    scene = set_up(partitions=4, changes=CUSTOMERS_ONLY)
    with under_load(scene, 5, 0.05):
        lives, dies = scene.worker("lives"), scene.worker("dies")
        wait_for("both have two", lambda: (len(owned(lives)), len(owned(dies))) == (2, 2))
        moved, known = owned(dies), len(lives.log)
        dies.signal(signal.SIGKILL)
        died = time.monotonic()
        wait_for("its partitions taken over", lambda: moved <= set(taken_over(lives, known)))
        live_from = taken_over(lives, known)
        wait_for("new scores", lambda: all((scene.positions()[p] or 0) > live_from[p] for p in moved))
        seconds = time.monotonic() - died
    assert seconds < 10, "the session's 2 s, and the takeover"
    scene.drained(lives)
    assert lives.stop() == 0
    assert scene.faults() == []
