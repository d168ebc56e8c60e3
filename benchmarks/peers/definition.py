"""What the six features are, as a slow program: the peers' answers are held against it.

It is ``windows.md`` in small, and tests hold it against the project's own oracle. One customer's payments pass in the order of the log; M
is the newest event time remembered so far. A payment more than a day behind M is too late: it is judged at M less a day, and not
remembered. A window of length w holds itself and what was remembered before it with t - w < event time <= t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.events import DAY_MS, LATENESS_MS, WINDOWS_DAYS, Payments
from schemas.columns import Floats, Ints

ON_TIME, LATE, TOO_LATE = range(3)
TIMINGS = ("on_time", "late", "too_late")
FEATURES = tuple(f"{word}_{days}d" for days in WINDOWS_DAYS for word in ("count", "mean"))  # in the model's order
CLOSE = 1e-9  # relative: a mean summed in floats is right, though not to the bit


def slow_features(event_ms: Ints, cents: Ints) -> tuple[Floats, Ints]:
    """The features of one customer's payments, in the order of the log, and how late each was.

    Returns:
        Shapes (n, 6) and (n,).
    """
    features, timing = np.empty((len(event_ms), len(FEATURES))), np.empty(len(event_ms), np.int64)
    remembered = np.zeros(len(event_ms), np.bool_)
    for row, event_time in enumerate(event_ms.tolist()):
        past_ms, past_cents = event_ms[:row][remembered[:row]], cents[:row][remembered[:row]]
        newest = int(past_ms.max()) if len(past_ms) else event_time
        too_late = event_time < newest - LATENESS_MS
        t = newest - LATENESS_MS if too_late else event_time
        for place, days in enumerate(WINDOWS_DAYS):
            inside = (past_ms > t - days * DAY_MS) & (past_ms <= t)
            count = int(inside.sum()) + 1
            features[row, 2 * place : 2 * place + 2] = count, (int(past_cents[inside].sum()) + int(cents[row])) / (count * 100)
        timing[row] = TOO_LATE if too_late else LATE if event_time < newest else ON_TIME
        remembered[row] = not too_late
    return features, timing


@dataclass(frozen=True, slots=True)
class Compared:
    """How many answers were held against the definition, and how they came out."""

    checked: int
    right: int  # all six features within `CLOSE`
    to_the_bit: int  # all six equal
    differs: dict[str, int]  # the others, by how late the payment was

    def as_json(self) -> dict[str, object]:
        """With shares of all."""
        share = self.right / self.checked if self.checked else None
        to_the_bit = self.to_the_bit / self.checked if self.checked else None
        return {"share": share, "to_the_bit": to_the_bit, "checked": self.checked, "differs": self.differs}


def compare(payments: Payments, found: Floats, customers: Ints) -> Compared:
    """Hold the features of some customers' payments against the definition.

    Args:
        payments: the log from its first payment on.
        found: shape (n, 6); what a peer said of each, NaN where it said nothing: those are not compared.
        customers: which customers.
    """
    checked = right = to_the_bit = 0
    differs = dict.fromkeys(TIMINGS, 0)
    for customer in customers.tolist():
        rows = np.flatnonzero(payments.customer == customer)
        wanted, timing = slow_features(payments.event_ms[rows], payments.cents[rows])
        said = ~np.isnan(found[rows]).any(axis=1)
        wanted, timing, answers = wanted[said], timing[said], found[rows][said]
        close = (np.abs(answers - wanted) <= CLOSE * np.abs(wanted)).all(axis=1)
        checked += len(answers)
        right += int(close.sum())
        to_the_bit += int((answers == wanted).all(axis=1).sum())
        for place, word in enumerate(TIMINGS):
            differs[word] += int((~close & (timing == place)).sum())
    return Compared(checked, right, to_the_bit, differs)
