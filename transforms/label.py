"""Labels: what an event turned out to be, told later in the same log.

A label names its event by the event's id. It is no event: it is never counted, and the time of its key does not move with it. Of
the events its key remembers, it goes to those with its id: to the ones at the event time it gives, or, where none of them is at
that time, to all. From then on the windows of later events see it; a further label replaces it. The log alone decides.

A label is *unmatched* if no remembered event has its id: it came before its event, or its event is unknown, was too late to be
remembered, or is too old for any window by now. It is *repeated* if its event says so already. Both change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.columns import Column, Ints, Mask, Nullable
from transforms.keys import identities
from transforms.rows import taken


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Which rows of a batch are labels, what they say, and the event every row is about."""

    is_label: Mask  # shape (n,)
    value: Ints  # shape (n,): 0 or 1 in label rows; of no meaning in others
    event_ids: Ints  # shape (n,): `event_id_hashes` of the event's id, in events and labels alike


def event_id_hashes(column: Column) -> Ints:
    """Shape (n,): 64 bits of the hash of each row's event id; 0 where it is null. Text and bytes, and integers of any width, are alike.

    Raises:
        TypeError: the column's values can't be ids (floats, arrays).
    """
    if not isinstance(column, Nullable):
        return identities("event id", column)
    hashes = np.zeros(len(column), np.int64)
    rows = np.flatnonzero(column.valid)
    hashes[rows] = identities("event id", taken(column.values, rows))
    return hashes
