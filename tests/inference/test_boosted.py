"""Boosted trees of XGBoost and LightGBM, exported by onnxmltools, keep to what their libraries say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxmltools
import pytest
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from inference.contribution import contributions
from inference.golden import Golden, write_golden
from inference.load_model import load_model
from inference.model_card import ModelCard, write_card
from inference.scorer import Rows, Scorer
from schemas.columns import Floats
from tests.inference.small_models import features


def boosted(folder: Path, graph: onnx.ModelProto, rows: Rows, scores: Floats, library: str) -> Scorer:
    path = folder / f"{library}.onnx"
    names = tuple(f"f{place}" for place in range(rows.shape[1]))
    card = ModelCard(library, "1", names, "0123456789abcdef", 0.5)
    write_card(graph, card)
    onnx.save(graph, str(path))
    write_golden(path, Golden(library, "1", card.feature_fingerprint, names, rows, scores.astype(np.float64), 1e-6, {library: "x"}))
    scorer = load_model(path)
    assert scorer.parity is not None
    assert scorer.parity.rows == len(rows)
    return scorer


def boosted_data() -> tuple[Rows, Any]:
    rows = features(600, 5)
    return rows, (rows[:, 0] * rows[:, 1] + rows[:, 2] > 0.3).astype(int)


def test_xgboost_keeps_to_its_golden_set(tmp_path: Path) -> None:
    rows, target = boosted_data()
    model = xgboost.XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1).fit(rows, target)
    graph = onnxmltools.convert_xgboost(model, initial_types=[("features", FloatTensorType([None, 5]))], target_opset=15)
    scorer = boosted(tmp_path, graph, rows[:200], model.predict_proba(rows[:200])[:, 1], "xgboost")
    found = contributions(scorer, rows[0], rows[1:50])
    assert found.method == "sampled"
    assert found.baseline + found.values.sum() == pytest.approx(float(scorer.score(rows[:1])[0]), abs=1e-5)


def test_lightgbm_keeps_to_its_golden_set(tmp_path: Path) -> None:
    rows, target = boosted_data()
    model = lightgbm.LGBMClassifier(n_estimators=20, num_leaves=15, n_jobs=1, verbose=-1).fit(rows, target)
    columns = [("features", FloatTensorType([None, 5]))]
    graph = onnxmltools.convert_lightgbm(model, initial_types=columns, target_opset=15, zipmap=False)
    boosted(tmp_path, graph, rows[:200], np.asarray(model.predict_proba(rows[:200]))[:, 1], "lightgbm")
