"""The payments that every peer is given: one endless log, the same from its first row on however much of it is used.

A customer has 60 payments in 30 days, so windows are full once `history` of them have passed. Some are stamped earlier than they
come: about one in fifty by up to a day, most of which are late among their customer's; one in five hundred by three days, most of
which are too late.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator, Philox

from benchmarks.workloads import START_MS
from schemas.avro import load_schema
from schemas.codec import Encoder
from schemas.columns import Columns, Constant, Ints, PackedBytes

SCHEMAS = Path(__file__).with_name("schemas")
DAY_MS = 86_400_000
LATENESS_MS = DAY_MS
WINDOWS_DAYS = (1, 7, 30)
PER_CUSTOMER = 60  # payments in the longest window
INPUT_ID, OUTPUT_ID = 1, 2  # of the schemas, in the framing
EARLY_SHARE, TOO_EARLY_SHARE = 0.02, 0.002
TOO_EARLY_MS = 3 * DAY_MS
_BLOCK = 10_000  # rows made at a time, each block from a seed of its own


@dataclass(frozen=True, slots=True)
class Payments:
    """Rows of the log, as columns of equal length, in the order they are sent."""

    number: Ints  # shape (n,): the place in the log
    customer: Ints  # shape (n,): index
    event_ms: Ints  # shape (n,)
    cents: Ints  # shape (n,)

    def __len__(self) -> int:
        return len(self.number)

    def columns(self) -> Columns:
        """As ``schemas/payment.avsc`` has them."""
        return {
            "payment_id": PackedBytes.pack([b"p-%012d" % number for number in self.number.tolist()]),
            "event_time": self.event_ms,
            "customer_id": PackedBytes.pack(self.keys()),
            "terminal_id": PackedBytes.pack([b"terminal-%06d" % (number % 9_973) for number in self.number.tolist()]),
            "amount": self.cents / 100,
            "currency": Constant(b"EUR", len(self)),
        }

    def keys(self) -> list[bytes]:
        """The customers' ids."""
        return [b"customer-%06d" % customer for customer in self.customer.tolist()]

    def values(self) -> list[bytes]:
        """The records, in the framing."""
        return list(Encoder(load_schema(SCHEMAS / "payment.avsc"), "confluent", INPUT_ID).encode(self.columns())) if len(self) else []


def number_of(payment_id: bytes) -> int:
    """The place in the log of the payment with this id."""
    return int(payment_id[2:])


@dataclass(frozen=True)
class Log:
    """The log itself."""

    customers: int = 1_000
    seed: int = 7

    @property
    def history(self) -> int:
        """How many payments fill the windows."""
        return PER_CUSTOMER * self.customers

    def rows(self, first: int, last: int) -> Payments:
        """The payments from `first` up to and without `last`."""
        blocks = [self._block(number) for number in range(first // _BLOCK, -(-last // _BLOCK))]
        if not blocks:
            none = np.empty(0, np.int64)
            return Payments(none, none, none, none)
        cut = slice(first - blocks[0].number[0], last - blocks[0].number[0])
        return Payments(*(np.concatenate([getattr(each, name) for each in blocks])[cut] for name in Payments.__slots__))

    def _block(self, block: int) -> Payments:
        random = Generator(Philox(np.random.SeedSequence((self.seed, block))))
        number = np.arange(block * _BLOCK, (block + 1) * _BLOCK, dtype=np.int64)
        spacing_ms = max(WINDOWS_DAYS) * DAY_MS // self.history
        luck = random.random(_BLOCK)
        early_ms = np.where(luck < EARLY_SHARE, random.integers(1, DAY_MS, _BLOCK), 0)
        early_ms[luck > 1 - TOO_EARLY_SHARE] = TOO_EARLY_MS
        return Payments(
            number=number,
            customer=random.integers(self.customers, size=_BLOCK),
            event_ms=START_MS + TOO_EARLY_MS + number * spacing_ms - early_ms,
            cents=np.maximum(random.gamma(2.0, 3_000.0, _BLOCK).astype(np.int64), 1),
        )
