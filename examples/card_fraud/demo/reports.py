"""The reports the demo sends: labels that say which payments were frauds, a week after each. Some are misfits, as among the payments.

    day       0 .. 2   3 .. 32         33 .. 39   40 ...
    payments  the history, all at once          │ the live stream
    reports   none     once the history         │ of day 33 on day 40, and so on, each
                       is scored                │ as the stream's event time gets there

What is older, as the history ends, than any window looks back is not reported: no terminal remembers it by then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.history import REPORTED_AFTER_DAYS
from examples.card_fraud.simulate import DAY_MS, Payments, Simulator
from schemas.codec import Encoder
from schemas.columns import Columns, Ints
from streams.definition.bound import Bound, BoundLabels

REPORTED_AFTER_MS = REPORTED_AFTER_DAYS * DAY_MS
MISFIT_SHARE = 0.05  # of the reports: half of them said twice, half followed by one of a payment that nobody made
NOBODYS = 999_999_999_999  # the number of no payment
_PURPOSE = 1  # of the random numbers here: others than those of the day's payments


class ReportKind(IntEnum):
    """What was sent: a report, the same once more, or one of an unknown payment."""

    FIRST = 0
    AGAIN = 1
    UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports in the order they are sent."""

    values: list[bytes]
    keys: list[bytes]
    kinds: NDArray[np.int8]  # shape (n,): `ReportKind`
    known_ms: Ints  # shape (n,), ascending: the event time at which each is sent

    def __len__(self) -> int:
        return len(self.values)


def reports(simulator: Simulator, encoder: Encoder, first_day: int, days: int = 1) -> Reports:
    """The reports of the frauds of so many days.

    Args:
        simulator: makes the payments.
        encoder: of the labels' schema.
        first_day: of the payments; their reports are sent a week later.
        days: how many.
    """
    payments = simulator.days(first_day, days)
    frauds = payments.taken(np.flatnonzero(payments.fraud))
    random = np.random.default_rng((simulator.seed, first_day, _PURPOSE))
    hosts = np.flatnonzero(random.random(len(frauds)) < MISFIT_SHARE)
    misfits = random.choice(np.array((ReportKind.AGAIN, ReportKind.UNKNOWN), np.int8), len(hosts))
    order = np.argsort(np.concatenate((np.arange(len(frauds)), hosts + 0.5)), kind="stable")
    kinds = np.concatenate((np.full(len(frauds), ReportKind.FIRST, np.int8), misfits))[order]
    told = frauds.taken(np.concatenate((np.arange(len(frauds)), hosts))[order])
    told = replace(told, number=np.where(kinds == ReportKind.UNKNOWN, NOBODYS, told.number))
    return Reports(list(encoder.encode(_columns(told))), list(told.payment_id), kinds, told.event_ms + REPORTED_AFTER_MS)


def labels_of(bound: Bound) -> BoundLabels:
    """The pipeline's labels; the demo's has some."""
    assert bound.labels is not None
    return bound.labels


def label_encoder(bound: Bound, schema_id: int) -> Encoder:
    """Encodes reports as the pipeline's labels want them."""
    return Encoder(labels_of(bound).schema, labels_of(bound).topic.framing, schema_id)


def _columns(payments: Payments) -> Columns:
    """As ``schemas/3-payment-labels-value.avsc`` has them."""
    return {
        "payment_id": payments.payment_id,
        "event_time": payments.event_ms,
        "terminal_id": payments.terminal_id,
        "fraud": np.ones(len(payments), np.bool_),
        "label_time": payments.event_ms + REPORTED_AFTER_MS,
    }
