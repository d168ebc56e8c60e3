"""Forests: the compiled loop gives ONNX Runtime's bits, and what it can't do stays with the runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inference import load_model as loading
from inference.forest import DEEPEST
from inference.forest_scorer import ForestScorer
from inference.load_model import load_model
from inference.model_card import write_card
from inference.onnx_forest import take_apart
from inference.onnx_scorer import Graph, OnnxScorer
from schemas.errors import ScoringFailed
from tests.inference.small_models import CARD, FLOAT, features, model_of, value

Save = Callable[[onnx.ModelProto], Path]
ROWS = features(3_000)
LABELS = ROWS[:, 0] + ROWS[:, 1] * ROWS[:, 2] > 1


def exported(model: Any) -> onnx.ModelProto:
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    types = [("features", FloatTensorType([None, 3]))]
    graph: onnx.ModelProto = to_onnx(model, initial_types=types, options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    write_card(graph, CARD)
    return graph


def forest(**options: Any) -> RandomForestClassifier:
    return RandomForestClassifier(20, max_depth=options.pop("max_depth", 6), random_state=0, **options).fit(ROWS, LABELS)


def tree(**attributes: Any) -> onnx.ModelProto:
    """One split: feature 1 at most 0.5 goes to the leaf worth 0.25, else to the one worth 0.75."""
    given = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [1, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [0.25, 0.75],
        "n_targets": 1,
        **attributes,
    }
    node = helper.make_node("TreeEnsembleRegressor", ["features"], ["score"], domain="ai.onnx.ml", **given)
    return model_of([node], [value("features", (None, 3))], [value("score", (None, 1))])


@pytest.mark.parametrize(
    "model",
    [
        forest(),
        forest(max_depth=1),
        forest(max_depth=DEEPEST),
        make_pipeline(StandardScaler(), RandomForestClassifier(10, max_depth=5, random_state=1)).fit(ROWS, LABELS),
        RandomForestRegressor(15, max_depth=7, random_state=2).fit(ROWS, ROWS[:, 0] * 100),
    ],
    ids=["forest", "stumps", "deep", "scaled", "regressor"],
)
def test_a_forest_is_compiled_and_gives_the_runtime_s_bits(save: Save, model: Any) -> None:
    path = save(exported(model))
    fast, whole = load_model(path), load_model(path, compile_forest=False)
    assert isinstance(fast, ForestScorer)
    assert isinstance(whole, OnnxScorer)
    assert fast.card == whole.card == CARD
    rows = features(5_000, seed=9) * 3
    np.testing.assert_array_equal(fast.score(rows), whole.score(rows))


def test_both_ways_agree_with_scikit_learn_within_a_millionth(save: Save) -> None:
    model = forest()
    path = save(exported(model))
    rows = features(2_000, seed=5)
    expected = model.predict_proba(rows)[:, 1]
    for scorer in (load_model(path), load_model(path, compile_forest=False)):
        assert np.abs(scorer.score(rows) - expected).max() < 1e-6


@pytest.mark.parametrize("compile_forest", [True, False])
def test_a_row_s_score_does_not_depend_on_the_cut_of_the_batch(save: Save, compile_forest: bool) -> None:
    scorer = load_model(save(exported(make_pipeline(StandardScaler(), forest()).fit(ROWS, LABELS))), compile_forest=compile_forest)
    rows = features(2_500, seed=4)
    whole = scorer.score(rows)
    random = np.random.default_rng(0)
    for parts in (2, 50, 700):
        cuts = np.sort(random.integers(0, len(rows), parts))
        pieces = [scorer.score(np.ascontiguousarray(piece)) for piece in np.split(rows, cuts)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(("mode", "at_the_split"), [("BRANCH_LEQ", 0.25), ("BRANCH_LT", 0.75)])
def test_a_value_on_the_split_goes_where_the_split_says(save: Save, mode: str, at_the_split: float) -> None:
    path = save(tree(nodes_modes=[mode, "LEAF", "LEAF"]))
    scorer = load_model(path)
    assert isinstance(scorer, ForestScorer)
    below, above = np.nextafter(np.float32(0.5), np.array([0, 1], np.float32))
    rows = np.array([[0, below, 0], [0, 0.5, 0], [0, above, 0]], np.float32)
    assert scorer.score(rows).tolist() == [0.25, at_the_split, 0.75]
    assert load_model(path, compile_forest=False).score(rows).tolist() == [0.25, at_the_split, 0.75]


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A random ensemble: nodes numbered in any order, early leaves, both kinds of split, thresholds that repeat."""
    table: dict[str, list[Any]] = {f"nodes_{key}": [] for key in ("treeids", "nodeids", "featureids", "modes", "values")}
    table |= {key: [] for key in ("nodes_truenodeids", "nodes_falsenodeids")}
    table |= {f"target_{key}": [] for key in ("treeids", "nodeids", "ids", "weights")}
    for number in range(draw(st.integers(1, 4))):
        children: list[tuple[int, int] | None] = []
        depths = [0]
        while len(children) < len(depths):  # breadth first
            depth = depths[len(children)]
            split = depth < 4 and len(depths) < 30 and draw(st.booleans())
            children.append((len(depths), len(depths) + 1) if split else None)
            depths += [depth + 1] * 2 * split
        names = draw(st.permutations(range(len(children))))
        for name, below in zip(names, children, strict=True):
            split = below is not None
            row = (
                3 * number,
                name,
                draw(st.integers(0, 2)) if split else 0,
                draw(st.sampled_from(["BRANCH_LEQ", "BRANCH_LT"])) if split else "LEAF",
                draw(st.sampled_from([-1.5, -0.0, 0.0, 0.1, 1.0, 3e38])) if split else 0.0,
                names[below[0]] if below else 0,
                names[below[1]] if below else 0,
            )
            for column, item in zip(table.values(), row, strict=False):
                column.append(item)
            if not split:
                leaf = (3 * number, name, 0, draw(st.floats(-10, 10, width=32)))
                for column, item in zip(list(table.values())[7:], leaf, strict=True):
                    column.append(item)
    return table


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 99))
def test_any_ensemble_of_the_kind_gives_the_runtime_s_bits(table: dict[str, Any], seed: int) -> None:
    model = tree(**table)
    parts = take_apart(model.SerializeToString())
    assert parts is not None
    rows = features(40, seed=seed)
    rows[::3] = np.random.default_rng(seed).choice(np.array([-1.5, 0, 0.1, 1, 3e38], np.float32), rows[::3].shape)
    expected = Graph(model.SerializeToString(), "here")(rows)[:, 0]
    np.testing.assert_array_equal(parts.forest.score(rows), expected)


LEFT_ALONE = {
    "a linear model": LogisticRegression().fit(ROWS, LABELS),
    "boosted trees, which end in a link function": GradientBoostingClassifier(n_estimators=5).fit(ROWS, LABELS),
    "trees too deep to unfold": forest(max_depth=DEEPEST + 2, min_samples_leaf=1),
    "scores of several classes summed apart": make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_the_loop_can_t_do_is_left_to_the_runtime(save: Save, case: str) -> None:
    model = LEFT_ALONE[case]
    scorer = load_model(save(exported(model)))
    assert isinstance(scorer, OnnxScorer)
    rows = features(200, seed=3)
    np.testing.assert_allclose(scorer.score(rows), model.predict_proba(rows)[:, 1], atol=2e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        {"nodes_modes": ["BRANCH_GTE", "LEAF", "LEAF"]},
        {"post_transform": "LOGISTIC"},
        {"aggregate_function": "AVERAGE"},
        {"base_values": [1.0]},
        {"nodes_missing_value_tracks_true": [1, 0, 0]},
        {"target_weights": [0.25], "target_nodeids": [1], "target_treeids": [0], "target_ids": [0]},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_a_tree_with_more_to_it_than_a_sum_of_leaves_is_left_to_the_runtime(save: Save, attributes: dict[str, Any]) -> None:
    assert take_apart(tree(**attributes).SerializeToString()) is None
    assert isinstance(load_model(save(tree(**attributes))), OnnxScorer)


def test_what_stands_after_the_trees_is_not_forgotten(save: Save) -> None:
    model = tree()
    model.graph.node[0].output[0] = "sum"
    model.graph.node.append(helper.make_node("Neg", ["sum"], ["score"]))
    scorer = load_model(save(model))
    assert scorer.score(np.zeros((1, 3), np.float32)).tolist() == [-0.25]


def test_a_loop_that_disagrees_with_the_runtime_is_not_used(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tree())

    def wrong(serialized: bytes) -> Any:
        parts = take_apart(serialized)
        assert parts is not None
        return replace(parts, forest=replace(parts.forest, thresholds=np.nextafter(parts.forest.thresholds, np.float32(9))))

    monkeypatch.setattr(loading, "take_apart", wrong)
    scorer = load_model(path)
    assert isinstance(scorer, OnnxScorer)
    assert scorer.score(np.array([[0, 0.5, 0]], np.float32)).tolist() == [0.25]


def test_a_forest_behind_other_columns_than_it_looks_at_is_fed_all_of_them(save: Save) -> None:
    """The preprocessing swaps the first two columns and drops the third."""
    weights = [helper.make_tensor("swap", FLOAT, [3, 2], [0, 1, 1, 0, 0, 0])]
    node = tree().graph.node[0]
    node.input[0] = "swapped"
    nodes = [helper.make_node("MatMul", ["features", "swap"], ["swapped"]), node]
    scorer = load_model(save(model_of(nodes, [value("features", (None, 3))], [value("score", (None, 1))], weights=weights)))
    assert isinstance(scorer, ForestScorer)
    rows: NDArray[np.float32] = np.array([[9, 0, 0], [0, 9, 9]], np.float32)
    assert scorer.score(rows).tolist() == [0.75, 0.25]


def test_rows_of_another_width_are_refused(save: Save) -> None:
    scorer = load_model(save(tree()))
    assert isinstance(scorer, ForestScorer)
    with pytest.raises(ScoringFailed, match=r"shape \(2, 2\).*wanted \(n, 3\)"):
        scorer.score(features(2, 2))
    assert scorer.score(features(0)).shape == (0,)
