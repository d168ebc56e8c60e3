"""Shapes: how many events, and when each is due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.load.shape import BURST, CALM, WORDS, Shape
from schemas.errors import Refused


def test_a_constant_rate_is_due_at_even_distances() -> None:
    due = Shape("constant", 1_000, 2).due_seconds()
    assert len(due) == 2_000
    assert np.allclose(due, np.arange(2_000) / 1_000, atol=1e-6)


@settings(max_examples=40)
@given(st.sampled_from(WORDS), st.floats(20, 5_000), st.floats(1, 30))
def test_so_many_events_are_due_by_a_moment_as_the_rate_has_come_to(word: str, rate: float, seconds: float) -> None:
    shape = Shape(word, rate, seconds)  # type: ignore[arg-type]
    due = shape.due_seconds()
    assert len(due) == shape.expected_events
    assert (np.diff(due) >= 0).all()
    for moment in np.linspace(0, seconds, 7):
        # The definition: the integral of the rate, by a finer rule than the shape's own.
        grid = np.linspace(0, moment, 5_001)
        expected = float(np.trapezoid(shape.rates(grid), grid))
        assert abs(np.count_nonzero(due < moment) - expected) <= 2 + rate * 0.002


def test_a_burst_is_calm_then_above_the_rate_then_calm() -> None:
    shape = Shape("burst", 1_000, 100)
    assert shape.rates(np.array([0.0, 59.0, 61.0, 74.0, 76.0])).tolist() == [1_000 * share for share in (CALM, CALM, BURST, BURST, CALM)]
    assert shape.highest_rate == 1_100


@pytest.mark.parametrize(("word", "rate", "seconds"), [("saw", 1, 1), ("constant", 0, 1), ("constant", 1, -1), ("ramp", 0.1, 1)])
def test_what_is_no_load_is_refused(word: str, rate: float, seconds: float) -> None:
    with pytest.raises(Refused):
        Shape(word, rate, seconds)  # type: ignore[arg-type]
