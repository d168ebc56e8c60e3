"""The model of the live tests: a stump for each feature, as an ONNX forest whose scores Python can work out exactly."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from inference.model_card import ModelCard, write_card
from streams.definition.bound import Bound
from tests.oracles.payments import DECISION_THRESHOLD, stump_threshold, stump_weight

NAME, VERSION = "stumps", "1"


def write_model(bound: Bound, path: Path, fingerprint: str | None = None, version: str = VERSION) -> None:
    """Write the model of a pipeline, with the card it needs; another `fingerprint` makes it one of other features."""
    width = len(bound.features.names)
    trees = [tree for tree in range(width) for _ in range(3)]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=trees,
        nodes_nodeids=[0, 1, 2] * width,
        nodes_featureids=[feature for tree in range(width) for feature in (tree, 0, 0)],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * width,
        nodes_values=[value for tree in range(width) for value in (stump_threshold(tree), 0.0, 0.0)],
        nodes_truenodeids=[1, 0, 0] * width,
        nodes_falsenodeids=[2, 0, 0] * width,
        target_treeids=trees[::3] + trees[::3],
        target_nodeids=[1] * width + [2] * width,
        target_ids=[0] * (2 * width),
        target_weights=[0.0] * width + [stump_weight(tree) for tree in range(width)],
    )
    graph = helper.make_graph(
        [node],
        "stumps",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)
    write_card(model, ModelCard(NAME, version, bound.features.names, fingerprint or bound.features.fingerprint, DECISION_THRESHOLD))
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, str(path))
