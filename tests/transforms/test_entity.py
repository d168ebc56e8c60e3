"""Definitions: the names they give, what they refuse, and what their fingerprints tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from schemas.errors import DefinitionError
from schemas.features import FeatureSet
from transforms.aggregate import Count, Distinct, LabelCount, LabelRate, Last, Max, Mean, RatePerDay, RatioToMean, Std, Sum
from transforms.entity import Entity, Guard
from transforms.fixed_point import FixedPoint
from transforms.window import Window, days, duration, hours, minutes, seconds

amount = FixedPoint("amount", 100, 50_000)
CUSTOMER = Entity("customer", "customer_id", (Window(days(1)), Window(days(7))), (Count(), Mean(amount), RatioToMean(amount)), hours(1))


def test_features_are_named_after_entity_column_aggregate_and_window() -> None:
    assert CUSTOMER.feature_names == (
        "customer_count_1d",
        "customer_amount_mean_1d",
        "customer_amount_ratio_to_mean_1d",
        "customer_count_7d",
        "customer_amount_mean_7d",
        "customer_amount_ratio_to_mean_7d",
    )
    delayed = Entity("terminal", "t", (Window(days(7), days(7)), Window(minutes(90), include_self=False)), (Count(), RatePerDay()))
    assert delayed.feature_names == (
        "terminal_count_7d_delay_7d",
        "terminal_rate_per_day_7d_delay_7d",
        "terminal_count_90m_before",
        "terminal_rate_per_day_90m_before",
    )
    nested = Entity("card", "c", (Window(seconds(5)),), (Max(FixedPoint("order.total", 1, 9)), Distinct("shop.id")))
    assert nested.feature_names == ("card_order_total_max_5s", "card_shop_id_distinct_5s")
    labelled = Entity("terminal", "t", (Window(days(7), days(7)),), (LabelCount(), LabelRate()))
    assert labelled.feature_names == ("terminal_label_count_7d_delay_7d", "terminal_label_rate_7d_delay_7d")
    assert [feature.unit for feature in labelled.features] == ["events", "1"]


def test_a_feature_says_what_it_is_measured_in() -> None:
    units = [feature.unit for feature in Entity("e", "k", (Window(1),), (Count(), RatePerDay(), Sum(amount), RatioToMean(amount))).features]
    assert units == ["events", "events/day", "amount", "1"]


@pytest.mark.parametrize(
    ("span_ms", "text"), [(days(30), "30d"), (hours(36), "36h"), (minutes(90), "90m"), (seconds(7), "7s"), (1_500, "1500ms")]
)
def test_a_duration_is_said_in_the_largest_unit_that_divides_it(span_ms: int, text: str) -> None:
    assert duration(span_ms) == text


def test_what_must_be_read_kept_and_looked_back_to_follows_from_the_definition() -> None:
    entity = Entity(
        "e",
        ("bank", "card"),
        (Window(100, 40, 10), Window(120)),
        (Count(), Sum(amount), Mean(amount)),
        lateness_ms=7,
        guard=Guard(1_000, 500),
    )
    assert entity.columns_needed == ("bank", "card", "amount")
    assert entity.values == (amount,)
    assert entity.reach_ms == 7 + 100 + 40 + 2 * 10
    assert entity.retention_ms == 140 + 9 + 7 + 1_000 + 500  # with a delay, the window's end may lie up to a cell further back
    assert replace(entity, guard=None).retention_ms == 156


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Window(0), "must be above 0"),
        (lambda: Window(10, -1), "must be above 0"),
        (lambda: Window(10, grid_ms=3), "multiple of the grid"),
        (lambda: Window(1 << 50, 1), "may not pass"),
        (lambda: Guard(-1, 0), "between 0"),
        (lambda: FixedPoint("a", 0, 1), "above 0"),
        (lambda: FixedPoint("a", 100, 0), "above 0"),
        (lambda: FixedPoint("a", 100, 1e14), "at most 2"),
        (lambda: FixedPoint("a", 1, float("nan")), "above 0"),
        (lambda: replace(CUSTOMER, name="the customer"), "identifier"),
        (lambda: replace(CUSTOMER, windows=()), "needs a key, a window"),
        (lambda: replace(CUSTOMER, aggregates=()), "needs a key, a window"),
        (lambda: replace(CUSTOMER, key=()), "needs a key, a window"),
        (lambda: replace(CUSTOMER, lateness_ms=-1), "out of range"),
        (lambda: replace(CUSTOMER, missing_key="skip"), "missing_key must be 'refuse' or 'absent', not 'skip'"),  # type: ignore[arg-type]
        (lambda: replace(CUSTOMER, windows=(Window(12, grid_ms=2), Window(12, 1, grid_ms=3))), "grid 3 ms is no multiple of grid 2 ms"),
        (lambda: replace(CUSTOMER, windows=(Window(12, grid_ms=2),), aggregates=(Distinct("shop"),)), "Distinct needs exact windows"),
        (lambda: replace(CUSTOMER, windows=(Window(10), Window(10))), "two features are named 'customer_count_10ms'"),
        (lambda: replace(CUSTOMER, aggregates=(Count(empty=float("nan")),)), "finite value"),
        (lambda: replace(CUSTOMER, aggregates=(Std(amount),), max_records=400_000), "std of 'amount' may pass 2.63: 5000000 units squared"),
        (
            lambda: replace(CUSTOMER, aggregates=(Sum(FixedPoint("amount", 1 << 50, 1)),), max_records=8_192),
            "sum of 'amount' may pass 2.63",
        ),
    ],
)
def test_a_definition_that_contradicts_itself_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_sums_that_just_fit_are_not_refused() -> None:
    # (2^50)(8190 + 1) < 2^63
    assert replace(CUSTOMER, aggregates=(Sum(FixedPoint("amount", 1 << 50, 1)),), max_records=8_190).max_records == 8_190
    # A minimum is not summed.
    assert replace(CUSTOMER, aggregates=(Max(FixedPoint("amount", 1 << 50, 1)),), max_records=100_000).max_records == 100_000


def test_definitions_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        CUSTOMER.lateness_ms = 5  # type: ignore[misc]


OTHER_FEATURES: list[dict[str, Any]] = [
    {"key": "card_id"},
    {"key": ("customer_id", "shop")},
    {"windows": (Window(days(1)), Window(days(7), days(1)))},
    {"windows": (Window(days(1)), Window(days(7), grid_ms=hours(1)))},
    {"windows": (Window(days(1)), Window(days(7), include_self=False))},
    {"aggregates": (Count(), Mean(amount, empty=1.0), RatioToMean(amount))},
    {"aggregates": (Count(), Mean(FixedPoint("amount", 10, 50_000)), RatioToMean(amount))},
    {"aggregates": (Count(), Last(amount), RatioToMean(amount))},
    {"lateness_ms": 0},
    {"guard": Guard(days(40), 0)},
    {"missing_key": "absent"},
]


@pytest.mark.parametrize("change", OTHER_FEATURES, ids=repr)
def test_another_definition_has_another_feature_fingerprint(change: dict[str, Any]) -> None:
    assert FeatureSet(replace(CUSTOMER, **change).features).fingerprint != FeatureSet(CUSTOMER.features).fingerprint


def test_fingerprints_stay_as_they_are_from_version_to_version() -> None:
    # Another one here means that running pipelines would lose their state, or refuse their models.
    assert (CUSTOMER.state_fingerprint, FeatureSet(CUSTOMER.features).fingerprint) == ("d2e5543854c8a95d", "5c6444da8c9943d1")


def test_the_same_definition_has_the_same_fingerprints() -> None:
    again = Entity(
        "customer",
        "customer_id",
        (Window(86_400_000), Window(days(7))),
        (Count(), Mean(FixedPoint("amount", 100, 50_000.0)), RatioToMean(amount)),
        3_600_000,
    )
    assert FeatureSet(again.features).fingerprint == FeatureSet(CUSTOMER.features).fingerprint
    assert again.state_fingerprint == CUSTOMER.state_fingerprint


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"aggregates": (Sum(amount, empty=2.0), Std(amount))}, True),  # other features of the same records
        ({"windows": (Window(hours(1)), Window(days(7), grid_ms=hours(1)))}, True),  # within the same retention
        ({"max_records": 5}, True),
        ({"name": "client"}, False),
        ({"key": "card_id"}, False),
        ({"aggregates": (Count(),)}, False),
        ({"aggregates": (Sum(FixedPoint("amount", 10, 50_000)),)}, False),
        ({"windows": (Window(days(8)),)}, False),
        ({"lateness_ms": 0}, False),
        ({"guard": Guard(days(40), 0)}, False),
        ({"aggregates": (Count(), Mean(amount), LabelCount())}, False),
        ({"missing_key": "absent"}, True),
    ],
    ids=repr,
)
def test_the_state_fingerprint_changes_with_what_is_stored_and_with_nothing_else(change: dict[str, Any], same: bool) -> None:
    assert (replace(CUSTOMER, **change).state_fingerprint == CUSTOMER.state_fingerprint) == same
