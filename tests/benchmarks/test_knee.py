"""The search for the knee, on systems whose knee is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.knee import WITHIN, Knee, Verdict, find_knee


@given(st.floats(10, 1e6), st.floats(10, 1e5))
def test_it_ends_within_a_few_percent_of_the_true_knee(true: float, first: float) -> None:
    knee = find_knee(lambda rate: "held" if rate <= true else "broke", first, most_probes=60)
    assert knee.broke_at is not None
    assert knee.rate <= true < knee.broke_at
    assert knee.broke_at / knee.rate <= WITHIN


@given(st.floats(100, 1e5))
def test_a_rate_that_can_not_be_made_is_no_knee(most: float) -> None:
    knee = find_knee(lambda rate: "held" if rate <= most else "not made", 10, most_probes=60)
    assert knee.is_bound_by_the_generators
    assert knee.broke_at is None
    assert knee.rate <= most <= knee.rate * WITHIN


@pytest.mark.parametrize("verdict", ["broke", "not made"])
def test_a_search_in_vain_ends(verdict: Verdict) -> None:
    knee = find_knee(lambda rate: verdict, 1_000, most_probes=5)
    assert knee == Knee(0.0, 1_000 / 2**4 if verdict == "broke" else None, tuple((1_000 / 2**n, verdict) for n in range(5)))
