"""The features of keys at a time, from their blocks: what an event of that time would find, without the event itself.

Computed by the kernel that serves events, of a state that is filled for the question and forgotten with the answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Floats, Ints, PackedBytes
from schemas.errors import DefinitionError
from transforms import arithmetic
from transforms.entity import Entity
from transforms.memory_store import MemoryStore
from transforms.past import evaluated_at
from transforms.slab import Slab

_SHARD = "0"
_EVERY_KEY = 1 << 40
_NOTHING = np.empty(0, np.int64)
_NO_LABELS = np.empty(0, np.bool_)


class _InHand(MemoryStore):
    """Blocks that were fetched before, as a store for those who read one."""

    def put(self, hashes: NDArray[np.uint64], blocks: PackedBytes) -> None:
        self._rows = {key.tobytes(): row for row, key in enumerate(hashes)}
        self._blocks = blocks

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        return self._blocks.take(np.array([self._rows[key.tobytes()] for key in keys], np.intp))


@dataclass(frozen=True, slots=True)
class Current:
    """Features of n keys.

    Attributes:
        features: shape (n, k), in the order of the entity's features.
        events: shape (n,): how many are remembered.
        newest_ms: shape (n,): the newest one's time; of no meaning where there is none.
        evaluated_ms: shape (n,): the time looked from: the one asked for, or later where the key does not look back so far.
    """

    features: Floats
    events: Ints
    newest_ms: Ints
    evaluated_ms: Ints


class Looking:
    """Computes what keys of one entity look like from outside.

    What belongs to an event itself is not there: it is in no window, and a ratio to the mean has the value declared for no events.
    """

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        outside = [replace(window, include_self=False) for window in entity.windows]
        distinct = list(dict.fromkeys(outside))
        self._outside = _roomier(replace(entity, windows=tuple(distinct)))
        count = len(entity.aggregates)
        self._columns = np.array([distinct.index(window) * count + a for window in outside for a in range(count)], np.intp)
        ratios = [aggregate.kind == arithmetic.RATIO_TO_MEAN for _ in entity.windows for aggregate in entity.aggregates]
        self._ratios = np.flatnonzero(ratios)
        self._empty = np.array(entity.empty_features)
        self._values = len(entity.values) + (2 if entity.has_labels else 0)
        self._store = _InHand()
        self._slab = Slab(_SHARD, self._outside, self._store, _EVERY_KEY)
        self._turn = threading.Lock()

    def at(self, ids: PackedBytes, hashes: NDArray[np.uint64], blocks: PackedBytes, at_ms: int) -> Current:
        """The features of n different keys at a time.

        Args:
            ids: of the keys; see `transforms.keys`.
            hashes: shape (n, 2), of the ids.
            blocks: theirs, an empty stretch where there is none.
            at_ms: the time.

        Raises:
            LostBlock: a block isn't what a worker of this version writes.
            TooManyRecords: a key has more events than its entity declares.
        """
        found, events, newest_ms = self._found(ids, hashes, blocks, at_ms)
        features = found[:, self._columns]
        features[:, self._ratios] = self._empty[self._ratios]
        evaluated = [
            evaluated_at(self.entity, newest if count else None, at_ms, at_ms)
            for count, newest in zip(events.tolist(), newest_ms.tolist(), strict=True)
        ]
        return Current(features, events, newest_ms, np.array(evaluated, np.int64))

    def _found(self, ids: PackedBytes, hashes: NDArray[np.uint64], blocks: PackedBytes, at_ms: int) -> tuple[Floats, Ints, Ints]:
        """What the kernel makes of an event at the time, of each key, in the distinct windows; how many are remembered, and the newest."""
        n = len(ids)
        rows, times = np.arange(n), np.full(n, at_ms, np.int64)
        given, positions = np.zeros((self._values, n), np.int64), np.zeros(n, np.int64)
        timing, outcome = np.zeros((2, n), np.uint8)
        found = np.zeros((n, len(self._outside.features)))
        arrived = times if self.entity.guard else _NOTHING
        with self._turn:
            try:
                self._store.put(hashes, blocks)
                slots = self._slab.admit(ids, hashes)
                events, newest_ms = self._slab.remembered(slots)
                self._slab.advance(slots, rows, times, given, positions, arrived, _NO_LABELS, _NOTHING, timing, outcome, found, 0)
            finally:
                self._slab.clear()
        return found, events, newest_ms


def _roomier(entity: Entity) -> Entity:
    """With room for the time that is asked about beside the events there may be, if the sums allow it."""
    try:
        return replace(entity, max_records=entity.max_records + 1)
    except DefinitionError:
        return entity
