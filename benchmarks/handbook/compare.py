"""Compare what came out of the stream with the definitions."""

from __future__ import annotations

import numpy as np

from benchmarks.handbook.definition import customer_features, over_logs, terminal_features
from benchmarks.handbook.stream import Outcome
from benchmarks.handbook.transactions import DAY_MS, Transactions
from schemas.columns import Floats

EVENT, CUSTOMER, TERMINAL = slice(0, 3), slice(3, 9), slice(9, 15)  # columns of the features


def compare(rows: Transactions, outcome: Outcome, as_published: bool) -> dict[str, int]:
    """Counts of what was compared.

    Args:
        rows: what was sent.
        outcome: what came out.
        as_published: whether terminals must equal the published definitions, too.

    Raises:
        AssertionError: something is missing, twice, or differs.
    """
    n = len(rows)
    found = outcome.scored
    assert outcome.letters == 0, f"{outcome.letters} transactions were refused"
    assert np.array_equal(np.sort(found.transaction), np.arange(n)), f"{len(found.transaction)} scores of {n}: missing or twice"
    order = np.argsort(found.transaction)
    features = found.features[order]
    assert sorted(row.transaction for row in outcome.log if row.label is None) == list(range(n)), "the terminals' log lacks transactions"
    assert sorted(row.transaction for row in outcome.log if row.label is not None) == list(range(n)), "the terminals' log lacks labels"

    _equal("amount, weekend, night", features[:, EVENT], _of_the_event(rows))
    _equal("customers", features[:, CUSTOMER], customer_features(rows))
    logs = over_logs(outcome.log)
    _equal("terminals over their own logs", features[:, TERMINAL], np.array([logs.features[row] for row in range(n)]))
    assert outcome.label_letters == logs.unmatched, f"{outcome.label_letters} labels came back, {logs.unmatched} found no transaction"
    by_the_book = terminal_features(rows)
    if as_published:
        assert logs.unmatched == 0, f"{logs.unmatched} labels found no transaction"
        _equal("terminals as published", features[:, TERMINAL], by_the_book)
    return {
        "transactions": n,
        "labels": len(outcome.log) - n,
        "features_compared": int(features.size),
        "rows_unlike_their_own_log": 0,
        "rows_unlike_the_published_definitions": int((features[:, TERMINAL] != by_the_book).any(axis=1).sum()),
        "labels_without_a_transaction": logs.unmatched,
        "seconds": round(outcome.seconds),
        "transactions_and_labels_per_second": round(len(outcome.log) / outcome.seconds),
    }


def expected_features(rows: Transactions) -> Floats:
    """Shape (n, 15): all features by their published definitions."""
    return np.column_stack((_of_the_event(rows), customer_features(rows), terminal_features(rows)))


def _of_the_event(rows: Transactions) -> Floats:
    weekend = (rows.time_ms // DAY_MS + 3) % 7 >= 5
    night = rows.time_ms % DAY_MS // 3_600_000 <= 6
    return np.column_stack((rows.cents / 100, weekend, night)).astype(np.float64)


def _equal(what: str, found: Floats, wanted: Floats) -> None:
    differ = np.flatnonzero((found != wanted).any(axis=1))
    if len(differ):
        row = int(differ[0])
        raise AssertionError(
            f"{what}: {len(differ)} rows differ; transaction {row} has {found[row].tolist()}, wanted {wanted[row].tolist()}"
        )
