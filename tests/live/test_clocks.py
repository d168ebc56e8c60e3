"""Clocks that jump, of events and of workers, a year ahead and back: answers stay what the logs say, and nothing stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streams.faults.nursery import Nursery
from tests.live.scene import Worker, at_ms, wait_for
from tests.live.stage_scene import StageScene
from tests.live.test_stages import frauds, payments
from tests.live.wall_clock import WallClock, shifted_workers
from tests.oracles.payments import DAY_MS, HOUR_MS, Record, to_ms
from tests.services import Broker

YEAR_MS = 365 * DAY_MS
HOUR, YEAR = 3_600, 365 * 86_400  # seconds
SetUp = Callable[..., StageScene]
GUARDED = {
    "    FixedPoint,\n": "    FixedPoint,\n    Guard,\n",
    "lateness_ms=hours(1),\n)\n\n# A": "lateness_ms=hours(1),\n    guard=Guard(oldest_ms=days(2), ahead_ms=hours(1)),\n)\n\n# A",
    "lateness_ms=hours(1),\n)\n\nlabels": "lateness_ms=hours(1),\n    guard=Guard(oldest_ms=days(2), ahead_ms=hours(1)),\n)\n\nlabels",
}


@pytest.fixture
def stage_scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[SetUp]:
    made: list[StageScene] = []

    def make(**options: Any) -> StageScene:
        made.append(StageScene(tmp_path / "scene", broker, redis_url, **options))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def shifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Nursery, WallClock]]:
    with shifted_workers(tmp_path, monkeypatch) as made:
        yield made


def in_time(count: int, first: int = 0, later_ms: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Payments ten seconds apart, none of them late."""
    steady = [payment for n, payment in enumerate(payments(count, first), first) if n % 50 not in (3, 7)]
    return [{**each, "event_time": at_ms(to_ms(each["event_time"]) + later_ms), **changes} for each in steady]


def send_in_order(scene: StageScene, worker: Worker, sent: list[dict[str, Any]]) -> None:
    """So few at a time that none is too late at a terminal because its partition was read after another."""
    for first in range(0, len(sent), 200):
        scene.send_payments(sent[first : first + 200])
        scene.drained_stages(worker)


def timings(scene: StageScene) -> dict[str, str]:
    """By payment."""
    said = [scene.judge_of_stages.payments.read(record) for record in scene.outputs()]
    return {each["event_id"]: each["timing"] for each in said}


def test_event_times_that_jump_a_year_ahead_and_back_are_felt_by_their_own_keys_alone(stage_scene: SetUp) -> None:
    scene = stage_scene()
    worker = scene.worker()
    before = in_time(500)
    ahead = in_time(100, 500, YEAR_MS, customer_id="C0", terminal_id="T0")
    behind = in_time(100, 600, -YEAR_MS, customer_id="C1", terminal_id="T1")
    after = in_time(400, 700)
    for some in (before, [*ahead, *behind], after):
        send_in_order(scene, worker, some)
    scene.send_labels([*frauds(before), *frauds(ahead), *frauds(after)])
    scene.drained_stages(worker)
    scene.send_payments(in_time(100, 1_100, YEAR_MS + 3 * HOUR_MS, customer_id="C0", terminal_id="T0"))  # a year later it is their time
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log

    assert scene.faults_of_stages() == []
    found = timings(scene)
    assert {found[each["payment_id"]] for each in ahead} == {"on_time"}
    assert {found[each["payment_id"]] for each in behind} == {"too_late"}
    stuck = {each["payment_id"] for each in after if each["customer_id"] == "C0" or each["terminal_id"] == "T0"}
    assert {each["payment_id"] for each in after if found[each["payment_id"]] == "too_late"} == stuck
    assert {found[f"P{n:06}"] for n in range(1_110, 1_150)} == {"on_time"}


def test_behind_a_guard_event_times_that_are_not_believed_are_felt_by_nobody(stage_scene: SetUp) -> None:
    scene = stage_scene(changes=GUARDED)
    worker = scene.worker()
    now_ms = time.time_ns() // 1_000_000
    shift_ms = now_ms - 5 * HOUR_MS - to_ms(payments(1)[0]["event_time"])
    ahead = in_time(100, 500, shift_ms + YEAR_MS)
    behind = in_time(100, 600, shift_ms - YEAR_MS)
    good = [in_time(500, 0, shift_ms), in_time(400, 700, shift_ms)]
    for some in (good[0], [*ahead, *behind], good[1]):
        send_in_order(scene, worker, some)
    scene.send_labels([*frauds(good[0]), *frauds(good[1])])
    scene.drained_stages(worker)
    scene.send_payments(in_time(100, 1_500, shift_ms))
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log

    found = timings(scene)
    jumped = {each["payment_id"] for each in (*ahead, *behind)}
    assert {each for each, timing in found.items() if timing == "too_late"} == jumped
    # As if they had never been: what knows nothing of guards finds everything right in what is left without them.
    judge, evidence = scene.judge_of_stages, scene.evidence_of_stages()
    gone = {(r.partition, r.offset) for r in evidence.inputs if judge.payments.payment(r)["payment_id"] in jumped}  # type: ignore[index]
    assert len(gone) == len(jumped)

    def kept(records: list[Record], read: Callable[[Record], Any]) -> list[Record]:
        said = [read(record) for record in records]
        is_gone = [each.get("kind") != "label" and (each["source_partition"], each["source_offset"]) in gone for each in said]
        return [record for record, each in zip(records, is_gone, strict=True) if not each]

    left = replace(
        evidence,
        inputs=[r for r in evidence.inputs if (r.partition, r.offset) not in gone],
        hops=kept(list(evidence.hops), judge._hop),
        outputs=kept(list(evidence.outputs), judge.payments.read),
    )
    assert [str(fault) for fault in judge.faults(left)] == []


def took(worker: Worker, seconds: int) -> bool:
    """Whether it believes that its scores took about so long altogether."""
    return abs(worker.metric("millrace_event_to_score_seconds_sum") - seconds) < 300 * HOUR / 2


def test_a_wall_clock_that_is_set_back_and_ahead_holds_nothing_up(shifted: tuple[Nursery, WallClock], stage_scene: SetUp) -> None:
    workers, clock = shifted
    scene = stage_scene(born_of=workers)
    worker = scene.worker(WORKER__BATCH_RECORDS="50")
    sent, seconds = payments(1_500), 0
    for first, ahead in ((0, 0), (300, -HOUR), (600, YEAR), (900, -YEAR), (1_200, 0)):
        clock.set(ahead)
        scene.send_payments(sent[first : first + 300])
        scene.drained_stages(worker)
        seconds += 300 * ahead
        wait_for("its idea of the time", partial(took, worker, seconds))
        scene.send_labels(frauds(sent[first : first + 300]))
        scene.drained_stages(worker)
    wait_for("ready", worker.ready)
    assert worker.page("/livez")[0] == 200
    assert "starting_over" not in worker.log
    assert worker.stop() == 0, worker.log
    assert scene.faults_of_stages() == []
    assert scene.judge_of_stages.outcomes(scene.evidence_of_stages()) == {"matched": 300}
