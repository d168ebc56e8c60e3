"""The warm-up of a run, cut by rule and not by eye: MSER-5.

White's marginal standard error rule, over means of five (White, Cobb and Spratt, *A comparison of five steady-state truncation heuristics
for simulation*, Winter Simulation Conference 2000): of all places d to cut at, the one that makes the standard error of what is left
smallest,

    MSER(d) = sum((x[i] - mean(x[d:]))^2 for i >= d) / (n - d)^2.

The observations are the mean latencies of slots of `SLOT_SECONDS`. Cuts in the later half are not looked at: a best cut at its edge
means that the run has not become steady at all.
"""

from __future__ import annotations

import numpy as np

from schemas.columns import Floats

SLOT_SECONDS = 0.1
GROUP = 5


def mser5(observations: Floats) -> int | None:
    """How many observations are warm-up, a multiple of five.

    Args:
        observations: shape (n,), in the order of time.

    Returns:
        None: there are fewer than 20 observations, or no cut in the first half leaves something steady.
    """
    groups = len(observations) // GROUP
    if groups < 4:
        return None
    means = observations[: groups * GROUP].reshape(groups, GROUP).mean(axis=1)
    most = groups // 2
    errors = [float(((means[d:] - means[d:].mean()) ** 2).sum()) / (groups - d) ** 2 for d in range(most + 1)]
    best = int(np.argmin(errors))
    return None if best == most else best * GROUP


def warm_up_seconds(due_seconds: Floats, latency_ms: Floats) -> float | None:
    """How much of a run is warm-up; None = it never became steady.

    Args:
        due_seconds: shape (n,), ascending from 0: when events were due.
        latency_ms: shape (n,): how long each then took.
    """
    slots = (due_seconds / SLOT_SECONDS).astype(np.int64)
    counts = np.bincount(slots)
    sums = np.bincount(slots, latency_ms)
    cut = mser5(sums[counts > 0] / counts[counts > 0])
    return None if cut is None else cut * SLOT_SECONDS
