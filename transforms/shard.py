"""The state of one shard: every entity's past, as far as its one log has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Floats, Ints, Mask
from transforms import kernel
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint, numbers
from transforms.keys import identities, is_given, key_hashes, key_ids
from transforms.label import LabelRows
from transforms.rows import taken
from transforms.slab import Slab
from transforms.store import Store, Writes

EARLIEST_MS = -62_135_596_800_000  # the year 1
LATEST_MS = 253_402_300_799_999  # the end of the year 9999
_NO_TIMES = np.empty(0, np.int64)
_NO_LABELS = np.empty(0, np.bool_)
_NO_ROWS = np.empty(0, np.intp)


@dataclass(frozen=True, slots=True)
class Advance:
    """What a batch came to: its features, and the changes that follow from it in the store."""

    features: Floats  # shape (n, k): the entities' features side by side; zeros in labels and in rows that weren't usable
    timing: NDArray[np.uint8]  # shape (n,): 0 on time, 1 late (remembered), 2 too late; the worst over the entities
    writes: tuple[Writes, ...]  # at most one an entity; copies, so later batches don't change them
    unmatched: Mask | None = None  # shape (n,): usable labels whose event no entity remembers; None if no labels were given
    repeated: Mask | None = None  # shape (n,): usable labels that their events had already; None if no labels were given


class ShardState:
    """The windows of all entities over one log, computed row by row in its order.

    The results depend on the log alone: not on how it is cut into batches, on what is resident, or on restarts in between.
    Calls must not overlap, but may come from any thread; the compiled loops release the GIL.
    """

    def __init__(self, shard: str, entities: Sequence[Entity], store: Store | None, event_time: str, max_keys: int) -> None:
        """
        Args:
            shard: what the store knows the state by.
            entities: features stand in this order.
            store: where keys that aren't resident are read from. It is written to by the owner, with what `advance` gives. None = there is
                nothing but memory: `advance` gives no writes, and `max_keys` must be more than there are.
            event_time: the column of event times, integer milliseconds.
            max_keys: keys of an entity to keep resident.
        """
        self._entities = tuple(entities)
        self._event_time = event_time
        self._slabs = tuple(Slab(shard, entity, store, max_keys) for entity in self._entities)

    @property
    def resident_keys(self) -> dict[str, int]:
        """By entity, how many keys are in memory."""
        return {entity.name: slab.resident_keys for entity, slab in zip(self._entities, self._slabs, strict=True)}

    @property
    def size_bytes(self) -> int:
        """The memory of all slabs."""
        return sum(slab.size_bytes for slab in self._slabs)

    def advance(
        self,
        columns: Columns,
        usable: Mask,
        positions: Ints,
        arrived_ms: Ints | None = None,
        labels: LabelRows | None = None,
        first_positions: Ints | None = None,
    ) -> Advance:
        """Compute the features of a batch's usable rows in order, and remember the rows.

        Args:
            columns: of n rows; the event time and what the entities need.
            usable: shape (n,); other rows take no part.
            positions: shape (n,), at least 0: each row's place in the log, kept with its record.
            arrived_ms: shape (n,): when the broker took each record in; needed where an entity has a guard.
            labels: which rows are labels and which event each row is about; needed where an entity keeps labels. A label row has
                its event's keys and time, and no more of the columns: entities that keep no labels do not look at it.
            first_positions: shape (n,): where a row stood that came before, or ``kernel.REFUSED`` less that if it was refused there, else
                -1; None if there are no such rows. One that an entity remembers is not remembered again, and a window that holds it does
                not hold it twice.

        Raises:
            StoreDown: a key could not be read; nothing has changed, the same call may be tried again.
            FenceLost, LostBlock, TooManyRecords: this state is void.
            ValueError, TypeError: the columns or labels aren't what the entities were declared for.
        """
        self._check(arrived_ms, labels, usable)
        parts = self._parts(columns, usable, labels)
        given = [_given(entity, part, labels) for entity, part in zip(self._entities, parts, strict=True)]

        # Reads first: they may fail, and until all have succeeded nothing is changed.
        slots = []
        for entity, slab, part in zip(self._entities, self._slabs, parts, strict=True):
            ids = key_ids(entity.key_columns, [part[name] for name in entity.key_columns])
            next_position = int(positions[part.rows].min()) if len(part.rows) else kernel.NO_POSITION
            slots.append(slab.admit(ids, key_hashes(ids), next_position))

        features = np.zeros((len(usable), sum(len(entity.features) for entity in self._entities)))
        timing, outcome = np.zeros((2, len(usable)), np.uint8)
        writes = []
        first_column = 0
        for entity, slab, part, slot_of, values in zip(self._entities, self._slabs, parts, slots, given, strict=True):
            where = np.ascontiguousarray(positions[part.rows], np.int64)
            arrived = _rows_of(arrived_ms, part) if entity.guard else _NO_TIMES
            is_label = labels.is_label[part.rows] if labels is not None and entity.has_labels else _NO_LABELS
            came = _NO_TIMES if first_positions is None else np.ascontiguousarray(first_positions[part.rows], np.int64)
            features[part.absent, first_column : first_column + len(entity.features)] = entity.empty_features
            writes.append(
                slab.advance(
                    slot_of, part.rows, part.times, values, where, arrived, is_label, came, timing, outcome, features, first_column
                )
            )
            first_column += len(entity.features)
        done = Advance(features, timing, tuple(w for w in writes if len(w.at)))
        if labels is None:
            return done
        told = labels.is_label & usable
        features[told] = 0.0
        return replace(done, unmatched=told & (outcome == kernel.UNMATCHED), repeated=told & (outcome == kernel.REPEATED))

    def acknowledge(self, position: int) -> None:
        """The store has settled a write with this position: it holds every row below it, so these keys may leave memory."""
        for slab in self._slabs:
            slab.settle(position)

    def _check(self, arrived_ms: Ints | None, labels: LabelRows | None, usable: Mask) -> None:
        for entity in self._entities:
            if entity.guard and arrived_ms is None:
                raise ValueError(f"the guard of entity {entity.name!r} needs each record's arrival time")
            if entity.has_labels and labels is None:
                raise ValueError(f"entity {entity.name!r} keeps labels: wanted `labels`, if only for the ids of the events")
        if labels is not None:
            values = labels.value[labels.is_label & usable]
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) <= 1:
                raise ValueError(f"a label should be 0 or 1, not {values.min()} .. {values.max()}")

    def _parts(self, columns: Columns, usable: Mask, labels: LabelRows | None) -> list[_Part]:
        """For each entity, its part of the batch: entities that look at the same rows share one."""
        events = usable if labels is None else usable & ~labels.is_label
        parts: dict[tuple[bool, tuple[str, ...]], _Part] = {}
        found = []
        for entity in self._entities:
            may_miss = entity.key_columns if entity.missing_key == "absent" else ()
            kind = (entity.has_labels, may_miss)
            if kind not in parts:
                wanted, absent = usable if entity.has_labels else events, _NO_ROWS
                if may_miss:
                    there = np.logical_and.reduce([is_given(columns[name]) for name in may_miss])
                    wanted, absent = wanted & there, np.flatnonzero(events & ~there)
                parts[kind] = _Part(columns, self._event_time, np.flatnonzero(wanted), absent)
            found.append(parts[kind])
        return found


class _Part:
    """The rows of a batch that an entity looks at, the columns of these rows, and the events that lack its key."""

    def __init__(self, columns: Columns, event_time: str, rows: NDArray[np.intp], absent: NDArray[np.intp]) -> None:
        self.rows = rows
        self.absent = absent
        self._columns = columns
        self._taken: dict[str, Column] = {}
        self.times = _times(event_time, self[event_time])

    def __getitem__(self, name: str) -> Column:
        if name not in self._taken:
            self._taken[name] = taken(self._columns[name], self.rows)
        return self._taken[name]


def _times(name: str, column: Column) -> Ints:
    times = np.ascontiguousarray(numbers(name, column), np.int64)
    if len(times) and not EARLIEST_MS <= int(times.min()) <= int(times.max()) <= LATEST_MS:
        raise ValueError(f"{name!r} should be milliseconds in the years 1 to 9999, not {times.min()} .. {times.max()}")
    return times


def _given(entity: Entity, part: _Part, labels: LabelRows | None) -> NDArray[np.int64]:
    """Shape (values, m): what each row brings, as integers."""
    count = len(part.rows)
    if labels is None or not entity.has_labels:
        given = np.empty((len(entity.values), count), np.int64)
        for c, value in enumerate(entity.values):
            given[c] = _integers(value, part, None)
        return given
    is_label = labels.is_label[part.rows]
    events = np.flatnonzero(~is_label)
    given = np.zeros((len(entity.values) + 2, count), np.int64)
    for c, value in enumerate(entity.values):
        given[c, events] = _integers(value, part, events)
    given[-2] = labels.event_ids[part.rows]
    given[-1] = np.where(is_label, np.where(labels.value[part.rows] == 1, kernel.LABEL_IS_1, kernel.LABEL_IS_0), 0)
    return given


def _integers(value: FixedPoint | str, part: _Part, rows: NDArray[np.intp] | None) -> Ints:
    name = value.column if isinstance(value, FixedPoint) else value
    column = part[name] if rows is None else taken(part[name], rows)
    return value.convert(column) if isinstance(value, FixedPoint) else identities(name, column)


def _rows_of(arrived_ms: Ints | None, part: _Part) -> Ints:
    assert arrived_ms is not None, "checked before"
    return np.ascontiguousarray(arrived_ms[part.rows], np.int64)
