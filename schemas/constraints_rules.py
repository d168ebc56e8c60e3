"""Constraints of a record as rules: refused like any other row, counted by name, explained in its dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from schemas.columns import Column, Columns, Constant, Ints, Mask, Nullable, Octets, PackedBytes, Ragged, Symbols
from schemas.constraints import Constraints, FieldConstraints, Value
from schemas.constraints_check import FieldType, column_end, column_value
from schemas.constraints_kernel import hash_texts, run_domain, run_pattern
from schemas.constraints_pattern import compile_pattern
from schemas.constraints_relation import parse_relation
from schemas.errors import DefinitionError
from schemas.features import Json
from schemas.rules import Rule

Holds = Callable[[Column], Mask]


def constraint_rules(constraints: Constraints, types: Mapping[str, FieldType], in_ms: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """The rules of what constraints demand of each record.

    Args:
        constraints: of one environment, held against the schema.
        types: the schema's columns.
        in_ms: columns of times that are in milliseconds when the rules see them, whatever the schema says.
    """
    rules = [_absent(name, there) for name, there in constraints.absent.items()]
    for each in constraints.fields.values():
        rules += _of_field(each, types[each.name], 1 if each.name in in_ms else None)
    rules += [_relation(each.name, each.holds) for each in constraints.relations]
    named: dict[str, Rule] = {}
    for rule in rules:
        if named.setdefault(rule.name, rule) is not rule:
            raise DefinitionError(
                f"{constraints.source}: two constraints are called {rule.name!r}; rename the relation or one of the fields"
            )
    return tuple(rules)


def is_constraint(rule: Rule) -> bool:
    """Whether a rule comes from constraints."""
    return isinstance(rule.definition, list) and rule.definition[:1] == ["constraint"]


def _of_field(given: FieldConstraints, kind: FieldType, per_ms: int | None) -> Iterator[Rule]:
    name = given.name
    if given.required:
        yield _rule(name, "presence", present, "a value", None)
    if given.regex is not None:
        yield _rule(name, "regex", _matching(given.regex), f"text that matches {given.regex}", given.regex)
    if given.domain is not None and given.domain_share == 1:
        listed = ", ".join(map(str, given.domain[:20])) + (f" and {len(given.domain) - 20} more" if len(given.domain) > 20 else "")
        yield _rule(name, "domain", among(given, kind), f"one of {listed}", list(given.domain))
    if given.has_range:
        low, high = column_end(given.low, kind, True, per_ms), column_end(given.high, kind, False, per_ms)
        words = f"{given.low} to {given.high}"
        if given.high is None:
            words = f"{given.low} or more"
        elif given.low is None:
            words = f"{given.high} or less"
        yield _rule(name, "range", _within(low, high), words, [given.low, given.high])
    if given.least_items is not None or given.most_items is not None:
        least, most = given.least_items or 0, given.most_items
        words = f"{least} items or more" if most is None else f"{least} to {most} items"
        yield _rule(name, "valency", _counted(least, most), words, [least, most])


def _rule(field: str, kind: str, holds: Holds, wanted: str, definition: Json) -> Rule:
    word = field.replace(".", "_")
    if kind == "presence":
        return Rule(f"{word}_presence", lambda columns: holds(columns[field]), wanted, (field,), definition=["constraint", kind, field])
    return Rule(
        f"{word}_{kind}",
        lambda columns: where_there(columns[field], holds),
        wanted,
        (field,),
        definition=["constraint", kind, field, definition],
    )


def _absent(field: str, there: tuple[str, ...]) -> Rule:
    word = field.replace(".", "_")
    wanted = f"none: only {' and '.join(there)} has it"
    return Rule(f"{word}_absent", lambda columns: ~present(columns[field]), wanted, (field,), definition=["constraint", "absent", field])


def _relation(name: str, text: str) -> Rule:
    expression = parse_relation(text)

    def holds(columns: Columns) -> Mask:
        return expression.holds(columns)

    return Rule(name, holds, text, expression.fields, definition=["constraint", "relation", text])


def where_there(column: Column, holds: Holds) -> Mask:
    """Shape (n,): rows that hold, or are null."""
    if isinstance(column, Nullable):
        return holds(column.values) | ~column.valid
    if isinstance(column, np.ndarray) and column.dtype == np.object_:
        return np.ones(len(column), np.bool_)
    return holds(column)


def present(column: Column) -> Mask:
    """Shape (n,): rows that have a value."""
    if isinstance(column, Nullable):
        return column.valid & present(column.values)
    if isinstance(column, np.ndarray) and column.dtype == np.object_:
        return np.array([value is not None for value in column.tolist()], np.bool_)
    return np.ones(len(column), np.bool_)


def _within(low: float | None, high: float | None) -> Holds:
    def holds(values: Column) -> Mask:
        if isinstance(values, Constant):
            values = np.full(values.rows, values.value)
        assert isinstance(values, np.ndarray)
        if low is None:
            return np.asarray(values <= high)
        if high is None:
            return np.asarray(values >= low)
        return np.asarray((values >= low) & (values <= high))

    return holds


def among(given: FieldConstraints, kind: FieldType) -> Holds:
    """Which of some values, none of them null, are in a field's domain."""
    wanted: list[Value] = [column_value(value, kind) for value in given.domain or ()]
    texts = Texts([value.encode() for value in wanted if isinstance(value, str)])
    numbers = np.array([value for value in wanted if not isinstance(value, str)])

    def holds(values: Column) -> Mask:
        if isinstance(values, PackedBytes):
            return texts.among(values)
        if isinstance(values, Symbols):
            known = np.array([symbol in wanted for symbol in values.symbols], np.bool_)
            return known[values.codes] if len(known) else np.zeros(len(values), np.bool_)
        if isinstance(values, Constant):
            value = values.value.decode("utf-8", "replace") if isinstance(values.value, bytes) else values.value
            return np.full(values.rows, value in wanted)
        assert isinstance(values, np.ndarray)
        if len(numbers) <= 8:  # where a comparison for each is quicker than sorting
            found: Mask = np.zeros(len(values), np.bool_)
            for number in numbers:
                found |= values == number
            return found
        return np.isin(values, numbers)

    return holds


class Texts:
    """Some texts, to be looked up by their hash."""

    def __init__(self, values: list[bytes]) -> None:
        self._known = PackedBytes.pack(values)
        size = 4
        while size < 2 * len(values) + 1:
            size *= 2
        self._table = np.full(size, -1, np.int64)
        hashes = np.zeros(len(values), np.uint64)
        if len(values):
            hash_texts(self._known.data, self._known.starts, self._known.ends, hashes)
        for number, value in enumerate(hashes.tolist()):
            place = value & (size - 1)
            while self._table[place] >= 0:
                place = (place + 1) & (size - 1)
            self._table[place] = number

    def among(self, values: PackedBytes) -> Mask:
        """Shape (n,): which of some values are one of these."""
        found = np.empty(len(values), np.bool_)
        known = self._known
        run_domain(*arrays(values), known.data, known.starts, known.ends, self._table, found)
        return found


def _matching(pattern: str) -> Holds:
    automaton = compile_pattern(pattern)

    def holds(values: Column) -> Mask:
        if isinstance(values, Constant):
            assert isinstance(values.value, bytes)
            return np.full(values.rows, automaton.matches(values.value))
        assert isinstance(values, PackedBytes)
        found = np.empty(len(values), np.bool_)
        run_pattern(*arrays(values), automaton.moves, automaton.class_of, automaton.classes, automaton.accepts, found)
        return found

    return holds


def _counted(least: int, most: int | None) -> Holds:
    def holds(values: Column) -> Mask:
        assert isinstance(values, Ragged)
        items = values.ends - values.starts
        return np.asarray(items >= least if most is None else (items >= least) & (items <= most))

    return holds


def arrays(values: PackedBytes) -> tuple[Octets, Ints, Ints]:
    """What a kernel takes: the buffer and the stretches, each in one piece."""
    return np.ascontiguousarray(values.data), np.ascontiguousarray(values.starts), np.ascontiguousarray(values.ends)
