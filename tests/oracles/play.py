"""A log of events, played through a shard's state in batches, or through the oracle event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Columns, PackedBytes
from tests.oracles.windows import Past, feature
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState
from transforms.store import Store

SHARD = "s"


@dataclass(frozen=True)
class Event:
    """One event: a key, when it happened, its amount in units, when the broker took it in, and whether it is usable."""

    key: int
    t: int
    units: int
    arrived: int = 0
    usable: bool = True


def columns_of(events: Sequence[Event], scale: int) -> Columns:
    """Columns `key` (text), `shop` (text), `t`, `amount` (floats, if there is a scale above 1)."""
    amounts = np.array([e.units for e in events], np.int64)
    return {
        "key": PackedBytes.pack([f"key {e.key}".encode() for e in events]),
        "shop": PackedBytes.pack([f"shop {e.units % 7}".encode() for e in events]),
        "t": np.array([e.t for e in events], np.int64),
        "amount": amounts / scale if scale > 1 else amounts,
    }


def play(
    events: Sequence[Event],
    entities: Sequence[Entity],
    cuts: Sequence[int],
    *,
    scale: int = 1,
    max_keys: int = 1_000,
    restarts: Sequence[int] = (),
    lag: int = 0,
    store: Store | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Features and timing of a log, cut into batches at `cuts`, with a new state over the same store at `restarts`.

    The store settles each batch `lag` batches after it was sent.
    """
    store = store or MemoryStore()
    store.claim(SHARD, {})
    columns = columns_of(events, scale)
    edges = sorted({0, len(events), *cuts})
    state = ShardState(SHARD, entities, store, "t", max_keys)
    features, timing = [], []
    unsettled: list[int] = []
    for first, end in pairwise(edges):
        if first in restarts:
            state = ShardState(SHARD, entities, store, "t", max_keys)
            unsettled.clear()
        part = events[first:end]
        rows = slice(first, end)
        batch = {name: c.take(rows) if isinstance(c, PackedBytes) else np.asarray(c)[rows] for name, c in columns.items()}
        usable = np.array([e.usable for e in part], np.bool_)
        arrived = np.array([e.arrived for e in part], np.int64)
        done = state.advance(batch, usable, np.arange(first, end), arrived)
        store.write(SHARD, done.writes, end)
        unsettled.append(end)
        if len(unsettled) > lag:
            store.settle(SHARD)
            state.acknowledge(unsettled.pop(0))
        features.append(done.features)
        timing.append(done.timing)
    return np.concatenate(features), np.concatenate(timing)


def expected(events: Sequence[Event], entities: Sequence[Entity]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """The same by the oracle."""
    features = np.zeros((len(events), sum(len(e.features) for e in entities)))
    timing = np.zeros(len(events), np.uint8)
    column = 0
    for entity in entities:
        pasts: dict[int, Past] = {}
        for row, event in enumerate(events):
            if event.usable:
                key = event.key if entity.key == "key" else event.units % 7
                past = pasts.setdefault(key, Past(entity.windows, entity.lateness_ms, entity.guard))
                judged, numbers = _one(entity, past, event)
                timing[row] = max(timing[row], judged)
                features[row, column : column + len(numbers)] = numbers
        column += len(entity.features)
    return features, timing


def assert_same_bits(found: NDArray[np.float64], wanted: NDArray[np.float64], names: Sequence[str]) -> None:
    """Equal to the last bit, or the first difference by name."""
    differs = np.argwhere(found.view(np.uint64) != wanted.view(np.uint64))
    if len(differs):
        row, column = differs[0]
        raise AssertionError(f"row {row}, {names[column]}: {found[row, column]!r}, wanted {wanted[row, column]!r}; {len(differs)} differ")


def _one(entity: Entity, past: Past, event: Event) -> tuple[int, list[float]]:
    values = entity.values
    # A shop is told apart by what it is, whatever number stands for it in the kernel.
    own = tuple(event.units if isinstance(value, FixedPoint) else event.units % 7 for value in values)
    judged, windows = past.look(event.t, own, event.arrived)
    numbers = []
    for window, seen in zip(entity.windows, windows, strict=True):
        for aggregate in entity.aggregates:
            c = values.index(aggregate.value) if aggregate.value is not None else 0
            numbers.append(feature(aggregate, window, seen[c], own[c] if own else 0))
    return judged, numbers
