"""Relations between fields of a record: one expression, over columns.

    ordered_at <= paid_at
    total == price * quantity
    status != "cancelled" or quantity == 0

Names are fields by dotted path; there are ``+ - *``, the six comparisons, ``and``, ``or``, numbers and texts. Texts are compared for being
the same. A comparison with a null says nothing, and a record is at fault only where what is known says so (SQL's CHECK does the same).
Two numbers are compared as they are; sums and products are computed as doubles, so whole numbers in them are exact up to 2^53.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.columns import Column, Columns, Constant, Mask, Nullable, PackedBytes, Symbols
from schemas.compare import same_text

_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_COMPUTE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


class BadRelation(Exception):
    """An expression that is none; in words."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides of a relation: a field's name, a number or a text, or what is computed."""

    left: Any
    sign: str
    right: Any


@dataclass(frozen=True)
class Expression:
    """A relation, parsed."""

    text: str
    tree: ast.expr

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it names, in their order."""
        return tuple(dict.fromkeys(_names(self.tree)))

    @property
    def comparison(self) -> Comparison | None:
        """Its two sides, if it is one comparison of fields or values."""
        if not isinstance(self.tree, ast.Compare) or len(self.tree.ops) != 1:
            return None
        sides = [_plain(each) for each in (self.tree.left, self.tree.comparators[0])]
        return None if None in sides else Comparison(sides[0], _COMPARE[type(self.tree.ops[0])][0], sides[1])

    def comparisons(self) -> Iterator[tuple[ast.expr, str, ast.expr]]:
        """Every comparison in it."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Compare):
                yield node.left, _COMPARE[type(node.ops[0])][0], node.comparators[0]

    def holds(self, columns: Columns) -> Mask:
        """Shape (n,): rows of which it can't be said that it does not hold."""
        true, known = _judge(self.tree, columns)
        return np.asarray(true | ~known)


def parse_relation(text: str) -> Expression:
    """Read a relation.

    Raises:
        BadRelation: it is none, or uses what a relation does not have.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadRelation(f"{text!r} is no relation: {getattr(error, 'msg', error)}") from error
    _check(tree, text)
    found = Expression(text, tree)
    if not found.fields:
        raise BadRelation(f"{text!r} names no field")
    return found


def is_text(node: ast.expr) -> bool:
    """Whether a side is a text written out."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def name_of(node: ast.expr) -> str | None:
    """The field a side is, if it is one."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = name_of(node.value)
        return None if above is None else f"{above}.{node.attr}"
    return None


def _check(node: ast.expr, text: str) -> None:
    if isinstance(node, ast.BoolOp):
        for each in node.values:
            _check(each, text)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        for side in (node.left, node.comparators[0]):
            _check_side(side, text)
        if (is_text(node.left) or is_text(node.comparators[0])) and type(node.ops[0]) not in (ast.Eq, ast.NotEq):
            raise BadRelation(f"{text!r} orders texts; wanted == or != between them")
    else:
        raise BadRelation(f"{text!r} is no comparison; wanted one such as ordered_at <= paid_at, or several with 'and' and 'or'")


def _check_side(node: ast.expr, text: str) -> None:
    if name_of(node) is not None:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        _check_number(node.operand, text)
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTE:
        _check_number(node.left, text)
        _check_number(node.right, text)
    else:
        raise BadRelation(f"{text!r} has {ast.unparse(node)!r}; wanted fields, numbers, texts, +, - and *")


def _check_number(node: ast.expr, text: str) -> None:
    if is_text(node):
        raise BadRelation(f"{text!r} computes with a text; wanted fields and numbers")
    _check_side(node, text)


def _names(node: ast.expr) -> Iterator[str]:
    name = name_of(node)
    if name is not None:
        yield name
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _names(child)


def _plain(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return -node.operand.value  # type: ignore[operator]
    name = name_of(node)
    return None if name is None else _Name(name)


class _Name(str):
    """A field, as against a text."""


def is_field(side: Any) -> bool:
    """Whether a side of a `Comparison` is a field."""
    return isinstance(side, _Name)


There = Mask | np.bool_  # of each row, or of all of them


def _judge(node: ast.expr, columns: Columns) -> tuple[Mask, There]:
    """Where it is true, and where it can be told at all."""
    if isinstance(node, ast.BoolOp):
        parts = [_judge(each, columns) for each in node.values]
        known: Mask = np.array([np.broadcast_to(there, true.shape) for true, there in parts])
        true: Mask = np.array([each[0] for each in parts]) & known
        if isinstance(node.op, ast.Or):
            some = np.asarray(true.any(0))
            return some, np.asarray(some | known.all(0))
        return np.asarray(true.all(0)), np.asarray((known & ~true).any(0) | known.all(0))
    assert isinstance(node, ast.Compare)
    sign = type(node.ops[0])
    left, there = _side(node.left, columns)
    right, also = _side(node.comparators[0], columns)
    if isinstance(left, str | PackedBytes | Symbols) or isinstance(right, PackedBytes | Symbols):
        same = _same(left, right)
        return same if sign is ast.Eq else ~same, there & also
    return np.asarray(_COMPARE[sign][1](left, right)), there & also


def _side(node: ast.expr, columns: Columns) -> tuple[Any, There]:
    """The values of a side, and where there are any."""
    if isinstance(node, ast.Constant):
        return node.value, np.True_
    if isinstance(node, ast.UnaryOp):
        values, there = _side(node.operand, columns)
        return -_double(values), there
    if isinstance(node, ast.BinOp):
        left, there = _side(node.left, columns)
        right, also = _side(node.right, columns)
        return _COMPUTE[type(node.op)](_double(left), _double(right)), there & also
    name = name_of(node)
    assert name is not None
    return _values(columns[name])


def _values(column: Column) -> tuple[Any, Mask]:
    if isinstance(column, Nullable):
        values, there = _values(column.values)
        return values, there & column.valid
    if isinstance(column, Constant):
        value = column.value
        return (value.decode("utf-8", "replace") if isinstance(value, bytes) else value), np.ones(column.rows, np.bool_)
    return column, np.ones(len(column), np.bool_)


def _double(values: Any) -> Any:
    return values.astype(np.float64) if isinstance(values, np.ndarray) else float(values)


def _same(left: Any, right: Any) -> Mask:
    if isinstance(left, str) or not isinstance(left, PackedBytes | Symbols):
        left, right = right, left
    if isinstance(right, str):
        return left.equals(right) if isinstance(left, PackedBytes) or right in left.symbols else np.zeros(len(left), np.bool_)
    if isinstance(left, Symbols):
        left = PackedBytes.pack([symbol.encode() for symbol in left.symbols]).take(left.codes)
    return same_text(left, right)
