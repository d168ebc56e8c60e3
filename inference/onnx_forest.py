"""Takes an ONNX graph apart: the preprocessing, which stays ONNX, and the forest at its end, as arrays. The only module that imports onnx.

Taken are tree ensembles whose score is a plain sum of one weight a leaf: random forests and extra trees, as scikit-learn's converter
writes them for two classes or as a regressor, with splits of the form "at most" or "less than". Whatever is different (a link function,
more classes, missing values that choose a side, very deep trees) stays with ONNX Runtime as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from inference.forest import DEEPEST, Forest
from schemas.columns import Ints, Mask

FLOAT = onnx.TensorProto.FLOAT
_SPLITS = (b"BRANCH_LEQ", b"BRANCH_LT")


@dataclass(frozen=True, slots=True)
class Parts:
    """A graph in two."""

    preprocessing: bytes | None  # a model from the graph's inputs to the forest's; None: the forest takes the input as it is
    forest: Forest
    forest_alone: bytes  # the forest as a model from its input to its score: what the arrays must agree with


def take_apart(serialized: bytes) -> Parts | None:
    """A model's parts, or None if it isn't preprocessing of one table and then a forest of the kind described above."""
    model = onnx.ModelProto.FromString(serialized)
    graph = model.graph
    last = _forest_node(graph)
    if last is None or len(graph.input) != 1 or len(graph.input[0].type.tensor_type.shape.dim) != 2:
        return None
    source, score = last.input[0], last.output[-1]
    before = _upstream(graph, source)
    if before is None:
        return None
    table = _Table.of(last)
    forest = table.unfold() if table else None
    if forest is None:
        return None
    preprocessing = _part(model, before, list(graph.input), _floats(source)) if before else None
    alone = _part(model, [last], [_floats(source)], _floats(score))
    return Parts(preprocessing, forest, alone)


def _forest_node(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The node that makes the graph's float output, if it is a tree ensemble."""
    outputs = {output.name for output in graph.output if output.type.tensor_type.elem_type == FLOAT}
    for node in graph.node:
        if (
            node.domain == "ai.onnx.ml"
            and node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
            and node.output[-1] in outputs
        ):
            return node if len(outputs) == 1 else None
    return None


def _upstream(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto] | None:
    """The nodes that make a tensor, in the graph's order; None if one of them holds a graph of its own."""
    wanted, found = {name}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            if any(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute):
                return None
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]


def _floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, [None, None])


def _part(model: onnx.ModelProto, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> bytes:
    used = {name for node in nodes for name in node.input}
    weights = [weight for weight in model.graph.initializer if weight.name in used]
    graph = helper.make_graph(nodes, model.graph.name, inputs, [output], weights)
    part: bytes = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version).SerializeToString()
    return part


@dataclass(frozen=True, slots=True)
class _Table:
    """A tree ensemble's nodes, a row each: shape (nodes,)."""

    roots: Ints  # shape (trees,): rows
    feature: Ints
    threshold: NDArray[np.float32]  # go left where at most this
    left: Ints  # rows
    right: Ints
    is_leaf: Mask
    weight: NDArray[np.float32]  # of a leaf

    @classmethod
    def of(cls, node: onnx.NodeProto) -> _Table | None:
        """The table of a node, or None if it is not a plain sum of leaves."""
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        weights = _leaf_weights(given)
        modes = np.array(given["nodes_modes"])
        is_leaf = modes == b"LEAF"
        if weights is None or not np.isin(modes[~is_leaf], _SPLITS).all() or any(given.get("nodes_missing_value_tracks_true", ())):
            return None
        trees, leaf_trees, leaf_ids, leaf_weights = weights
        ids = _names(given["nodes_treeids"], given["nodes_nodeids"])
        order = np.argsort(ids)
        if len(np.unique(ids)) < len(ids):
            return None

        def row_of(names: Ints) -> Ints | None:
            rows: Ints = order[np.minimum(np.searchsorted(ids[order], names), len(ids) - 1)]
            return rows if np.array_equal(ids[rows], names) else None

        inner = np.flatnonzero(~is_leaf)
        left, right = np.arange(len(ids)), np.arange(len(ids))
        for side, key in ((left, "nodes_truenodeids"), (right, "nodes_falsenodeids")):
            children = row_of(_names(np.asarray(given["nodes_treeids"])[inner], np.asarray(given[key])[inner]))
            if children is None:
                return None
            side[inner] = children
        leaf_rows = row_of(_names(leaf_trees, leaf_ids))
        if leaf_rows is None or not np.array_equal(np.sort(leaf_rows), np.flatnonzero(is_leaf)):
            return None
        weight = np.zeros(len(ids), np.float32)
        weight[leaf_rows] = leaf_weights
        roots = np.setdiff1d(np.arange(len(ids)), np.concatenate((left[inner], right[inner])))
        if len(roots) != len(trees):
            return None
        threshold = np.asarray(given["nodes_values"], np.float32)
        less = modes == b"BRANCH_LT"
        threshold[less] = np.nextafter(threshold[less], np.float32(-np.inf))  # x < t is x <= the float before t
        return cls(roots, np.asarray(given["nodes_featureids"], np.int64), threshold, left, right, is_leaf, weight)

    def unfold(self) -> Forest | None:
        """The trees in heap order, or None if one is deeper than `DEEPEST`."""
        level = self.roots[:, None]
        features: list[Ints] = []
        thresholds: list[NDArray[np.float32]] = []
        depths = np.zeros(len(self.roots), np.int64)
        while not self.is_leaf[level].all():
            if len(features) == DEEPEST:
                return None
            leaf = self.is_leaf[level]
            depths[~leaf.all(axis=1)] = len(features) + 1
            features.append(np.where(leaf, 0, self.feature[level]))
            thresholds.append(np.where(leaf, np.float32(np.inf), self.threshold[level]))
            level = np.stack((self.left[level], self.right[level]), axis=2).reshape(len(level), -1)
        heap = np.concatenate(features, axis=1) if features else np.zeros((len(level), 0), np.int64)
        bounds = np.concatenate(thresholds, axis=1) if thresholds else np.zeros((len(level), 0), np.float32)
        leaves = np.zeros(level.shape, np.float32)
        for tree, depth in enumerate(depths.tolist()):
            leaves[tree, : 1 << depth] = self.weight[level[tree, :: 1 << (len(features) - depth)]]
        return Forest(heap.astype(np.uint32), bounds, leaves, depths)


def _leaf_weights(given: dict[str, Any]) -> tuple[Ints, Ints, Ints, NDArray[np.float32]] | None:
    """Of an ensemble that sums one weight a leaf: the trees, and by weight its tree, its node and its value."""
    classifies = "class_weights" in given
    kind = "class" if classifies else "target"
    if given.get("post_transform", b"NONE") != b"NONE" or given.get("aggregate_function", b"SUM") != b"SUM" or given.get("base_values"):
        return None
    weights = np.asarray(given.get(f"{kind}_weights", ()), np.float32)
    if not len(weights) or any(given[f"{kind}_ids"]):
        return None
    if classifies and (len(given.get("classlabels_int64s", ())) != 2 or (weights < 0).any()):
        return None
    if not classifies and given.get("n_targets") != 1:
        return None
    trees = np.asarray(given[f"{kind}_treeids"], np.int64)
    return np.unique(trees), trees, np.asarray(given[f"{kind}_nodeids"], np.int64), weights


def _names(trees: Any, nodes: Any) -> Ints:
    """One number for a tree's and a node's."""
    names: Ints = np.asarray(trees, np.int64) << 32 | np.asarray(nodes, np.int64)
    return names
