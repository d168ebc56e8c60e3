"""History: simulated payments with what the model would have been given of each, by the worker's own code in the order of the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.simulate import DAY_MS, Simulator
from inference.float32 import to_float32
from inference.scorer import Rows
from schemas.columns import Columns, Floats, Ints, Mask
from schemas.reject import Reject
from schemas.rules import check
from streams.bound import Bound
from transforms.derive import derive
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState

BATCH_DAYS = 5


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
        payments = simulator.days(first, min(BATCH_DAYS, days - first))
        values, usable = features(bound, state, payments.columns(), position)
        rows, finite = to_float32(values)
        kept = usable & finite  # what the worker would not score, the forest does not learn from
        parts.append((rows[kept], ((payments.event_ms - simulator.start_ms) // DAY_MS)[kept], payments.scenario[kept]))
        position += len(payments)
    rows_of, day_of, scenario_of = zip(*parts, strict=True)
    return History(np.concatenate(rows_of), np.concatenate(day_of), np.concatenate(scenario_of))


def features(bound: Bound, state: ShardState, columns: Columns, position: int) -> tuple[Floats, Mask]:
    """What the model is given of payments that stand at `position` and after it in the log.

    Returns:
        The model's inputs, shape (n, k), and which payments pass the pipeline's rules, shape (n,).
    """
    count = len(columns[bound.event_id])
    rejected = check(bound.rules, columns, np.zeros(count, np.uint8))
    usable = np.asarray(rejected == Reject.USABLE)
    columns = derive(columns, bound.pipeline.derived, usable)
    past = state.advance(columns, usable, np.arange(position, position + count)).features
    names = [name for entity in bound.pipeline.entities for name in entity.feature_names]
    known = {**columns, **{name: past[:, place] for place, name in enumerate(names)}}
    return np.column_stack([np.asarray(known[name], np.float64) for name in bound.model.inputs]), usable
