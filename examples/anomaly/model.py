"""The model: how many deviations a reading lies from the mean, as an ONNX graph without any training."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEWEST = 2.0  # readings before one, for a deviation
LEAST_DEVIATION = 0.001  # units: a series that never moved


def deviations() -> onnx.ModelProto:
    """Z / (1 + z), where z is the distance from the mean in deviations; 0 for the first readings of a series.

    The score grows with z and never reaches 1: a tail probability would be 1 to the last float32 from 5.4 deviations on, and one
    threshold could not tell those from what lies a hundred away.
    """
    nodes = [
        helper.make_node("Split", ["features"], ["value", "count", "mean", "deviation"], axis=1, num_outputs=4),
        helper.make_node("Sub", ["value", "mean"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Max", ["deviation", "least"], ["at_least"]),
        helper.make_node("Div", ["distance", "at_least"], ["z"]),
        helper.make_node("Add", ["z", "one"], ["z_and_one"]),
        helper.make_node("Div", ["z", "z_and_one"], ["squashed"]),
        helper.make_node("GreaterOrEqual", ["count", "fewest"], ["is_known"]),
        helper.make_node("Where", ["is_known", "squashed", "nothing"], ["score"]),
    ]
    constants = {"least": LEAST_DEVIATION, "one": 1.0, "fewest": FEWEST, "nothing": 0.0}
    graph = helper.make_graph(
        nodes,
        "anomaly",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.array([value], np.float32), name) for name, value in constants.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model
