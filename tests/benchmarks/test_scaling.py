"""The model on paper: it finds the costs that made its measurements, and its plans carry what they are asked to."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.read import Result
from benchmarks.scaling.held import held
from benchmarks.scaling.model import MOST_RECORDS, PROCESSES, Cost, Model, fit
from benchmarks.scaling.page import page
from benchmarks.scaling.plan import Assumed, breaks_first, plan
from schemas.errors import Refused

TRUE = Model({"worker": Cost(8.0, 900.0), "kafka": Cost(4.0, 1_500.0), "redis": Cost(1.0, 60.0)}, 0.008, 450.0, 300.0, 2_000.0, 3_600.0, 2)
GROWTH = {
    "cases": [
        {"keys": keys, "records_a_key": records, "redis_bytes_a_key": records * 33 + 20, "worker_bytes_a_key": records * 60}
        for keys in (10_000, 100_000)
        for records in (15, 60)
    ]
}


def measured(model: Model, rate: float = 10_000.0, large: float = 1_800.0) -> dict[str, Any]:
    """What a load would say on a machine that is as the model is."""
    small = model.batch(rate)
    drain: dict[str, Any] = {f"cpu_us_per_event {name}": model.costs[name].of(large) for name in PROCESSES}
    run = {
        "rate": rate, "records_per_batch": small, "cpu_us_per_event": {name: model.costs[name].of(small) for name in PROCESSES},
        "kafka_log_bytes_per_event": {"payments": 150.0, "payments.scored": 300.0}, "redis_bytes_per_event": 300.0, "cores_of_others": 0.0,
    }  # fmt: skip
    return {"drain": {**drain, "records_per_batch": large}, "run": run, "entities": 2, "machine": {"cpus": 2}, "commit": "abc"}


def results(**kinds: dict[str, Any]) -> dict[str, Result]:
    return {kind.replace("_", "-"): Result(Path(f"{kind}.json"), kind, "2026-01-02T0304", data) for kind, data in kinds.items()}


@given(st.floats(0.5, 50), st.floats(10, 5_000), st.floats(2_000, 30_000))
def test_the_costs_that_made_the_measurements_are_found(event_us: float, batch_us: float, rate: float) -> None:
    true = replace(TRUE, costs={**TRUE.costs, "worker": Cost(event_us, batch_us)})
    found = fit(results(load_constant=measured(true, rate), growth=GROWTH))
    assert found.costs["worker"].event_us == pytest.approx(event_us, rel=1e-6, abs=1e-6)
    assert found.costs["worker"].batch_us == pytest.approx(batch_us, rel=1e-6)
    assert found.cycle_seconds == pytest.approx(true.cycle_seconds)
    assert found.log_bytes == 450.0
    assert found.redis_key_bytes == 2_000


def test_noise_makes_no_cost_negative() -> None:
    noisy = measured(TRUE)
    noisy["run"]["cpu_us_per_event"]["redis"] = 0.1  # cheaper in small batches than in large ones
    cost = fit(results(load_constant=noisy, growth=GROWTH)).costs["redis"]
    assert cost.batch_us == 0.0
    assert cost.event_us > 0


@given(st.floats(1_000, 5e6), st.integers(1_000, 2_000_000_000))
def test_a_plan_carries_its_load_and_no_smaller_one_would(rate: float, keys: int) -> None:
    assumed = Assumed()
    found = plan(TRUE, rate, keys, assumed)

    def carried(workers: int) -> float:
        share = min(1.0, workers * assumed.worker_gb * 1e9 / (keys * TRUE.entities * TRUE.worker_key_bytes))
        return workers * TRUE.worker_rate(assumed.busy, (1 - share) * assumed.miss_us * TRUE.entities)

    assert carried(found.workers) >= rate
    assert found.workers == 1 or carried(found.workers - 1) < rate
    assert found.redis_shards * assumed.shard_gb >= found.redis_gb
    assert found.brokers * assumed.broker_cores >= found.broker_cores
    assert found.brokers * assumed.broker_mb_per_second >= found.log_mb_per_second


def test_a_worker_is_as_full_as_it_may_be() -> None:
    rate = TRUE.worker_rate(0.6)
    assert rate * TRUE.cpu_us("worker", rate) / 1e6 == pytest.approx(0.6, rel=1e-6)
    # Where small batches alone would fill the core, large ones have to do.
    dear = replace(TRUE, costs={**TRUE.costs, "worker": Cost(8.0, 9_000.0)})
    assert dear.worker_rate(0.6) == pytest.approx(0.6e6 / Cost(8.0, 9_000.0).of(MOST_RECORDS))


def test_a_prediction_beside_a_measurement_states_its_error() -> None:
    worker = {
        "drain": {"cpu_us_per_event": 10.0, "events_per_second": 60_000.0}, "steady": {"cpu_us_per_event": 20.0},
        "settings": {"rate": 10_000}, "machine": {"cpus": 2},
    }  # fmt: skip
    shown = {each.what: each for each in held(TRUE, results(worker=worker, growth=GROWTH))}
    assert shown["one worker drained: CPU"].predicted == pytest.approx(8.0 + 900 / MOST_RECORDS)
    assert shown["one worker drained: CPU"].error == pytest.approx((8.0 + 900 / MOST_RECORDS) / 10 - 1)
    assert shown["one worker at a steady rate: CPU"].predicted == pytest.approx(8.0 + 900 / 80)
    assert shown["100,000 keys with 60 records: memory of redis"].error == pytest.approx(0.0)
    assert not any(each.kind == "stages" for each in shown.values())  # nothing was measured there


def test_the_page_says_errors_before_it_says_what_larger_loads_take() -> None:
    shown = results(load_constant=measured(TRUE), growth=GROWTH)
    text = page(fit(shown), shown, Assumed())
    assert text.index("## How far it is off") < text.index("## What larger loads take")
    assert "| 100,000 keys with 60 records: memory of worker | 3,600 | 3,600 | bytes a key | +0% |" in text
    assert "1,000,000 events/s, 1,000,000,000 keys" in text
    assert "the workers' memory" in breaks_first(plan(TRUE, 1e6, 10**9, Assumed()), Assumed())
    assert "the workers' memory" not in breaks_first(plan(TRUE, 1e6, 10**6, Assumed()), Assumed())


def test_what_the_model_is_made_of_and_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="made of a load-constant result, and there is none"):
        fit(results(growth=GROWTH))
    even = measured(TRUE, large=TRUE.batch(10_000))
    with pytest.raises(Refused, match="wanted larger ones"):
        fit(results(load_constant=even, growth=GROWTH))
    (tmp_path / "growth-2026-01-02T0304.json").write_text(json.dumps(GROWTH))
    command = [sys.executable, "-m", "benchmarks.scaling", "--results", str(tmp_path), "--to", str(tmp_path / "page.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "page.md").exists()
