"""How good scores are: areas under two curves over transactions, and how many of the first hundred cards a day are compromised.

Source: the book's chapter 4, and the functions of its chapter 3 that select what is tested.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from schemas.columns import Floats, Ints, Mask

CARDS_A_DAY = 100
DELAY_DAYS = 7

Ties = Literal["book", "worst", "best"]


class Performance(NamedTuple):
    """Three figures from 0 to 1."""

    auc: float
    average_precision: float
    card_precision: float  # of the first CARDS_A_DAY cards each day, the mean over days


def performance(fraud: Ints, scores: NDArray[np.floating], customer: Ints, day: Ints) -> Performance:
    """How good the scores of some transactions are.

    Args:
        fraud: shape (n,): 0 or 1.
        scores: shape (n,).
        customer: shape (n,): whose card it was.
        day: shape (n,).
    """
    return Performance(
        float(roc_auc_score(fraud, scores)),
        float(average_precision_score(fraud, scores)),
        card_precision(fraud, scores.astype(np.float64), customer, day),
    )


def card_precision(fraud: Ints, scores: Floats, customer: Ints, day: Ints, cards: int = CARDS_A_DAY, ties: Ties = "book") -> float:
    """The share of compromised cards among the first so many of each day, the mean over days.

    A card has the highest score and the highest label of its transactions of the day. One that was found is not looked at again.

    Args:
        fraud, scores, customer, day: as in `performance`.
        cards: how many are looked at each day.
        ties: which of the cards with one score come first: as the book's sort leaves them, which is neither stable nor the same on
            every processor; or the worst or the best that could be, compromised cards last or first.
    """
    found: set[int] = set()
    shares = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~np.isin(customer, list(found)))
        numbers, place = np.unique(customer[rows], return_inverse=True)
        highest, label = np.full(len(numbers), -np.inf), np.zeros(len(numbers), np.int64)
        np.maximum.at(highest, place, scores[rows])
        np.maximum.at(label, place, fraud[rows])
        if ties == "book":  # what pandas' sort_values(ascending=False) does
            order = (len(numbers) - 1 - np.argsort(highest[::-1], kind="quicksort"))[::-1]
        else:
            order = np.lexsort((label if ties == "worst" else -label, -highest))
        first = order[:cards]
        caught = numbers[first][label[first] == 1]
        found.update(caught.tolist())
        shares.append(len(caught) / cards)
    return float(np.mean(shares))


def tested(fraud: Ints, customer: Ints, day: Ints, train_from: int, test: range) -> Mask:
    """Shape (n,): transactions of the test days, without those of cards that were known to be compromised.

    On each test day d those are the cards with a fraud since the first day of training up to and including d - 8: the day before
    the delay that ends with d, as the book's code has it.
    """
    chosen = np.zeros(len(day), np.bool_)
    for today in test:
        before = (day >= train_from) & (day < today - DELAY_DAYS) & (fraud == 1)
        chosen |= (day == today) & ~np.isin(customer, np.unique(customer[before]))
    return chosen
