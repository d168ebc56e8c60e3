"""Learn from what the stream served, have the stream score what came after, and hold the result against what is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.handbook.compare import expected_features
from benchmarks.handbook.transactions import DAY_MS, LABEL_DELAY_DAYS, Transactions
from benchmarks.published import book, models
from benchmarks.published.live import Live, Served
from benchmarks.published.metrics import Performance, card_precision, performance, tested
from benchmarks.published.weeks import Fold
from inference.float32 import to_float32
from schemas.columns import Floats
from schemas.features import Json
from streams.definition.bound import Bound

TABLES = ("single_split", "four_folds")
APART = 1e-5  # how far a served score may lie from the library's own before it is counted


@dataclass
class _Table:
    """Models that are tested alike."""

    name: str
    makes: Mapping[str, models.Make]
    weeks: int
    printed: Mapping[str, book.Printed]
    found: dict[str, list[dict[str, Json]]] = field(default_factory=dict)  # by model, a test week each


def reproduce(
    live: Live, rows: Transactions, folds: Sequence[Fold], names: Sequence[str], only: Sequence[str], say: Callable[[str], None]
) -> dict[str, Json]:
    """The tables, as the stream's scores have them.

    Args:
        live: the stream, not fed yet.
        rows: all transactions there are, their days since the data's first.
        folds: a week apart. The models of the single split are tested on the first, those of the four folds on all.
        names: of the tables.
        only: models to look at; none = all.
        say: told how it goes.

    Raises:
        AssertionError: a feature is not what its definition says, or not the same offline or behind another model.
        NoProgress: something stands still.
    """
    kinds = {
        "single_split": (models.SINGLE_SPLIT, 1, book.SINGLE_SPLIT),
        "four_folds": (models.FOUR_FOLDS, len(folds), book.FOUR_FOLDS),
    }
    tables = [_Table(name, {m: make for m, make in kinds[name][0].items() if not only or m in only}, *kinds[name][1:]) for name in names]
    for table in tables:
        table.found = {name: [] for name in table.makes}
        for name in table.makes:
            live.add(f"{table.name} {name}")
    with live.running():
        say(f"streaming {len(rows):,} transactions, and their labels a week later, to {len(live.names)} pipelines")
        served = live.feed(range(int(rows.day[0]), folds[0].test.start))
        for week, fold in enumerate(folds):
            say(f"week {week + 1}: learning from days {fold.train.start} to {fold.train.stop - 1}, testing on {fold.test.start} and after")
            train = _training(rows, served, fold)
            fitted = {f"{t.name} {name}": models.fit(make, *train) for t in tables if week < t.weeks for name, make in t.makes.items()}
            live.replace({place: models.export(model, live.bound) for place, model in fitted.items()})
            served = served.followed_by(live.feed(fold.test))
            for table in tables:
                for name in table.makes if week < table.weeks else ():
                    place = f"{table.name} {name}"
                    table.found[name].append(_tested(rows, served, fold, live.served(place), fitted[place]))
                    say(f"  {place:40} " + _words(table.found[name][-1]))
    return {"stream": _checked(live.bound, rows, served), **{table.name: _said(table) for table in tables}, **_constant(rows, folds[0])}


def _training(rows: Transactions, served: Served, fold: Fold) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What was served in the training week, as models are given it, and what became of it."""
    assert fold.train.stop + LABEL_DELAY_DAYS <= fold.test.start, "a label would be used before it is known"
    chosen = np.isin(rows.day[served.transaction], list(fold.train))
    inputs, finite = to_float32(served.features[chosen])
    assert finite.all()
    return inputs, rows.fraud[served.transaction[chosen]]


def _tested(rows: Transactions, served: Served, fold: Fold, scored: Served, model: Any) -> dict[str, Json]:
    """How good a model's served scores are on a test week."""
    place = np.searchsorted(served.transaction, scored.transaction)
    assert np.array_equal(served.features[place], scored.features), "another model was served other features"
    chosen = tested(rows.fraud, rows.customer, rows.day, fold.train.start, fold.test)
    tests = np.flatnonzero(chosen)
    at = np.searchsorted(scored.transaction, tests)
    assert np.array_equal(scored.transaction[at], tests), "a transaction of the test week has no score"
    scores, fraud, customer, day = scored.scores[at], rows.fraud[tests], rows.customer[tests], rows.day[tests]
    library = models.probability(model, to_float32(scored.features[at])[0])
    return {
        "transactions": len(tests),
        "frauds": int(fraud.sum()),
        "served": _figures(performance(fraud, scores, customer, day)),
        "library": _figures(performance(fraud, library, customer, day)),
        "rows_apart": int((np.abs(scores - library) > APART).sum()),
        "largest_difference": float(np.abs(scores - library).max()),
        "card_precision_by_ties": [
            round(card_precision(fraud, scores.astype(np.float64), customer, day, ties=ties), 4) for ties in ("worst", "best")
        ],
    }


def _checked(bound: Bound, rows: Transactions, served: Served) -> dict[str, Json]:
    """Every feature against its definition, and against the same pipeline over history."""
    assert np.array_equal(served.transaction, np.arange(len(rows))), "a transaction was not served"
    assert np.array_equal(served.features, expected_features(rows)), "a feature is not what its published definition says"
    assert np.array_equal(served.features, offline(bound, rows)), "a feature over history is not the one that was served"
    return {
        "transactions": len(rows),
        "features_compared": int(served.features.size),
        "rows_unlike_the_published_definitions": 0,
        "rows_unlike_the_same_features_over_history": 0,
    }


def offline(bound: Bound, rows: Transactions) -> Floats:
    """Shape (n, 15): the model's inputs by `Bound.transform`, each label known a week after its transaction."""
    ids = np.arange(len(rows)).astype(str)
    time = pl.Series(rows.time_ms).cast(pl.Datetime("ms", "UTC"))
    events = pl.DataFrame(
        {
            "transaction_id": ids,
            "event_time": time,
            "customer_id": rows.customer.astype(str),
            "terminal_id": rows.terminal.astype(str),
            "amount": rows.cents / 100,
        }
    )
    known = pl.Series(rows.time_ms + LABEL_DELAY_DAYS * DAY_MS).cast(pl.Datetime("ms", "UTC"))
    labels = pl.DataFrame({"transaction_id": ids, "fraud": rows.fraud, "label_time": known})
    found = bound.transform(events, labels=labels)
    return np.column_stack([found[name].to_numpy().astype(np.float64) for name in bound.features.names])


def _constant(rows: Transactions, fold: Fold) -> dict[str, Json]:
    """What scores that say nothing are worth; nothing is served for it."""
    tests = np.flatnonzero(tested(rows.fraud, rows.customer, rows.day, fold.train.start, fold.test))
    scores = np.full(len(tests), 0.5)
    found = _figures(performance(rows.fraud[tests], scores, rows.customer[tests], rows.day[tests]))
    return {"constant": {"not_served": found, "book": list(book.SINGLE_SPLIT["constant"])}}


def _said(table: _Table) -> dict[str, Json]:
    said: dict[str, Json] = {}
    for name, weeks in table.found.items():
        figures = np.array([list(week["served"].values()) for week in weeks if isinstance(week["served"], dict)])
        printed = table.printed.get(name)
        said[name] = {
            "mean": _figures(Performance(*figures.mean(axis=0))),
            "deviation": _figures(Performance(*figures.std(axis=0))),
            "book": None if printed is None else dict(zip(Performance._fields, printed, strict=True)),
            "weeks": list(weeks),
        }
    return said


def _figures(found: Performance) -> dict[str, Json]:
    return {name: round(value, 4) for name, value in found._asdict().items()}


def _words(week: Mapping[str, Json]) -> str:
    served = week["served"]
    assert isinstance(served, dict)
    return "  ".join(f"{value:.4f}" for value in served.values() if isinstance(value, float)) + f"   {week['rows_apart']} rows apart"
