"""Scores from a model that ends in a forest: its preprocessing by ONNX Runtime, its trees by the compiled loop, bit for bit the same."""

from __future__ import annotations

import numpy as np

from inference.forest import Forest
from inference.model_card import ModelCard
from inference.onnx_scorer import Graph
from inference.scorer import Parity, Rows, Scores
from schemas.errors import ScoringFailed


class ForestScorer:
    """A forest behind its preprocessing."""

    def __init__(self, card: ModelCard, forest: Forest, preprocessing: Graph | None) -> None:
        self.card = card
        self.parity: Parity | None = None
        self.forest = forest
        self._preprocessing = preprocessing

    def score(self, rows: Rows) -> Scores:
        """Shape (n,): each row's score; see `Scorer.score`."""
        width = len(self.card.feature_names)
        if rows.ndim != 2 or rows.shape[1] != width or rows.dtype != np.float32:
            raise ScoringFailed(
                f"model {self.card.name}: rows have shape {rows.shape} and type {rows.dtype}, wanted (n, {width}) of float32"
            )
        if not len(rows):
            return np.empty(0, np.float32)
        return self.forest.score(self.preprocessed(rows))

    def preprocessed(self, rows: Rows) -> Rows:
        """The rows as the forest sees them."""
        return self._preprocessing(rows) if self._preprocessing else rows
