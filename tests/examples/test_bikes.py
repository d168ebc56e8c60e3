"""The bikes example: running means by their definition, and a learner that learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import polars as pl

from examples.bikes.__main__ import BEFORE, LATER, PIPELINE, learned
from examples.bikes.learner import OnlineRegression, linear, mean_error, weights
from examples.bikes.pipeline import LATE
from examples.bikes.status import WEATHER, made_up
from inference.model_card import ModelCard, write_card
from inference.onnx_scorer import OnnxScorer
from schemas.columns import Floats
from streams.definition.load import load_bound


def features(table: pl.DataFrame) -> Floats:
    """What the pipeline makes of them."""
    events = table.with_columns(
        pl.int_range(pl.len()).cast(pl.String).alias("status_id"),
        pl.col("time_ms").cast(pl.Datetime("ms", "UTC")).alias("event_time"),
        pl.col("moment").dt.hour().cast(pl.Int32).alias("hour"),
    )
    bound = load_bound(PIPELINE)
    found = bound.transform(events)
    assert bound.features.names[:BEFORE] == WEATHER
    return np.column_stack([found[name].to_numpy().astype(np.float64) for name in bound.features.names])


def test_the_running_means_of_made_up_counts_are_those_of_the_definition() -> None:
    table = made_up(800)
    rows, time, bikes = features(table), table["time_ms"].to_numpy(), table["bikes"].to_numpy()
    place = table.select(pl.struct("station", pl.col("moment").dt.hour().alias("hour"))).to_series().to_list()
    for row in range(0, len(table), 7):
        same = [before for before in range(row) if place[before] == place[row]]
        known = [before for before in same if time[before] <= time[row] - LATE]
        assert rows[row, BEFORE] == (bikes[same].sum() / len(same) if same else 0)
        assert rows[row, LATER] == (bikes[known].sum() / len(known) if known else 0)


def test_a_learner_is_better_with_the_means_than_without() -> None:
    table = made_up()
    errors = learned(table, features(table))
    assert errors["weather, mean"] < 0.6 * errors["weather"]
    assert errors["weather, mean half an hour late"] < 0.6 * errors["weather"]


def test_a_learner_comes_close_to_a_line_and_hears_late_answers_late() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(4_000, 2))
    answers, times = rows @ np.array([2.0, -1.0]) + 5, np.arange(4_000) * 1_000
    learner = OnlineRegression(2, 0.01)
    last = 0.0
    for row, answer in zip(rows, answers, strict=True):
        last = abs(learner.predict(row) - answer)
        learner.learn(row, answer)
    assert last < 0.05
    assert mean_error(rows, rows, answers, times, 0.01) < mean_error(rows, rows, answers, times, 0.01, delay_ms=500_000)


def test_fitted_weights_and_their_graph_agree(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(50, 3))
    found = weights(rows, rows @ np.array([1.0, 2.0, 3.0]) + 4)
    assert np.allclose(found, [1, 2, 3, 4])
    graph = linear(found)
    write_card(graph, ModelCard("bikes", "1", ("a", "b", "c"), "x", 0.5))
    onnx.save(graph, str(tmp_path / "bikes.onnx"))
    inputs = rows.astype(np.float32)
    assert np.abs(OnnxScorer(tmp_path / "bikes.onnx").score(inputs) - (inputs @ [1.0, 2.0, 3.0] + 4)).max() < 1e-5
