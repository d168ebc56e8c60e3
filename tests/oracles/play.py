"""A log of events, played through a shard's state in batches, or through the oracle event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Mask, Nullable, PackedBytes, rows_of
from tests.oracles.windows import REPEATED, SET, Past, feature
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.kernel import REFUSED
from transforms.label import LabelRows, event_id_hashes
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState
from transforms.store import Store, Writes

SHARD = "s"


@dataclass(frozen=True)
class Event:
    """One row of a log: an event, or, with a `label`, what the event of that id turned out to be.

    It has a key (or none), when it happened, its amount in units, when the broker took it in, whether it is usable, and an id. One that
    came before says at which row it was first, and whether it was refused there.
    """

    key: int | None
    t: int
    units: int
    arrived: int = 0
    usable: bool = True
    id: int = 0
    label: int | None = None
    first: int = -1
    refused: bool = False


@dataclass(frozen=True)
class Played:
    """What each row of a log came to."""

    features: NDArray[np.float64]
    timing: NDArray[np.uint8]
    unmatched: Mask
    repeated: Mask


def columns_of(events: Sequence[Event], scale: int) -> Columns:
    """Columns `key` (text), `shop` (text), `t`, `amount` (floats, if there is a scale above 1)."""
    amounts = np.array([e.units for e in events], np.int64)
    keys: Column = PackedBytes.pack([b"" if e.key is None else f"key {e.key}".encode() for e in events])
    if any(e.key is None for e in events):
        keys = Nullable(keys, np.array([e.key is not None for e in events]))
    return {
        "key": keys,
        "shop": PackedBytes.pack([f"shop {e.units % 7}".encode() for e in events]),
        "t": np.array([e.t for e in events], np.int64),
        "amount": amounts / scale if scale > 1 else amounts,
    }


def labels_of(events: Sequence[Event]) -> LabelRows:
    """Which rows are labels, and the event each is about."""
    return LabelRows(
        np.array([e.label is not None for e in events], np.bool_),
        np.array([e.label or 0 for e in events], np.int64),
        event_id_hashes(PackedBytes.pack([f"event {e.id}".encode() for e in events])),
    )


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
    played = play_labels(events, entities, cuts, scale=scale, max_keys=max_keys, restarts=restarts, lag=lag, store=store)
    return played.features, played.timing


def play_labels(
    events: Sequence[Event],
    entities: Sequence[Entity],
    cuts: Sequence[int],
    *,
    scale: int = 1,
    max_keys: int = 1_000,
    restarts: Sequence[int] = (),
    lag: int = 0,
    held: int = 0,
    store: Store | None = None,
    in_memory: bool = False,
) -> Played:
    """The same for a log with labels; `in_memory`, by a state that has no store.

    Writes are sent `held` batches late; those held back at a restart are lost, and their batches read again. Both times a batch has
    to come to the same.
    """
    store = store or MemoryStore()
    store.claim(SHARD, {})
    columns = columns_of(events, scale)
    labels = labels_of(events)
    parts = list(pairwise(sorted({0, len(events), *cuts})))
    to_come = set(restarts)
    done: list[Played] = []
    unsent: list[tuple[tuple[Writes, ...], int]] = []
    unsettled: list[int] = []
    state = ShardState(SHARD, entities, None if in_memory else store, "t", max_keys)
    at = 0
    while at < len(parts):
        first, end = parts[at]
        if first in to_come:
            to_come.remove(first)
            state = ShardState(SHARD, entities, store, "t", max_keys)
            at -= len(unsent)
            unsent.clear()
            unsettled.clear()
            continue
        rows = slice(first, end)
        batch = {name: rows_of(column, rows) for name, column in columns.items()}
        usable = np.array([e.usable for e in events[rows]], np.bool_)
        arrived = np.array([e.arrived for e in events[rows]], np.int64)
        told = LabelRows(labels.is_label[rows], labels.value[rows], labels.event_ids[rows])
        before = np.array([REFUSED - e.first if e.refused else e.first for e in events[rows]], np.int64)
        came = state.advance(batch, usable, np.arange(first, end), arrived, told, before if (before != -1).any() else None)
        assert came.unmatched is not None
        assert came.repeated is not None
        played = Played(came.features, came.timing, came.unmatched, came.repeated)
        if at < len(done):
            assert_same(played, done[at])
        else:
            done.append(played)
        at += 1
        unsent.append((came.writes, end))
        if len(unsent) > held:
            writes, end = unsent.pop(0)
            store.write(SHARD, writes, end)
            unsettled.append(end)
        if len(unsettled) > lag:
            store.settle(SHARD)
            state.acknowledge(unsettled.pop(0))
    if not done:
        none = np.empty(0, np.bool_)
        return Played(np.empty((0, sum(len(e.features) for e in entities))), np.empty(0, np.uint8), none, none)
    return Played(*(np.concatenate(each) for each in zip(*((p.features, p.timing, p.unmatched, p.repeated) for p in done), strict=True)))


def expected(events: Sequence[Event], entities: Sequence[Entity]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """The same by the oracle."""
    wanted = expected_labels(events, entities)
    return wanted.features, wanted.timing


def expected_labels(events: Sequence[Event], entities: Sequence[Entity]) -> Played:
    """A log with labels by the oracle. A label is matched if any entity has its event, and repeated if it changes none that has."""
    features = np.zeros((len(events), sum(len(e.features) for e in entities)))
    timing = np.zeros(len(events), np.uint8)
    came_to: list[set[str]] = [set() for _ in events]
    column = 0
    for entity in entities:
        pasts: dict[int | None, Past] = {}
        for row, event in enumerate(events):
            key = event.key if entity.key == "key" else event.units % 7
            past = pasts.setdefault(key, Past(entity.windows, entity.lateness_ms, entity.guard))
            if not event.usable:
                continue
            if event.label is not None:
                if entity.has_labels and key is not None:
                    came_to[row].add(past.label(event.id, event.t, event.label))
            elif key is None:
                assert entity.missing_key == "absent"
                features[row, column : column + len(entity.features)] = [a.empty for _ in entity.windows for a in entity.aggregates]
            else:
                judged, numbers = _one(entity, past, event, row)
                timing[row] = max(timing[row], judged)
                features[row, column : column + len(numbers)] = numbers
        column += len(entity.features)
    usable_labels = [event.usable and event.label is not None for event in events]
    unmatched = [is_label and not came & {SET, REPEATED} for is_label, came in zip(usable_labels, came_to, strict=True)]
    repeated = [is_label and REPEATED in came and SET not in came for is_label, came in zip(usable_labels, came_to, strict=True)]
    return Played(features, timing, np.array(unmatched, np.bool_), np.array(repeated, np.bool_))


def assert_same(found: Played, wanted: Played, names: Sequence[str] = ()) -> None:
    """Equal in all, features to the last bit."""
    assert_same_bits(found.features, wanted.features, names or [f"column {c}" for c in range(found.features.shape[1])])
    assert found.timing.tolist() == wanted.timing.tolist()
    assert np.flatnonzero(found.unmatched).tolist() == np.flatnonzero(wanted.unmatched).tolist(), "unmatched"
    assert np.flatnonzero(found.repeated).tolist() == np.flatnonzero(wanted.repeated).tolist(), "repeated"


def assert_same_bits(found: NDArray[np.float64], wanted: NDArray[np.float64], names: Sequence[str]) -> None:
    """Equal to the last bit, or the first difference by name."""
    differs = np.argwhere(found.view(np.uint64) != wanted.view(np.uint64))
    if len(differs):
        row, column = differs[0]
        raise AssertionError(f"row {row}, {names[column]}: {found[row, column]!r}, wanted {wanted[row, column]!r}; {len(differs)} differ")


def _one(entity: Entity, past: Past, event: Event, row: int) -> tuple[int, list[float]]:
    values = entity.values
    # A shop is told apart by what it is, whatever number stands for it in the kernel.
    own = tuple(event.units if isinstance(value, FixedPoint) else event.units % 7 for value in values)
    judged, windows = past.look(event.t, own, event.arrived, event.id, row, event.first if event.first >= 0 else -2, event.refused)
    numbers = []
    for window, seen in zip(entity.windows, windows, strict=True):
        for aggregate in entity.aggregates:
            c = values.index(aggregate.value) if aggregate.value is not None else 0
            numbers.append(feature(aggregate, window, seen[c], own[c] if own else 0))
    return judged, numbers
