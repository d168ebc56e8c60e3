"""The records the demo sends: simulated payments, and among them some that a worker has to refuse, or to flag as late.

What a record is, its kind, is known to the demo alone: it stands beside the record's offset, never in the record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.simulate import COMPROMISED_CARD, COMPROMISED_TERMINAL, GENUINE, LARGE_AMOUNT, Payments, Simulator
from schemas.codec import Encoder
from schemas.columns import Column, Floats, Ints, PackedBytes

LOOK_BACK_DAYS = 37  # of a terminal's windows
HISTORY_DAYS = 40  # none of them is half empty by then
STAND_IN_DAYS = 20  # an embedded broker drops what is beyond 5 MiB of a topic, read or not
MISFIT_SHARE = 0.006  # of the payments in the live stream; a sixth of them of each kind
NOBODY = b"C999999"
LATE_MS, TOO_LATE_MS = 30 * 60_000, 3 * 3_600_000  # the pipeline waits for an hour


class Kind(IntEnum):
    """What was sent: a payment, genuine or a fraud of a scenario, or a misfit."""

    GENUINE = GENUINE
    LARGE_AMOUNT = LARGE_AMOUNT
    COMPROMISED_TERMINAL = COMPROMISED_TERMINAL
    COMPROMISED_CARD = COMPROMISED_CARD
    TRUNCATED = 10
    NEGATIVE_AMOUNT = 11
    WRONG_CURRENCY = 12
    WRONG_KEY = 13
    LATE = 14
    TOO_LATE = 15

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " ")


FRAUDS = (Kind.LARGE_AMOUNT, Kind.COMPROMISED_TERMINAL, Kind.COMPROMISED_CARD)
REFUSED_AS = {  # the reason that the dead letter has to give
    Kind.TRUNCATED: "truncated",
    Kind.NEGATIVE_AMOUNT: "amount_in_range",
    Kind.WRONG_CURRENCY: "currency_one_of",
    Kind.WRONG_KEY: "key_mismatch",
}
FLAGGED_AS = {Kind.LATE: "late", Kind.TOO_LATE: "too_late"}  # the timing that the scored event has to give
MISFITS = (*REFUSED_AS, *FLAGGED_AS)


@dataclass(frozen=True, slots=True)
class Records:
    """Records in the order they are sent."""

    values: list[bytes]
    keys: list[bytes]
    kinds: NDArray[np.int8]  # shape (n,): `Kind`
    event_ms: Ints  # shape (n,)

    def __len__(self) -> int:
        return len(self.values)


def history(simulator: Simulator, encoder: Encoder, days: int) -> Records:
    """The payments of the first days, all of them as they should be."""
    return _encoded(simulator.days(0, days), encoder, np.empty(0, np.int64), np.empty(0, np.int8))


def live(simulator: Simulator, encoder: Encoder, first_day: int) -> Iterator[Records]:
    """The payments of one day after the other from `first_day` on, with misfits among them."""
    day = first_day
    while True:
        payments = simulator.days(day)
        random = np.random.default_rng((simulator.seed, day))
        hosts = np.flatnonzero((random.random(len(payments)) < MISFIT_SHARE) & ~payments.fraud)
        kinds = np.resize(np.array(MISFITS, np.int8), len(hosts))
        yield _encoded(payments, encoder, hosts, random.permutation(kinds))
        day += 1


def _encoded(payments: Payments, encoder: Encoder, hosts: Ints, misfits: NDArray[np.int8]) -> Records:
    """The payments as records; right after each host comes a copy of it that has something wrong.

    Args:
        payments: n of them.
        encoder: of the input's schema.
        hosts: shape (m,), ascending: which payments are copied.
        misfits: shape (m,): what is wrong with each copy.
    """
    order = np.argsort(np.concatenate((np.arange(len(payments)), hosts + 0.5)), kind="stable")
    rows = np.concatenate((np.arange(len(payments)), hosts))[order]
    kinds = np.concatenate((payments.scenario, misfits))[order]
    mixed = Payments(*(getattr(payments, name)[rows] for name in Payments.__slots__))
    event_ms = mixed.event_ms - np.select([kinds == Kind.LATE, kinds == Kind.TOO_LATE], [LATE_MS, TOO_LATE_MS], 0)
    mixed = replace(mixed, event_ms=event_ms)
    values = list(encoder.encode({**mixed.columns(), "amount": _amounts(mixed, kinds), "currency": _currencies(kinds)}))
    keys = list(mixed.customer_id)
    for row in np.flatnonzero(kinds == Kind.TRUNCATED).tolist():
        values[row] = values[row][:-2]
    for row in np.flatnonzero(kinds == Kind.WRONG_KEY).tolist():
        keys[row] = NOBODY
    return Records(values, keys, kinds, event_ms)


def _amounts(payments: Payments, kinds: NDArray[np.int8]) -> Floats:
    return payments.amount_cents * np.where(kinds == Kind.NEGATIVE_AMOUNT, -1, 1) / 100


def _currencies(kinds: NDArray[np.int8]) -> Column:
    starts = np.where(kinds == Kind.WRONG_CURRENCY, 3, 0).astype(np.int64)
    return PackedBytes(np.frombuffer(b"EURUSD", np.uint8), starts, starts + 3)
