"""Constraints of many records: how many records there were to look at, and how many of them were not as they should be.

What they follow from is more than the record itself, so no record is refused for them: a worker that reads its log again would else
judge otherwise than before. `unique` remembers the hashes of values in a table of bounded size; where more different values come
within a window than it holds, the oldest are forgotten first, and a repetition of those is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from schemas.columns import Column, Columns, Constant, Ints, Mask, Nullable, PackedBytes, Symbols
from schemas.constraints import Constraints, FieldConstraints
from schemas.constraints_check import FieldType
from schemas.constraints_kernel import Hashes, hash_texts, hash_words, run_unique
from schemas.constraints_rules import among, arrays, present, where_there

MOST_VALUES = 1 << 20  # that `unique` holds at a time, 16 bytes each
_FIRST_VALUES = 1 << 13


@dataclass(frozen=True, slots=True)
class Watched:
    """What one constraint came to in some rows."""

    looked: int
    broken: Mask  # shape (n,)


@dataclass
class Watch:
    """Looks at records, batch by batch and in their order.

    Attributes:
        constraints: of one environment.
        types: of the schema's columns.
        in_ms: columns of times that are in milliseconds, whatever the schema says.
        counts: by constraint: records looked at, and those that were not as they should be.
    """

    constraints: Constraints
    types: Mapping[str, FieldType]
    in_ms: tuple[str, ...] = ()
    counts: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._among = {each.name: among(each, self.types[each.name]) for each in self._fields() if each.domain is not None}
        self._seen = {each.name: Seen(each.unique_ms) for each in self._fields() if each.unique_ms is not None}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look for."""
        return not self.fields

    @property
    def fields(self) -> dict[str, str]:
        """What there is to look for, each with the field it is about."""
        found = {}
        for each in self._fields():
            if each.presence is not None and not each.required:
                found[f"{_word(each)}_presence_share"] = each.name
            if each.domain is not None and each.domain_share < 1:
                found[f"{_word(each)}_domain_share"] = each.name
            if each.unique_ms is not None:
                found[f"{_word(each)}_unique"] = each.name
        if self.constraints.freshness is not None:
            found["freshness"] = str(self.constraints.event_time)
        return found

    def look(self, columns: Columns, usable: Mask, arrived_ms: Ints | None = None) -> dict[str, Watched]:
        """Look at some records.

        Args:
            columns: of n rows.
            usable: shape (n,): others are passed over.
            arrived_ms: shape (n,); None = that is not known, and freshness is not looked at.
        """
        found: dict[str, Watched] = {}
        for each in self._fields():
            column, name = columns[each.name], _word(each)
            if each.presence is not None and not each.required:
                found[f"{name}_presence_share"] = Watched(int(np.count_nonzero(usable)), usable & ~present(column))
            if each.domain is not None and each.domain_share < 1:
                there = usable & present(column)
                broken = there & ~where_there(column, self._among[each.name])
                found[f"{name}_domain_share"] = Watched(int(np.count_nonzero(there)), broken)
            if each.unique_ms is not None:
                there = usable & present(column)
                again = self._seen[each.name].look(hashes(column), self._times_ms(columns), there)
                found[f"{name}_unique"] = Watched(int(np.count_nonzero(there)), again)
        if self.constraints.freshness is not None and arrived_ms is not None:
            found["freshness"] = Watched(int(np.count_nonzero(usable)), usable & self._stale(columns, arrived_ms))
        for name, each_found in found.items():
            counts = self.counts.setdefault(name, [0, 0])
            counts[0] += each_found.looked
            counts[1] += int(np.count_nonzero(each_found.broken))
        return found

    def broken(self) -> dict[str, str]:
        """Constraints that do not hold of all that was looked at, in words."""
        told = {}
        for each in self._fields():
            for kind, least in (("presence_share", each.presence), ("domain_share", each.domain_share), ("unique", 1.0)):
                looked, broken = self.counts.get(f"{_word(each)}_{kind}", (0, 0))
                share = (looked - broken) / looked if looked else 1.0
                if broken and least is not None and share < least:
                    told[f"{_word(each)}_{kind}"] = _words(kind, each, share, broken)
        looked, broken = self.counts.get("freshness", (0, 0))
        if broken:
            told["freshness"] = f"{broken:,} of {looked:,} came later, or earlier, than they may"
        return told

    def _fields(self) -> list[FieldConstraints]:
        return list(self.constraints.fields.values())

    def _times_ms(self, columns: Columns) -> Ints:
        name = str(self.constraints.event_time)
        column = columns[name]
        column = column.values if isinstance(column, Nullable) else column
        values = np.full(column.rows, column.value) if isinstance(column, Constant) else column
        times: Ints = np.ascontiguousarray(values, np.int64)
        micros = name not in self.in_ms and str(self.types[name].logical).endswith("micros")
        return times // 1_000 if micros else times

    def _stale(self, columns: Columns, arrived_ms: Ints) -> Mask:
        fresh = self.constraints.freshness
        assert fresh is not None
        age = arrived_ms - self._times_ms(columns)
        old = np.zeros(len(age), np.bool_) if fresh.within_ms is None else age > fresh.within_ms
        return np.asarray(old | (-age > fresh.ahead_ms) if fresh.ahead_ms is not None else old)


class Seen:
    """Values seen lately, by their hashes."""

    def __init__(self, window_ms: int, most: int = MOST_VALUES) -> None:
        self._window_ms, self._most = window_ms, most
        self._keys: Hashes = np.zeros(2 * min(_FIRST_VALUES, most), np.uint64)
        self._last_ms = np.zeros(len(self._keys), np.int64)
        self.newest_ms = -(1 << 62)

    @property
    def room(self) -> int:
        """How many values it holds before it has to grow or forget."""
        return len(self._keys) // 2

    def look(self, values: Hashes, times_ms: Ints, which: Mask) -> Mask:
        """Which rows have a value that came less than a window away from them."""
        again = np.zeros(len(values), np.bool_)
        row = 0
        while row < len(values):
            free = self.room - int(np.count_nonzero(self._keys))
            row = run_unique(values, times_ms, which, self._window_ms, self._keys, self._last_ms, free, row, again)
            if row < len(values):
                seen = times_ms[: row + 1][which[: row + 1]]
                self.newest_ms = max(self.newest_ms, int(seen.max(initial=self.newest_ms)))
                self._make_room()
        return again

    def _make_room(self) -> None:
        """Forget what is older than the window; grow if that is not enough; at the end of that, forget the older half."""
        there = self._keys != 0
        keys, times = self._keys[there], self._last_ms[there]
        kept = times > self.newest_ms - self._window_ms
        size = len(self._keys)
        if 2 * np.count_nonzero(kept) > self.room:
            if size < 2 * self._most:
                size *= 2
            else:
                order = np.argsort(times, kind="stable")
                kept = np.zeros(len(times), np.bool_)
                kept[order[len(order) // 2 :]] = True
        self._keys, self._last_ms = np.zeros(size, np.uint64), np.zeros(size, np.int64)
        keys, times = np.ascontiguousarray(keys[kept]), np.ascontiguousarray(times[kept])
        nobody = np.zeros(len(keys), np.bool_)
        run_unique(keys, times, ~nobody, 0, self._keys, self._last_ms, size, 0, nobody)


def hashes(column: Column) -> Hashes:
    """Shape (n,): 64 bits of each value; of a null they mean nothing."""
    if isinstance(column, Nullable):
        return hashes(column.values)
    found: Hashes = np.zeros(len(column), np.uint64)
    if isinstance(column, PackedBytes):
        hash_texts(*arrays(column), found)
        return found
    if isinstance(column, Symbols):
        column = column.codes
    if isinstance(column, Constant):
        return found
    assert isinstance(column, np.ndarray)
    words = column.astype(np.float64).view(np.int64) if column.dtype.kind == "f" else column.astype(np.int64)
    hash_words(np.ascontiguousarray(words), found)
    return found


def _word(given: FieldConstraints) -> str:
    return given.name.replace(".", "_")


def _words(kind: str, given: FieldConstraints, share: float, broken: int) -> str:
    if kind == "presence_share":
        return f"{share:.3%} have a value, wanted {given.presence:.3%}"
    if kind == "domain_share":
        return f"{share:.3%} of the values are in the domain, wanted {given.domain_share:.3%}"
    return f"{broken:,} values came before, less than {given.unique_ms} ms of event time away"
