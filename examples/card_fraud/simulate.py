"""Simulated card payments: people with habits, shops around them, and three kinds of fraud.

The model follows the idea of the public simulator in Le Borgne, Siblini, Lebichot and Bontempi, *Reproducible Machine Learning for Credit
Card Fraud Detection* (Université libre de Bruxelles and Worldline, 2022), chapter 3. The code and the distributions are our own:

- Customers and terminals stand on a square of 100 by 100; a customer pays at the terminals within 5 of home, each equally often.
- A customer makes a Poisson number of payments a day (0 to 4 on average), mostly by day, of gamma-distributed amounts with a mean and a
  deviation of the customer's own.
- Fraud 1: every amount above 220.00.
- Fraud 2: each day a few terminals are compromised; for 28 days every payment there is a fraud.
- Fraud 3: each day a few cards are compromised; for 14 days a third of their payments are frauds of five times the amount.

Everything follows from the seed, and each day from the seed and its number alone: any stretch of days can be made by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from schemas.columns import Columns, Constant, Floats, Ints, Mask, PackedBytes

DAY_MS = 86_400_000
MONDAY_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z

GENUINE, LARGE_AMOUNT, COMPROMISED_TERMINAL, COMPROMISED_CARD = range(4)
LIMIT_CENTS = 220_00
TERMINAL_DAYS = 28
CARD_DAYS = 14
TERMINALS_A_DAY = 2 / 10_000  # of all terminals
CARDS_A_DAY = 3 / 5_000  # of all customers
CARD_SHARE = 1 / 3
CARD_FACTOR = 5

SIDE = 100.0
RADIUS = 5.0
MOST_A_DAY = 10_000_000  # payments; their numbers within the day have seven digits
FIRST_DAY, LAST_DAY = 0, 99_999

# What a generator is for: streams of one seed that never touch.
_PEOPLE, _PAYMENTS, _TERMINALS_LOST, _CARDS_LOST = range(4)


@dataclass(frozen=True, slots=True)
class Payments:
    """Payments in order of their event time, as columns of equal length."""

    number: Ints  # shape (n,): of the payment; with a P before it, its id
    event_ms: Ints  # shape (n,)
    customer: NDArray[np.int32]  # shape (n,): index
    terminal: NDArray[np.int32]  # shape (n,): index
    amount_cents: Ints  # shape (n,): at least 1
    scenario: NDArray[np.int8]  # shape (n,): GENUINE, or the kind of fraud; no model may see it

    def __len__(self) -> int:
        return len(self.number)

    @property
    def fraud(self) -> Mask:
        """Shape (n,): the label."""
        return np.asarray(self.scenario != GENUINE)

    @property
    def payment_id(self) -> PackedBytes:
        """``P000410000017``: day 41, payment 17."""
        return _identifiers("P", self.number, digits=12)

    @property
    def customer_id(self) -> PackedBytes:
        """``C000042``."""
        return _identifiers("C", self.customer.astype(np.int64), digits=6)

    @property
    def terminal_id(self) -> PackedBytes:
        """``T000123``."""
        return _identifiers("T", self.terminal.astype(np.int64), digits=6)

    def taken(self, rows: NDArray[np.intp]) -> Payments:
        """The given rows, in that order."""
        return Payments(*(getattr(self, name)[rows] for name in Payments.__slots__))

    def followed_by(self, others: Payments) -> Payments:
        """These and then those, as they stand."""
        return Payments(*(np.concatenate((getattr(self, name), getattr(others, name))) for name in Payments.__slots__))

    def columns(self) -> Columns:
        """The payments as ``schemas/1-payments-value.avsc`` has them; the label is not among its fields."""
        return {
            "payment_id": self.payment_id,
            "event_time": self.event_ms,
            "customer_id": self.customer_id,
            "terminal_id": self.terminal_id,
            "amount": self.amount_cents / 100,
            "currency": Constant(b"EUR", len(self)),
        }


@dataclass(frozen=True)
class Simulator:
    """Makes payments, day by day.

    Attributes:
        seed: another seed makes another world.
        customers: how many; at most 1,000,000.
        terminals: how many; at most 1,000,000.
        start_ms: when day 0 begins.
    """

    seed: int = 0
    customers: int = 1_000
    terminals: int = 2_000
    start_ms: int = MONDAY_MS

    def __post_init__(self) -> None:
        if not (1 <= self.customers <= 1_000_000 and 1 <= self.terminals <= 1_000_000):
            raise ValueError(f"{self.customers} customers and {self.terminals} terminals: wanted 1 to 1,000,000 of each")

    @property
    def payments_per_day(self) -> float:
        """How many are made in a day, on average."""
        return float(self._habits.daily_rate.sum())

    def speed_up(self, payments_per_second: float) -> float:
        """How much faster than life time has to run for this rate, on average over a day."""
        return payments_per_second * (DAY_MS / 1000) / self.payments_per_day

    def days(self, first_day: int, days: int = 1) -> Payments:
        """The payments of so many days from `first_day` on, in order of event time.

        Raises:
            ValueError: the days are not within 0 to 99,999.
        """
        if first_day < FIRST_DAY or days < 0 or first_day + days - 1 > LAST_DAY:
            raise ValueError(f"days {first_day} to {first_day + days - 1}: wanted {FIRST_DAY} to {LAST_DAY}")
        made = [self._day(day) for day in range(first_day, first_day + days)]
        if not made:
            return _empty()
        return Payments(*(np.concatenate([getattr(one, name) for one in made]) for name in Payments.__slots__))

    def _day(self, day: int) -> Payments:
        random = self._generator(_PAYMENTS, day)
        habits = self._habits
        customer = np.repeat(np.arange(self.customers, dtype=np.int32), random.poisson(habits.daily_rate))
        count = len(customer)
        if count > MOST_A_DAY:
            raise ValueError(f"day {day} has {count} payments, wanted at most {MOST_A_DAY}")
        near = habits.first_terminal[customer] + (random.random(count) * habits.terminals_near[customer]).astype(np.int64)
        terminal = habits.terminal[near]
        spread_cents = random.standard_gamma(habits.shape[customer]) * habits.scale_cents[customer]
        amount_cents = np.maximum(np.rint(spread_cents), 1).astype(np.int64)
        time_ms = _time_of_day_ms(random, count)

        scenario = np.where(amount_cents > LIMIT_CENTS, LARGE_AMOUNT, GENUINE).astype(np.int8)
        scenario[self._lost(_TERMINALS_LOST, day)[terminal]] = COMPROMISED_TERMINAL
        stolen = self._lost(_CARDS_LOST, day)[customer] & (random.random(count) < CARD_SHARE)
        scenario[stolen] = COMPROMISED_CARD
        amount_cents[stolen] *= CARD_FACTOR

        order = np.argsort(time_ms, kind="stable")
        return Payments(
            number=day * MOST_A_DAY + np.arange(count),
            event_ms=self.start_ms + day * DAY_MS + time_ms[order],
            customer=customer[order],
            terminal=terminal[order],
            amount_cents=amount_cents[order],
            scenario=scenario[order],
        )

    def _lost(self, kind: int, day: int) -> Mask:
        """Shape (customers,) or (terminals,): which cards or terminals are compromised on a day."""
        everything, share, days = {
            _TERMINALS_LOST: (self.terminals, TERMINALS_A_DAY, TERMINAL_DAYS),
            _CARDS_LOST: (self.customers, CARDS_A_DAY, CARD_DAYS),
        }[kind]
        lost = np.zeros(everything, np.bool_)
        for since in range(day - days + 1, day + 1):
            lost[_newly_lost(self.seed, kind, since, everything, share)] = True
        return lost

    @cached_property
    def _habits(self) -> _Habits:
        return _habits(self._generator(_PEOPLE, 0), self.customers, self.terminals)

    def _generator(self, purpose: int, day: int) -> Generator:
        return _generator(self.seed, purpose, day)


def due_seconds(event_ms: Ints, first_ms: int, speed_up: float) -> Floats:
    """When each event is to be sent, in seconds after the first one, if time runs `speed_up` times as fast as in life.

    Args:
        event_ms: shape (n,).
        first_ms: the event time that is due at 0.
        speed_up: 86,400 = a day a second.
    """
    return (event_ms - first_ms) / (1000.0 * speed_up)


@dataclass(frozen=True, slots=True)
class _Habits:
    """What the customers are like; each of shape (customers,) but the last."""

    daily_rate: Floats
    shape: Floats  # of the gamma distribution of amounts
    scale_cents: Floats
    first_terminal: Ints
    terminals_near: Ints
    terminal: NDArray[np.int32]  # the terminals each customer uses, one customer after the other


def _habits(random: Generator, customers: int, terminals: int) -> _Habits:
    daily_rate = random.uniform(0, 4, customers)
    mean_cents = random.uniform(5_00, 90_00, customers)
    deviation = random.uniform(0.25, 0.5, customers)  # in means
    homes = random.uniform(0, SIDE, (customers, 2))
    shops = random.uniform(0, SIDE, (terminals, 2))
    near = [_near(home, shops) for home in homes]
    counts = np.array([len(one) for one in near], np.int64)
    shape = 1 / deviation**2
    return _Habits(daily_rate, shape, mean_cents / shape, np.cumsum(counts) - counts, counts, np.concatenate(near).astype(np.int32))


def _near(home: Floats, shops: Floats) -> NDArray[np.intp]:
    """The terminals within the radius; the nearest one if there are none."""
    distance2 = ((shops - home) ** 2).sum(axis=1)
    within = np.flatnonzero(distance2 <= RADIUS**2)
    return within if len(within) else np.array([np.argmin(distance2)])


def _time_of_day_ms(random: Generator, count: int) -> Ints:
    """Shape (count,): mostly around half past two in the afternoon, one in twelve at any time."""
    hours = random.normal(14.5, 3.8, count)
    anytime = random.random(count) < 1 / 12
    hours[anytime] = random.uniform(0, 24, np.count_nonzero(anytime))
    time_ms: Ints = (hours * (DAY_MS / 24)).astype(np.int64) % DAY_MS
    return time_ms


@lru_cache(maxsize=4096)
def _newly_lost(seed: int, kind: int, day: int, everything: int, share: float) -> NDArray[np.intp]:
    """Which are compromised from this day on."""
    random = _generator(seed, kind, day)
    expected = everything * share
    count = int(expected) + (random.random() < expected % 1)
    return np.asarray(random.integers(0, everything, count))


def _generator(seed: int, purpose: int, day: int) -> Generator:
    # A counter-based generator: a key for each purpose and day, no state to carry from one day to the next.
    return Generator(Philox(np.random.SeedSequence((seed, purpose, day + TERMINAL_DAYS))))


def _identifiers(letter: str, numbers: Ints, digits: int) -> PackedBytes:
    """A letter and a number of so many digits, for each row."""
    width = digits + 1
    text = np.empty((len(numbers), width), np.uint8)
    text[:, 0] = ord(letter)
    rest = numbers
    for place in range(digits, 0, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place] = digit + ord("0")
    starts = np.arange(len(numbers), dtype=np.int64) * width
    return PackedBytes(text.reshape(-1), starts, starts + width)


def _empty() -> Payments:
    none = np.empty(0, np.int64)
    return Payments(none, none, none.astype(np.int32), none.astype(np.int32), none, none.astype(np.int8))
