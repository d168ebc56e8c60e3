"""The words that the decode kernel fills, and the columns made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Constant, Ints, Mask, Nullable, Octets, PackedBytes, Ragged, Symbols
from schemas.layout import ROWS, Group, Layout, Leaf, List, Node, Opaque, Option
from schemas.program import FIRST_SLOT

_NUMBERS: dict[str, type[np.generic]] = {"int": np.int32, "long": np.int64, "boolean": np.bool_, "decimal": np.int64}
Objects = Mapping[int, NDArray[Any]]  # by slot: the values of an opaque column


class Words:
    """The arrays of one batch: the words of all slots, and how much of each domain is used."""

    def __init__(self, data: Octets, layout: Layout, room: Ints, rows: int) -> None:
        self.data = data
        self.rows = rows
        self.room = room
        self.used = np.zeros(layout.domains, np.int64)
        self._domain_of = np.array(layout.domain_of)
        self.base = self._bases()
        self.words = np.zeros(self._size(), np.int64)
        self.rejected = np.zeros(rows, np.uint8)
        self.schema_ids = np.full(rows, -1, np.int32)
        self.trouble = np.full(2, -1, np.int64)

    def grow(self) -> None:
        """Twice the room for the items of arrays."""
        old, old_base, old_room = self.words, self.base, self.room
        self.room = old_room * 2
        self.room[ROWS] = old_room[ROWS]
        self.base = self._bases()
        self.words = np.zeros(self._size(), np.int64)
        for slot, domain in enumerate(self._domain_of.tolist()):
            if slot >= FIRST_SLOT:
                self.words[self.base[slot] :][: old_room[domain]] = old[old_base[slot] :][: old_room[domain]]

    def of(self, slot: int, domain: int) -> Ints:
        """A slot's words."""
        return self.words[self.base[slot] :][: self.rows if domain == ROWS else int(self.used[domain])]

    def texts(self, slot: int, domain: int) -> PackedBytes:
        """The stretches of two slots."""
        return PackedBytes(self.data, self.of(slot, domain), self.of(slot + 1, domain))

    def columns(self, tree: Node, objects: Objects) -> dict[str, Column]:
        """All columns of a reader, by path."""
        columns: dict[str, Column] = {}
        self._add(columns, "", tree, None, objects)
        return columns

    def _add(self, columns: dict[str, Column], path: str, node: Node, valid: Mask | None, objects: Objects) -> None:
        """The columns of a node, under its path; `valid` are the rows where the records around it are not null."""
        if isinstance(node, Group):
            for name, member in node.members.items():
                self._add(columns, f"{path}.{name}" if path else name, member, valid, objects)
        elif isinstance(node, Option):
            here = self.of(node.slot, node.domain) != 0
            self._add(columns, path, node.value, here if valid is None else here & valid, objects)
        elif isinstance(node, Opaque):
            columns[path] = objects[node.slot]
        else:
            column = self._array(node) if isinstance(node, List) else self._leaf(node)
            if valid is not None:
                column = Nullable(column.values, column.valid & valid) if isinstance(column, Nullable) else Nullable(column, valid)
            columns[path] = column

    def _array(self, node: List) -> Column:
        items: dict[str, Column] = {}
        self._add(items, "", node.items, None, {})
        inner = node.items.value if isinstance(node.items, Option) else node.items
        starts, ends = self.of(node.slot, node.domain), self.of(node.slot + 1, node.domain)
        return Ragged(items if isinstance(inner, Group) else items[""], starts, ends)

    def _leaf(self, node: Leaf) -> Column:
        if node.kind in ("string", "bytes", "fixed"):
            return self.texts(node.slot, node.domain)
        if node.kind == "null":
            size = self.rows if node.domain == ROWS else int(self.used[node.domain])
            return Nullable(Constant(0, size), np.zeros(size, np.bool_))
        words = self.of(node.slot, node.domain)
        if node.kind == "enum":
            return Symbols(words.astype(np.int32), node.symbols)
        if node.kind == "double":
            return words.view(np.float64)
        if node.kind == "float":
            return words.astype(np.int32).view(np.float32)
        return words.astype(_NUMBERS[node.kind], copy=False)

    def _bases(self) -> Ints:
        sizes = self.room[self._domain_of]
        sizes[:FIRST_SLOT] = 1
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)[:-1]))

    def _size(self) -> int:
        return int(self.base[-1] + max(self.room[self._domain_of[-1]], 1))
