"""Score: the model's answer for every usable row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inference.score import score
from inference.scorer import Scorer
from schemas.reject import Reject
from streams.batch import Batch
from transforms.fixed_point import numbers


class Score:
    """Scores a batch's usable rows.

    Args:
        scorer: the model.
        inputs: the columns it is given, in order.
    """

    def __init__(self, scorer: Scorer, inputs: tuple[str, ...]) -> None:
        self._scorer = scorer
        self._inputs = inputs

    def __call__(self, batch: Batch) -> Batch:
        """The batch with scores; a row without a finite one is rejected, though it stays in the state. A replay needs none.

        Raises:
            ScoringFailed: the model failed on the whole batch.
        """
        if batch.replay:
            return batch
        rows = np.flatnonzero(batch.outgoing)
        features = np.empty((len(rows), len(self._inputs)))
        for place, name in enumerate(self._inputs):
            features[:, place] = numbers(name, batch.columns[name])[rows]
        scored = score(self._scorer, features)
        scores = np.zeros(len(batch), np.float32)
        scores[rows] = scored.scores
        failed = np.zeros(len(batch), np.bool_)
        failed[rows[~scored.finite]] = True
        return replace(batch, scores=scores).rejecting(failed, Reject.NON_FINITE_SCORE)
