"""Blocks in Redis, looked at by those who own nothing: one transaction a shard, so that all of it is of one position.

    MULTI  HMGET o d e  MGET ..  EXEC

A worker writes blocks and position in one transaction as well, so what is read is the state after exactly the records below the
position, whatever the worker does meanwhile. Neither waits for the other, and no fence is touched.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from schemas.columns import PackedBytes
from schemas.errors import StoreDown
from transforms.archive import Keys
from transforms.fence import shard_key
from transforms.redis_cluster import Address
from transforms.redis_store import RedisStore
from transforms.resp import ARRAY, command, pack_reads
from transforms.wire import Wire, WireCut

_MULTI, _EXEC = command(b"MULTI"), command(b"EXEC")
TRIES = 3


@dataclass(frozen=True, slots=True)
class Look:
    """What a shard had at one moment.

    Attributes:
        position: how far into its log the state had come; None = there was none, or it was being built anew.
        rebuilding: whether it was being built anew.
        claimed: whether a worker has it, or had it when it was killed.
        blocks: of the keys, an empty stretch where there was none.
    """

    position: int | None
    rebuilding: bool
    claimed: bool
    blocks: PackedBytes


class RedisReader(RedisStore):
    """Looks at shards without claiming them; arguments and errors are those of `RedisStore`. Threads that share it take turns."""

    def __init__(self, url: str, namespace: str, connect_timeout_seconds: float = 2.0, answer_timeout_seconds: float = 5.0) -> None:
        super().__init__(url, namespace, connect_timeout_seconds, answer_timeout_seconds)
        self._turn = threading.Lock()
        self._wires: dict[Address | None, Wire] = {}
        self._nodes: dict[str, Address | None] = {}

    def look(self, entity: str, keys: Mapping[str, Keys]) -> dict[str, Look]:
        """The blocks of some keys, by shard; each shard's as of one moment, several shards' as of moments close to each other.

        Args:
            entity: whose.
            keys: by shard, shape (n, 2) each.

        Raises:
            StoreDown: Redis does not answer, or refuses.
        """
        with self._turn:
            for attempt in range(TRIES):
                try:
                    return self._look(entity, keys)
                except WireCut:  # reading changes nothing: a new connection may answer at once
                    self._nodes.clear()
                    if attempt + 1 == TRIES:
                        raise
            raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close every connection."""
        super().close()
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def _look(self, entity: str, keys: Mapping[str, Keys]) -> dict[str, Look]:
        found: dict[str, Look] = {}
        for node, shards in self._by_node(keys).items():
            payload, replies, elements = [], 0, 0
            counts = []
            for shard in shards:
                tag = f"{{{self._namespace}.{shard}}}"
                gets, count = pack_reads(f"{tag}{entity}:".encode(), keys[shard])
                payload += [_MULTI, command(b"HMGET", shard_key(self._namespace, shard), b"o", b"d", b"e"), gets, _EXEC]
                replies += count + 3
                elements += 2 * count + len(keys[shard]) + 9
                counts.append(count)
            wire = self._wire(node)
            wire.send(b"".join(payload), replies, elements)
            answer = wire.receive()
            if (refusal := answer.error()) is not None:
                raise wire.refused(refusal, f"give blocks of {self._namespace}")
            values = np.flatnonzero(answer.kinds != ARRAY)
            at = 0
            for shard, count in zip(shards, counts, strict=True):
                at += 2 + count  # of MULTI, HMGET and each MGET, which are answered when the transaction ends
                position, dropping, owner = (answer[int(values[at + place])] for place in range(3))
                rows = values[at + 3 : at + 3 + len(keys[shard])]
                at += 3 + len(keys[shard])
                blocks = PackedBytes(answer.data, answer.starts[rows], answer.ends[rows])
                whole = position is not None and dropping is None
                found[shard] = Look(int(position or 0) if whole else None, dropping is not None, owner is not None, blocks)
        return found

    def _by_node(self, keys: Mapping[str, Keys]) -> dict[Address | None, list[str]]:
        found: dict[Address | None, list[str]] = {}
        for shard in keys:
            if shard not in self._nodes:
                self._nodes[shard] = self._node_of(shard)
            found.setdefault(self._nodes[shard], []).append(shard)
        return found

    def _wire(self, node: Address | None) -> Wire:
        wire = self._wires.get(node)
        if wire is None or not wire.is_open:
            try:
                wire = self._wires[node] = self._open("reader", node)
            except StoreDown:
                self._nodes.clear()  # the slot may have gone to another node
                raise
        return wire
