"""A forest on the training set, as an ONNX file with its card."""

from pathlib import Path

import numpy as np
import polars as pl
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from inference.model_card import ModelCard, write_card
from millrace import load_bound

bound = load_bound("pipeline.py")
names = list(bound.features.names)
train, test = (pl.read_parquet(f"training/{split}/*.parquet", hive_partitioning=False) for split in ("train", "test"))

forest = RandomForestClassifier(50, max_depth=8, random_state=0)
forest.fit(train[names].to_numpy().astype(np.float32), train["label"].to_numpy())
scores = forest.predict_proba(test[names].to_numpy().astype(np.float32))[:, 1]
print(f"AUC on the test weeks: {roc_auc_score(test['label'].to_numpy(), scores):.3f}")

graph = to_onnx(
    forest,
    initial_types=[("features", FloatTensorType([None, len(names)]))],
    options={"zipmap": False},
    target_opset={"": 17, "ai.onnx.ml": 3},
)
write_card(graph, ModelCard(bound.model.name, "1", bound.features.names, bound.features.fingerprint, threshold=0.5))
Path("models").mkdir(exist_ok=True)
Path("models/payments.onnx").write_bytes(graph.SerializeToString())
