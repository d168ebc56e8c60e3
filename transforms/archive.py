"""Whole shards: listed, looked at and loaded, for snapshots and rebuilds. The promises beside those of `transforms/store.py`.

A shard may be dumped by anybody while its owner goes on. What a dump gives is a state as of two positions, `position` P and, once
all blocks have been read, `complete_at` Q:

- blocks hold every record below P that an event at Q or later may still look at, and no record at or above P;
- so the shard's log, read from P on into these blocks, is the shard's state at every position from Q on.

Of a shard that nobody touches meanwhile P = Q, and the blocks are exactly those of the store. Otherwise a block may have been read
later than another: records at or above P are cut off, since reading the log brings them again, and records that left meanwhile
had been made invisible by events before Q, to every later event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from transforms.store import Store, Writes

Keys = NDArray[np.uint64]  # shape (n, 2): 128-bit hashes


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What there is of a shard in a store."""

    shard: str
    position: int | None  # None: no state, or one that is being dropped or loaded
    holder: bool  # whether a process that claimed it is connected now
    keys: int
    size_bytes: int  # as the store counts its memory


class Dump(Protocol):
    """A look at one shard's whole state."""

    @property
    def position(self) -> int:
        """P."""

    @property
    def keys(self) -> Mapping[str, Keys]:
        """By entity, in the order of their bytes: every key the shard had at P, and perhaps newer ones."""

    def blocks(self, entity: str, keys: Keys) -> PackedBytes:
        """Blocks, cut off at P; an empty stretch where nothing is left.

        Raises:
            StoreDown: the store does not answer.
            LostBlock: a block is damaged.
        """

    def end(self) -> int:
        """Finish, when all blocks have been read; gives Q.

        Raises:
            StoreDown: the store does not answer.
            FenceLost: the shard was dropped or changed its owner meanwhile: what was read is no state.
        """

    def close(self) -> None:
        """Let go of the store."""


class Archive(Store, Protocol):
    """A store whose shards can be listed, dumped and loaded. Calls may raise `StoreDown`."""

    def shards(self) -> tuple[ShardFacts, ...]:
        """Every shard there is, in order."""

    def dump(self, shard: str) -> Dump | None:
        """Look at a shard, claimed or not; None if it has no state. The owner does not notice."""

    def load(self, shard: str, writes: Iterable[Writes], position: int) -> None:
        """Replace the whole state of a claimed shard by whole blocks, and set its position.

        A load cut short leaves no state: the next claim removes what is left of it.

        Raises:
            FenceLost: the shard isn't ours any more.
        """
