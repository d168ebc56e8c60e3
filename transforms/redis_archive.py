"""Whole shards in Redis, seen from outside: what there is, and a dump beside an owner who goes on.

A dump watches the shard's hash (see `transforms/fence.py`), reads its position, looks its keys up and reads their blocks. If nobody
touched the hash until the end, no block was written either, since each write moves the position in the same transaction. If the
same owner went on, its token still stands: a token is never used twice, and a drop or a load ends it, so there was neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, LostBlock
from transforms.archive import Keys, ShardFacts
from transforms.block_cut import cut
from transforms.redis_store import RedisStore
from transforms.resp import HASH_DIGITS, NULL, command, pack_reads
from transforms.store import Writes
from transforms.wire import Wire

_SCAN_KEYS = b"10000"
_KEYS_AT_ONCE = 2_000
_KEY = re.compile(rb"\{(.+)\.([^.{}]+)\}(?:(o)|(?:.*):[0-9a-f]{32})", re.DOTALL)
_CLIENT_NAME = re.compile(r"(?:^| )name=(\S+)")


@dataclass(slots=True)
class _Found:
    position: int | None = None
    keys: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Survey:
    """What is found in Redis, by namespace and shard."""

    found: dict[tuple[str, str], _Found] = field(default_factory=dict)
    clients: set[str] = field(default_factory=set)

    def look(self, wire: Wire, prefix: str, progress: Callable[[int], None] | None = None) -> None:
        """Add what one server has of the namespaces that begin with a prefix; `progress` is told how many keys were looked at."""
        self.clients.update(_clients(wire))
        for keys in _scan(wire, f"{{{prefix}".encode(), b"*"):
            for first in range(0, len(keys), _KEYS_AT_ONCE):
                self._count(wire, keys[first : first + _KEYS_AT_ONCE])
            if progress is not None:
                progress(len(keys))

    def _count(self, wire: Wire, keys: list[bytes]) -> None:
        sizes = wire.ask(b"".join(command(b"MEMORY", b"USAGE", key) for key in keys), len(keys))
        for key, size in zip(keys, sizes, strict=True):
            parts = _KEY.fullmatch(key)
            if parts is None or size is None:
                continue
            here = self.found.setdefault((parts[1].decode(errors="replace"), parts[2].decode(errors="replace")), _Found())
            here.size_bytes += int(size)
            if parts[3] is None:
                here.keys += 1
            else:
                here.position = _position(wire, key)

    def namespaces(self) -> dict[str, tuple[ShardFacts, ...]]:
        """The shards of each namespace, both in order."""
        shards: dict[str, list[ShardFacts]] = {}
        for namespace, shard in sorted(self.found, key=lambda each: (each[0], len(each[1]), each[1])):
            here = self.found[namespace, shard]
            held = f"{namespace}.{shard}" in self.clients
            shards.setdefault(namespace, []).append(ShardFacts(shard, here.position, held, here.keys, here.size_bytes))
        return {namespace: tuple(each) for namespace, each in shards.items()}


class RedisDump:
    """See `transforms.archive.Dump`.

    Args:
        wire: a connection of its own.
        namespace, shard: what is looked at.
    """

    def __init__(self, wire: Wire, namespace: str, shard: str) -> None:
        self._wire = wire
        self._shard = shard
        self._tag = f"{{{namespace}.{shard}}}"
        self._key = f"{self._tag}o".encode()
        *_, position, self._token, dropping = wire.ask(command(b"WATCH", self._key) + self._ask(), 2)
        self.is_there = position is not None and dropping is None
        self.position = int(position or 0)
        self.keys: Mapping[str, Keys] = self._find() if self.is_there else {}

    def blocks(self, entity: str, keys: Keys) -> PackedBytes:
        """See `Dump`."""
        if not len(keys):
            return PackedBytes.pack([])
        gets, count = pack_reads(f"{self._tag}{entity}:".encode(), keys)
        found = self._wire.ask(gets, count).blocks(len(keys))
        gone = np.flatnonzero(found.ends == found.starts)
        if len(gone):
            raise LostBlock(f"shard {self._shard}: the block of {entity} {keys[gone[0]].tobytes().hex()} is gone")
        return cut(found, self.position)

    def end(self) -> int:
        """See `Dump`."""
        # In a cluster, keys that went to another node meanwhile were not seen: while a slot is on its way, or after it went, a key that
        # was never there is refused.
        here = command(b"EXISTS", f"{self._tag}none".encode())
        replies = self._wire.ask(command(b"MULTI") + here + self._ask() + command(b"EXEC"), 4)
        if replies.kinds[3] != NULL:
            return self.position
        position, token, dropping = self._wire.ask(self._ask(), 1)
        if self._token is None or token != self._token or dropping is not None or position is None or int(position) < self.position:
            raise FenceLost(f"shard {self._shard} changed its owner, or its state was dropped, while it was looked at")
        return int(position)

    def close(self) -> None:
        """See `Dump`."""
        self._wire.close()

    def _ask(self) -> bytes:
        return command(b"HMGET", self._key, b"o", b"e", b"d")

    def _find(self) -> dict[str, Keys]:
        names: dict[str, set[bytes]] = {}
        for keys in _scan(self._wire, self._tag.encode(), b"*:*"):
            for key in keys:
                entity, _, digits = key[len(self._tag) :].rpartition(b":")
                if len(digits) == HASH_DIGITS:
                    names.setdefault(entity.decode(), set()).add(bytes.fromhex(digits.decode()))
        return {entity: np.frombuffer(b"".join(sorted(names[entity])), np.uint64).reshape(-1, 2) for entity in sorted(names)}


def _scan(wire: Wire, start: bytes, rest: bytes) -> Iterator[list[bytes]]:
    pattern = re.sub(rb"([*?\[\]^\\])", rb"\\\1", start) + rest
    cursor: bytes | None = None
    while cursor != b"0":
        cursor, *found = wire.ask(command(b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", _SCAN_KEYS), 1)
        keys: Iterable[bytes | None] = dict.fromkeys(found)
        yield [key for key in keys if key is not None]


def _position(wire: Wire, key: bytes) -> int | None:
    position, dropping = wire.ask(command(b"HMGET", key, b"o", b"d"), 1)
    return None if position is None or dropping is not None else int(position)


def _clients(wire: Wire) -> set[str]:
    (listed,) = wire.ask(command(b"CLIENT", b"LIST"), 1)
    return set(_CLIENT_NAME.findall((listed or b"").decode(errors="replace").replace("\n", " ")))


class RedisArchive(RedisStore):
    """A store in Redis whose shards can be listed, dumped and loaded; arguments and errors are those of `RedisStore`."""

    @property
    def namespace(self) -> str:
        """What stands before every key."""
        return self._namespace

    def shards(self) -> tuple[ShardFacts, ...]:
        """See `Archive`."""
        return self.survey(f"{self._namespace}.").get(self._namespace, ())

    def survey(self, prefix: str, progress: Callable[[int], None] | None = None) -> dict[str, tuple[ShardFacts, ...]]:
        """The shards of every namespace that begins with a prefix; `progress` is told how many more keys were looked at.

        Raises:
            StoreDown: Redis does not answer, or refuses to list its clients.
        """
        found = Survey()
        for node in (None,) if self._cluster is None else [master.address for master in self._cluster.masters()]:
            with closing(self._open("survey", node)) as wire:
                found.look(wire, prefix, progress)
        return found.namespaces()

    def dump(self, shard: str) -> RedisDump | None:
        """See `Archive`."""
        wire = self._open("dump", self._node_of(shard))
        done = False
        try:
            made = RedisDump(wire, self._namespace, shard)
            done = made.is_there
            return made if done else None
        finally:
            if not done:
                wire.close()

    def free(self, shard: str, deleted: Callable[[int], None]) -> None:
        """Drop a claimed shard, as `drop` does, and tell how many more blocks are gone."""
        self._hold(shard).drop(deleted)
        self.forget(shard)

    def load(self, shard: str, writes: Iterable[Writes], position: int) -> None:
        """See `Archive`."""
        self._hold(shard).load(writes, position)
