"""The model of all peers: a forest of 100 trees on the six features, as a plain ONNX file.

It carries the card that Millrace asks for in its metadata, which other runtimes pass over. What it predicts is noise with a grain of
sense in it: only what a call costs, and that all give the same score, matters here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier

from benchmarks.peers.definition import FEATURES, slow_features
from benchmarks.peers.events import Log
from inference.model_card import ModelCard, write_card
from streams.definition.bound import Bound

TREES, DEPTH = 100, 10
TRAINED_CUSTOMERS = 100


def write_model(path: Path, log: Log, bound: Bound) -> None:
    """Grow the forest on the history of some customers, and write it with a card for this pipeline."""
    history = log.rows(0, log.history)
    random = np.random.default_rng(0)
    places = [np.flatnonzero(history.customer == customer) for customer in range(min(TRAINED_CUSTOMERS, log.customers))]
    rows = np.concatenate([slow_features(history.event_ms[each], history.cents[each])[0] for each in places])
    busy = rows[:, 0] / np.maximum(rows[:, 2], 1)
    target = random.random(len(rows)) < 0.1 + 0.5 * busy
    forest = RandomForestClassifier(TREES, max_depth=DEPTH, random_state=0).fit(rows, target)
    graph: onnx.ModelProto = to_onnx(
        forest,
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        options={id(forest): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    write_card(graph, ModelCard(bound.model.name, "peers", bound.features.names, bound.features.fingerprint, 0.5))
    path.write_bytes(graph.SerializeToString(deterministic=True))
