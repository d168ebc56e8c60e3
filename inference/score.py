"""Score: features to scores, with the rows that have none told apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inference.float32 import to_float32
from inference.scorer import Scorer, Scores
from schemas.columns import Floats, Mask


class Scored(NamedTuple):
    """The scores of a batch."""

    scores: Scores  # shape (n,); 0 where `finite` is false
    finite: Mask  # shape (n,): false where the features or the model's answer were not finite numbers


def score(scorer: Scorer, features: Floats) -> Scored:
    """Score rows of features; a row without a finite score is marked, not raised, as its neighbours are good.

    Args:
        scorer: the model.
        features: shape (n, k), in the order of the model's inputs.

    Raises:
        ScoringFailed: the whole call failed; no row has a score.
    """
    rows, finite = to_float32(features)
    scores = scorer.score(rows)
    finite = finite & np.isfinite(scores)
    return Scored(np.where(finite, scores, np.float32(0)), finite)
