"""The past of one key, as its block tells it, and which of it a window holds: for people, and for those who look from outside.

The kernel decides what a feature is; this says the same of a single key in plain numpy, so that the events behind a number can be
shown. The format is that of `transforms/block.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints
from transforms.block import identity_of
from transforms.entity import Entity
from transforms.kernel import FIRST_VALUE, LABEL_IS_1, POSITIONS, TIMES
from transforms.slab import record_fields
from transforms.unpack import records_of
from transforms.window import Window


@dataclass(frozen=True, slots=True)
class Past:
    """The remembered events of one key, oldest first, ties in the order of the log."""

    identity: str  # the key's id for a person, or its first bytes
    positions: Ints  # shape (n,): where each stood in the log
    times: Ints  # shape (n,): event times
    values: NDArray[np.int64]  # shape (n, values): the entity's values, in their units
    event_ids: Ints | None = None  # shape (n,): hashes; None = no labels are kept
    labels: Ints | None = None  # shape (n,): -1 = none yet, else 0 or 1

    def __len__(self) -> int:
        return len(self.times)

    @property
    def newest_ms(self) -> int | None:
        """The event time of the newest one; None = there is none."""
        return int(self.times[-1]) if len(self) else None

    def before(self, position: int) -> Past:
        """What was remembered of the log below a position."""
        kept = self.positions < position
        event_ids = None if self.event_ids is None else self.event_ids[kept]
        labels = None if self.labels is None else self.labels[kept]
        return Past(self.identity, self.positions[kept], self.times[kept], self.values[kept], event_ids, labels)


@dataclass(frozen=True, slots=True)
class Edges:
    """The event times a window holds: from `from_ms` to before `to_ms`."""

    from_ms: int
    to_ms: int

    def members(self, past: Past) -> slice:
        """Which of a key's events are inside."""
        first, last = np.searchsorted(past.times, (self.from_ms, self.to_ms))
        return slice(int(first), int(last))


def past_of(block: bytes, entity: Entity) -> Past:
    """What a block tells; an empty one tells of nothing.

    Raises:
        LostBlock: it isn't what a worker of this version wrote for such an entity.
    """
    if not block:
        nothing = np.empty(0, np.int64)
        return Past("", nothing, nothing, np.empty((0, len(entity.values)), np.int64))
    records = records_of(block, record_fields(entity), entity.name)
    identity, positions = identity_of(block), records[:, POSITIONS]
    values = records[:, FIRST_VALUE : FIRST_VALUE + len(entity.values)]
    if not entity.has_labels:
        return Past(identity, positions, records[:, TIMES], values)
    told = records[:, -1]
    labels = np.where(told == 0, -1, np.where(told == LABEL_IS_1, 1, 0))
    return Past(identity, positions, records[:, TIMES], values, records[:, -2], labels)


def edges(window: Window, at_ms: int) -> Edges:
    """Where a window of an event at a time begins and ends; the time is the one it is evaluated at (`tau` in `transforms/kernel.py`)."""
    grid = window.grid_ms
    if grid == 1:
        to_ms = at_ms - window.delay_ms + 1
    elif window.delay_ms == 0:
        to_ms = (at_ms // grid + 1) * grid
    else:
        to_ms = (at_ms - window.delay_ms + 1) // grid * grid
    return Edges(to_ms - window.length_ms, to_ms)


def evaluated_at(entity: Entity, newest_ms: int | None, event_ms: int, arrived_ms: int) -> int:
    """The time an event is looked at from: its own, or the oldest still admitted if it is too late or not believed.

    Args:
        entity: whose windows.
        newest_ms: what its key remembers as the newest; None = nothing.
        event_ms: when it happened.
        arrived_ms: when the broker took it in.
    """
    newest_ms = event_ms if newest_ms is None else newest_ms
    guard = entity.guard
    believed = guard is None or arrived_ms - guard.oldest_ms <= event_ms <= arrived_ms + guard.ahead_ms
    return event_ms if believed and event_ms >= newest_ms - entity.lateness_ms else newest_ms - entity.lateness_ms
