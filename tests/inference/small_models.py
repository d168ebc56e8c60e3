"""Small models made on the spot: a linear one whose scores can be worked out by hand, and a forest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from inference.model_card import ModelCard, write_card

NAMES = ("amount", "count", "mean")
CARD = ModelCard("toy", "1", NAMES, "0123456789abcdef", threshold=0.5)
FLOAT = TensorProto.FLOAT


def value(name: str, shape: Sequence[Any], dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    card: ModelCard | None = CARD,
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "toy", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if card is not None:
        write_card(model, card)
    return model


def row_sums(width: int = 3, dtype: int = FLOAT, out: Sequence[Any] = (None, 1), card: ModelCard | None = CARD) -> onnx.ModelProto:
    """A model whose score is the sum of the row's features."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceSum", ["features", "axes"], ["score"], keepdims=int(len(out) == 2))
    return model_of([node], [value("features", (None, width), dtype)], [value("score", out, dtype)], card, [axes])


def features(rows: int, width: int = 3, seed: int = 0) -> NDArray[np.float32]:
    """Standard-normal rows, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
