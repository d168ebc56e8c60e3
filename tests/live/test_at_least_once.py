"""`at_least_once`: nothing lost, the state exact, and at most repeats after a crash."""

from __future__ import annotations

from tests.live.conftest import SetUp
from tests.live.scene import payment

DELIVERY = {"WORKER__DELIVERY": "at_least_once"}


def test_without_a_crash_each_payment_is_scored_once_by_features_that_are_right(set_up: SetUp) -> None:
    scene = set_up(environment=DELIVERY)
    scene.send_payments(payment(number) for number in range(2_000))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    assert scene.faults() == []


def test_a_crash_between_outputs_and_offsets_repeats_scores_and_loses_none(set_up: SetUp) -> None:
    scene = set_up(environment=DELIVERY)
    scene.send_payments(payment(number) for number in range(2_000))
    killed = scene.worker(FAULT="before_commit:3")
    assert killed.ends() == -9
    again = scene.worker()
    scene.drained(again)
    assert again.stop() == 0
    assert {fault.kind for fault in scene.judge.faults(scene.evidence())} <= {"duplicated"}
    offsets = [record.offset for record in scene.read(scene.bound.input.name)]
    assert len({output.value for output in scene.outputs()}) == len(offsets)
