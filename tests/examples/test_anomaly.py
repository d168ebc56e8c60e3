"""The anomaly example: its features and scores by their definitions, and the benchmark's scoring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest

from examples.anomaly.__main__ import PIPELINE, judged
from examples.anomaly.benchmark import PROFILES, Profile, evaluate, judge
from examples.anomaly.model import deviations
from examples.anomaly.pipeline import LARGEST
from examples.anomaly.readings import Series, made_up
from inference.model_card import ModelCard, write_card
from inference.onnx_scorer import OnnxScorer
from schemas.columns import Floats
from streams.definition.load import load_bound

DAY_MS = 86_400_000


def by_definition(series: Series) -> Floats:
    """z / (1 + z) of each reading, over the readings before it in the log that are up to thirty days older."""
    values, scores = series.units(), np.zeros(len(series.times))
    for row, time in enumerate(series.times):
        before = values[:row][(series.times[:row] > time - 30 * DAY_MS) & (series.times[:row] <= time)]
        if len(before) >= 2:
            z = abs(values[row] - before.mean()) / max(before.std(ddof=1), 0.001)
            scores[row] = z / (1 + z)
    return scores


def test_scores_of_made_up_series_are_those_of_the_definition_and_late_readings_are_told(tmp_path: Path) -> None:
    bound, series = load_bound(PIPELINE), made_up(2, 500)
    graph = deviations()
    write_card(graph, ModelCard("anomaly", "1", bound.features.names, bound.features.fingerprint, 0.5))
    onnx.save(graph, str(tmp_path / "anomaly.onnx"))
    scorer = OnnxScorer(tmp_path / "anomaly.onnx")
    for one in series:
        table = pl.DataFrame(
            {
                "reading_id": [str(row) for row in range(len(one.times))],
                "event_time": pl.Series(one.times).cast(pl.Datetime("ms", "UTC")),
                "series": one.name,
                "value": one.units(),
            }
        )
        found = bound.transform(table)
        rows = np.column_stack([found[name].to_numpy() for name in bound.features.names]).astype(np.float32)
        assert np.abs(scorer.score(rows) - by_definition(one)).max() < 1e-5
        assert found["timing"].to_list()[199:201] == ["on_time", "late"]  # where the clock steps back


def test_what_stands_out_is_found() -> None:
    series = made_up()
    results = judged(series, [by_definition(one) for one in series])
    assert all(result.score > 80 for result in results.values())


def test_a_meter_has_five_digits_by_its_warm_up_and_stops_at_its_end() -> None:
    values = np.full(1_000, 0.5)
    values[900:902] = 0.123456789, 1e12
    units = Series("one", np.arange(1_000), values, ()).units()
    assert units[[0, 900, 901]].tolist() == [50_000, 12_346, LARGEST]
    assert Series("still", np.arange(10), np.zeros(10), ()).units().tolist() == [0] * 10


TIMES = np.arange(100)
JUDGED = [judge(TIMES, [(40, 59)]), judge(TIMES, [])]


@pytest.mark.parametrize("profile", PROFILES.values())
def test_the_perfect_detector_has_100_and_one_that_never_speaks_0(profile: Profile) -> None:
    perfect, silent = np.zeros(100), np.zeros(100)
    perfect[40] = 1.0
    assert evaluate(JUDGED, [perfect, silent], profile).score == pytest.approx(100.0)
    assert evaluate(JUDGED, [silent, silent], profile, threshold=0.5).score == 0.0


def test_a_false_alarm_costs_less_soon_after_a_window_and_nothing_in_the_warm_up() -> None:
    # rows      0 .. 14       15 .. 39   40 .. 59   60 ..
    #           warming up    far        window     near its end, then farther
    standard = PROFILES["standard"]

    def alarm_at(*rows: int) -> float:
        scores = np.zeros(100)
        scores[[40, *rows]] = 1.0
        return evaluate(JUDGED, [scores, np.zeros(100)], standard, threshold=0.5).score

    assert alarm_at(14) == 100.0
    assert alarm_at(20) == pytest.approx(100 - 100 * 0.11 / 2)
    assert alarm_at(20) < alarm_at(70) < alarm_at(61) < alarm_at(45) == 100.0


def test_a_window_is_worth_its_earliest_detection_and_the_best_threshold_is_found() -> None:
    scores = np.zeros(100)
    scores[[50, 42, 20]] = 0.9, 0.8, 0.7
    standard = PROFILES["standard"]
    early, late = (evaluate(JUDGED, [scores, np.zeros(100)], standard, threshold=value) for value in (0.8, 0.9))
    assert 100 > early.score > late.score > 50
    assert evaluate(JUDGED, [scores, np.zeros(100)], standard) == early
