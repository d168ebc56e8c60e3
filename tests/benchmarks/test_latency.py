"""Quantiles, and the cut of the warm-up."""

from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks.load.latency import PERCENTILES, encoded, over_time, quantiles
from benchmarks.load.warm_up import GROUP, mser5, warm_up_seconds

LATENCIES = arrays.arrays(np.float64, st.integers(1, 400), elements=st.floats(0.001, 60_000))


@settings(max_examples=30)
@given(LATENCIES)
def test_quantiles_are_within_a_thousandth_of_the_order_statistic(latency_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    found, ordered = quantiles(latency_ms), np.sort(latency_ms)
    for share in PERCENTILES:
        rank = max(int(share / 100 * len(ordered) + 0.5), 1)
        # The library rounds ranks in its own way; it is one of the two beside it.
        near = ordered[max(rank - 2, 0) : rank + 1]
        assert any(abs(found[f"p{share:g}_ms"] - each) <= each * 1e-3 + 2e-3 for each in near)
    assert abs(found["max_ms"] - ordered[-1]) <= ordered[-1] * 1e-3 + 2e-3


def test_the_kept_histogram_is_read_by_the_library() -> None:
    read = HdrHistogram.decode(encoded(np.array([1.0, 2.0, 3.0])))
    assert read.get_total_count() == 3


def test_a_stall_shows_in_the_second_in_which_its_events_were_due() -> None:
    due = np.arange(4_000) / 1_000
    stalled = np.where((due >= 1) & (due < 2), (2 - due) * 1e3, 1.0)  # nothing comes out between 1 s and 2 s
    by_second = over_time(due, stalled)
    assert [each["second"] for each in by_second] == [0, 1, 2, 3]
    assert by_second[1]["p99_ms"] > 900
    assert by_second[1]["p50_ms"] > 400
    assert by_second[2]["max_ms"] == 1.0


def test_the_cut_is_where_the_standard_error_of_the_rest_is_least() -> None:
    random = np.random.default_rng(1)
    series = np.concatenate((np.linspace(50, 10, 30), np.full(170, 10.0))) + random.normal(0, 0.5, 200)
    cut = mser5(series)
    assert cut is not None
    assert cut % GROUP == 0
    # By the definition, over means of five.
    means = series.reshape(-1, GROUP).mean(axis=1)
    errors = {d: ((means[d:] - means[d:].mean()) ** 2).sum() / (len(means) - d) ** 2 for d in range(len(means) // 2 + 1)}
    assert errors[cut // GROUP] == min(errors.values())
    assert 20 <= cut <= 40


def test_what_grows_to_the_end_never_became_steady() -> None:
    assert mser5(np.linspace(1, 100, 200)) is None


def test_too_few_observations_say_nothing() -> None:
    assert mser5(np.ones(19)) is None


def test_the_warm_up_is_told_in_seconds() -> None:
    due = np.arange(20_000) / 1_000
    latency_ms = np.where(due < 3, 80.0, 10.0) + np.random.default_rng(0).normal(0, 1, len(due))
    cut = warm_up_seconds(due, latency_ms)
    assert cut is not None
    assert 3.0 <= cut <= 3.5
