"""A labels' topic in which nothing comes, ever or for days: events wait for nothing, and features of labels age as they should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.scene import wait_for
from tests.live.stage_scene import StageScene
from tests.live.test_clocks import send_in_order
from tests.live.test_stages import frauds, payments
from tests.services import Broker

RATE = "terminal_label_rate_2d_delay_2h"


@pytest.fixture
def scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    made = StageScene(tmp_path / "scene", broker, redis_url)
    yield made
    made.close()


def rates(scene: StageScene) -> dict[str, float]:
    """By payment, how often its terminal's payments had turned out to be frauds."""
    said = [scene.judge_of_stages.payments.read(record) for record in scene.outputs()]
    return {each["event_id"]: each["features"][RATE] for each in said}


def test_where_no_label_ever_comes_events_go_through_live_and_in_a_backlog_and_every_stage_is_well(scene: StageScene) -> None:
    sent = payments(600)
    worker = scene.worker()
    scene.send_payments(sent[:300])
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    scene.send_payments(sent[300:])
    again = scene.worker()
    scene.drained_stages(again)
    wait_for("ready", again.ready)
    assert again.page("/livez")[0] == 200
    assert set(again.stages()) == {"by-customer", "by-terminal", "labels"}
    assert again.stop() == 0, again.log
    assert scene.faults_of_stages() == []
    assert set(rates(scene).values()) == {0.0}


def test_labels_that_were_told_go_on_counting_through_a_silence_of_days_and_the_next_are_matched(scene: StageScene) -> None:
    #   day        0          1          4                    11
    #   payments   early      next       after                late      later
    #   labels          early                                      late
    #   48 hours             [early.....]
    #                                                         [...]     [late]
    worker = scene.worker()
    early, late = payments(800), payments(200, first=1_200, days_later=11)
    send_in_order(scene, worker, early)
    scene.send_labels(frauds(early))
    scene.drained_stages(worker)
    send_in_order(scene, worker, payments(200, first=800, days_later=1))
    assert worker.stop() == 0, worker.log
    second = scene.worker()
    send_in_order(scene, second, [*payments(200, first=1_000, days_later=4), *late])
    scene.send_labels([*frauds(late), *frauds(early)])  # whose payments are too old for every window
    scene.drained_stages(second)
    send_in_order(scene, second, payments(200, first=2_200, days_later=11))
    assert second.stop() == 0, second.log

    assert scene.faults_of_stages() == []
    assert scene.judge_of_stages.outcomes(scene.evidence_of_stages()) == {"matched": 160 + 40, "unmatched": 160}
    found = rates(scene)
    of = [[found[f"P{n:06}"] for n in range(first, first + 200)] for first in (800, 1_000, 1_200, 2_200)]
    assert [sum(rate > 0 for rate in some) > 100 for some in of] == [True, False, False, True]
    assert set(of[1]) == {0.0}, "four days later they are out of every window"


def test_labels_wait_for_no_partition_of_the_events_in_which_nothing_ever_came(scene: StageScene) -> None:
    sent = [{**payment, "customer_id": "C0"} for payment in payments(400)]  # in one partition of four
    scene.send_payments(sent)
    scene.send_labels(frauds(sent))
    routed = scene.worker("labels", "--stages", "labels")
    worker = scene.worker("events", "--stages", "by-customer,by-terminal")
    scene.drained_stages(worker, routed)
    assert sorted(end > 0 for end in scene.ends().values()) == [False, False, False, True]
    assert scene.faults_of_stages() == []
    assert scene.judge_of_stages.outcomes(scene.evidence_of_stages()) == {"matched": 80}
    assert worker.stop() == routed.stop() == 0
