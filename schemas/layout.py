"""Where the columns of a reader's schema stand: a tree of columns, each with its slots.

record in the record    its fields, under dotted paths
null or one type        the type's columns, `Nullable`; a null record makes all its columns null
array, map              `Ragged`; a map is an array of records of ``key`` and ``value``, repeated keys included
decimal                 the unscaled integer as int64 if it has at most 18 digits, else its bytes
anything else           `Opaque`: a numpy array of Python objects, each made by fastavro
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union
from schemas.program import FIRST_SLOT

DEEPEST_ARRAY = 8
MOST_DIGITS = 18  # a decimal's unscaled value surely fits 64 bits

ROWS = 0  # the domain of the records themselves


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value. `kind` is the type's, or ``decimal``; texts, bytes and fixed take the slots `slot` and `slot` + 1."""

    kind: str
    slot: int
    domain: int
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """A value or null; `slot` is 1 where there is a value."""

    slot: int
    domain: int
    value: Node


@dataclass(frozen=True, slots=True)
class Group:
    """The fields of a record."""

    members: Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class List:
    """An array or a map: its items stand in a domain of their own, those of a row together."""

    slot: int
    domain: int
    items_domain: int
    items: Node


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value of a type that columns can't hold: its bytes from `slot` to `slot` + 1."""

    slot: int
    domain: int
    type: AvroType


Node: TypeAlias = "Leaf | Option | Group | List | Opaque"


@dataclass
class Layout:
    """Hands out slots and domains."""

    domain_of: list[int] = field(default_factory=lambda: [ROWS] * FIRST_SLOT)  # by slot
    domains: int = 1

    def lay_out(self, kind: AvroType, domain: int = ROWS) -> Node:
        """The columns of a type."""
        if isinstance(kind, Record):
            return Group({each.name: self.lay_out(each.type, domain) for each in kind.fields})
        if isinstance(kind, Union) and (inner := kind.nullable) is not None and is_covered(inner):
            return Option(self._take(domain), domain, self.lay_out(inner, domain))
        if not is_covered(kind):
            return Opaque(self._take(domain, 2), domain, kind)
        if isinstance(kind, Array | Map):
            slot = self._take(domain, 2)
            items = self._new_domain()
            return List(slot, domain, items, self.lay_out(items_of(kind), items))
        if is_small_decimal(kind):
            return Leaf("decimal", self._take(domain), domain)
        if kind.kind in ("string", "bytes", "fixed"):
            return Leaf(kind.kind, self._take(domain, 2), domain)
        if kind.kind == "null":
            return Leaf("null", 0, domain)
        return Leaf(kind.kind, self._take(domain), domain, kind.symbols if isinstance(kind, Enum) else ())

    def _take(self, domain: int, slots: int = 1) -> int:
        self.domain_of += [domain] * slots
        return len(self.domain_of) - slots

    def _new_domain(self) -> int:
        self.domains += 1
        return self.domains - 1


def is_covered(kind: AvroType, depth: int = 0) -> bool:
    """Whether columns can hold values of this type, whatever they contain."""
    if isinstance(kind, Array | Map):
        return depth < DEEPEST_ARRAY and is_covered(items_of(kind), depth + 1)
    if isinstance(kind, Record):
        return all(is_covered(each.type, depth) for each in kind.fields)
    if isinstance(kind, Union):
        return kind.nullable is not None and is_covered(kind.nullable, depth)
    return isinstance(kind, Primitive | Fixed | Enum)


def is_small_decimal(kind: AvroType) -> bool:
    """Whether the column of this type is one of unscaled integers."""
    return isinstance(kind, Primitive | Fixed) and kind.logical == "decimal" and 0 < kind.precision <= MOST_DIGITS


def items_of(kind: Array | Map) -> AvroType:
    """What an array holds; for a map, records of a key and a value: their bytes are the same."""
    if isinstance(kind, Array):
        return kind.items
    return Record("entry", (Field("key", Primitive("string")), Field("value", kind.values)))


def opaque_nodes(node: Node) -> Iterator[Opaque]:
    """Every opaque column of a tree."""
    if isinstance(node, Opaque):
        yield node
    elif isinstance(node, Group):
        for member in node.members.values():
            yield from opaque_nodes(member)
