"""The slab: the resident state of one entity in one shard, a bounded cache of the store's blocks."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Floats, Ints, Mask, PackedBytes
from schemas.errors import LostBlock, TooManyRecords
from transforms import arithmetic, block, directory, kernel
from transforms.aggregate import Aggregate
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.pack import pack
from transforms.store import Store, Writes
from transforms.unpack import record_counts, unpack
from transforms.window import days

_log = logging.getLogger(__name__)
_NOWHERE = np.empty(0, np.int64)
_NOTHING = PackedBytes.pack([])
_FIRST_SLOTS = 256
_FIRST_RECORDS = 4096
_MOST_RECORDS = 1 << 34  # of a block: far beyond what any entity declares, as a stored one may be of an older declaration


class Slab:
    """Keys of one entity with their records, the most lately used up to `max_keys`.

    A batch passes in two calls, so that a store that does not answer leaves nothing half done: `admit` makes its keys resident,
    `advance` computes and remembers.
    """

    def __init__(self, shard: str, entity: Entity, store: Store | None, max_keys: int) -> None:
        self._shard = shard
        self._entity = entity
        self._store = store
        self._max_keys = max_keys
        self._turn = 0
        self._over = False
        self._settled_below = 0  # rows at smaller positions are in the store
        self._fields = record_fields(entity)
        self._windows = _window_table(entity)
        self._values, heap_fields = _value_table(entity)
        self._terms = _terms(entity)
        self._features, self._feature_terms = _feature_tables(entity)
        self._sizes = kernel.block_sizes(_MOST_RECORDS)
        self._free = np.full(len(self._sizes), -1, np.int64)
        self._control = np.zeros(kernel.CONTROLS, np.int64)
        self._heap = np.empty((_FIRST_RECORDS, heap_fields), np.int64)
        self._scratch = _scratch(entity)
        self._integers = np.zeros((0, 0, 0), np.int64)
        self._slots = np.zeros((0, kernel.SLOT_FIELDS + 2 * len(entity.windows)), np.int64)
        self._hashes = np.empty((0, 2), np.uint64)
        self._head = np.empty((0, block.HEADER_WORDS), np.int64)
        self._free_slots = np.empty(0, np.int64)
        self._free_count = 0
        self._table = np.zeros(2, np.int64)
        self._ids = PackedBytes.pack([])
        self._more_slots(_FIRST_SLOTS)

    @property
    def resident_keys(self) -> int:
        """How many keys are held."""
        return len(self._slots) - self._free_count

    @property
    def size_bytes(self) -> int:
        """The memory of all tables, used or not."""
        tables = (self._heap, self._slots, self._hashes, self._head, self._free_slots, self._table, self._scratch)
        return sum(table.nbytes for table in tables)

    def settle(self, position: int) -> None:
        """The store holds what happened below this position: keys not touched since may leave."""
        self._settled_below = max(self._settled_below, position)

    def admit(self, ids: PackedBytes, hashes: NDArray[np.uint64], next_position: int = kernel.NO_POSITION) -> Ints:
        """Make keys resident, reading those that aren't from the store in one call; shape (m,): the slot of each.

        Whatever the store has of them stands below `next_position` in the log.

        Raises:
            StoreDown, FenceLost: from the store; LostBlock: a block isn't what was written. Nothing is changed then.
        """
        self._turn += 1
        if self._free_count < len(ids):
            self._more_slots(len(ids))
        slot_of = np.empty(len(ids), np.int64)
        rows = np.empty(len(ids), np.int64)
        added = directory.find_or_add(hashes, self._table, self._hashes, self._free_slots, self._free_count, slot_of, rows)
        self._slots[slot_of, kernel.TURN] = self._turn
        self._free_count -= added
        if added:
            new = rows[:added]
            self._evict()
            self._load(ids.take(new), hashes[new], slot_of[new], next_position)
        self._ids = ids
        return slot_of

    def advance(
        self,
        slot_of: Ints,
        rows: Ints,
        times: Ints,
        given: NDArray[np.int64],
        positions: Ints,
        arrived: Ints,
        is_label: Mask,
        first_positions: Ints,
        timing: NDArray[np.uint8],
        outcome: NDArray[np.uint8],
        features: Floats,
        first_column: int,
    ) -> Writes:
        """Compute the features of m events into their rows, remember them, and give what changed, frozen.

        Rows that are labels set these, and get what an event without a past would. `is_label` is empty where no labels are kept.
        Rows that came before, and are remembered, are found by the positions they had; `first_positions` is empty where there are none.

        Raises:
            TooManyRecords: a key has more than its entity's `max_records`.
        """
        if self._store is None:  # nobody waits: the rows of a key follow each other, and its records are met once
            order = np.argsort(slot_of, kind="stable")
            slot_of, rows, times, positions = slot_of[order], rows[order], times[order], positions[order]
            given, self._ids = np.ascontiguousarray(given[:, order]), self._ids.take(order)
            arrived = arrived[order] if len(arrived) else arrived
            is_label = is_label[order] if len(is_label) else is_label
            first_positions = first_positions[order] if len(first_positions) else first_positions
        count = len(slot_of)
        integers = self._integers_for(count)
        changed = np.empty(count, np.int64)
        stretches = np.empty((int(np.count_nonzero(is_label)), kernel.STRETCH_FIELDS), np.int64)
        self._control[kernel.CHANGED_SLOTS] = self._control[kernel.STRETCHES] = 0
        done = 0
        while True:
            done = kernel.advance(
                done, rows, slot_of, times, given, positions, arrived, is_label, first_positions, self._turn, self._windows, self._values,
                self._terms, self._sizes, self._free, self._control, self._heap, self._slots, changed, stretches, self._scratch, integers,
                timing, outcome,
            )  # fmt: skip
            if done == count:
                break
            self._more_records(done)
        arithmetic.compute(self._features, self._feature_terms, integers, given, rows, features, first_column)
        return self._freeze(changed[: self._control[kernel.CHANGED_SLOTS]], stretches[: self._control[kernel.STRETCHES]])

    def remembered(self, slot_of: Ints) -> tuple[Ints, Ints]:
        """Of resident keys, how many records each has and the event time of the newest; 0 where there is none."""
        ends = self._slots[slot_of, kernel.END]
        counts = ends - self._slots[slot_of, kernel.BASE]
        return counts, np.where(counts > 0, self._heap[np.maximum(ends - 1, 0), kernel.TIMES], 0)

    def clear(self) -> None:
        """Let every key go, whatever became of it: of use where nothing is written back."""
        self._leave(np.flatnonzero(self._slots[:, kernel.SIZE] >= 0))

    def _integers_for(self, count: int) -> NDArray[np.int64]:
        """Shape (count, windows, 1 + 6 x values), used again from batch to batch: fresh memory would cost as much as the sums."""
        if len(self._integers) < count:
            self._integers = np.zeros((count, len(self._windows), 1 + arithmetic.VALUE_INTEGERS * len(self._values)), np.int64)
        return self._integers

    def _freeze(self, changed: Ints, stretches: NDArray[np.int64]) -> Writes:
        if self._store is None:
            return Writes(self._entity.name, self._hashes[:0], _NOWHERE, _NOTHING)
        owners, at, data = pack(changed, stretches, self._head, self._heap, self._slots)
        return Writes(self._entity.name, self._hashes[owners], at, data)

    def _load(self, ids: PackedBytes, hashes: NDArray[np.uint64], new: Ints, next_position: int) -> None:
        if self._store is None:
            self._reserve(new, np.zeros(len(new), np.int64))
            return
        loaded = False
        try:
            blocks = self._store.read(self._shard, self._entity.name, hashes)
            head = block.headers(ids, hashes, self._fields)
            counts = record_counts(blocks, head, self._entity.name)
            self._head[new] = head
            self._reserve(new, counts)
            unpack(blocks, counts, new, head, self._heap, self._slots, self._entity.name, next_position)
            kernel.sum_up(new, self._values, self._heap, self._slots)
            loaded = True
        except LostBlock as error:
            error.shard = self._shard
            raise
        finally:
            if not loaded:
                self._leave(new)

    def _reserve(self, new: Ints, counts: Ints) -> None:
        done = 0
        while done < len(new):
            done += kernel.reserve(new[done:], counts[done:], self._sizes, self._free, self._control, self._heap, self._slots)
            if done < len(new):
                self._grow_heap(int(self._control[kernel.ROOM_WANTED]))

    def _evict(self) -> None:
        """Let the least lately used keys go while there are more than `max_keys`, but none whose last batch isn't settled."""
        excess = self.resident_keys - self._max_keys
        if excess <= 0:
            return
        fields = self._slots
        settled = (fields[:, kernel.TURN] < self._turn) & (fields[:, kernel.TOUCHED_AT] < self._settled_below)
        candidates = np.flatnonzero((fields[:, kernel.SIZE] >= 0) & settled)
        # Choosing costs a look at every slot, so some more than needed are let go at a time.
        wanted = min(len(candidates), max(excess, self._max_keys // 16))
        if wanted >= excess:
            self._over = False
        elif not self._over:
            self._over = True  # said once, until there is room again
            _log.warning(
                "more keys than max_keys entity=%s shard=%s resident_keys=%d max_keys=%d reason=touched_by_unsettled_batches",
                self._entity.name, self._shard, self.resident_keys - wanted, self._max_keys,
            )  # fmt: skip
        if wanted:
            self._leave(candidates[np.argpartition(fields[candidates, kernel.TURN], wanted - 1)[:wanted]])

    def _leave(self, leaving: Ints) -> None:
        directory.remove(leaving, self._table, self._hashes)
        kernel.release(leaving, self._free, self._heap, self._slots)
        self._free_slots[self._free_count : self._free_count + len(leaving)] = leaving
        self._free_count += len(leaving)

    def _more_slots(self, at_least: int) -> None:
        old = len(self._slots)
        new = max(old + at_least, old + old // 2)
        self._slots = _grown(self._slots, new)
        self._slots[old:, kernel.SIZE] = -1
        self._hashes = _grown(self._hashes, new)
        self._head = _grown(self._head, new)
        present = np.setdiff1d(np.arange(old), self._free_slots[: self._free_count], assume_unique=True)
        self._free_slots = _grown(self._free_slots, new)
        self._free_slots[self._free_count : self._free_count + new - old] = np.arange(new - 1, old - 1, -1)
        self._free_count += new - old
        self._table = np.zeros(1 << (2 * new - 1).bit_length(), np.int64)
        directory.rebuild(present, self._table, self._hashes)

    def _more_records(self, row: int) -> None:
        wanted = int(self._control[kernel.ROOM_WANTED])
        if wanted == 0:
            raise TooManyRecords(
                f"{self._entity.name} {block.readable(self._ids[row])} has more than {self._entity.max_records} events within "
                f"{self._entity.reach_ms} ms: raise max_records, shorten the windows, or refuse its events with a rule"
            )
        self._grow_heap(wanted)

    def _grow_heap(self, records: int) -> None:
        """Move to a heap with room for so many records more, half as large again as what is in use.

        Blocks given back are of sizes that keys have grown out of: packing what is left keeps the heap from filling with them.
        """
        sizes = self._slots[:, kernel.SIZE]
        used = int(self._sizes[sizes[sizes >= 0]].sum())
        heap = np.empty((max(_FIRST_RECORDS, (used + records) * 3 // 2), self._heap.shape[1]), np.int64)
        kernel.repack(self._heap, heap, self._slots, self._sizes, self._free, self._control)
        self._heap = heap


def _grown(table: NDArray[Any], rows: int) -> NDArray[Any]:
    larger = np.zeros((rows, *table.shape[1:]), table.dtype)
    larger[: len(table)] = table
    return larger


def _window_table(entity: Entity) -> NDArray[np.int64]:
    return np.array([(w.length_ms, w.grid_ms, w.delay_ms, w.holds_self) for w in entity.windows], np.int64)


def record_bytes(entity: Entity) -> int:
    """About how much of the store one remembered event of an entity takes, beside its share of the block's header and room."""
    # A position and a time of four bytes each, and the seal; numbers with a bit for their sign; hashes.
    values = sum(value.largest_units.bit_length() // 8 + 1 if isinstance(value, FixedPoint) else 8 for value in entity.values)
    return 10 + values + (9 if entity.has_labels else 0)


def record_fields(entity: Entity) -> int:
    """How many fields a record has: position, time and the values that are kept."""
    return kernel.FIRST_VALUE + _values_kept(entity)


def _values_kept(entity: Entity) -> int:
    """How many values a record has: the entity's, and where there are labels the event id's hash and the label."""
    return len(entity.values) + (2 if entity.has_labels else 0)


def _value_table(entity: Entity) -> tuple[NDArray[np.int64], int]:
    """What each value needs and where it stands in the heap; and the heap's number of rows."""
    kept = _values_kept(entity)
    table = np.full((kept, kernel.VALUE_FIELDS), -1, np.int64)
    table[:, kernel.NEEDS] = 0
    table[:, kernel.VALUE] = kernel.FIRST_VALUE + np.arange(kept)
    row = kernel.FIRST_VALUE + kept
    for c, value in enumerate(entity.values):
        needs = 0
        for aggregate in entity.aggregates:
            needs |= aggregate.needs if aggregate.value == value else 0
        table[c, kernel.NEEDS] = needs
        for need, field in ((arithmetic.NEEDS_SUM, kernel.SUMS), (arithmetic.NEEDS_SQUARES, kernel.SQUARES)):
            if needs & need:
                table[c, field] = row
                row += 1
    if entity.has_labels:
        table[-1, kernel.NEEDS] = arithmetic.NEEDS_LABELS
        table[-1, kernel.MARKS] = row
        row += 1
    return table, row


def _terms(entity: Entity) -> Ints:
    terms = np.zeros(kernel.TERMS, np.int64)
    terms[kernel.LATENESS] = entity.lateness_ms
    terms[kernel.REACH] = entity.reach_ms
    terms[kernel.SIGHT] = entity.lateness_ms + max(w.looks_back_ms for w in entity.windows)
    terms[kernel.MAX_RECORDS] = entity.max_records
    if entity.guard:
        terms[kernel.GUARDED] = 1
        terms[kernel.OLDEST] = entity.guard.oldest_ms
        terms[kernel.AHEAD] = entity.guard.ahead_ms
    return terms


def _feature_tables(entity: Entity) -> tuple[NDArray[np.int64], Floats]:
    values = entity.values
    pairs: list[tuple[int, Aggregate]] = [(w, a) for w in range(len(entity.windows)) for a in entity.aggregates]
    fields = np.zeros((len(pairs), arithmetic.FEATURE_FIELDS), np.int64)
    terms = np.ones((len(pairs), arithmetic.FEATURE_TERMS))
    for f, (w, aggregate) in enumerate(pairs):
        window = entity.windows[w]
        value = aggregate.value
        from_labels = aggregate.needs & arithmetic.NEEDS_LABELS
        place = _values_kept(entity) - 1 if from_labels else values.index(value) if value is not None else 0
        fields[f] = (aggregate.kind, w, place, window.holds_self)
        scale = float(value.scale) if isinstance(value, FixedPoint) else 1.0
        terms[f] = (scale, aggregate.empty, window.length_ms / float(days(1)))
    return fields, terms


def _scratch(entity: Entity) -> NDArray[np.int64]:
    counted = any(a.needs & arithmetic.NEEDS_DISTINCT for a in entity.aggregates)
    return np.zeros((1 << (4 * entity.max_records + 4).bit_length() if counted else 1, 2), np.int64)
