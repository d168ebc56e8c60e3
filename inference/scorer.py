"""The seam between the stream and a model: rows of features in, one score a row out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.model_card import ANY_FEATURES, ModelCard

CONSTANT_THRESHOLD = 0.5

Rows = NDArray[np.float32]  # shape (n, k): the model's inputs, in its order
Scores = NDArray[np.float32]  # shape (n,)


@dataclass(frozen=True, slots=True)
class Parity:
    """A golden set that was held against its model, and kept; see `inference.golden`."""

    rows: int
    largest_difference: float
    tolerance: float


class Scorer(Protocol):
    """Gives each row a score. A row's score depends on that row alone, never on the rows beside it or on the cut of the batch."""

    def score(self, rows: Rows) -> Scores:
        """Score a batch of feature rows.

        Args:
            rows: shape (n, k), C order; columns in the order of the model's card; finite (see `inference.float32`).

        Returns:
            Shape (n,), row order kept; a classifier's probability of the positive class. A model may answer NaN or infinity:
            that is the row's trouble, see `inference.score`.

        Raises:
            ScoringFailed: the whole call failed; no row has a score.
        """


@dataclass(frozen=True, slots=True)
class ConstantScorer:
    """The same score for every row, so that the whole flow can be run before a model exists: `Model(path="constant:0.5")`."""

    value: float = 0.5
    parity: Parity | None = None  # there is nothing to hold it to

    @property
    def card(self) -> ModelCard:
        """It takes any features, and what it says is an alert from 0.5 on."""
        return ModelCard("constant", f"constant-{self.value:g}", (), ANY_FEATURES, CONSTANT_THRESHOLD)

    def score(self, rows: Rows) -> Scores:
        """Shape (n,): `value` in every row."""
        return np.full(len(rows), self.value, np.float32)
