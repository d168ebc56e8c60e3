"""State kept in memory: for dry runs and tests, under the promises of the Redis store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from schemas.errors import FenceLost
from transforms.archive import Keys, ShardFacts
from transforms.block_cut import cut
from transforms.store import WHOLE_BLOCK, Claim, Writes, check_position

BlockKey = tuple[str, bytes]  # the entity's name, the 16 bytes of the key's hash


@dataclass(slots=True)
class _Shard:
    position: int | None = None
    owner: object = None
    notes: dict[str, str] = field(default_factory=dict)
    blocks: dict[BlockKey, bytes] = field(default_factory=dict)


class Memory:
    """What several stores share, as several workers share a server."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.shards: dict[str, _Shard] = {}


@dataclass(slots=True)
class _Hold:
    token: object
    position: int | None
    failure: FenceLost | None = None  # of the outstanding write: told by the next call, as over a wire


class MemoryStore:
    """A store whose blocks are gone with the process.

    Args:
        memory: shared with other stores; each is then an owner of its own.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        self._held: dict[str, _Hold] = {}

    def claim(self, shard: str, notes: dict[str, str]) -> Claim:
        """See `Store`."""
        with self._memory.lock:
            found = self._memory.shards.setdefault(shard, _Shard())
            claim = Claim(found.position, dict(found.notes))
            found.owner, found.notes = object(), dict(notes)
            self._held[shard] = _Hold(found.owner, found.position)
            return claim

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        """See `Store`."""
        with self._memory.lock:
            self.settle(shard)
            blocks = self._owned(shard).blocks
            return PackedBytes.pack([blocks.get((entity, key.tobytes()), b"") for key in keys])

    def write(self, shard: str, writes: tuple[Writes, ...], position: int) -> None:
        """See `Store`."""
        with self._memory.lock:
            self.settle(shard)
            hold = self._hold(shard)
            check_position(shard, hold.position, position)
            try:
                found = self._owned(shard)
            except FenceLost as error:
                hold.failure = error
                return
            for change in writes:
                _apply(change, found.blocks)
            found.position = hold.position = position

    def settle(self, shard: str) -> None:
        """See `Store`."""
        failure = self._hold(shard).failure
        if failure is not None:
            raise failure

    def release(self, shard: str) -> None:
        """See `Store`."""
        with self._memory.lock:
            self.settle(shard)
            found = self._owned(shard)
            found.owner, found.notes = None, {}
            self.forget(shard)

    def forget(self, shard: str) -> None:
        """See `Store`."""
        self._held.pop(shard, None)

    def drop(self, shard: str) -> None:
        """See `Store`."""
        with self._memory.lock:
            self._owned(shard)
            del self._memory.shards[shard]
            self.forget(shard)

    def shards(self) -> tuple[ShardFacts, ...]:
        """See `Archive`."""
        with self._memory.lock:
            found = sorted(self._memory.shards.items(), key=lambda each: (len(each[0]), each[0]))
            return tuple(
                ShardFacts(shard, each.position, each.owner is not None, len(each.blocks), sum(map(len, each.blocks.values())))
                for shard, each in found
            )

    def dump(self, shard: str) -> MemoryDump | None:
        """See `Archive`."""
        with self._memory.lock:
            found = self._memory.shards.get(shard)
            return None if found is None or found.position is None else MemoryDump(shard, self._memory)

    def load(self, shard: str, writes: Iterable[Writes], position: int) -> None:
        """See `Archive`."""
        with self._memory.lock:
            self.settle(shard)
            found = self._owned(shard)
            found.position, found.blocks = None, {}
            self._hold(shard).position = None
        loaded: dict[BlockKey, bytes] = {}
        for change in writes:
            _apply(change, loaded)
        with self._memory.lock:
            found = self._owned(shard)
            found.blocks = loaded
            found.position = self._hold(shard).position = position
            found.owner = self._hold(shard).token = object()  # a dump begun before sees that it was another state

    def close(self) -> None:
        """See `Store`."""
        self._held.clear()

    def _hold(self, shard: str) -> _Hold:
        hold = self._held.get(shard)
        if hold is None:
            raise FenceLost(f"shard {shard} is not claimed here")
        return hold

    def _owned(self, shard: str) -> _Shard:
        hold = self._hold(shard)
        found = self._memory.shards.get(shard)
        if found is None or found.owner is not hold.token:
            raise FenceLost(f"shard {shard} has another owner")
        if found.position != hold.position:
            raise FenceLost(f"shard {shard} stands at {found.position}, not at {hold.position} where it was left")
        return found


class MemoryDump:
    """See `transforms.archive.Dump`."""

    def __init__(self, shard: str, memory: Memory) -> None:
        self._shard, self._memory = shard, memory
        self._found = found = memory.shards[shard]
        self._owner = found.owner
        self.position = found.position or 0
        names = sorted(found.blocks)
        self.keys: Mapping[str, Keys] = {
            entity: np.frombuffer(b"".join(key for named, key in names if named == entity), np.uint64).reshape(-1, 2)
            for entity in dict.fromkeys(entity for entity, _ in names)
        }

    def blocks(self, entity: str, keys: Keys) -> PackedBytes:
        """See `Dump`."""
        with self._memory.lock:
            found = self._found.blocks
            return cut(PackedBytes.pack([found.get((entity, key.tobytes()), b"") for key in keys]), self.position)

    def end(self) -> int:
        """See `Dump`."""
        with self._memory.lock:
            position, is_there = self._found.position, self._memory.shards.get(self._shard) is self._found
            if not is_there or self._found.owner is not self._owner or position is None or position < self.position:
                raise FenceLost("the shard changed its owner, or its state was dropped, while it was looked at")
            return position

    def close(self) -> None:
        """See `Dump`."""


def _apply(change: Writes, blocks: dict[BlockKey, bytes]) -> None:
    for key, at, data in zip(change.keys, change.at.tolist(), change.data, strict=True):
        name = (change.entity, key.tobytes())
        if at == WHOLE_BLOCK:
            blocks[name] = data
        elif data:
            block = blocks.get(name, b"")
            # Like Redis: beyond the end there are zeros, which the block's reader takes for the hole it is.
            blocks[name] = block[:at].ljust(at, b"\0") + data + block[at + len(data) :]
