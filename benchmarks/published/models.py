"""The book's models: fitted on what was served, and exported to ONNX with their scaling inside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from inference.model_card import ModelCard, write_card
from inference.scorer import Rows
from schemas.columns import Floats, Ints
from streams.definition.bound import Bound

Make = Callable[[], Any]
HAS_XGBOOST = find_spec("xgboost") is not None and find_spec("onnxmltools") is not None
IR_VERSION = 8
OPSETS = {"": 17, "ai.onnx.ml": 3}


def _xgboost(**parameters: Any) -> Make:
    def make() -> Any:
        from xgboost import XGBClassifier

        return XGBClassifier(random_state=0, n_jobs=1, **parameters)

    return make


# What the book's versions of XGBoost did by default.
AS_IN_THE_BOOK: dict[str, Any] = {"tree_method": "exact", "base_score": 0.5}

# Chapter 3: every library's defaults. Names that the book has not are today's variations.
SINGLE_SPLIT: Mapping[str, Make] = {
    "logistic regression": lambda: LogisticRegression(random_state=0),
    "tree of depth 2": lambda: DecisionTreeClassifier(max_depth=2, random_state=0),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(random_state=0),
    **({"xgboost": _xgboost(**AS_IN_THE_BOOK), "xgboost, today's defaults": _xgboost()} if HAS_XGBOOST else {}),
}

# Chapter 5. Of a tree the depths whose figures are the book's, which names none: docs/published.md says how they were found.
FOUR_FOLDS: Mapping[str, Make] = {
    "logistic regression": lambda: LogisticRegression(C=100, random_state=0),
    "tree of depth 50": lambda: DecisionTreeClassifier(max_depth=50, random_state=0),
    "tree of depth 3": lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    "tree of depth 5": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "forest": lambda: RandomForestClassifier(100, max_depth=20, random_state=0),
    **({"xgboost": _xgboost(n_estimators=100, learning_rate=0.1, max_depth=3, **AS_IN_THE_BOOK)} if HAS_XGBOOST else {}),
}


def fit(make: Make, rows: Rows, fraud: Ints) -> Pipeline:
    """A scaler with mean and deviation of these rows, and a model: of the float32 that models are given, not of the doubles before them."""
    return make_pipeline(StandardScaler(), make()).fit(rows.astype(np.float64), fraud)


def probability(model: Pipeline, rows: Rows) -> Floats:
    """Shape (n,): the scores that the libraries themselves give."""
    found: Floats = model.predict_proba(rows.astype(np.float64))[:, 1].astype(np.float64)
    return found


def export(model: Pipeline, bound: Bound) -> onnx.ModelProto:
    """The scaler and the model as one ONNX graph, with its card.

    The converter's own scaler holds mean and deviation as float32. That is enough to send some rows of an unlimited tree the other way,
    so the scaling is written out here in double, as scikit-learn does it; the model behind it takes float32, as it does there.
    """
    if HAS_XGBOOST:
        _teach_xgboost()
    names, scaler = bound.features.names, model.named_steps["standardscaler"]
    classifier = to_onnx(
        model.steps[-1][1],
        initial_types=[("scaled", FloatTensorType([None, len(names)]))],
        options={"zipmap": False},
        target_opset=OPSETS,
    )
    inputs = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(names)])
    scaling = [
        helper.make_node("Cast", ["features"], ["doubles"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["doubles", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled_doubles"]),
        helper.make_node("Cast", ["scaled_doubles"], ["scaled"], to=TensorProto.FLOAT),
    ]
    constants = [numpy_helper.from_array(scaler.mean_, "mean"), numpy_helper.from_array(scaler.scale_, "deviation")]
    graph = helper.make_graph(
        [*scaling, *classifier.graph.node],
        bound.model.name,
        [inputs],
        list(classifier.graph.output),
        [*constants, *classifier.graph.initializer],
    )
    opsets = [helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    digest = hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest()[:12]
    libraries = {name: version(name) for name in ("numpy", "onnx", "scikit-learn", "skl2onnx")}
    write_card(made, ModelCard(bound.model.name, digest, names, bound.features.fingerprint, 0.5, libraries=libraries))
    return made


def _teach_xgboost() -> None:
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from xgboost import XGBClassifier

    update_registered_converter(
        XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        convert_xgboost,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
