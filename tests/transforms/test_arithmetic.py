"""Features are exact where the integers are, also where floats of the same sums would have nothing left."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.play import Event, play
from transforms.aggregate import Aggregate, Count, Max, Mean, Min, RatePerDay, RatioToMean, Std, Sum
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.window import Window, days


def exact_std(values: list[int], scale: int) -> float:
    n = len(values)
    spread = Fraction(n * sum(v * v for v in values) - sum(values) ** 2, n * (n - 1) * scale * scale)
    # Twice the digits of a float, so that the root's own rounding does not show.
    return math.isqrt(spread.numerator * 10**60 // spread.denominator) / 10**30


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3_000_000),
    st.lists(st.integers(-3, 3), min_size=2, max_size=60),
    st.sampled_from([1, 100]),
)
def test_the_deviation_of_nearly_equal_large_values_is_right_to_the_last_digits(level: int, wobble: list[int], scale: int) -> None:
    amount = FixedPoint("amount", scale, 4_000_000 / scale)
    values = [level + w for w in wobble]
    entity = Entity("e", "key", (Window(1_000),), (Std(amount),))
    features, _ = play([Event(1, t, v) for t, v in enumerate(values)], (entity,), (), scale=scale)
    assert features[-1, 0] == pytest.approx(exact_std(values, scale), rel=4e-16, abs=0.0)


def test_where_the_products_wrap_around_the_deviation_is_still_exact() -> None:
    # n s2 and s1^2 both pass 2^63 by far; their difference does not.
    amount = FixedPoint("amount", 1, 90_000_000)
    values = [89_999_990 + (i % 20) for i in range(900)]
    assert len(values) * sum(v * v for v in values) > 2**72 and sum(values) ** 2 > 2**72
    entity = Entity("e", "key", (Window(10_000),), (Std(amount),), max_records=1_000)
    features, _ = play([Event(1, t, v) for t, v in enumerate(values)], (entity,), (100, 555))
    assert features[-1, 0] == pytest.approx(exact_std(values, 1), rel=4e-16, abs=0.0)


def test_running_sums_may_wrap_around_while_windows_stay_exact() -> None:
    # 3,000 squares of 8e15 pass 2^63; no window holds more than 100 of them.
    amount = FixedPoint("amount", 1, 90_000_000)
    entity = Entity("e", "key", (Window(100),), (Sum(amount), Std(amount)), max_records=1_000)
    values = [90_000_000 - (i * i) % 7 for i in range(3_000)]
    assert sum(v * v for v in values) > 2**64
    features, _ = play([Event(1, t, v) for t, v in enumerate(values)], (entity,), (700,))
    assert features[-1, 0] == float(sum(values[-100:]))
    assert features[-1, 1] == pytest.approx(exact_std(values[-100:], 1), rel=4e-16, abs=0.0)


def test_a_spread_too_large_for_an_integer_is_taken_as_a_float() -> None:
    amount = FixedPoint("amount", 1, 1_000_000_000)
    values = [1_000_000_000, -1_000_000_000] * 4
    entity = Entity("e", "key", (Window(100),), (Std(amount),), max_records=8)
    features, _ = play([Event(1, t, v) for t, v in enumerate(values)], (entity,), ())
    assert features[-1, 0] == pytest.approx(exact_std(values, 1), rel=1e-15)


def test_the_scale_is_applied_once() -> None:
    amount = FixedPoint("amount", 100, 1_000)
    every: tuple[Aggregate, ...] = (Sum(amount), Mean(amount), Std(amount), Min(amount), Max(amount), RatioToMean(amount))
    entity = Entity("e", "key", (Window(100),), every)
    features, _ = play([Event(1, 0, 10), Event(1, 1, 20), Event(1, 2, 31)], (entity,), (), scale=100)
    n, s1, s2 = 3, 61, 10 * 10 + 20 * 20 + 31 * 31
    std = np.sqrt(np.float64(n * s2 - s1 * s1) / (n * (n - 1.0))) / 100
    assert features[2].tolist() == [0.61, 61 / 300.0, float(std), 0.1, 0.31, 31 / (30 / 2)]


def test_a_rate_is_for_each_day_of_the_windows_length() -> None:
    entity = Entity("e", "key", (Window(days(2)),), (RatePerDay(), Count()))
    features, _ = play([Event(1, t, 0) for t in range(6)], (entity,), ())
    assert features[-1].tolist() == [3.0, 6.0]


def test_too_few_events_give_the_declared_value_and_never_nan() -> None:
    amount = FixedPoint("amount", 1, 1_000)
    every: tuple[Aggregate, ...] = (
        Count(empty=-1), Sum(amount, -2), Mean(amount, -3), Std(amount, -4), Min(amount, -5), Max(amount, -6), RatioToMean(amount, -7),
    )  # fmt: skip
    entity = Entity("e", "key", (Window(10, include_self=False), Window(10), Window(10, delay_ms=5)), every)
    features, _ = play([Event(1, 0, 0), Event(1, 1, 0)], (entity,), ())
    empty = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0]
    assert features[0].tolist() == [*empty, 1.0, 0.0, 0.0, -4.0, 0.0, 0.0, -7.0, *empty]
    assert features[1].tolist() == [1.0, 0.0, 0.0, -4.0, 0.0, 0.0, -7.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, -7.0, *empty]
