"""Contributions: how far each feature of a row moved its score away from the mean score of some rows that stand for what is usual.

They are Shapley values: of all orders in which the features of a usual row could be replaced by those of the explained one, the mean
of what each replacement changes, over all usual rows (the *background*). So they add up to the score minus the mean of the
background's scores. What is replaced need not be a row that ever was: features that go together are torn apart.

    trees       exact, for a sum of trees whose preprocessing treats each feature by itself: "interventional" TreeSHAP, one walk down
                each tree for each background row (S. Lundberg et al., From local explanations to global understanding with
                explainable AI for trees, Nature Machine Intelligence 2, 2020, section "Methods", algorithm 3).
    linear      exact, for what is linear in the score or in its log-odds: weight x (value - mean of the background). Seen by asking
                the model, in orders and their reverses: each order gives the same.
    sampled     of any other model: the mean over some orders and their reverses, with its standard error (E. Strumbelj and I. Kononenko,
                Explaining prediction models and individual predictions with feature contributions, Knowledge and Information Systems
                41, 2014; R. Mitchell et al., Sampling permutations for Shapley value estimation, JMLR 23, 2022, for reverses).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inference.forest import DEEPEST, Forest
from inference.forest_scorer import ForestScorer
from inference.scorer import Rows, Scorer
from schemas.columns import Floats, Ints
from schemas.compiled import compiled

Method = Literal["trees", "linear", "sampled"]
Scale = Literal["score", "log-odds"]

ORDERS = 16  # and as many reverses
SEED = 0
_SCALES: tuple[Scale, ...] = ("score", "log-odds")
_SMALLEST = 1e-9
_FLAT = 1e-4  # a spread over orders below this share of the largest contribution is float32's rounding


@dataclass(frozen=True, slots=True)
class Contributions:
    """What moved one score.

    Attributes:
        method: how they were found; see the module.
        scale: what they add up in.
        baseline: the mean over the background, on that scale.
        values: shape (k,): by feature; with the baseline they add up to the row's own.
        errors: shape (k,): standard errors; zeros where exact.
        background: how many usual rows there were.
    """

    method: Method
    scale: Scale
    baseline: float
    values: Floats
    errors: Floats
    background: int


def contributions(scorer: Scorer, row: Rows, background: Rows) -> Contributions:
    """What moved the score of a row.

    Args:
        scorer: the model.
        row: shape (k,) of float32: what it was given.
        background: shape (m, k), m at least 1: what is usual.

    Raises:
        ValueError: there is no background.
        ScoringFailed: the model's run failed.
    """
    if not len(background):
        raise ValueError("contributions need at least one usual row to compare with")
    if isinstance(scorer, ForestScorer):
        found = _of_trees(scorer, row, background)
        if found is not None:
            return found
    return _of_any(scorer, row, background)


def _of_trees(scorer: ForestScorer, row: Rows, background: Rows) -> Contributions | None:
    """Exact ones; None if the preprocessing mixes features."""
    before = scorer.preprocessed(np.concatenate((row[None], background)))
    if before.shape[1] != len(row) or not _by_itself(scorer, row, background, before):
        return None
    values, baseline = tree_contributions(scorer.forest, before[0], before[1:])
    return Contributions("trees", "score", baseline, values, np.zeros(len(row)), len(background))


def _by_itself(scorer: ForestScorer, row: Rows, background: Rows, before: Rows) -> bool:
    """Whether each preprocessed feature follows from the same feature alone: each one replaced in each usual row."""
    k = len(row)
    mixed = np.repeat(background, k, axis=0)
    wanted = np.repeat(before[1:], k, axis=0)
    place = np.tile(np.arange(k), len(background))
    at = np.arange(len(mixed))
    mixed[at, place] = row[place]
    wanted[at, place] = before[0, place]
    return np.array_equal(scorer.preprocessed(mixed), wanted)


def tree_contributions(forest: Forest, row: Rows, background: Rows) -> tuple[Floats, float]:
    """Shape (k,), and the baseline: exact Shapley values of a forest's sum, in float64.

    Args:
        forest: the trees.
        row: shape (k,) of float32, as the trees see it.
        background: shape (m, k), likewise.
    """
    values = np.zeros(len(row))
    usual = np.ascontiguousarray(background)
    total = _walk(np.ascontiguousarray(row), usual, forest.features, forest.thresholds, forest.leaves, forest.depths, _weights(), values)
    return values / len(background), float(total) / len(background)


def _weights() -> Floats:
    """Shape (d, d): (a - 1)! b! / (a + b)! at [a, b]: what a leaf counts for one of a features, with b against them."""
    found = np.zeros((DEEPEST + 2, DEEPEST + 2))
    for a in range(1, DEEPEST + 2):
        found[a, 0] = 1.0 / a
        for b in range(1, DEEPEST + 2):
            found[a, b] = found[a, b - 1] * b / (a + b)
    return found


@compiled(
    "float64(const float32[::1], const float32[:, ::1], const uint32[:, ::1], const float32[:, ::1], const float32[:, ::1], "
    "const int64[::1], const float64[:, ::1], float64[::1])"
)
def _walk(
    row: Rows,
    background: Rows,
    features: NDArray[np.uint32],
    thresholds: NDArray[np.float32],
    leaves: NDArray[np.float32],
    depths: Ints,
    weights: Floats,
    values: Floats,
) -> float:
    """Add up all trees and usual rows; returns the sum of the usual rows' scores.

    Down a tree both rows go as one until a node parts them; from there both ways are walked, and each node remembers whose way it was.
    A leaf is reached by the rows that take the features of `mine` from the explained row and those of `theirs` from the usual one.
    """
    total = 0.0
    stack = np.empty((2 * DEEPEST + 4, 5), np.int64)  # node, taken of mine, taken of theirs, feature that parted (or -1), whose way
    path = np.empty((DEEPEST + 2, 2), np.int64)
    for tree in range(len(depths)):
        inner = (1 << depths[tree]) - 1
        for other in range(len(background)):
            stack[0, 0] = 0
            stack[0, 1] = 0
            stack[0, 2] = 0
            stack[0, 3] = -1
            stack[0, 4] = 0
            top = 1
            while top > 0:
                top -= 1
                node = stack[top, 0]
                mine = stack[top, 1]
                theirs = stack[top, 2]
                if stack[top, 3] >= 0:
                    path[mine + theirs - 1, 0] = stack[top, 3]
                    path[mine + theirs - 1, 1] = stack[top, 4]
                parted = mine + theirs
                while node < inner:
                    feature = np.int64(features[tree, node])
                    bound = thresholds[tree, node]
                    my_way = 2 * node + 1 + (0 if row[feature] <= bound else 1)
                    their_way = 2 * node + 1 + (0 if background[other, feature] <= bound else 1)
                    if my_way == their_way:
                        node = my_way
                        continue
                    whose = -1
                    for step in range(parted):
                        if path[step, 0] == feature:
                            whose = path[step, 1]
                    if whose >= 0:
                        node = my_way if whose == 0 else their_way
                        continue
                    stack[top, 0] = their_way
                    stack[top, 1] = mine
                    stack[top, 2] = theirs + 1
                    stack[top, 3] = feature
                    stack[top, 4] = 1
                    top += 1
                    path[parted, 0] = feature
                    path[parted, 1] = 0
                    mine += 1
                    parted += 1
                    node = my_way
                leaf = np.float64(leaves[tree, node - inner])
                if mine == 0:
                    total += leaf
                for step in range(parted):
                    if path[step, 1] == 0:
                        values[path[step, 0]] += leaf * weights[mine, theirs]
                    else:
                        values[path[step, 0]] -= leaf * weights[theirs, mine]
    return total


def _of_any(scorer: Scorer, row: Rows, background: Rows) -> Contributions:
    """Exact ones of what is linear, else sampled ones."""
    k, m = len(row), len(background)
    random = np.random.default_rng(SEED)
    orders = [random.permutation(k) for _ in range(ORDERS)]
    both = [each for order in orders for each in (order, order[::-1])]
    chains = np.stack([_chain(scorer, row, background, order) for order in both])  # (orders, k + 1, m)
    plain = _by_feature(chains.mean(axis=2, dtype=np.float64), both)
    for scale in _SCALES:
        on_scale = chains.astype(np.float64) if scale == "score" else _log_odds(chains)
        if on_scale is None:
            continue
        by_order = _by_feature(on_scale.mean(axis=2), both)
        values = by_order.mean(axis=0)
        if np.ptp(by_order, axis=0).max(initial=0.0) <= _FLAT * max(float(np.abs(values).max(initial=0.0)), _SMALLEST):
            return Contributions("linear", scale, float(on_scale[0, 0].mean()), values, np.zeros(k), m)
    pairs = plain.reshape(ORDERS, 2, k).mean(axis=1)
    errors = pairs.std(axis=0, ddof=1) / np.sqrt(ORDERS)
    return Contributions("sampled", "score", float(chains[0, 0].mean(dtype=np.float64)), pairs.mean(axis=0), errors, m)


def _chain(scorer: Scorer, row: Rows, background: Rows, order: Ints) -> NDArray[np.float32]:
    """Shape (k + 1, m): the usual rows' scores, as their features are replaced by those of the row in an order."""
    mixed = np.repeat(background[None], len(order) + 1, axis=0)
    for step, feature in enumerate(order.tolist()):
        mixed[step + 1 :, :, feature] = row[feature]
    return scorer.score(np.ascontiguousarray(mixed.reshape(-1, len(row)))).reshape(len(order) + 1, len(background))


def _by_feature(chains: Floats, orders: list[Ints]) -> Floats:
    """Shape (orders, k): what each feature's replacement changed; chains are of shape (orders, k + 1)."""
    steps = np.diff(chains.astype(np.float64), axis=1)
    found = np.empty_like(steps)
    for place, order in enumerate(orders):
        found[place, order] = steps[place]
    return found


def _log_odds(scores: NDArray[np.float32]) -> Floats | None:
    """Of probabilities strictly between 0 and 1; None if they are none."""
    wide = scores.astype(np.float64)
    return np.asarray(np.log(wide / (1.0 - wide))) if ((wide > 0.0) & (wide < 1.0)).all() else None
