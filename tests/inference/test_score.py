"""From float64 features to scores: what is not a finite number is marked, and its neighbours are scored."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference.float32 import to_float32
from inference.score import score
from inference.scorer import ConstantScorer, Rows, Scores
from schemas.columns import Floats

tables = arrays(np.float64, st.tuples(st.integers(0, 6), st.integers(1, 4)), elements=st.floats(width=64) | st.just(1e39))


@settings(max_examples=100)
@given(tables)
def test_a_row_is_either_all_finite_or_marked_and_zeroed(features: Floats) -> None:
    before = features.copy()
    rows, finite = to_float32(features)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.isfinite(rows).all()
    for row, good, source in zip(rows, finite, features, strict=True):
        nearest = [np.float32(value) if abs(value) < 3.5e38 else np.float32(np.inf) for value in source.tolist()]
        assert good == bool(np.isfinite(nearest).all())
        assert row.tolist() == (nearest if good else [0] * len(source))
    np.testing.assert_array_equal(features, before)


class Reciprocal:
    """Infinite at 0, NaN below."""

    def score(self, rows: Rows) -> Scores:
        with np.errstate(all="ignore"):
            return np.asarray(np.sqrt(1 / rows[:, 0]), np.float32)


def test_a_row_whose_score_is_not_finite_is_marked_and_its_neighbours_are_scored() -> None:
    scores, finite = score(Reciprocal(), np.array([[4.0], [0.0], [-1.0], [1.0]]))
    assert finite.tolist() == [True, False, False, True]
    assert scores.tolist() == [0.5, 0, 0, 1]


def test_a_row_whose_feature_is_not_finite_has_no_score_whatever_the_model_says() -> None:
    scores, finite = score(ConstantScorer(0.25), np.array([[1.0, np.nan], [1.0, 1e300], [1.0, 2.0]]))
    assert finite.tolist() == [False, False, True]
    assert scores.tolist() == [0, 0, 0.25]


def test_a_constant_scorer_gives_every_row_its_value() -> None:
    scores = ConstantScorer(0.75).score(np.zeros((3, 2), np.float32))
    assert scores.dtype == np.float32
    assert scores.tolist() == [0.75] * 3
