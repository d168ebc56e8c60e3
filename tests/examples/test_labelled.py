"""The example with labels: two stages, features that are what was reported, and terminals that are caught by them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.card_fraud import train as training
from examples.card_fraud.history import REPORTED_AFTER_DAYS, history, log_of
from examples.card_fraud.simulate import COMPROMISED_TERMINAL, DAY_MS, Simulator
from streams.commands.dry_run import dry_run
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.planning.stage import stages
from streams.settings import Settings
from tests.streams.command_line import written

FOLDER = Path(training.__file__).parent
WORLD = Simulator(seed=1, customers=250, terminals=150)
DAYS = 40


@pytest.fixture(scope="module")
def bound() -> Bound:
    return load_bound(FOLDER / "labelled.py")


def test_it_is_two_stages_and_the_routing_of_labels(bound: Bound) -> None:
    found = stages(bound, 4)
    assert [(stage.name, [entity.name for entity in stage.entities]) for stage in found] == [
        ("by-customer", ["customer"]),
        ("by-terminal", ["terminal"]),
        ("labels", []),
    ]
    plain = load_bound(FOLDER / "pipeline.py")
    assert plain.schema.fingerprint == bound.schema.fingerprint
    assert [name for name in bound.model.inputs if "label" not in name] == list(plain.model.inputs)


def test_reports_stand_in_the_log_a_week_after_their_payments() -> None:
    rows, is_label = log_of(WORLD, 10, 5, with_labels=True)
    in_log_ms = rows.event_ms + np.where(is_label, REPORTED_AFTER_DAYS * DAY_MS, 0)
    assert (np.diff(in_log_ms) >= 0).all()
    assert in_log_ms.min() >= WORLD.start_ms + 10 * DAY_MS
    assert rows.fraud[is_label].all()
    assert sorted(rows.number[~is_label].tolist()) == sorted(WORLD.days(10, 5).number.tolist())
    week_before = WORLD.days(3, 5)
    assert sorted(rows.number[is_label].tolist()) == sorted(week_before.number[week_before.fraud].tolist())
    assert not log_of(WORLD, 10, 5, with_labels=False)[1].any()


def test_what_is_learned_from_is_the_share_of_frauds_a_week_ago(bound: Bound) -> None:
    """Counted again, payment by payment."""
    learned = history(bound, WORLD, DAYS)
    payments = WORLD.days(0, DAYS)
    rates = learned.rows[:, bound.model.inputs.index("terminal_label_rate_30d_delay_7d")]
    assert len(learned.rows) == len(payments)
    seen = 0
    for row in range(len(payments) - 1, 0, -37):
        newest = payments.event_ms[row] - 7 * DAY_MS
        there = (payments.terminal == payments.terminal[row]) & (payments.event_ms <= newest) & (payments.event_ms > newest - 30 * DAY_MS)
        frauds = payments.fraud[there]
        assert rates[row] == np.float32(frauds.sum() / len(frauds) if len(frauds) else 0.0)
        seen += int(frauds.any())
    assert seen > 20  # or nothing was shown


def test_a_compromised_terminal_stands_out_once_its_frauds_are_reported(bound: Bound) -> None:
    learned = history(bound, WORLD, DAYS)
    rates = learned.rows[:, bound.model.inputs.index("terminal_label_rate_7d_delay_7d")]
    lost = learned.scenario == COMPROMISED_TERMINAL
    assert lost.sum() > 50
    assert rates[lost].mean() > 0.3
    assert rates[~lost].mean() < 0.05


def test_a_dry_run_scores_events_that_nothing_is_known_of_yet(bound: Bound, tmp_path: Path) -> None:
    event: dict[str, Any] = {"event_time": 1_700_000_000_000, "customer_id": "c", "terminal_id": "t", "amount": 5.5, "currency": "EUR"}
    days_ms = (0, 10 * DAY_MS, 20 * DAY_MS)
    events = [{**event, "payment_id": f"p{n}", "event_time": event["event_time"] + days_ms[n]} for n in range(3)]
    out, refused = io.StringIO(), io.StringIO()
    account = dry_run(bound, Settings(), written(tmp_path / "e.jsonl", *events), out, refused, constant=0.5)
    assert (account["scored"], account["refused"], refused.getvalue()) == (3, 0, "")
    features = [json.loads(line)["features"] for line in out.getvalue().splitlines()]
    assert [each["terminal_count_30d_delay_7d"] for each in features] == [0.0, 1.0, 2.0]
    assert {each["terminal_label_rate_30d_delay_7d"] for each in features} == {0.0}
