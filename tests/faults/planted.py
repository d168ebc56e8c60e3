"""Workers with a bug planted in them: the nursery of `streams.faults`, whose workers patch the engine before they begin, as they are told.

Each bug is a mistake somebody could make in the commit protocol. Nothing in the product knows of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from schemas.columns import PackedBytes
from streams import takeover
from streams.batch import Batch
from streams.commit import Commit, Sent
from streams.faults import nursery
from streams.kafka import Consumer, TopicPartition, plain_consumer
from streams.ownership import Ownership
from streams.settings import KafkaSettings
from streams.source import Source
from transforms import kernel
from transforms.fence import Fence, FencedShard
from transforms.pack import pack
from transforms.resp import command, pack_reads
from transforms.slab import Slab
from transforms.store import WHOLE_BLOCK, Writes

VARIABLE, STALL = "PLANTED_BUG", "PLANTED_STALL"


def swap_the_commit_and_the_write() -> None:
    """The state first, then the transaction that decides it."""
    decide, follow = Commit._decide, Commit._follow

    def decided_late(self: Commit, batch: Batch, sent: Sent, member: object) -> None:
        follow(self, batch)
        for span in batch.spans:
            self.store.settle(str(span.partition))
        decide(self, batch, sent, member)

    Commit._decide = decided_late  # type: ignore[method-assign]
    Commit._follow = lambda self, batch: follow(self, batch) if batch.replay else None  # type: ignore[method-assign]


def commit_offsets_early() -> None:
    """Offsets in a transaction of their own, then the outputs."""
    decide = Commit._decide

    def offsets_first(self: Commit, batch: Batch, sent: Sent, member: object) -> None:
        offsets = [TopicPartition(span.topic, span.partition, span.next_offset) for span in batch.spans]
        self.outbox.begin().commit(offsets, member)
        decide(self, batch, sent, member)

    Commit._decide = offsets_first  # type: ignore[method-assign]


def believe_every_block() -> None:
    """A block that is ahead of its log is taken as it is: no mistake in what comes out, and without it two others would be mended."""
    load = Slab._load

    def believing(self: Slab, ids: Any, hashes: Any, new: Any, next_position: int) -> None:
        load(self, ids, hashes, new, kernel.NO_POSITION)

    Slab._load = believing  # type: ignore[method-assign]


def drop_the_fence() -> None:
    """No WATCH, and nobody looks whose the shard is."""
    believe_every_block()
    begin = FencedShard.__init__

    def without_watch(self: FencedShard, *given: Any) -> None:
        begin(self, *given)
        self._renew = command(b"PING") + command(b"HMGET", self._key, b"o", b"e")

    setattr(FencedShard, "__init__", without_watch)  # noqa: B010 - mypy takes no assignment to it
    FencedShard._check = lambda self, found: None  # type: ignore[method-assign]


def reconnect_without_a_claim() -> None:
    """After a cut a new connection, and on it goes."""

    def watched(self: FencedShard) -> Fence:
        self.close()
        self._open()
        return Fence(self._position, self._token)

    FencedShard._watch = watched  # type: ignore[method-assign]


def read_blocks_without_the_fence() -> None:
    """Blocks are believed without a look at whose they are."""

    def read(self: FencedShard, entity: str, keys: Any) -> PackedBytes:
        if not len(keys):
            return PackedBytes.pack([])
        gets, count = pack_reads(f"{self._tag}{entity}:".encode(), keys)

        def attempt() -> PackedBytes:
            self._see_through()
            return self._open().ask(gets, count).blocks(len(keys))

        return self._twice(attempt)

    FencedShard.read = read  # type: ignore[method-assign]


def end_nothing() -> None:
    """What an owner left open stays open: no mistake in what comes out, and without it two others would not show."""
    takeover.PartitionTakeover._end_what_is_open = lambda self, shard, claim: False  # type: ignore[method-assign]


def read_offsets_without_waiting() -> None:
    """Committed offsets as they are, whatever transaction is open on them."""
    end_nothing()

    def asked(consumer: Consumer, places: list[TopicPartition], timeout_seconds: float) -> list[TopicPartition]:
        settings = KafkaSettings(bootstrap_servers=os.environ["MILLRACE_KAFKA__BOOTSTRAP_SERVERS"])
        hasty = plain_consumer(settings, os.environ["PLANTED_GROUP"], read_committed=False)
        try:
            return hasty.committed(places, 30.0)
        finally:
            hasty.close()

    takeover._ask_committed = asked


def read_the_member_at_commit() -> None:
    """A batch commits as whoever this worker is by now, whatever it was polled as."""
    capture, sources = Source._capture, list[Source]()

    def captured(self: Source) -> None:
        sources[:] = [self]
        capture(self)

    @contextmanager
    def holding(self: Ownership, tokens: Any) -> Iterator[Any]:
        with self._lock:
            yield sources[0].ask(lambda consumer: consumer.consumer_group_metadata())

    Source._capture = captured  # type: ignore[method-assign]
    Ownership.holding = holding  # type: ignore[method-assign]


def freeze_late() -> None:
    """Blocks are packed when they are sent, with whatever later batches have put into them."""
    believe_every_block()

    class Late(Writes):
        __slots__ = ("_slab", "_slots_changed")

        def __init__(self, slab: Slab, changed: Any) -> None:
            keys = slab._hashes[changed]
            super().__init__(slab._entity.name, keys, np.full(len(keys), WHOLE_BLOCK, np.int64), PackedBytes.pack([]))
            object.__setattr__(self, "_slab", slab)
            object.__setattr__(self, "_slots_changed", changed)

        def __getattribute__(self, name: str) -> Any:
            if name != "data":
                return super().__getattribute__(name)
            slab: Slab = self._slab
            slots = slab._slots.copy()
            slots[self._slots_changed, kernel.WRITE_FROM] = -1
            none = np.empty((0, kernel.STRETCH_FIELDS), np.int64)
            _, _, data = pack(self._slots_changed, none, slab._head.copy(), slab._heap, slots)
            return data

    Slab._freeze = lambda self, changed, stretches: Late(self, changed.copy())  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        swap_the_commit_and_the_write,
        commit_offsets_early,
        drop_the_fence,
        reconnect_without_a_claim,
        read_blocks_without_the_fence,
        end_nothing,
        read_offsets_without_waiting,
        read_the_member_at_commit,
        freeze_late,
    )
}


def wait_before_each_commit(file: str) -> None:
    """No bug: a batch waits before it asks whether it may be committed, for as long as a file is there, and says so."""
    make = Commit._make

    def made(self: Commit, batch: Batch) -> Sent:
        if os.path.exists(file):
            print("waiting before a commit", flush=True)
        while os.path.exists(file):
            time.sleep(0.005)
        return make(self, batch)

    Commit._make = made  # type: ignore[method-assign]


def plant() -> None:
    """Plant the bug that this worker was given."""
    name, stall = os.environ.get(VARIABLE), os.environ.get(STALL)
    if stall:
        wait_before_each_commit(stall)
    if name:
        BUGS[name]()


if __name__ == "__main__":
    nursery.main(before=plant)
