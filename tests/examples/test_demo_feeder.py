"""The feeder's schedule: a steady rate, whatever happens to its ticks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from examples.card_fraud.demo.feeder import due

rates = st.floats(1, 50_000)
moments = st.lists(st.floats(0, 120), min_size=1, max_size=60).map(sorted)


@given(rates, moments)
def test_no_record_goes_out_before_it_is_due(rate: float, ticks: list[float]) -> None:
    for elapsed_seconds in ticks:
        out = due(elapsed_seconds, rate, total=10**9)
        assert (out - 1) / rate <= elapsed_seconds * (1 + 1e-12)


@given(rates, moments)
def test_after_any_tick_however_late_all_that_is_due_is_out(rate: float, ticks: list[float]) -> None:
    for elapsed_seconds in ticks:
        out = due(elapsed_seconds, rate, total=10**9)
        assert out / rate >= elapsed_seconds * (1 - 1e-12)


@given(rates, moments)
def test_what_is_out_stays_out(rate: float, ticks: list[float]) -> None:
    out = [due(elapsed_seconds, rate, total=1_000) for elapsed_seconds in ticks]
    assert out == sorted(out)
    assert out[-1] <= 1_000


def test_the_first_record_goes_out_at_the_beginning_and_none_before() -> None:
    assert due(-0.001, 2_000, 10) == 0
    assert due(0.0, 2_000, 10) == 1
    assert due(0.0005, 2_000, 10) == 2


def test_the_stream_ends_with_its_last_record() -> None:
    assert due(3_600, 2_000, 120_000) == 120_000
