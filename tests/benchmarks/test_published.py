"""The published tables' parts: what is tested, what is measured of it, and models that score in ONNX as in their library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import benchmarks.handbook.pipeline as handbook
from benchmarks.handbook.compare import expected_features
from benchmarks.handbook.transactions import LABEL_DELAY_DAYS, made_up
from benchmarks.published import models
from benchmarks.published.metrics import card_precision, performance
from benchmarks.published.metrics import tested as in_the_test
from benchmarks.published.reproduce import offline
from benchmarks.published.weeks import folds
from inference.load_model import load_model
from schemas.columns import Floats, Ints
from streams.definition.load import load_bound

PIPELINE = Path(handbook.__file__)


def of_the_book(fraud: Ints, scores: Floats, customer: Ints, day: Ints, cards: int) -> float:
    """Card precision in the book's own way: pandas, grouped by card."""
    rows = pd.DataFrame({"score": scores, "card": customer, "fraud": fraud, "day": day})
    found: list[int] = []
    shares = []
    for today in sorted(rows.day.unique()):
        of_today = rows[(rows.day == today) & ~rows.card.isin(found)]
        cards_of_today = of_today[["score", "card", "fraud"]].groupby("card").max().sort_values(by="score", ascending=False).head(cards)
        caught = cards_of_today.index[cards_of_today.fraud == 1].tolist()
        found += caught
        shares.append(len(caught) / cards)
    return float(np.mean(shares))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
def test_card_precision_is_the_books_and_lies_between_the_worst_and_the_best_order_of_ties(seed: int, digits: int, cards: int) -> None:
    random = np.random.default_rng(seed)
    n = 200
    day, customer, fraud = random.integers(5, size=n), random.integers(30, size=n), (random.random(n) < 0.2).astype(np.int64)
    scores = random.random(n).round(digits)
    found = card_precision(fraud, scores, customer, day, cards)
    assert found == of_the_book(fraud, scores, customer, day, cards)
    if len(np.unique(scores)) == n:
        assert found == card_precision(fraud, scores, customer, day, cards, ties="worst")
    first = day == day.min()  # on later days an earlier catch may cost one
    part = (fraud[first], scores[first], customer[first], day[first], cards)
    assert card_precision(*part, ties="worst") <= card_precision(*part) <= card_precision(*part, ties="best")


def test_a_card_with_a_fraud_eight_days_before_or_more_is_tested_no_more() -> None:
    #  day           10        16 17    24       25
    #  card 1        fraud              -        -      since the training week
    #  card 2                     fraud .        -      eight days before the 25th
    #  card 3                  fraud    -        -      eight days before the 24th
    #  card 4                           .        .
    day = np.array([10, 17, 16, 24, 24, 24, 24, 25, 25, 25, 25])
    card = np.array([1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4])
    fraud = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    chosen = in_the_test(fraud, card, day, 10, range(24, 31))
    assert card[chosen & (day == 24)].tolist() == [2, 4]
    assert card[chosen & (day == 25)].tolist() == [4]
    assert not chosen[day < 24].any()
    before_training = in_the_test(fraud, card, day, 11, range(24, 31))
    assert card[before_training & (day == 24)].tolist() == [1, 2, 4]


def test_every_label_of_a_fold_is_known_before_its_test_week_and_test_weeks_follow_each_other() -> None:
    found = folds(4)
    assert [(fold.train.start, fold.test.start) for fold in found] == [(115, 129), (122, 136), (129, 143), (136, 150)]
    assert all(fold.train.stop + LABEL_DELAY_DAYS == fold.test.start for fold in found)


def test_a_constant_says_nothing() -> None:
    fraud = (np.arange(1_000) % 50 == 0).astype(np.int64)
    found = performance(fraud, np.full(1_000, 0.5), np.arange(1_000), np.zeros(1_000, np.int64))
    assert found.auc == 0.5
    assert found.average_precision == pytest.approx(0.02)


@pytest.fixture(scope="module")
def rows() -> tuple[Floats, Ints]:
    """Features of made up transactions, and frauds that follow from two of them."""
    found = expected_features(made_up(4_000, 60))
    return found.astype(np.float32), ((found[:, 0] > 600) ^ (found[:, 3] > 3)).astype(np.int64)


@pytest.mark.parametrize("name", models.SINGLE_SPLIT)
def test_a_model_scores_in_onnx_as_in_its_library(name: str, rows: tuple[Floats, Ints], tmp_path: Path) -> None:
    inputs, fraud = rows[0].astype(np.float32), rows[1]
    model = models.fit(models.SINGLE_SPLIT[name], inputs[:1_500], fraud[:1_500])
    onnx.save(models.export(model, load_bound(PIPELINE)), str(tmp_path / "model.onnx"))
    served = load_model(tmp_path / "model.onnx").score(inputs)
    assert np.abs(served - models.probability(model, inputs)).max() < 2e-6
    assert len(np.unique(served)) > 1


def test_the_features_over_history_are_those_of_the_published_definitions() -> None:
    made = made_up(3_000, 60)
    assert np.array_equal(offline(load_bound(PIPELINE), made), expected_features(made))
