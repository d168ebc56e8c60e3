"""A model is held to the scores its library gave: what keeps to them loads, what doesn't is told by the row, flips of float32 among it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.card_fraud.train import export, fit
from inference.golden import Golden, golden_path, read_golden, write_golden
from inference.load_model import load_model, parity_words
from inference.model_card import ANY_FEATURES, ModelCard, bind, write_card
from inference.scorer import ConstantScorer, Rows
from schemas.columns import Floats
from schemas.errors import ModelError
from tests.inference.small_models import CARD, features, row_sums


def saved(folder: Path, card: ModelCard = CARD, **changes: Any) -> Path:
    """A model that adds up three features, with its golden set, of which some entries may be others."""
    path = folder / "toy.onnx"
    onnx.save(row_sums(card=card), str(path))
    rows = features(20)
    scores = rows.astype(np.float64).sum(axis=1)
    whole = Golden(CARD.name, CARD.version, CARD.feature_fingerprint, CARD.feature_names, rows, scores, 1e-6, {"numpy": "2"})
    write_golden(path, replace(whole, **changes))
    return path


def test_a_model_that_scores_as_it_should_says_how_closely(tmp_path: Path) -> None:
    scorer = load_model(saved(tmp_path))
    assert scorer.parity is not None
    assert scorer.parity.rows == 20
    assert 0 < scorer.parity.largest_difference < 1e-6
    assert parity_words(scorer, tmp_path).startswith("model scores as its golden set says name=toy version=1 rows=20 largest_difference=")


def test_a_model_without_a_golden_set_loads_with_a_note(tmp_path: Path) -> None:
    path = saved(tmp_path)
    golden_path(path).unlink()
    scorer = load_model(path)
    assert scorer.parity is None
    assert parity_words(scorer, path) == f"model without a golden set name=toy version=1 wanted={tmp_path}/toy.golden.json"


def test_scores_that_lie_too_far_are_told_with_the_farthest_rows_first(tmp_path: Path) -> None:
    rows = features(20)
    scores = rows.astype(np.float64).sum(axis=1)
    scores[[3, 9]] += (0.001, -0.5)
    with pytest.raises(ModelError) as refused:
        load_model(saved(tmp_path, scores=scores))
    message = str(refused.value)
    assert "2 of 20 golden rows are not scored as numpy 2 scored them, within 1e-06: row 9 scores" in message
    assert message.index("row 9 ") < message.index("row 3 ")
    assert load_model(saved(tmp_path, scores=scores, tolerance=0.6)).parity is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "2"}, "is of model toy 2 with features .*wanted the two files of one export"),
        ({"model": "other"}, "is of model other 1"),
        ({"feature_fingerprint": "f" * 16}, "with features ffffffffffffffff, and toy.onnx is toy 1"),
        ({"feature_names": ("count", "amount", "mean")}, "wanted the two files of one export"),
    ],
)
def test_another_models_golden_set_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(saved(tmp_path, **changes))


def test_a_golden_set_that_the_card_does_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the model's card wants 00000000"):
        load_model(saved(tmp_path, replace(CARD, golden_sha256="0" * 64)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said["scores"].__setitem__(0, said["scores"][0] + 1e-9), "is not what was written: its SHA-256"),
        (lambda said: said.update(tolerance=1.0), "is not what was written"),
        (lambda said: said.update(format=2), "format 2, wanted 1"),
        (lambda said: said.pop("rows"), "KeyError: 'rows'"),
        (lambda said: said["scores"].pop(), r"rows of shape \(20, 3\) and 19 scores for 3 features"),
        (lambda said: said.update(rows=[], scores=[]), "no golden set"),
        (lambda said: said["rows"][0].__setitem__(0, float("nan")), "a number is not finite"),
        (lambda said: said["rows"][0].pop(), "no golden set"),
    ],
)
def test_a_file_that_was_changed_or_is_broken_is_refused(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    path = saved(tmp_path)
    said = json.loads(golden_path(path).read_text())
    change(said)
    golden_path(path).write_text(json.dumps(said))
    with pytest.raises(ModelError, match=words):
        load_model(path)
    golden_path(path).write_text("{")
    with pytest.raises(ModelError, match="no golden set"):
        load_model(path)


finite = {"allow_nan": False, "allow_infinity": False}


@settings(max_examples=30)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(width=32, **finite)),
    st.data(),
)
def test_what_is_read_back_has_the_bits_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, data: st.DataObject
) -> None:
    scores: Floats = data.draw(arrays.arrays(np.float64, len(rows), elements=st.floats(**finite)))  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("golden") / "m.onnx"
    written = Golden("m", "1", "f", ("a", "b", "c"), rows, scores, 1e-6)
    write_golden(path, written)
    found = read_golden(path)
    assert found is not None
    assert (found.rows.tobytes(), found.scores.tobytes(), found.tolerance) == (rows.tobytes(), scores.tobytes(), 1e-6)


# --- float32 ---


def learned(rows: Rows, fraud: Any) -> Pipeline:
    """As anyone would: nothing is rounded before the trees are grown."""
    return make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(rows.astype(np.float64), fraud)


def at_splits(model: Pipeline) -> Rows:
    """Rows whose first feature lies on a threshold of a tree, or is the float next to it."""
    found = []
    for tree in model[1].estimators_:
        inner = tree.tree_.feature == 0
        scaled = tree.tree_.threshold[inner]
        found.append(scaled * model[0].scale_[0] + model[0].mean_[0])
    on = np.concatenate(found).astype(np.float32)
    values = np.concatenate((on, np.nextafter(on, np.float32(np.inf)), np.nextafter(on, np.float32(-np.inf))))
    return np.column_stack([values, np.zeros_like(values)])


def packaged(folder: Path, model: Pipeline, rows: Rows) -> Path:
    """The model, with these rows as its golden set."""
    path = folder / "model.onnx"
    graph = export(model, 2)
    card = ModelCard("m", "1", ("a", "b"), "0123456789abcdef", 0.5)
    write_card(graph, card)
    onnx.save(graph, str(path))
    scores = model.predict_proba(rows.astype(np.float64))[:, 1]
    write_golden(path, Golden("m", "1", card.feature_fingerprint, card.feature_names, rows, scores, 1e-6, {"scikit-learn": "x"}))
    return path


def test_rows_next_to_a_split_flip_where_the_scaler_was_not_rounded_and_keep_where_it_was(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = (random.normal(size=(500, 2)) * 37 + 11).astype(np.float32)
    fraud = random.random(500) < 0.5
    careless = learned(rows, fraud)
    with pytest.raises(ModelError, match=r"golden rows are not scored as scikit-learn x") as refused:
        load_model(packaged(tmp_path, careless, at_splits(careless)))
    flipped, of = (int(word) for word in str(refused.value).split(": ")[1].split(" golden")[0].split(" of "))
    assert 0 < flipped < of, "some, and not all"
    assert "an export whose rounding moves rows across splits" in str(refused.value)
    # Far from the splits, nothing is wrong with the careless one: rows as they come do not show it.
    assert load_model(packaged(tmp_path, careless, rows[:100])).parity is not None

    class Part:
        def __init__(self) -> None:
            self.rows, self.fraud = rows, fraud

    careful = fit(Part(), 10, 0)  # type: ignore[arg-type]
    kept = load_model(packaged(tmp_path, careful, at_splits(careful))).parity
    assert kept is not None
    assert kept.largest_difference < 1e-6


# --- before there is a model ---


def test_a_constant_stands_in_for_a_model_of_any_features() -> None:
    scorer = load_model(Path("anywhere/constant:0.25"))
    assert isinstance(scorer, ConstantScorer)
    assert scorer.score(features(3)).tolist() == [0.25, 0.25, 0.25]
    assert (scorer.card.name, scorer.card.version, scorer.card.threshold, scorer.parity) == ("constant", "constant-0.25", 0.5, None)
    bind(scorer.card, ("whatever", "comes"), "0123456789abcdef")
    assert scorer.card.feature_fingerprint == ANY_FEATURES


@pytest.mark.parametrize("text", ["constant:", "constant:half", "constant:1.5", "constant:nan"])
def test_a_constant_that_is_no_score_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="0 to 1"):
        load_model(Path(text))
