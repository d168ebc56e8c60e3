"""Where the state of windows is kept: the promises a store makes to the one owner of a shard.

A *shard* is a part of the state with one owner at a time; a *position* is how far into its log the state has come. Both are
opaque here. A *block* is the state of one key: a header, records, and room for more (`transforms/block.py`). An owner
first claims the shard, which shuts out every older owner, and from then on each read and write carries the fence:

    claim -> position         the store's position, and the token every later call is checked against
    read, read, ...           blocks, with the fence read after them
    write(position) ... settle    sent without waiting; settle waits for the answer
    release                   the next owner may be anyone

Calls for one shard may come from several threads (one reads ahead while another writes); they take turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, PackedBytes

WHOLE_BLOCK = -1


@dataclass(frozen=True, slots=True)
class Writes:
    """What one batch changes in the blocks of one entity, frozen: row i puts ``data[i]`` into the block of ``keys[i]``."""

    entity: str
    keys: NDArray[np.uint64]  # shape (n, 2): the key's 128-bit hash
    at: Ints  # shape (n,): byte offset in the block, or WHOLE_BLOCK to replace all of it
    data: PackedBytes  # n stretches

    @classmethod
    def whole(cls, entity: str, keys: NDArray[np.uint64], blocks: PackedBytes) -> Writes:
        """Replace these keys' blocks."""
        return cls(entity, keys, np.full(len(keys), WHOLE_BLOCK, np.int64), blocks)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a new owner finds: how far the shard's state has come, and who wrote it."""

    position: int | None  # None: no state
    notes: dict[str, str]  # what earlier owners left beside the position (their producers' names, refused schema ids)


class Store(Protocol):
    """Keeps blocks for one owner a shard.

    Every call may raise `StoreDown`: the store can't be reached, refuses or is full; the same call may be made again. Every call
    but `claim`, `forget` and `close` may raise `FenceLost`: the shard isn't ours, or isn't where we left it; `forget` and claim it again.
    """

    def claim(self, shard: str, notes: dict[str, str]) -> Claim:
        """Become the owner: older owners' writes fail from now on. `notes` replaces theirs (returned in the claim)."""

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        """The blocks of these keys (shape (n, 2)), an empty stretch where there is none.

        Outstanding writes are settled first, and the fence is read after the blocks in the same round trip.
        """

    def write(self, shard: str, writes: tuple[Writes, ...], position: int) -> None:
        """Apply all of it and move the position, atomically and fenced. Sent, not awaited; at most one is outstanding.

        The write before it is settled first. If that raises, this one was not taken; once taken, whatever happens to it is told
        by the next call, and `settle` sees it through.

        Raises:
            ValueError: the position lies below the one before it.
            LostBlock: from the next call on: a part of it failed though the position moved. The shard counts as dropped.
        """

    def settle(self, shard: str) -> None:
        """Wait for the answer to the outstanding write, if any. On `StoreDown` it is still outstanding, and the next call tries again."""

    def release(self, shard: str) -> None:
        """Settle and give the shard up cleanly: its notes are cleared, its position and blocks stay."""

    def forget(self, shard: str) -> None:
        """Drop what is held for the shard here (connection, token) without a word to the store: after a fault."""

    def drop(self, shard: str) -> None:
        """Delete the claimed shard's position and blocks, for a rebuild from the log. It has to be claimed again afterwards.

        A drop cut short is finished by the next claim.
        """

    def close(self) -> None:
        """Close every connection."""


def check_position(shard: str, stands_at: int | None, position: int) -> None:
    """Raises:
    ValueError: a write would move a shard's position back.
    """
    if position < (stands_at or 0):
        raise ValueError(f"shard {shard} stands at {stands_at}: a write can't move it back to {position}")
