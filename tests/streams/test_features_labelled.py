"""`Bound.transform` with labels: each event sees what was known when it came, and nothing that came to light later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import HistoryError
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from tests.streams.payments import EXAMPLE, card_fraud

START = datetime(2026, 1, 1, tzinfo=UTC)
SPANS = (1, 7, 30)


@cache
def labelled() -> Bound:
    """The example that counts labels."""
    return load_bound(EXAMPLE / "labelled.py")


def table(days: list[float], terminals: list[str] | None = None) -> pl.DataFrame:
    """Payments so many days after the start."""
    return pl.DataFrame(
        [
            {
                "payment_id": f"p{row}",
                "event_time": START + timedelta(days=day),
                "customer_id": "c",
                "terminal_id": terminals[row] if terminals else "t",
                "amount": 10.0,
                "currency": "EUR",
            }
            for row, day in enumerate(days)
        ],
        schema_overrides={"event_time": pl.Datetime("ms", "UTC")},
    )


def reports(*rows: tuple[int, int, float]) -> pl.DataFrame:
    """What became of payments: number, fraud or not, known so many days after the start."""
    return pl.DataFrame(
        [{"payment_id": f"p{number}", "fraud": fraud, "label_time": START + timedelta(days=day)} for number, fraud, day in rows],
        schema={"payment_id": pl.String, "fraud": pl.Boolean, "label_time": pl.Datetime("us", "UTC")},
    )


def rates(events: pl.DataFrame, labels: pl.DataFrame, **more: Any) -> list[float]:
    found = labelled().transform(events, labels=labels, **more)
    return list(found["terminal_label_rate_7d_delay_7d"])


def test_a_report_is_seen_from_the_moment_it_is_known_on() -> None:
    # Payment 0 on day 0; others look back on it on days 8 and 9.
    events = table([0, 8, 9])
    assert rates(events, reports((0, 1, 7.5))) == [0, 1, 1]
    assert rates(events, reports((0, 1, 8))) == [0, 1, 1]
    assert rates(events, reports((0, 1, 8.5))) == [0, 0, 1]


def test_a_report_from_the_future_does_not_show() -> None:
    assert rates(table([0, 8, 9]), reports((0, 1, 9.000001))) == [0, 0, 0]


def test_of_several_reports_the_last_one_that_is_known_holds() -> None:
    assert rates(table([0, 8, 9, 10]), reports((0, 0, 8.5), (0, 1, 7), (0, 1, 9.5))) == [0, 1, 0, 1]


def test_reports_of_unknown_events_change_nothing_and_rows_stay_as_many() -> None:
    found = labelled().transform(table([0, 8]), labels=reports((7, 1, 1), (0, 1, 1)))
    assert found["payment_id"].to_list() == ["p0", "p1"]
    assert found["terminal_label_rate_7d_delay_7d"].to_list() == [0, 1]
    assert found["customer_count_30d"].to_list() == [1, 2]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 48), st.sampled_from(["t", "u"])), min_size=1, max_size=25),
    told=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 1), st.integers(0, 900)), max_size=20),
)
def test_the_rates_are_those_of_the_slow_definition(steps: list[tuple[int, str]], told: list[tuple[int, int, int]]) -> None:
    hours: list[int] = []
    for step, _ in steps:
        hours.append((hours[-1] if hours else 0) + step)
    terminals = [terminal for _, terminal in steps]
    events = table([hour / 24 for hour in hours], terminals)
    labels = reports(*((number, fraud, hour / 24) for number, fraud, hour in told))
    found = labelled().transform(events, labels=labels)
    # Known reports in the order they enter the log: by when they were known, then by their ids' and the file's order.
    order = sorted(range(len(told)), key=lambda place: told[place][2])
    for row, hour in enumerate(hours):
        for n in SPANS:
            seen = [f for f in range(row) if terminals[f] == terminals[row] and hour - 24 * (7 + n) < hours[f] <= hour - 24 * 7]
            fraud = dict.fromkeys(seen, 0)
            for place in order:
                number, value, known = told[place]
                # It enters the log before the first event at its time or later, and finds its event if that is there by then.
                if number in fraud and known <= hour and known > hours[number]:
                    fraud[number] = value
            wanted = sum(fraud.values()) / len(seen) if seen else 0.0
            assert found[f"terminal_count_{n}d_delay_7d"][row] == len(seen)
            assert found[f"terminal_label_rate_{n}d_delay_7d"][row] == wanted, (row, n)


def test_a_pipeline_that_counts_labels_wants_them() -> None:
    with pytest.raises(HistoryError, match="entity 'terminal' counts labels, and events alone do not tell them; wanted labels with them"):
        labelled().transform(table([0]))


def test_labels_for_a_pipeline_without_are_refused() -> None:
    with pytest.raises(HistoryError, match="pipeline 'card_fraud' has no labels; wanted Labels"):
        card_fraud().transform(table([0]), labels=reports((0, 1, 1)))


def test_labels_without_their_column_are_refused() -> None:
    with pytest.raises(HistoryError, match="the table of labels has no column 'label_time'; it has payment_id, fraud"):
        labelled().transform(table([0]), labels=reports((0, 1, 1)).drop("label_time"))
    with pytest.raises(HistoryError, match="the table of labels, row 0: fraud is null, wanted boolean"):
        labelled().transform(table([0]), labels=reports((0, 1, 1)).with_columns(fraud=pl.lit(None, pl.Boolean)))
