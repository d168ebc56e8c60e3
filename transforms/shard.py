"""The state of one shard: every entity's past, as far as its one log has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Constant, Floats, Ints, Mask, Nullable, PackedBytes, Symbols
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint, numbers
from transforms.keys import identities, key_hashes, key_ids
from transforms.slab import Slab
from transforms.store import Store, Writes

EARLIEST_MS = -62_135_596_800_000  # the year 1
LATEST_MS = 253_402_300_799_999  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Advance:
    """What a batch came to: its features, and the changes that follow from it in the store."""

    features: Floats  # shape (n, k): the entities' features side by side; zeros in rows that weren't usable
    timing: NDArray[np.uint8]  # shape (n,): 0 on time, 1 late (remembered), 2 too late; the worst over the entities
    writes: tuple[Writes, ...]  # at most one an entity; copies, so later batches don't change them


class ShardState:
    """The windows of all entities over one log, computed row by row in its order.

    The results depend on the log alone: not on how it is cut into batches, on what is resident, or on restarts in between.
    Calls must not overlap, but may come from any thread; the compiled loops release the GIL.
    """

    def __init__(self, shard: str, entities: Sequence[Entity], store: Store, event_time: str, max_keys: int) -> None:
        """
        Args:
            shard: what the store knows the state by.
            entities: features stand in this order.
            store: where keys that aren't resident are read from. It is written to by the owner, with what `advance` gives.
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

    def advance(self, columns: Columns, usable: Mask, positions: Ints, arrived_ms: Ints | None = None) -> Advance:
        """Compute the features of a batch's usable rows in order, and remember the rows.

        Args:
            columns: of n rows; the event time and what the entities need.
            usable: shape (n,); other rows take no part.
            positions: shape (n,), at least 0: each row's place in the log, kept with its record.
            arrived_ms: shape (n,): when the broker took each record in; needed where an entity has a guard.

        Raises:
            StoreDown: a key could not be read; nothing has changed, the same call may be tried again.
            FenceLost, LostBlock, TooManyRecords: this state is void.
            ValueError, TypeError: the columns aren't what the entities were declared for.
        """
        rows = np.flatnonzero(usable)
        taken = self._take(columns, rows)
        times = self._times(taken[self._event_time])
        where = np.ascontiguousarray(positions[rows], np.int64)
        arrived = self._arrivals(arrived_ms, rows)

        # Reads first: they may fail, and until all have succeeded nothing is changed.
        slots = []
        for entity, slab in zip(self._entities, self._slabs, strict=True):
            ids = key_ids(entity.key_columns, [taken[name] for name in entity.key_columns])
            slots.append(slab.admit(ids, key_hashes(ids)))

        features = np.zeros((len(usable), sum(len(entity.features) for entity in self._entities)))
        timing = np.zeros(len(usable), np.uint8)
        writes = []
        first_column = 0
        for entity, slab, slot_of in zip(self._entities, self._slabs, slots, strict=True):
            given = _given(entity, taken, len(rows))
            writes.append(slab.advance(slot_of, rows, times, given, where, arrived, timing, features, first_column))
            first_column += len(entity.features)
        return Advance(features, timing, tuple(w for w in writes if len(w.at)))

    def acknowledge(self, position: int) -> None:
        """The store has settled a write with this position: it holds every row below it, so these keys may leave memory."""
        for slab in self._slabs:
            slab.settle(position)

    def _take(self, columns: Columns, rows: NDArray[np.intp]) -> dict[str, Column]:
        names = dict.fromkeys((self._event_time, *(name for entity in self._entities for name in entity.columns_needed)))
        return {name: _take(columns[name], rows) for name in names}

    def _times(self, column: Column) -> Ints:
        times = np.ascontiguousarray(numbers(self._event_time, column), np.int64)
        if len(times) and not EARLIEST_MS <= int(times.min()) <= int(times.max()) <= LATEST_MS:
            raise ValueError(f"{self._event_time!r} should be milliseconds in the years 1 to 9999, not {times.min()} .. {times.max()}")
        return times

    def _arrivals(self, arrived_ms: Ints | None, rows: NDArray[np.intp]) -> Ints:
        if arrived_ms is not None:
            return np.ascontiguousarray(arrived_ms[rows], np.int64)
        guarded = [entity.name for entity in self._entities if entity.guard]
        if guarded:
            raise ValueError(f"the guard of entity {guarded[0]!r} needs each record's arrival time")
        return np.empty(0, np.int64)


def _given(entity: Entity, taken: Columns, rows: int) -> NDArray[np.int64]:
    """Shape (values, m): what each event brings, as integers."""
    given = np.empty((len(entity.values), rows), np.int64)
    for c, value in enumerate(entity.values):
        given[c] = value.convert(taken[value.column]) if isinstance(value, FixedPoint) else identities(value, taken[value])
    return given


def _take(column: Column, rows: NDArray[np.intp]) -> Column:
    if len(rows) == len(column):
        return column
    match column:
        case np.ndarray():
            return column[rows]
        case PackedBytes():
            return column.take(rows)
        case Symbols():
            return replace(column, codes=column.codes[rows])
        case Constant():
            return replace(column, rows=len(rows))
        case Nullable():
            return Nullable(_take(column.values, rows), column.valid[rows])
    raise TypeError(f"arrays ({type(column).__name__}) can be neither a key nor a value")
