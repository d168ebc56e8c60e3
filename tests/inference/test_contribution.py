"""What moved a score: the compiled walk equals Shapley's definition, subset by subset; linear models and others add up."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, save
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.card_fraud.train import export
from inference.contribution import contributions, tree_contributions
from inference.forest import Forest
from inference.forest_scorer import ForestScorer
from inference.load_model import load_model
from inference.model_card import ModelCard, write_card
from inference.scorer import Rows, Scorer, Scores
from schemas.columns import Floats, Ints
from tests.inference.small_models import CARD, features, model_of, row_sums, value

K = 5


def by_definition(scorer: Scorer, row: Rows, background: Rows) -> Floats:
    """Shapley values from all subsets, each mixed row scored."""
    k = len(row)
    worth = {}
    for size in range(k + 1):
        for members in combinations(range(k), size):
            mixed = background.copy()
            mixed[:, list(members)] = row[list(members)]
            worth[frozenset(members)] = float(scorer.score(mixed).astype(np.float64).mean())
    values = np.zeros(k)
    for subset, without in worth.items():
        share = math.factorial(len(subset)) * math.factorial(k - len(subset) - 1) / math.factorial(k) if len(subset) < k else 0.0
        for feature in set(range(k)) - subset:
            values[feature] += share * (worth[subset | {feature}] - without)
    return values


class Alone:
    """A forest as a scorer."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest

    def score(self, rows: Rows) -> Scores:
        return self._forest.score(np.ascontiguousarray(rows))


def forest_of(seed: int, trees: int, depth: int) -> Forest:
    """Full trees whose splits lie on a few values, so that rows often go the same way and features come again on a path."""
    random = np.random.default_rng(seed)
    shape = (trees, (1 << depth) - 1)
    thresholds = random.integers(-2, 3, shape).astype(np.float32)
    thresholds[random.random(shape) < 0.1] = np.inf  # an early leaf
    leaves = random.normal(size=(trees, 1 << depth)).astype(np.float32)
    return Forest(random.integers(0, K, shape).astype(np.uint32), thresholds, leaves, np.full(trees, depth, np.int64))


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6))
def test_the_walk_down_trees_is_shapleys_definition(seed: int, trees: int, depth: int) -> None:
    forest = forest_of(seed, trees, depth)
    rows = np.random.default_rng(seed + 1).integers(-3, 4, (5, K)).astype(np.float32)
    values, baseline = tree_contributions(forest, rows[0], rows[1:])
    np.testing.assert_allclose(values, by_definition(Alone(forest), rows[0], rows[1:]), atol=2e-6)
    assert baseline == pytest.approx(float(forest.score(rows[1:]).mean()), abs=2e-6)
    assert baseline + values.sum() == pytest.approx(float(forest.score(rows[:1])[0]), abs=2e-6)


def written(folder: Path, model: object, width: int) -> Path:
    graph = export(model, width)
    names = tuple(f"f{place}" for place in range(width))
    write_card(graph, ModelCard("toy", "1", names, "0123456789abcdef", 0.5))
    save(graph, str(folder / "model.onnx"))
    return folder / "model.onnx"


def learned() -> tuple[Rows, Ints]:
    rows = features(400, K) * np.array([1, 10, 100, 1, 1], np.float32)
    return rows, (rows[:, 0] + rows[:, 1] / 10 > 0.7).astype(int)


def test_a_forest_behind_a_scaler_is_exact(tmp_path: Path) -> None:
    rows, target = learned()
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, max_depth=6, random_state=0)).fit(rows, target)
    scorer = load_model(written(tmp_path, model, K))
    assert isinstance(scorer, ForestScorer)
    found = contributions(scorer, rows[0], rows[1:40])
    assert (found.method, found.scale, found.background) == ("trees", "score", 39)
    np.testing.assert_allclose(found.values, by_definition(scorer, rows[0], rows[1:40]), atol=1e-6)


def test_preprocessing_that_mixes_features_is_sampled_and_still_adds_up(tmp_path: Path) -> None:
    rows, target = learned()
    model = make_pipeline(PCA(K), RandomForestClassifier(10, max_depth=4, random_state=0)).fit(rows, target)
    scorer = load_model(written(tmp_path, model, K))
    found = contributions(scorer, rows[0], rows[1:40])
    assert (found.method, found.scale) == ("sampled", "score")
    assert found.baseline + found.values.sum() == pytest.approx(float(scorer.score(rows[:1])[0]), abs=1e-5)
    truth = by_definition(scorer, rows[0], rows[1:40])
    assert (np.abs(found.values - truth) <= 5 * found.errors + 1e-4).all(), (found.values, truth, found.errors)
    assert found.errors.max() > 0


def test_a_linear_model_is_exact_in_its_log_odds(tmp_path: Path) -> None:
    rows, target = learned()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(rows, target)
    scorer = load_model(written(tmp_path, model, K))
    found = contributions(scorer, rows[0], rows[1:40])
    assert (found.method, found.scale) == ("linear", "log-odds")
    scaled = model[0].transform(rows[:40])
    wanted = model[1].coef_[0] * (scaled[0] - scaled[1:].mean(axis=0))
    np.testing.assert_allclose(found.values, wanted, atol=1e-4)


def test_a_sum_is_exact_in_its_score(tmp_path: Path) -> None:
    save(row_sums(), str(tmp_path / "model.onnx"))
    rows = features(20)
    found = contributions(load_model(tmp_path / "model.onnx"), rows[0], rows[1:])
    assert (found.method, found.scale) == ("linear", "score")
    np.testing.assert_allclose(found.values, rows[0] - rows[1:].mean(axis=0), atol=1e-5)


def test_a_product_is_neither(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceProd", ["features"], ["score"], axes=[1], keepdims=1)]
    save(model_of(nodes, [value("features", (None, 3))], [value("score", (None, 1))], CARD), str(tmp_path / "model.onnx"))
    scorer, rows = load_model(tmp_path / "model.onnx"), features(20)
    found = contributions(scorer, rows[0], rows[1:])
    assert found.method == "sampled"
    assert found.baseline + found.values.sum() == pytest.approx(float(scorer.score(rows[:1])[0]), abs=1e-5)


def test_without_usual_rows_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    save(row_sums(), str(tmp_path / "model.onnx"))
    with pytest.raises(ValueError, match="at least one usual row"):
        contributions(load_model(tmp_path / "model.onnx"), features(1)[0], features(0))
