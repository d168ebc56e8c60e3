"""History: simulated payments with what the model would have been given of each, by the worker's own code in the order of the log.

Where the pipeline has labels, each fraud is reported a week after its payment: the report stands in the log among the payments of that
time, before one of the same millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.simulate import DAY_MS, Payments, Simulator
from inference.float32 import to_float32
from inference.scorer import Rows
from schemas.columns import Columns, Floats, Ints, Mask
from schemas.reject import Reject
from schemas.rules import check
from streams.definition.bound import Bound
from transforms.derive import derive
from transforms.label import LabelRows, event_id_hashes
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState

BATCH_DAYS = 5
REPORTED_AFTER_DAYS = 7


@dataclass(frozen=True, slots=True)
class History:
    """Payments with what the model sees of them."""

    rows: Rows  # shape (n, k)
    day: Ints  # shape (n,)
    scenario: NDArray[np.int8]  # shape (n,)

    def between(self, first_day: int, end_day: int) -> History:
        """Those of the days from the first up to, not including, the end."""
        within = (self.day >= first_day) & (self.day < end_day)
        return History(self.rows[within], self.day[within], self.scenario[within])

    @property
    def fraud(self) -> NDArray[np.bool_]:
        """Shape (n,): the label."""
        return np.asarray(self.scenario > 0)


def history(bound: Bound, simulator: Simulator, days: int) -> History:
    """The payments of so many days, each with its model inputs as the worker would have computed them."""
    store = MemoryStore()
    store.claim("history", {})
    state = ShardState(
        "history", bound.pipeline.entities, store, bound.event_time.column, max_keys=simulator.customers + simulator.terminals
    )
    parts, position = [], 0
    for first in range(0, days, BATCH_DAYS):
        rows, is_label = log_of(simulator, first, min(BATCH_DAYS, days - first), with_labels=bound.labels is not None)
        columns = rows.columns()
        labels = LabelRows(is_label, is_label.astype(np.int64), event_id_hashes(columns[bound.event_id]))
        values, usable = features(bound, state, columns, position, labels)
        inputs, finite = to_float32(values)
        kept = usable & finite & ~is_label  # what the worker would not score, the forest does not learn from
        parts.append((inputs[kept], ((rows.event_ms - simulator.start_ms) // DAY_MS)[kept], rows.scenario[kept]))
        position += len(rows)
    rows_of, day_of, scenario_of = zip(*parts, strict=True)
    return History(np.concatenate(rows_of), np.concatenate(day_of), np.concatenate(scenario_of))


def log_of(simulator: Simulator, first_day: int, days: int, *, with_labels: bool) -> tuple[Payments, Mask]:
    """What comes in during so many days, in order: payments, and reports of the frauds of a week before.

    Returns:
        Each row's payment, and which rows are reports, shape (n,).
    """
    payments = simulator.days(first_day, days)
    from_day, end_day = (max(day - REPORTED_AFTER_DAYS, 0) for day in (first_day, first_day + days))
    before = simulator.days(from_day, end_day - from_day if with_labels else 0)
    reported = before.taken(np.flatnonzero(before.fraud))
    both = reported.followed_by(payments)
    is_label = np.arange(len(both)) < len(reported)
    order = np.argsort(both.event_ms + np.where(is_label, REPORTED_AFTER_DAYS * DAY_MS, 0), kind="stable")
    return both.taken(order), is_label[order]


def features(bound: Bound, state: ShardState, columns: Columns, position: int, labels: LabelRows | None = None) -> tuple[Floats, Mask]:
    """What the model is given of payments that stand at `position` and after it in the log.

    Returns:
        The model's inputs, shape (n, k), and which payments pass the pipeline's rules, shape (n,). Labels have inputs that mean nothing.
    """
    count = len(columns[bound.event_id])
    rejected = check(bound.rules, columns, np.zeros(count, np.uint8))
    usable = np.asarray(rejected == Reject.USABLE)
    columns = derive(columns, bound.pipeline.derived, usable)
    past = state.advance(columns, usable, np.arange(position, position + count), labels=labels).features
    names = [name for entity in bound.pipeline.entities for name in entity.feature_names]
    known = {**columns, **{name: past[:, place] for place, name in enumerate(names)}}
    return np.column_stack([np.asarray(known[name], np.float64) for name in bound.model.inputs]), usable
