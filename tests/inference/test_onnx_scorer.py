"""What an ONNX file must be to be let in, and what it then answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inference.onnx_scorer import OnnxScorer
from schemas.errors import ModelError, ScoringFailed
from tests.inference.small_models import CARD, FLOAT, NAMES, features, model_of, row_sums, value

Save = Callable[[onnx.ModelProto], Path]


@pytest.mark.parametrize("out", [(None, 1), (None,), ("rows", 1)])
def test_a_row_s_score_is_the_model_s_answer_whatever_the_output_s_shape(save: Save, out: tuple[object, ...]) -> None:
    scorer = OnnxScorer(save(row_sums(out=out)))
    rows = features(100)
    scores = scorer.score(rows)
    assert scores.shape == (100,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, rows.sum(axis=1), rtol=1e-6, atol=1e-6)


def test_of_two_probabilities_the_second_is_the_score(save: Save) -> None:
    weights = [helper.make_tensor("w", FLOAT, [3, 2], [1, 10, 2, 20, 3, 30])]
    node = helper.make_node("MatMul", ["features", "w"], ["probabilities"])
    label = helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)
    outputs = [value("label", (None,), TensorProto.INT64), value("probabilities", (None, 2))]
    scorer = OnnxScorer(save(model_of([node, label], [value("features", (None, 3))], outputs, weights=weights)))
    assert scorer.score(np.array([[1, 1, 1], [0, 1, 0]], np.float32)).tolist() == [60, 20]


@pytest.mark.parametrize("shape", [(None, 1), (None,)])
def test_a_model_with_one_input_a_feature_gets_each_column_by_name(save: Save, shape: tuple[object, ...]) -> None:
    nodes = [helper.make_node("Sub", ["amount", "count"], ["a"]), helper.make_node("Mul", ["a", "mean"], ["score"])]
    scorer = OnnxScorer(save(model_of(nodes, [value(name, shape) for name in NAMES], [value("score", shape)])))
    assert scorer.score(np.array([[5, 2, 10], [1, 1, 7]], np.float32)).tolist() == [30, 0]


def test_an_empty_batch_has_no_scores(save: Save) -> None:
    assert OnnxScorer(save(row_sums())).score(np.empty((0, 3), np.float32)).shape == (0,)


def test_rows_of_another_width_or_type_are_refused_before_the_runtime_sees_them(save: Save) -> None:
    scorer = OnnxScorer(save(row_sums()))
    with pytest.raises(ScoringFailed, match=r"shape \(2, 4\) and type float32, wanted \(n, 3\)"):
        scorer.score(features(2, 4))
    with pytest.raises(ScoringFailed, match="float64"):
        scorer.score(features(2).astype(np.float64))


def test_a_run_that_fails_after_the_warm_up_is_a_failed_scoring(save: Save) -> None:
    wanted = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 9])
    fold = [helper.make_node("Reshape", ["features", "shape"], ["a"]), helper.make_node("ReduceSum", ["a"], ["score"], keepdims=1)]
    good_for_threes = model_of(fold, [value("features", (None, 3))], [value("score", (None, 1))], weights=[wanted])
    with pytest.raises(ModelError, match=r"can't score.*ONNX Runtime failed on 1 rows"):
        OnnxScorer(save(good_for_threes))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: the model can't be read: No such file"):
        OnnxScorer(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 50])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx: not a model ONNX Runtime"):
        OnnxScorer(path)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(row_sums().SerializeToString()[:-40])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        OnnxScorer(path)


REFUSED = {
    "no card": (row_sums(card=None), "carries no card.*write_card"),
    "double inputs": (
        row_sums(dtype=TensorProto.DOUBLE),
        r"'features' is tensor\(double\), wanted tensor\(float\); export with FloatTensorType",
    ),
    "more columns than the card": (row_sums(4), r"shape \['?None'?, 4\]|shape \[.*4\], wanted \[None, 3\] for the 3 features"),
    "a fixed batch": (
        model_of([helper.make_node("Identity", ["features"], ["score"])], [value("features", (1, 3))], [value("score", (1, 3))]),
        r"shape \[1, 3\], wanted a free first dimension",
    ),
    "inputs in another order": (
        model_of(
            [helper.make_node("Sum", ["count", "amount", "mean"], ["score"])],
            [value(name, (None, 1)) for name in ("count", "amount", "mean")],
            [value("score", (None, 1))],
        ),
        "inputs are count, amount, mean; its card's features are amount, count, mean",
    ),
    "inputs by other names": (
        model_of(
            [helper.make_node("Sum", ["a", "b"], ["score"])], [value("a", (None, 1)), value("b", (None, 1))], [value("score", (None, 1))]
        ),
        "inputs are a, b; its card's features are amount, count, mean",
    ),
    "wide inputs, one a feature": (
        model_of(
            [helper.make_node("Sum", list(NAMES), ["score"])], [value(name, (None, 2)) for name in NAMES], [value("score", (None, 2))]
        ),
        r"'amount' has shape .*2\], wanted \[None, 1\]",
    ),
    "three classes": (
        model_of([helper.make_node("Identity", ["features"], ["score"])], [value("features", (None, 3))], [value("score", (None, 3))]),
        r"'score' has shape .*3\], wanted one score a row",
    ),
    "only a label": (
        model_of(
            [helper.make_node("ArgMax", ["features"], ["label"], axis=1, keepdims=0)],
            [value("features", (None, 3))],
            [value("label", (None,), TensorProto.INT64)],
        ),
        r"0 of the model's outputs are tensor\(float\).*label: tensor\(int64\)",
    ),
    "two float outputs": (
        model_of(
            [helper.make_node("ReduceSum", ["features"], ["a"]), helper.make_node("ReduceMean", ["features"], ["b"])],
            [value("features", (None, 3))],
            [value("a", (None, 1)), value("b", (None, 1))],
        ),
        r"2 of the model's outputs are tensor\(float\), wanted exactly one",
    ),
    "one score for the whole batch": (
        model_of([helper.make_node("ReduceSum", ["features"], ["score"])], [value("features", (None, 3))], [value("score", (None, None))]),
        "can't score.*for 3 rows, wanted one score a row",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_breaks_the_contract_is_refused_at_load_with_what_was_wanted(save: Save, case: str) -> None:
    model, message = REFUSED[case]
    with pytest.raises(ModelError, match=message) as refused:
        OnnxScorer(save(model))
    assert "\n" not in str(refused.value)


def test_a_zipmap_is_refused_with_the_way_out(save: Save) -> None:
    node = helper.make_node("ZipMap", ["features"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    dictionary = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, None))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(dictionary))
    with pytest.raises(ModelError, match=r"dictionary a row \(zipmap\).*options=\{'zipmap': False\}"):
        OnnxScorer(save(model_of([node], [value("features", (None, 3))], [output])))


def test_an_unknown_provider_is_refused_with_those_there_are(save: Save) -> None:
    with pytest.raises(ModelError, match=r"'AbacusExecutionProvider'.*CPUExecutionProvider"):
        OnnxScorer(save(row_sums()), provider="AbacusExecutionProvider")


def test_the_card_comes_with_the_model(save: Save) -> None:
    card = replace(CARD, metrics={"auc": 0.9}, libraries={"onnx": "1"}, trained_at="2024-01-01T00:00:00Z")
    assert OnnxScorer(save(row_sums(card=card))).card == card
