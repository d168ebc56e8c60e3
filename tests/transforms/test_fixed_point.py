"""Fixed point: every value the rules let through is exactly so many units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import Column, Constant, Nullable, PackedBytes
from schemas.rules import check
from transforms.fixed_point import FixedPoint

amount = FixedPoint("amount", 100, 50_000)


def refused(fixed: FixedPoint, column: Column) -> list[bool]:
    return [bool(code) for code in check(fixed.rules(), {"amount": column}, np.zeros(len(column), np.uint8))]


@given(st.integers(-5_000_000, 5_000_000))
def test_every_amount_in_cents_is_kept_and_counted_exactly(cents: int) -> None:
    column = np.array([float(f"{cents // 100}.{cents % 100:02d}") if cents >= 0 else -float(f"{-cents // 100}.{-cents % 100:02d}")])
    assert refused(amount, column) == [False]
    assert amount.convert(column).tolist() == [cents]


@pytest.mark.parametrize("value", [0.001, 12.345, 1e-300, 50_000.01, -50_000.01, np.inf, -np.inf, np.nan, 1e300, 0.3001])
def test_what_is_no_amount_in_cents_is_refused(value: float) -> None:
    assert refused(amount, np.array([value, 1.0])) == [True, False]


@given(st.integers(-5_000_000, 5_000_000), st.integers(-4, 4))
def test_an_amount_that_arithmetic_left_a_few_floats_beside_its_cents_is_those_cents(cents: int, steps: int) -> None:
    value = np.float64(cents / 100)
    beside = value + steps * np.spacing(value)
    assert refused(amount, np.array([beside])) == [abs(float(beside)) > amount.largest]
    assert amount.convert(np.array([beside])).tolist() == [cents]
    # Of a cent's tenths, hundredths, and thousandths none is taken for a slip.
    wrong = np.array([value + part for part in (0.001, 0.0001, 0.00001)])
    assert refused(amount, wrong) == [True, True, True]


@pytest.mark.parametrize(("value", "cents"), [(0.1 + 0.2, 30), (17.54 * 5, 8_770), (1.1 * 3, 330), (1e-17, 0)])
def test_sums_and_products_of_amounts_are_amounts(value: float, cents: int) -> None:
    assert value != cents / 100
    assert refused(amount, np.array([value])) == [cents == 0]
    assert amount.convert(np.array([value])).tolist() == [cents]


def test_where_floats_lie_too_far_apart_for_a_slip_only_the_nearest_is_kept() -> None:
    large = FixedPoint("amount", 100, 90_000_000_000_000)
    near = np.float64(70_000_000_000_000.01)
    assert refused(large, np.array([near, near + np.spacing(near)])) == [False, True]
    # Four float32 beside 4096.5 are a fifth of a cent.
    assert refused(amount, np.array([4_096.5, np.nextafter(np.float32(4_096.5), np.float32(5_000))], np.float32)) == [False, True]


def test_a_null_is_refused() -> None:
    assert refused(amount, Nullable(np.array([1.0, 1.0]), np.array([True, False]))) == [False, True]


def test_a_float32_is_the_decimal_nearest_to_it() -> None:
    column = np.array([19.99, 0.1, 12.345], np.float32)
    assert refused(amount, column) == [False, False, True]
    assert amount.convert(column)[:2].tolist() == [1_999, 10]


def test_integers_and_constants_are_counted_in_units_too() -> None:
    assert amount.convert(np.array([3, -4], np.int32)).tolist() == [300, -400]
    assert amount.convert(Constant(2.5, 3)).tolist() == [250, 250, 250]
    assert refused(amount, np.array([50_000, 50_001])) == [False, True]


def test_a_column_without_numbers_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="'amount' should hold numbers, not PackedBytes"):
        amount.convert(PackedBytes.pack([b"1"]))


def test_the_rules_say_what_was_found_and_wanted() -> None:
    within, whole = amount.rules()
    columns = {"amount": np.array([12.345])}
    assert whole.explain(columns, 0) == "amount is 12.345, wanted a multiple of 1/100"
    assert within.explain(columns, 0) == "amount is 12.345, wanted -50000 to 50000"
    assert (within.name, whole.name) == ("amount_in_range", "amount_scale")
    assert FixedPoint("amount", 10, 5).rules()[1].describe() != whole.describe()
