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


def test_each_crash_repeats_at_most_one_batch_of_scores_bit_for_bit_and_loses_none(set_up: SetUp) -> None:
    records, batch = 1_500, 100
    scene = set_up(environment={**DELIVERY, "WORKER__BATCH_RECORDS": str(batch)})
    scene.send_payments(payment(number) for number in range(records))
    crashes = ("offsets_sent:3", "before_commit:4")
    for fault in crashes:
        assert scene.worker(FAULT=fault).ends() == -9
    last = scene.worker()
    scene.drained(last)
    assert last.stop() == 0
    # A repeated batch stands behind what came after it the first time: its scores are out of order as well as twice.
    assert "duplicated" in (kinds := {fault.kind for fault in scene.judge.faults(scene.evidence())}) and kinds <= {
        "duplicated",
        "out_of_order",
    }
    outputs = scene.outputs()
    # At the first point the batch's outputs are taken and its offsets are not; at the second they are on their way.
    assert batch <= len(outputs) - records <= batch * len(crashes)
    assert len({output.value for output in outputs}) == records, "a repeat is the same score of the same features, to the bit"
    assert scene.positions() == scene.committed()
