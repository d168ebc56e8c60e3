"""What a run says about itself: when its numbers count, and what held it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.load.generator import Sent
from benchmarks.load.reader import Arrivals
from benchmarks.load.session import verdict_of
from benchmarks.load.shape import Shape
from benchmarks.load.verdict import blame, generator_facts, troubles
from benchmarks.load.watch import DiskFull, Look, Watch, taken


def sent(late_ms: list[float], weights: list[int] | None = None, given_up: bool = False) -> Sent:
    counts = np.array(weights or [1] * len(late_ms), np.int64)
    return Sent(int(counts.sum()), np.array(late_ms), counts, late_ms[-1], given_up)


@pytest.mark.parametrize(
    ("late_ms", "p99_ms", "offered", "bottleneck"),
    [
        ([1.0] * 100, 2.0, 1.0, False),  # below 5 ms it is a tick and what the system's clock does to it
        ([20.0] * 100, 100.0, 1.0, False),  # below a quarter of what was measured
        ([30.0] * 100, 100.0, 1.0, True),
        ([1.0] * 98 + [50.0] * 2, 100.0, 1.0, True),  # by its p99
        ([1.0] * 100, 20.0, 0.5, False),  # told to stop, and not behind
        ([1.0] * 99 + [3_000.0], 20_000.0, 0.5, True),  # sent half of it, and was three seconds late
    ],
)
def test_a_late_generator_makes_a_run_invalid(late_ms: list[float], p99_ms: float, offered: float, bottleneck: bool) -> None:
    assert generator_facts([sent(late_ms)], offered, p99_ms)["was_the_bottleneck"] is bottleneck


def test_lateness_is_weighed_by_events_over_all_generators() -> None:
    facts = generator_facts([sent([1.0, 40.0], [10, 1_000]), sent([2.0], [10])], 1.0, 50.0)
    assert facts["late_p50_ms"] == 40.0
    assert facts["processes"] == 2
    assert generator_facts([sent([1.0], given_up=True)], 1.0, 50.0)["was_the_bottleneck"] is True


def run_of(**changes: Any) -> dict[str, Any]:
    generator = {"was_the_bottleneck": False, "late_p99_ms": 1.0}
    latency = {"p99_ms": 20.0}
    return {
        "events": 100, "offered_share": 1.0, "unanswered": 0, "warm_up_seconds": 0.5, "generator": generator, "latency": latency, **changes
    }  # fmt: skip


def test_every_trouble_is_named() -> None:
    shape = Shape("constant", 10, 10)
    assert troubles(run_of(), shape) == []
    late = run_of(generator={"was_the_bottleneck": True, "late_p99_ms": 77.0})
    assert "the generators were the bottleneck: they sent 100 of 100 events, 77.0 ms late at their p99" in troubles(late, shape)[0]
    assert "ended after 50%" in troubles(run_of(offered_share=0.5), shape)[0]
    assert "7 events had no answer" in troubles(run_of(unanswered=7), shape)[0]
    assert "did not become steady" in troubles(run_of(warm_up_seconds=None), shape)[0]
    assert troubles(run_of(warm_up_seconds=None), Shape("wave", 10, 10)) == []
    taken_up = 0.3 * (psutil.cpu_count() or 1)
    assert "the machine was not its own" in troubles(run_of(cores={"kafka": 0.1}, cores_of_others=taken_up), shape)[0]
    assert troubles(run_of(cores={"worker": 0.1}, cores_of_others=taken_up), shape) == []  # they may be the services


def test_a_probe_holds_only_with_every_answer_below_the_limit() -> None:
    late = {"was_the_bottleneck": True}
    assert verdict_of(run_of(), 20.0) == "held"
    assert verdict_of(run_of(), 19.9) == "broke"
    assert verdict_of(run_of(unanswered=1), 30.0) == "broke"
    assert verdict_of(run_of(generator=late), 19.9) == "not made"
    assert verdict_of(run_of(generator=late), 20.0) == "held"  # late generators make latencies longer, never shorter


def test_the_bottleneck_is_named() -> None:
    assert blame({"cores": {"worker": 0.3, "kafka": 0.2}, "cores_of_others": 0.1}, 2).startswith("no core is full: worker 0.30, kafka 0.20")
    assert blame({"cores": {"worker": 0.95, "kafka": 0.2}, "cores_of_others": 0.1}, 2).startswith("worker has a core to itself")
    full = blame({"cores": {"worker": 0.95, "kafka": 0.2}, "cores_of_others": 0.8}, 2)
    assert full.startswith("all 2 cores of the machine are busy")
    assert full.endswith("others on this machine took 0.80 cores")


def test_cost_is_taken_between_the_looks_nearest_to_the_window() -> None:
    looks = [Look(at, {"worker": at * 0.5}, {"worker": int(at) * 1_000_000}, at * 0.8, 0) for at in (100.0, 101.0, 102.0, 103.0)]
    cost = taken(looks, 101.1, 102.9, 1_800)
    assert cost["cores"] == {"worker": 0.5}
    assert cost["cores_of_others"] == pytest.approx(0.3)
    assert cost["cpu_us_per_event"]["worker"] == pytest.approx(500.0)  # half a core at 1,000/s
    assert cost["rss_mb"] == {"worker": 103.0}


def test_a_disk_that_fills_ends_the_run_with_what_is_left(tmp_path: Path) -> None:
    room = iter([10**12, 400_000_000])
    watch = Watch({"me": [psutil.Process()]}, lambda: 0, tmp_path, free_bytes=lambda _: next(room, 400_000_000), period_seconds=0.01)
    with watch:
        watch._thread.join(0.5)
        with pytest.raises(DiskFull, match=rf"{tmp_path} has 400 MB left, wanted 500"):
            watch.check()
    assert len(watch.looks) >= 3


def test_arrivals_keep_the_first_answer_and_count_the_others() -> None:
    arrivals = Arrivals(100, 3)
    arrivals.note(np.array([100, 102]), 5.0)
    arrivals.note(np.array([102, 99, -1, 101, 101]), 6.0)
    assert arrivals.at.tolist() == [5.0, 6.0, 5.0]
    assert (arrivals.answered, arrivals.repeated, arrivals.foreign) == (3, 2, 1)
