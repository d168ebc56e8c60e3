"""The weeks: in each fold one to learn from, one until its labels are known, one to test on."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.handbook.definition import SPANS
from benchmarks.handbook.transactions import LABEL_DELAY_DAYS

WEEK = 7
FIRST_TRAINING_DAY = 115  # 2018-07-25, in days since the data's first
LOOK_BACK = LABEL_DELAY_DAYS + SPANS[-1]  # until a terminal's longest window is full


@dataclass(frozen=True, slots=True)
class Fold:
    """Three weeks, in days since the data's first."""

    train: range
    test: range

    @classmethod
    def starting(cls, day: int) -> Fold:
        """The fold whose training week begins on a day."""
        test = day + WEEK + LABEL_DELAY_DAYS
        return cls(range(day, day + WEEK), range(test, test + WEEK))


def folds(count: int, first_training_day: int = FIRST_TRAINING_DAY) -> tuple[Fold, ...]:
    """So many folds, a week apart, so that their test weeks follow each other."""
    return tuple(Fold.starting(first_training_day + WEEK * number) for number in range(count))
