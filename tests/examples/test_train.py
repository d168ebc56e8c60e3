"""The training script makes a model that its pipeline can be bound to, and measures it honestly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from examples.card_fraud import history as remembering
from examples.card_fraud import train as training
from examples.card_fraud.history import History, history
from examples.card_fraud.simulate import COMPROMISED_CARD, DAY_MS, MONDAY_MS, Simulator
from examples.card_fraud.train import LABEL_DELAY_DAYS, cut, train
from inference.forest_scorer import ForestScorer
from inference.golden import golden_path, read_golden
from inference.load_model import load_model
from inference.model_card import ModelCard, bind
from schemas.errors import ModelError
from schemas.rules import in_range
from streams.definition.bound import Bound
from streams.definition.bound import bind as bind_pipeline
from streams.definition.load import load_bound

PIPELINE = Path(training.__file__).with_name("pipeline.py")
WORLD = Simulator(seed=1, customers=250, terminals=150)
DAYS = 60


@pytest.fixture(scope="module")
def bound() -> Bound:
    return load_bound(PIPELINE)


@pytest.fixture(scope="module")
def trained(bound: Bound, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelCard, Path]:
    path = tmp_path_factory.mktemp("model") / "folder" / "fraud.onnx"
    return train(bound, WORLD, path, days=DAYS, trees=8), path


def test_the_model_is_bound_to_the_pipeline_it_was_trained_for(bound: Bound, trained: tuple[ModelCard, Path]) -> None:
    card, path = trained
    model = load_model(path)
    assert isinstance(model, ForestScorer)
    assert model.card == card
    assert card.name == bound.model.name
    bind(model.card, bound.features.names, bound.features.fingerprint)


def test_a_pipeline_with_another_window_is_refused_by_the_model(bound: Bound, trained: tuple[ModelCard, Path]) -> None:
    customer, *others = bound.pipeline.entities
    later = replace(customer, lateness_ms=customer.lateness_ms + 1)
    other = bind_pipeline(replace(bound.pipeline, entities=(later, *others)), bound.folder)
    assert other.features.names == bound.features.names
    with pytest.raises(ModelError, match="a definition behind them is not"):
        bind(trained[0], other.features.names, other.features.fingerprint)


def test_training_again_gives_the_same_bytes(bound: Bound, trained: tuple[ModelCard, Path], tmp_path: Path) -> None:
    card, path = trained
    again = tmp_path / "again.onnx"
    assert train(bound, WORLD, again, days=DAYS, trees=8) == card
    assert again.read_bytes() == path.read_bytes()
    assert golden_path(again).read_bytes() == golden_path(path).read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([again, golden_path(again)])


def test_the_card_says_what_made_the_model_and_how_good_it_was(bound: Bound, trained: tuple[ModelCard, Path]) -> None:
    card, _ = trained
    assert card.schema_fingerprint == bound.schema.fingerprint
    assert card.trained_at == datetime.fromtimestamp((MONDAY_MS + DAYS * DAY_MS) / 1000, UTC).isoformat()
    assert {"scikit-learn", "skl2onnx", "onnx", "numpy"} <= set(card.libraries)
    assert 0 < card.threshold < 1
    assert 0 < card.metrics["average_precision"] <= 1
    assert 0 <= card.metrics["precision"] <= 1
    assert {f"recall_{kind}" for kind in ("large_amount", "compromised_terminal", "compromised_card")} <= set(card.metrics)


def test_the_golden_set_holds_scores_of_all_heights_and_is_held_to(bound: Bound, trained: tuple[ModelCard, Path]) -> None:
    card, path = trained
    golden = read_golden(path)
    assert golden is not None
    assert (golden.version, golden.feature_names, golden.sha256) == (card.version, bound.features.names, card.golden_sha256)
    assert golden.rows.shape == (256, len(bound.features.names))
    assert np.count_nonzero(golden.scores >= card.threshold) > 0
    assert np.count_nonzero(golden.scores < card.threshold) > 100
    scorer = load_model(path)
    assert scorer.parity is not None
    assert scorer.parity.largest_difference <= scorer.parity.tolerance == 1e-6
    assert card.training_data_sha256 is not None
    assert len(card.training_data_sha256) == 64


def test_the_report_counts_every_kind_of_payment(
    trained: tuple[ModelCard, Path], bound: Bound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = train(bound, WORLD, tmp_path / "m.onnx", days=DAYS, trees=8)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    last_week = WORLD.days(DAYS - 7, 7)
    counted = int(next(line for line in lines if line.startswith("compromised card")).split()[-2].replace(",", ""))
    assert counted == np.count_nonzero(last_week.scenario == COMPROMISED_CARD)
    assert card.version in lines[-1]


def test_history_does_not_depend_on_how_it_is_cut_into_batches(bound: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = history(bound, WORLD, 40)
    monkeypatch.setattr(remembering, "BATCH_DAYS", 3)
    pieces = history(bound, WORLD, 40)
    np.testing.assert_array_equal(whole.rows.view(np.uint32), pieces.rows.view(np.uint32))
    np.testing.assert_array_equal(whole.scenario, pieces.scenario)


def test_a_row_of_history_is_what_the_definitions_say(bound: Bound) -> None:
    """Counted once more by hand, for a customer's week and a terminal's week that ended a week ago."""
    made = history(bound, WORLD, 40)
    payments = WORLD.days(0, 40)
    column = {name: made.rows[:, place] for place, name in enumerate(bound.features.names)}
    np.testing.assert_array_equal(column["amount"], (payments.amount_cents / 100).astype(np.float32))
    week = 7 * DAY_MS
    for row in range(len(payments) - 1, 0, -977):
        now = payments.event_ms[row]
        before = np.arange(len(payments)) <= row
        own = before & (payments.customer == payments.customer[row]) & (payments.event_ms > now - week)
        assert column["customer_count_7d"][row] == np.count_nonzero(own)
        assert column["customer_amount_mean_7d"][row] == np.float32(payments.amount_cents[own].sum() / (100 * np.count_nonzero(own)))
        there = before & (payments.terminal == payments.terminal[row])
        there &= (payments.event_ms > now - 2 * week) & (payments.event_ms <= now - week)
        assert column["terminal_count_7d_delay_7d"][row] == np.count_nonzero(there)


def test_what_the_pipeline_refuses_is_not_learned_from(bound: Bound) -> None:
    small = bind_pipeline(
        replace(bound.pipeline, rules=(*bound.pipeline.rules, replace(in_range("amount", 0, 30), name="small"))), bound.folder
    )
    made = history(small, WORLD, 10)
    payments = WORLD.days(0, 10)
    passes = payments.amount_cents <= 30_00
    assert 0 < np.count_nonzero(passes) < len(payments)
    np.testing.assert_array_equal(made.scenario, payments.scenario[passes])
    counted = made.rows[:, small.features.names.index("customer_count_30d")]
    for row in range(0, len(counted), 101):
        place = np.flatnonzero(passes)[row]
        before = passes & (np.arange(len(payments)) <= place) & (payments.customer == payments.customer[place])
        assert counted[row] == np.count_nonzero(before)


def test_a_label_delay_lies_between_the_parts_of_the_history() -> None:
    days = np.repeat(np.arange(90), 10)
    whole = History(np.zeros((900, 1), np.float32), days, (np.arange(900) % 10 == 0).astype(np.int8))
    split = cut(whole, 90)
    assert (split.train.day.min(), split.train.day.max()) == (37, 61)
    assert (split.choose.day.min(), split.choose.day.max()) == (69, 75)
    assert (split.judge.day.min(), split.judge.day.max()) == (83, 89)
    assert split.choose.day.min() - split.train.day.max() > LABEL_DELAY_DAYS
    assert split.judge.day.min() - split.choose.day.max() > LABEL_DELAY_DAYS


def test_too_short_a_history_and_one_without_fraud_are_refused(bound: Bound) -> None:
    days = np.repeat(np.arange(90), 10)
    honest = History(np.zeros((900, 1), np.float32), days, np.zeros(900, np.int8))
    with pytest.raises(ValueError, match="hold 0 frauds"):
        cut(honest, 90)
    with pytest.raises(ValueError, match="30 days of history: wanted 35 at least"):
        cut(honest, 30)
