"""How detections are scored by the Numenta Anomaly Benchmark: early ones in a window count, those outside cost.

Source: Lavin, Ahmad: Evaluating Real-time Anomaly Detection Algorithms - the Numenta Anomaly Benchmark (2015), and the benchmark's own
repository (version 1.1), which says what the paper leaves open: positions are counted in rows, and the first 15% of a series (750 rows
at most) are for warming up and are not scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Floats, Ints, Mask

STEEPNESS = 5.0
FAR = 3.0  # window widths behind the last window: a false alarm costs all it can
WARM_UP_SHARE, WARM_UP_ROWS = 0.15, 750


@dataclass(frozen=True, slots=True)
class Profile:
    """What a missed window and a false alarm cost; a window found at once is worth 1."""

    missed: float
    false_alarm: float


PROFILES: Mapping[str, Profile] = {
    "standard": Profile(1.0, 0.11),
    "reward_low_FP_rate": Profile(1.0, 0.22),
    "reward_low_FN_rate": Profile(2.0, 0.11),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What a detection in each row of a series would be worth."""

    window: Ints  # shape (n,): which window the row is in; -1 = none
    worth: Floats  # shape (n,): within a window, from 1 at its beginning to about 0 at its end
    cost: Floats  # shape (n,): outside, from 0 to 1 with the distance from the last window
    counts: Mask  # shape (n,): false in the warm-up


def judge(times: Ints, windows: Sequence[tuple[int, int]]) -> Judged:
    """What detections would be worth.

    Args:
        times: shape (n,), in the order of the rows.
        windows: first and last time of each, both those of a row and both inside, in order.
    """
    n = len(times)
    window, worth, cost = np.full(n, -1, np.int64), np.zeros(n), np.ones(n)
    behind: tuple[int, int] | None = None  # where the last window ends, and its width
    for number, (start, end) in enumerate(windows):
        first, last = int(np.argmax(times == start)), int(np.argmax(times == end))
        _cool_down(cost, behind, first)
        rows = np.arange(first, last + 1)
        window[rows] = number
        worth[rows] = _sigmoid((last - rows + 1) / len(rows)) / _sigmoid(1.0)
        behind = (last, len(rows))
    _cool_down(cost, behind, n)
    return Judged(window, worth, cost, np.arange(n) >= min(math.floor(WARM_UP_SHARE * n), WARM_UP_ROWS))


def _cool_down(cost: Floats, behind: tuple[int, int] | None, until: int) -> None:
    """A false alarm soon after a window costs less."""
    if behind is None:
        return
    last, width = behind
    rows = np.arange(last + 1, until)
    past = (rows - last) / (width - 1)
    cost[rows] = np.where(past > FAR, 1.0, _sigmoid(past))


def _sigmoid(place: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """From 0 at 0 to nearly 1 at 1."""
    return np.asarray(2 / (1 + np.exp(-STEEPNESS * np.asarray(place))) - 1)


@dataclass(frozen=True, slots=True)
class Result:
    """A detector's score, from 0 for one that never speaks to 100 for the perfect one, at the threshold that is best for it."""

    score: float
    threshold: float


def evaluate(judged: Sequence[Judged], scores: Sequence[NDArray[np.floating]], profile: Profile, threshold: float | None = None) -> Result:
    """The benchmark's score of a detector.

    Args:
        judged: one a series.
        scores: likewise, shape (n,) each.
        profile: what matters.
        threshold: one for all series, scores at or above it are detections; None = the best, as the benchmark chooses it.
    """
    windows, gains, values = _gains(judged, scores, profile)
    order = np.argsort(-values, kind="stable")
    windows, gains, values = windows[order], gains[order], values[order]
    # In the order of falling scores a window is worth its best row so far.
    best: dict[int, float] = {}
    steps = np.where(windows < 0, gains, 0.0)
    for row in np.flatnonzero(windows >= 0).tolist():
        before = best.get(int(windows[row]), -profile.missed)
        best[int(windows[row])] = max(before, float(gains[row]))
        steps[row] = best[int(windows[row])] - before
    total = len(best) * -profile.missed + np.concatenate((np.zeros(1), np.cumsum(steps)))
    edges = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1))
    if threshold is None:
        chosen = int(edges[np.argmax(total[edges])])
        threshold = float(values[chosen - 1]) if chosen else math.inf
    else:
        chosen = int((values >= threshold).sum())
    count = sum(len(np.unique(each.window[each.window >= 0])) for each in judged)
    nothing = -profile.missed * count
    return Result(float(100 * (total[chosen] - nothing) / (count - nothing)), threshold)


def _gains(judged: Sequence[Judged], scores: Sequence[NDArray[np.floating]], profile: Profile) -> tuple[Ints, Floats, Floats]:
    """All scored rows of all series: the window, told apart between series; what a detection is worth; and the score."""
    windows, gains, values, first = [], [], [], 0
    for each, found in zip(judged, scores, strict=True):
        windows.append(np.where(each.window >= 0, each.window + first, -1)[each.counts])
        gains.append(np.where(each.window >= 0, each.worth, -profile.false_alarm * each.cost)[each.counts])
        values.append(found[each.counts].astype(np.float64))
        first += int(each.window.max()) + 1
    return np.concatenate(windows), np.concatenate(gains), np.concatenate(values)
