"""Which node of a Redis Cluster keeps a shard, as the cluster itself says.

A cluster parts all keys into slots by what stands in their braces, and each slot has one master. All keys of a shard share their
braces, hence a slot, hence a node: its fence and its blocks are never apart, and one transaction reaches them all.

    MOVED slot address    the slot has another master: the next connection goes there, and the fence decides what became of a write
    ASK, TRYAGAIN         the slot is on its way, some keys here and some there: no transaction spans both, so we wait until it has
                          arrived. A key that is not there yet would look like one that never was.
    CLUSTERDOWN           nobody serves the slot: we wait

While a slot is on its way its old node does what it can do with the keys it has, and refuses the rest; it never answers wrongly.
"""

from __future__ import annotations

import threading
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from schemas.errors import SettingsError, StoreDown
from transforms.resp import command
from transforms.wire import Wire

SLOTS = 16_384
_NO_CLUSTER = "ERR This instance has cluster support disabled"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Master:
    """A node that owns slots."""

    address: Address
    slots: tuple[range, ...]

    def owns(self, slot: int) -> bool:
        """Whether a slot is this node's."""
        return any(slot in stretch for stretch in self.slots)

    def key(self, name: str) -> bytes:
        """A key that this node keeps, with a name of ours in it."""
        return next(key for n in count() if self.owns(slot_of(key := b"{%s.%d}o" % (name.encode(), n))))


def slot_of(key: bytes) -> int:
    """The slot of a key: of what stands in its first braces, if anything does."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def masters_in(text: str, asked: Address) -> tuple[Master, ...]:
    """The masters in an answer to CLUSTER NODES; a node that doesn't know its own name goes by the one it was asked under."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 9 or "master" not in fields[2].split(","):
            continue
        # [slot->-node] and [slot-<-node] are slots on their way: until they have arrived they are their old node's.
        slots = tuple(_stretch(field) for field in fields[8:] if not field.startswith("["))
        if slots:
            found.append(Master(_address(fields[1], asked), slots))
    return tuple(found)


def _stretch(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _address(text: str, asked: Address) -> Address:
    place, _, names = text.partition(",")
    host, _, port = place.partition("@")[0].rpartition(":")
    name = names.partition(",")[0]
    return Address(name or host.strip("[]") or asked.host, int(port or asked.port))


class Cluster:
    """Finds nodes. Called from several threads.

    Args:
        seeds: nodes to ask first; at least one.
        connect: opens a connection to a node.
        shown: the cluster's address, for errors.
    """

    def __init__(self, seeds: Sequence[Address], connect: Callable[[Address], Wire], shown: str) -> None:
        self._seeds = tuple(seeds)
        self._known: tuple[Address, ...] = ()
        self._moved: dict[int, Address] = {}  # what a node said of a slot that the others may not know yet
        self._connect = connect
        self._shown = shown
        self._lock = threading.Lock()

    def node_of(self, key: bytes) -> Address:
        """The master of a key's slot, asked for anew: it may be another one than a moment ago.

        Raises:
            StoreDown: no node answers, or none serves the slot.
            SettingsError: these are no nodes of a cluster.
        """
        slot = slot_of(key)
        with self._lock:
            told = self._moved.pop(slot, None)
        if told is not None:
            return told
        for master in self.masters():
            if master.owns(slot):
                return master.address
        raise StoreDown(f"{self._shown}: no node serves slot {slot}")

    def masters(self) -> tuple[Master, ...]:
        """All nodes that own slots.

        Raises:
            StoreDown: no node answers.
            SettingsError: these are no nodes of a cluster.
        """
        failure: StoreDown | None = None
        for address in dict.fromkeys((*self._known, *self._seeds)):
            try:
                found = self._ask(address)
            except StoreDown as error:
                failure = error
                continue
            others = tuple(master.address for master in found if master.address != address)
            self._known = (address, *others)
            return found
        assert failure is not None
        raise failure

    def _ask(self, address: Address) -> tuple[Master, ...]:
        wire = self._connect(address)
        try:
            wire.send(command(b"CLUSTER", b"NODES"), 1)
            replies = wire.receive()
            if (refusal := replies.error()) is not None:
                if refusal.startswith(_NO_CLUSTER):
                    raise SettingsError(f"{self._shown}: {address} is a single server, no node of a cluster; wanted redis:// for it")
                raise wire.refused(refusal)
            return masters_in((replies[0] or b"").decode(errors="replace"), address)
        finally:
            wire.close()

    def learn(self, words: str, asked: Address) -> None:
        """Remember where a slot is, from a node's ``MOVED slot address``."""
        _, slot, address = words.split()[:3]
        with self._lock:
            self._moved[int(slot)] = _address(address, asked)
