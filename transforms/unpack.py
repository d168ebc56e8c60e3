"""Blocks of the store, read: each is what was written, or it is refused."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled
from schemas.errors import LostBlock
from transforms.block import (
    BASES,
    BELOW_SEAL,
    HASH,
    HEADER_BYTES,
    HEADER_WORDS,
    ID,
    ID_BYTES,
    MAGIC,
    MAGIC_2,
    SEAL_BYTES,
    SEAL_SHIFT,
    SHAPE,
    has_sizes,
    header_seal,
    octets_of,
    readable,
    record_bytes_of,
    word_at,
    word_until,
)
from transforms.kernel import BASE, END, FIRST_VALUE, NO_POSITION, POSITIONS, ROOM, TIMES, Table
from transforms.seal import BEGINNING, sealed

_ZEROS: Final = 1  # what may be wrong with a block
_FORMAT: Final = 2
_OTHER_KEY: Final = 3
_DISORDER: Final = 4
_BROKEN_SEAL: Final = 5
_AHEAD: Final = 6
_LENGTH: Final = 7
_FAULTS = {
    _ZEROS: "has a hole of zeros: it was lost, and written to afterwards",
    _FORMAT: "was written in another format: it begins with {begins}, wanted {wanted}",
    _OTHER_KEY: "belongs to another key",
    _DISORDER: "has records out of order",
    _BROKEN_SEAL: "has a header or a record that isn't what was written: its seal is broken",
    _AHEAD: "has a record that is still to come: counted once more, it would be there twice",
    _LENGTH: "has {size} bytes: no header and whole records",
}


def record_counts(blocks: PackedBytes, head: NDArray[np.int64], entity: str) -> Ints:
    """Shape (n,): how many records each block holds; 0 for an empty stretch. What is in its header is in `head` from now on.

    Raises:
        LostBlock: a header that isn't what was written, or doesn't end with whole records.
    """
    counts = np.zeros(len(blocks), np.int64)
    _refuse(int(_count(blocks.data, blocks.starts, blocks.ends, head, counts)), blocks, head, entity)
    return counts


def unpack(
    blocks: PackedBytes, counts: Ints, owners: Ints, head: NDArray[np.int64], heap: Table, slots: Table, entity: str, next_position: int
) -> None:
    """Copy the records of blocks to the heap, into the blocks reserved for the slots `owners`; running sums are left to make.

    All of them stand below `next_position` in the log, or the state is ahead of what it is said to be at.

    Raises:
        LostBlock: a block that isn't what was written.
    """
    _refuse(int(_unpack(blocks.data, blocks.starts, blocks.ends, counts, owners, head, heap, slots, next_position)), blocks, head, entity)


def records_of(block: bytes, fields: int, entity: str) -> NDArray[np.int64]:
    """Shape (n, fields): the records of a block, whosever it is: position, event time, values.

    Raises:
        LostBlock: a block that isn't what was written, or of records with other fields.
    """
    blocks = PackedBytes.pack([block])
    head = np.frombuffer(block.ljust(HEADER_BYTES, b"\0"), np.int64, HEADER_WORDS)[None].copy()
    head[:, SHAPE] = fields
    counts = record_counts(blocks, head, entity)
    records = np.empty((int(counts[0]), fields), np.int64)
    _refuse(int(_read_all(blocks.data, 0, len(records), head, 0, records, 0, NO_POSITION)), blocks, head, entity)
    records[:, POSITIONS] -= 1
    return records


def _refuse(fault: int, blocks: PackedBytes, head: NDArray[np.int64], entity: str) -> None:
    if not fault:
        return
    row, kind = divmod(fault, 8)
    block, key = blocks[row], head[row].tobytes()
    wanted = MAGIC.to_bytes(8, "little") + key[8 * SHAPE : 8 * SHAPE + 2]
    words = _FAULTS[kind].format(begins=block[: len(wanted)].hex(), wanted=wanted.hex(), size=len(block))
    raise LostBlock(f"the block of {entity} {key[16:32].hex()} ({readable(key[8 * ID : 8 * ID + ID_BYTES])}) {words}")


@compiled(makes_arrays=False)
def _signed_at(data: Octets, at: int, octets: int) -> int:
    return word_until(data, at + octets) >> 8 * (8 - octets)


@compiled(makes_arrays=False)
def _open(data: Octets, at: int, end: int, head: NDArray[np.int64], row: int) -> int:
    """Hold a block's header against the one its key should have, and fill in the rest; returns 0, or what is wrong."""
    if end - at < HEADER_BYTES:
        return _LENGTH
    magic = word_at(data, at, 8)
    if magic != MAGIC and magic != MAGIC_2:
        return _ZEROS if magic == 0 else _FORMAT
    for word in range(HASH, HASH + 2):
        if word_at(data, at + 8 * word, 8) != head[row, word]:
            return _OTHER_KEY
    if magic == MAGIC_2:
        return 0 if word_at(data, at + 8 * SHAPE, 4) == head[row, SHAPE] else _FORMAT
    if word_at(data, at + 8 * SHAPE, 2) != head[row, SHAPE]:
        return _FORMAT
    if word_at(data, at + HEADER_BYTES - SEAL_BYTES, SEAL_BYTES) != header_seal(data, at):
        return _BROKEN_SEAL
    for word in (SHAPE, BASES, BASES + 1, ID + 1):
        head[row, word] = word_at(data, at + 8 * word, 8)
    return 0


@compiled("int64(const uint8[::1], const int64[::1], const int64[::1], int64[:, ::1], int64[::1])", makes_arrays=False)
def _count(data: Octets, starts: Ints, ends: Ints, head: NDArray[np.int64], counts: Ints) -> int:
    """Returns 0, or row x 8 + what is wrong there."""
    for row in range(len(counts)):
        at = starts[row]
        end = ends[row]
        if at == end:
            continue
        fault = _open(data, at, end, head, row)
        if fault:
            return row * 8 + fault
        at += HEADER_BYTES
        record_bytes = record_bytes_of(head[row, SHAPE])
        if (end - at) % record_bytes:
            return row * 8 + _LENGTH
        if has_sizes(head[row, SHAPE]):
            while end > at and data[end - 1] == 0:
                end -= 1
        counts[row] = (end - at + record_bytes - 1) // record_bytes
    return 0


@compiled(makes_arrays=False)
def _read(data: Octets, at: int, head: NDArray[np.int64], row: int, heap: Table, place: int) -> int:
    """Copy a record to the heap; returns 0, or what is wrong."""
    shape = head[row, SHAPE]
    crc = head[row, ID + 1] >> SEAL_SHIFT & 0xFFFF
    for field in range(shape & 0xFFFF):
        octets = octets_of(shape, field)
        if field < FIRST_VALUE:
            word = word_at(data, at, octets)
            if word == 0:
                return _ZEROS
            heap[place, field] = head[row, BASES + field] + word
        else:
            word = _signed_at(data, at, octets)
            heap[place, field] = word
        crc = sealed(crc, word, octets)
        at += octets
    return 0 if crc == word_at(data, at, SEAL_BYTES) else _BROKEN_SEAL


@compiled(makes_arrays=False)
def _read_2(data: Octets, at: int, head: NDArray[np.int64], row: int, heap: Table, place: int) -> int:
    """Copy a record of format 2 to the heap; returns 0, or what is wrong."""
    first = word_at(data, at, 8)
    if first == 0:
        return _ZEROS
    heap[place, POSITIONS] = first & BELOW_SEAL
    for field in range(1, head[row, SHAPE]):
        heap[place, field] = word_at(data, at + 8 * field, 8)
    crc = sealed(sealed(BEGINNING, head[row, HASH], 8), head[row, HASH + 1], 8)
    for field in range(head[row, SHAPE]):
        crc = sealed(crc, heap[place, field], 8)
    return 0 if crc == first >> SEAL_SHIFT & 0xFFFF else _BROKEN_SEAL


@compiled("int64(const uint8[::1], int64, int64, const int64[:, ::1], int64, int64[:, ::1], int64, int64)", makes_arrays=False)
def _read_all(data: Octets, at: int, count: int, head: NDArray[np.int64], row: int, heap: Table, first: int, next_position: int) -> int:
    """Copy the records of the block that begins at `at` to the heap; returns 0, or row x 8 + what is wrong."""
    record_bytes = record_bytes_of(head[row, SHAPE])
    is_narrow = has_sizes(head[row, SHAPE])
    at += HEADER_BYTES
    for place in range(first, first + count):
        fault = _read(data, at, head, row, heap, place) if is_narrow else _read_2(data, at, head, row, heap, place)
        if fault:
            return row * 8 + fault
        if place > first and heap[place, TIMES] < heap[place - 1, TIMES]:
            return row * 8 + _DISORDER
        if heap[place, POSITIONS] > next_position:  # as kept: one more
            return row * 8 + _AHEAD
        at += record_bytes
    return 0


@compiled(
    "int64(const uint8[::1], const int64[::1], const int64[::1], const int64[::1], const int64[::1], const int64[:, ::1], int64[:, ::1], "
    "int64[:, ::1], int64)",
    makes_arrays=False,
)
def _unpack(
    data: Octets,
    starts: Ints,
    ends: Ints,
    counts: Ints,
    owners: Ints,
    head: NDArray[np.int64],
    heap: Table,
    slots: Table,
    next_position: int,
) -> int:
    """Returns 0, or row x 8 + what is wrong there."""
    for row in range(len(owners)):
        slot = owners[row]
        fault = _read_all(data, starts[row], counts[row], head, row, heap, slots[slot, BASE], next_position)
        if fault:
            return fault
        slots[slot, END] = slots[slot, BASE] + counts[row]
        if has_sizes(head[row, SHAPE]):
            slots[slot, ROOM] = (ends[row] - starts[row] - HEADER_BYTES) // record_bytes_of(head[row, SHAPE])
    return 0
