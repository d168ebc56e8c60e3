"""A forest of decision trees as arrays, and the compiled loop that scores rows with it.

ONNX Runtime walks one row down one tree at a time: each step waits for the one before, and half the branches are guessed wrong.
Here the trees are full binary trees in heap order (the children of node i are 2i + 1 and 2i + 2; what lies under an early leaf
repeats it), so a step is arithmetic without a branch, and a batch's rows go down a tree side by side. Sums are float32, tree after
tree: the bits are ONNX Runtime's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.scorer import Rows, Scores
from schemas.columns import Ints
from schemas.compiled import compiled

DEEPEST = 12  # a level doubles the arrays; at 12 a tree takes 48 KiB
_BLOCK_ROWS = 1024  # of the features, what stays in the fast cache


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees, each full down to its own depth. A row goes left where its feature is at most the node's threshold."""

    features: NDArray[np.uint32]  # shape (trees, 2^deepest - 1): which feature a node looks at
    thresholds: NDArray[np.float32]  # the same shape
    leaves: NDArray[np.float32]  # shape (trees, 2^deepest): what a leaf adds to the score
    depths: Ints  # shape (trees,)

    @property
    def needed(self) -> int:
        """How many features a row must have at least."""
        return int(self.features.max(initial=0)) + 1

    def score(self, rows: Rows) -> Scores:
        """Shape (n,): the sum of the leaves each row falls into.

        Args:
            rows: shape (n, k) of float32, k at least `needed`.
        """
        if rows.ndim != 2 or rows.shape[1] < self.needed:
            raise ValueError(f"rows of shape {rows.shape}, wanted (n, {self.needed}) or wider")
        scores = np.zeros(len(rows), np.float32)
        node = np.empty(min(len(rows), _BLOCK_ROWS), np.uint32)
        for first in range(0, len(rows), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            _descend(np.ascontiguousarray(rows[block].T), self.features, self.thresholds, self.leaves, self.depths, node, scores[block])
        return scores


# Unsigned indices: numba would first ask of signed ones whether they count from the end.
@compiled(
    "void(const float32[:, ::1], const uint32[:, ::1], const float32[:, ::1], const float32[:, ::1], const int64[::1], "
    "uint32[::1], float32[::1])"
)
def _descend(
    columns: NDArray[np.float32],
    features: NDArray[np.uint32],
    thresholds: NDArray[np.float32],
    leaves: NDArray[np.float32],
    depths: Ints,
    node: NDArray[np.uint32],
    scores: Scores,
) -> None:
    """Add every tree's leaf to ``scores`` (n,), for rows given by column: shape (k, n)."""
    count = columns.shape[1]
    values = columns.ravel()
    for tree in range(len(depths)):
        feature, threshold, leaf = features[tree], thresholds[tree], leaves[tree]
        for row in range(count):
            node[row] = 0
        for _ in range(depths[tree]):
            for row in range(count):
                at = node[row]
                value = values[np.uint64(feature[at]) * np.uint64(count) + np.uint64(row)]
                node[row] = at + at + np.uint32(1) + np.uint32(not (value <= threshold[at]))
        first_leaf = np.uint32((1 << depths[tree]) - 1)
        for row in range(count):
            scores[row] += leaf[np.uint32(node[row] - first_leaf)]
