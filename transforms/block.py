"""Blocks: the bytes of one key in the store.

    bytes    0..8    magic, with the format's version
             8..12   words in a record (uint32)
            12..16   length of the key's id (uint32)
            16..32   the key's 128-bit hash
            32..64   the first 32 bytes of its id, zeros after a shorter one
            64..     records of 64-bit words: position + 1 and a seal, event time, values

all little-endian. A block has no count and no tail: its length tells how many records there are, and a new record is written at
its end. Where a block was lost, such a write leaves a hole of zeros before it; since neither the magic nor a position + 1 is ever
zero, a hole is found as soon as the block is read.

The seal is the upper 16 bits of a record's first word: a CRC-16 over the key's hash and the record. It finds any one, two or three
bits that changed, any stretch of up to 16, and a record of another key; of other damage one in 65,536 goes unseen, in each record
that is hit. It takes no room, since no partition's positions need 48 bits: at a million records a second they would last nine years.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled
from schemas.errors import LostBlock
from transforms.kernel import BASE, BEYOND, END, FIRST, OWNER, POSITIONS, TIMES, WRITE_FROM, Table
from transforms.store import WHOLE_BLOCK

MAGIC: Final = int.from_bytes(b"MILLRC\x00\x02", "little")
HEADER_BYTES: Final = 64
HEADER_WORDS: Final = 8
_ID_BYTES = 32

_ZEROS: Final = 1  # what may be wrong with a block
_FORMAT: Final = 2
_OTHER_KEY: Final = 3
_DISORDER: Final = 4
_BROKEN_SEAL: Final = 5
_AHEAD: Final = 6
_FAULTS = {
    _ZEROS: "has a hole of zeros: it was lost, and written to afterwards",
    _FORMAT: "was written in another format",
    _OTHER_KEY: "belongs to another key",
    _DISORDER: "has records out of order",
    _BROKEN_SEAL: "has a record that isn't what was written: its seal is broken",
    _AHEAD: "has a record that is still to come: counted once more, it would be there twice",
}

SEAL_SHIFT: Final = 48
POSITION_MASK: Final = (1 << SEAL_SHIFT) - 1


def _tables() -> NDArray[np.int64]:
    """Shape (8 x 256,): what each octet of a word does to a CRC-16 (CCITT, lowest bit first), by its place in the word, last one first."""
    tables = np.zeros((8, 256), np.int64)
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
        tables[0, octet] = crc
    for place in range(1, 8):
        tables[place] = tables[place - 1] >> 8 ^ tables[0, tables[place - 1] & 255]
    return tables.ravel()


_TABLES = _tables()

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("blocks are copied as they stand in memory, which must be little-endian")


def headers(ids: PackedBytes, hashes: NDArray[np.uint64], record_words: int) -> NDArray[np.int64]:
    """Shape (n, 8): the headers of the blocks of n keys, as words."""
    head = np.zeros((len(ids), HEADER_WORDS), np.int64)
    head[:, 0] = MAGIC
    head[:, 1] = record_words | (ids.ends - ids.starts) << 32
    head[:, 2:4] = hashes.view(np.int64)
    octets = head.view(np.uint8).reshape(len(ids), HEADER_BYTES)
    for row in range(len(ids)):  # new keys only
        start = ids.starts[row]
        end = min(ids.ends[row], start + _ID_BYTES)
        octets[row, _ID_BYTES : _ID_BYTES + end - start] = ids.data[start:end]
    return head


def record_counts(blocks: PackedBytes, record_words: int, entity: str) -> Ints:
    """Shape (n,): how many records each block holds; 0 for an empty stretch.

    Raises:
        LostBlock: a length that is no header and whole records.
    """
    sizes = blocks.ends - blocks.starts
    bodies = np.where(sizes > 0, sizes - HEADER_BYTES, 0)
    bad = np.flatnonzero((bodies < 0) | (bodies % (8 * record_words) != 0))
    if len(bad):
        raise LostBlock(f"a block of entity {entity!r} has {sizes[bad[0]]} bytes, wanted {HEADER_BYTES} + a multiple of {8 * record_words}")
    return bodies // (8 * record_words)


def unpack(blocks: PackedBytes, owners: Ints, head: NDArray[np.int64], heap: Table, slots: Table, entity: str, next_position: int) -> None:
    """Copy the records of blocks to the heap, into the blocks reserved for the slots `owners`; running sums are left to make.

    All of them stand below `next_position` in the log, or the state is ahead of what it is said to be at.

    Raises:
        LostBlock: a block that isn't what was written.
    """
    record_words = int(head[0, 1] & 0xFFFFFFFF) if len(head) else 0
    fault = _unpack(blocks.data, blocks.starts, blocks.ends, owners, record_words, head, heap, slots, next_position)
    if fault:
        row, kind = divmod(int(fault), 8)
        key = head[row].tobytes()
        raise LostBlock(f"the block of {entity} {key[16:32].hex()} ({readable(key[32:64])}) {_FAULTS[kind]}")


def readable(identity: bytes) -> str:
    """A key's id, or the first bytes of it, for a person."""
    parts = []
    while len(identity) > 5 and identity[:1] in b"is":
        kind, size = identity[:1], int.from_bytes(identity[1:5], "little")
        part = identity[5 : 5 + size]
        identity = identity[5 + size :]
        parts.append(str(int.from_bytes(part, "little", signed=True)) if kind == b"i" else part.decode(errors="replace"))
    return ", ".join(parts)


def pack(
    changed: Ints, stretches: Table, head: NDArray[np.int64], heap: Table, slots: Table, record_words: int
) -> tuple[Ints, Ints, PackedBytes]:
    """What to write for changed slots: the slots, the byte offset in each one's block (or WHOLE_BLOCK), and a copy of the bytes.

    Stretches of labelled records are written by themselves, where what is written of their block anyhow does not hold them.
    """
    owners, at, starts, ends = np.empty((4, len(changed) + len(stretches)), np.int64)
    rows = _measure(changed, stretches, 8 * record_words, slots, owners, at, starts, ends)
    words = np.empty(int(ends[rows - 1]) // 8 if rows else 0, np.int64)
    _pack(owners[:rows], at, ends, record_words, head, heap, slots, words)
    return owners[:rows], at[:rows], PackedBytes(words.view(np.uint8), starts[:rows], ends[:rows])


def positions_of(block: bytes) -> NDArray[np.int64]:
    """Shape (records,): the positions in a block's records, each of which is what was written.

    Raises:
        LostBlock: a hole of zeros, or a broken seal.
    """
    head = np.frombuffer(block, np.int64, HEADER_WORDS)
    records = np.frombuffer(block, np.int64, offset=HEADER_BYTES).reshape(-1, int(head[1]) & 0xFFFFFFFF)
    fault = int(_first_fault(records, head))
    if fault:
        raise LostBlock(f"the block {block[16:32].hex()} ({readable(block[32:64])}) {_FAULTS[fault]}")
    return (records[:, 0] & POSITION_MASK) - 1


@compiled(makes_arrays=False)
def _with(crc: int, word: int) -> int:
    """A CRC with one more word in it."""
    word ^= crc
    found = _TABLES[1792 + (word & 255)] ^ _TABLES[1536 + (word >> 8 & 255)]
    found ^= _TABLES[1280 + (word >> 16 & 255)] ^ _TABLES[1024 + (word >> 24 & 255)]
    found ^= _TABLES[768 + (word >> 32 & 255)] ^ _TABLES[512 + (word >> 40 & 255)]
    return found ^ _TABLES[256 + (word >> 48 & 255)] ^ _TABLES[word >> 56 & 255]  # type: ignore[no-any-return]


@compiled("int64(const int64[:, ::1], const int64[::1])", makes_arrays=False)
def _first_fault(records: NDArray[np.int64], head: NDArray[np.int64]) -> int:
    """Returns 0, or what is wrong."""
    key = _with(_with(0xFFFF, head[2]), head[3])
    for row in range(len(records)):
        if records[row, 0] == 0:
            return _ZEROS
        crc = _with(key, records[row, 0] & POSITION_MASK)
        for word in range(1, records.shape[1]):
            crc = _with(crc, records[row, word])
        if crc != records[row, 0] >> SEAL_SHIFT & 0xFFFF:
            return _BROKEN_SEAL
    return 0


@compiled(makes_arrays=False)
def _word(data: Octets, at: int) -> int:
    word = np.uint64(0)
    for byte in range(8):
        word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return np.int64(word)  # type: ignore[return-value]


@compiled(
    "int64(const uint8[::1], const int64[::1], const int64[::1], const int64[::1], int64, int64[:, ::1], int64[:, ::1], int64[:, ::1], "
    "int64)",
    makes_arrays=False,
)
def _unpack(
    data: Octets,
    starts: Ints,
    ends: Ints,
    owners: Ints,
    record_words: int,
    head: NDArray[np.int64],
    heap: Table,
    slots: Table,
    next_position: int,
) -> int:
    """Returns 0, or row x 8 + what is wrong there."""
    for row in range(len(owners)):
        slot = owners[row]
        at = starts[row]
        if at == ends[row]:
            continue
        for word in range(HEADER_WORDS):
            found = _word(data, at)
            if found != head[row, word]:
                return row * 8 + (_OTHER_KEY if word > 1 else _ZEROS if found == 0 else _FORMAT)
            at += 8
        place = slots[slot, BASE]
        key = _with(_with(0xFFFF, head[row, 2]), head[row, 3])
        while at < ends[row]:
            sealed = _word(data, at)
            if sealed == 0:
                return row * 8 + _ZEROS
            heap[place, POSITIONS] = sealed & POSITION_MASK
            crc = _with(key, sealed & POSITION_MASK)
            at += 8
            for word in range(1, record_words):
                heap[place, word] = _word(data, at)
                crc = _with(crc, heap[place, word])
                at += 8
            if crc != sealed >> SEAL_SHIFT & 0xFFFF:
                return row * 8 + _BROKEN_SEAL
            if place > slots[slot, BASE] and heap[place, TIMES] < heap[place - 1, TIMES]:
                return row * 8 + _DISORDER
            if heap[place, POSITIONS] > next_position:  # as kept: one more
                return row * 8 + _AHEAD
            place += 1
        slots[slot, END] = place
    return 0


@compiled(
    "int64(const int64[::1], const int64[:, ::1], int64, int64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1])", makes_arrays=False
)
def _measure(changed: Ints, stretches: Table, record_bytes: int, slots: Table, owners: Ints, at: Ints, starts: Ints, ends: Ints) -> int:
    """Fill in whose each write is, where it goes and which stretch of the bytes it takes; returns how many there are."""
    size_bytes = 0
    rows = 0
    for i in range(len(changed) + len(stretches)):
        if i < len(changed):
            slot = changed[i]
            first = slots[slot, WRITE_FROM]
            beyond = slots[slot, END] - slots[slot, BASE]
        else:
            slot = stretches[i - len(changed), OWNER]
            first = stretches[i - len(changed), FIRST]
            beyond = min(stretches[i - len(changed), BEYOND], slots[slot, WRITE_FROM])  # -1 if all is written
        if i < len(changed) and first < 0:
            at[rows] = WHOLE_BLOCK
            starts[rows] = size_bytes
            size_bytes += HEADER_BYTES + beyond * record_bytes
        elif first < beyond:
            at[rows] = HEADER_BYTES + first * record_bytes
            starts[rows] = size_bytes
            size_bytes += (beyond - first) * record_bytes
        else:
            continue
        owners[rows] = slot
        ends[rows] = size_bytes
        rows += 1
    return rows


@compiled(
    "void(const int64[::1], const int64[::1], const int64[::1], int64, int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1])",
    makes_arrays=False,
)
def _pack(owners: Ints, at: Ints, ends: Ints, record_words: int, head: NDArray[np.int64], heap: Table, slots: Table, out: Ints) -> None:
    word = 0
    for i in range(len(owners)):
        slot = owners[i]
        place = slots[slot, BASE]
        if at[i] == WHOLE_BLOCK:
            for field in range(HEADER_WORDS):
                out[word] = head[slot, field]
                word += 1
        else:
            place += (at[i] - HEADER_BYTES) // (8 * record_words)
        key = _with(_with(0xFFFF, head[slot, 2]), head[slot, 3])
        while word < ends[i] // 8:
            first = word
            crc = _with(key, heap[place, POSITIONS])
            for field in range(1, record_words):
                word += 1
                out[word] = heap[place, field]
                crc = _with(crc, heap[place, field])
            out[first] = heap[place, POSITIONS] | crc << SEAL_SHIFT
            word += 1
            place += 1
