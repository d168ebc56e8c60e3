r"""Patterns: regular expressions as tables of states over bytes, so that a value costs its length and never more.

The syntax is Python's `re`, of which a pattern may use all that needs no memory of what was matched: literals, sets, ``.``, ``\d``,
``\w``, ``\s``, repetition, groups and alternatives. A value has to match as a whole. The letters of ``\d``, ``\w`` and ``\s`` are
ASCII's. Look-around, back-references and word borders are refused: they would need a matcher that goes back, which a
producer's odd value can keep busy for ever.

The construction is the textbook's: Thompson's automaton, made deterministic by sets of states (Aho, Sethi, Ullman, "Compilers", 3.7); a
character beyond ASCII is the one to four bytes of its UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from re import error as PatternError  # noqa: N812 - an exception's name, as everywhere
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Octets

MOST_STATES = 5_000
MOST_REPEATS = 1_000
_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_SETS = {
    "DIGIT": ((48, 57),),
    "SPACE": ((9, 13), (32, 32)),  # as `re` has it under ASCII
    "WORD": ((48, 57), (65, 90), (95, 95), (97, 122)),
}

Ranges = tuple[tuple[int, int], ...]


class BadPattern(Exception):
    """A pattern that is none, or none of these; in words."""


@dataclass(frozen=True)
class Automaton:
    """A pattern as states: from state s the byte b leads to ``moves[s * classes + class_of[b]]``; -1 = nowhere."""

    moves: NDArray[np.int32]  # shape (states * classes,)
    class_of: Octets  # shape (256,)
    classes: int
    accepts: NDArray[np.bool_]  # shape (states,)

    def matches(self, value: bytes) -> bool:
        """Whether a value matches as a whole."""
        state = 0
        for octet in value:
            state = int(self.moves[state * self.classes + int(self.class_of[octet])])
            if state < 0:
                return False
        return bool(self.accepts[state])


def compile_pattern(pattern: str) -> Automaton:
    """The automaton of a pattern.

    Raises:
        BadPattern: it is no regular expression, or uses what needs a memory, or needs too many states.
    """
    parser: Any = import_module("re._parser")
    try:
        tree = parser.parse(pattern)
    except (PatternError, OverflowError, RecursionError) as error:
        raise BadPattern(f"{pattern!r} is no regular expression: {error}") from error
    made = _Nfa(pattern)
    if tree.state.flags & ~32:  # 32 = text, which is what it is
        raise BadPattern(f"{pattern!r} sets flags; wanted a pattern without")
    start, end = made.state(), made.state()
    made.sequence(list(tree), start, end)
    return _determined(pattern, made, start, end)


@dataclass(slots=True)
class _Nfa:
    """Thompson's automaton: from each state, ranges of bytes to others, and moves that take none."""

    pattern: str
    moves: list[list[tuple[int, int, int]]] = field(default_factory=list)  # by state: first and last byte, and where to
    free: list[list[int]] = field(default_factory=list)

    def state(self) -> int:
        if len(self.moves) >= 20 * MOST_STATES:
            raise BadPattern(f"{self.pattern!r} needs more than {20 * MOST_STATES} states; wanted fewer repetitions")
        self.moves.append([])
        self.free.append([])
        return len(self.moves) - 1

    def sequence(self, nodes: Sequence[Any], start: int, end: int) -> None:
        at = start
        for place, node in enumerate(nodes):
            after = end if place == len(nodes) - 1 else self.state()
            self.node(node, at, after, place == 0, place == len(nodes) - 1)
            at = after
        if not nodes:
            self.free[start].append(end)

    def node(self, node: Any, start: int, end: int, first: bool, last: bool) -> None:
        name, given = str(node[0]), node[1]
        if name == "LITERAL":
            self.characters(((given, given),), start, end)
        elif name == "NOT_LITERAL":
            self.characters(_without(((given, given),)), start, end)
        elif name == "ANY":
            self.characters(_without(((10, 10),)), start, end)
        elif name == "IN":
            self.characters(self.set(given), start, end)
        elif name == "BRANCH":
            for branch in given[1]:
                self.sequence(list(branch), start, end)
        elif name == "SUBPATTERN":
            if given[1] or given[2]:
                raise BadPattern(f"{self.pattern!r} sets flags; wanted a pattern without")
            self.sequence(list(given[3]), start, end)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            self.repeat(given[0], given[1], list(given[2]), start, end)
        elif name == "AT" and self.is_edge(str(given), start == 0 and first, end == 1 and last):
            self.free[start].append(end)
        else:
            words = {"GROUPREF": "a back-reference", "ASSERT": "look-around", "ASSERT_NOT": "look-around", "AT": "a border inside"}
            found = words.get(name, name.lower().replace("_", " "))
            raise BadPattern(f"{self.pattern!r} has {found}; wanted literals, sets, repetition, groups and alternatives")

    @staticmethod
    def is_edge(border: str, at_start: bool, at_end: bool) -> bool:
        """A value matches as a whole anyway: its borders may be written and say nothing."""
        return (at_start and border in ("AT_BEGINNING", "AT_BEGINNING_STRING")) or (at_end and border in ("AT_END", "AT_END_STRING"))

    def repeat(self, least: int, most: Any, inner: list[Any], start: int, end: int) -> None:
        endless = str(most) == "MAXREPEAT"
        if max(least, 0 if endless else int(most)) > MOST_REPEATS:
            raise BadPattern(f"{self.pattern!r} repeats more than {MOST_REPEATS} times")
        at = start
        for _ in range(least):
            after = self.state()
            self.sequence(inner, at, after)
            at = after
        if endless:
            loop = self.state()
            self.free[at].append(loop)
            back = self.state()
            self.sequence(inner, loop, back)
            self.free[back].append(loop)
            self.free[loop].append(end)
            return
        for _ in range(int(most) - least):
            self.free[at].append(end)
            after = self.state()
            self.sequence(inner, at, after)
            at = after
        self.free[at].append(end)

    def set(self, given: Sequence[Any]) -> Ranges:
        found: list[tuple[int, int]] = []
        negated = False
        for part in given:
            name = str(part[0])
            if name == "NEGATE":
                negated = True
            elif name == "LITERAL":
                found.append((part[1], part[1]))
            elif name == "RANGE":
                found.append((part[1][0], part[1][1]))
            else:
                _, _, word = str(part[1]).partition("CATEGORY_")
                ranges = _SETS[word.removeprefix("NOT_")]
                found += _without(ranges) if word.startswith("NOT_") else ranges
        return _without(tuple(found)) if negated else tuple(found)

    def characters(self, ranges: Ranges, start: int, end: int) -> None:
        for low, high in ranges:
            for octets in _utf8(low, high):
                at = start
                for place, (first, last) in enumerate(octets):
                    after = end if place == len(octets) - 1 else self.state()
                    self.moves[at].append((first, last, after))
                    at = after


def _determined(pattern: str, nfa: _Nfa, start: int, end: int) -> Automaton:
    edges = sorted({edge for moves in nfa.moves for first, last, _ in moves for edge in (first, last + 1)} | {0, 256})
    class_of = np.zeros(256, np.uint8)
    for number, (first, after) in enumerate(pairwise(edges)):
        class_of[first:after] = number
    classes = len(edges) - 1
    first_set = _closed(nfa, [start])
    known = {first_set: 0}
    waiting, moves, accepts = [first_set], list[list[int]](), [end in first_set]
    while len(moves) < len(waiting):
        here = waiting[len(moves)]
        reached: list[list[int]] = [[] for _ in range(classes)]
        for state in here:
            for first, last, to in nfa.moves[state]:
                for number in range(class_of[first], class_of[last] + 1):
                    reached[number].append(to)
        row = []
        for states in reached:
            there = _closed(nfa, states)
            if there and there not in known:
                if len(known) >= MOST_STATES:
                    raise BadPattern(f"{pattern!r} needs more than {MOST_STATES} states; wanted fewer alternatives or repetitions")
                known[there] = len(known)
                waiting.append(there)
                accepts.append(end in there)
            row.append(known[there] if there else -1)
        moves.append(row)
    return Automaton(np.array(moves, np.int32).reshape(-1), class_of, classes, np.array(accepts, np.bool_))


def _closed(nfa: _Nfa, states: Iterable[int]) -> frozenset[int]:
    found = set(states)
    waiting = list(found)
    while waiting:
        for to in nfa.free[waiting.pop()]:
            if to not in found:
                found.add(to)
                waiting.append(to)
    return frozenset(found)


def _without(ranges: Ranges) -> Ranges:
    """All other characters."""
    found, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    if at <= _LAST:
        found.append((at, _LAST))
    return tuple(found)


def _utf8(low: int, high: int) -> Iterator[list[tuple[int, int]]]:
    """The bytes of a range of characters: sequences of ranges of bytes."""
    if low < _SURROGATES[0] <= high:
        yield from _utf8(low, _SURROGATES[0] - 1)
        yield from _utf8(min(_SURROGATES[1] + 1, high + 1), high)
        return
    if _SURROGATES[0] <= low <= _SURROGATES[1]:
        low = _SURROGATES[1] + 1
    if low > high:
        return
    for limit in (0x7F, 0x7FF, 0xFFFF):
        if low <= limit < high:
            yield from _utf8(low, limit)
            yield from _utf8(limit + 1, high)
            return
    first, last = chr(low).encode(), chr(high).encode()
    # Split until every byte but the first different one runs over all it can be.
    for place in range(1, len(first)):
        span = (1 << (6 * place)) - 1
        if low >> (6 * place) != high >> (6 * place):
            if low & span:
                yield from _utf8(low, low | span)
                yield from _utf8((low | span) + 1, high)
                return
            if high & span != span:
                yield from _utf8(low, (high & ~span) - 1)
                yield from _utf8(high & ~span, high)
                return
    yield list(zip(first, last, strict=True))
