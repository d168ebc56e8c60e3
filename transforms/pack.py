"""What a batch changes in the blocks of the store: a new record into the room of its block, or all of it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled
from transforms.block import (
    BASES,
    BELOW_SEAL,
    HEADER_BYTES,
    HEADER_WORDS,
    ID,
    SEAL_BYTES,
    SEAL_SHIFT,
    SHAPE,
    SHAPED,
    octets_of,
    record_bytes_of,
)
from transforms.kernel import BASE, BEYOND, END, FIRST, FIRST_VALUE, OWNER, POSITIONS, ROOM, WRITE_FROM, Table
from transforms.seal import BEGINNING, sealed
from transforms.store import WHOLE_BLOCK

_LEAST_POSITION_BYTES: Final = 3
_LEAST_TIME_BYTES: Final = 4
_ROOM_SHARE: Final = 4  # room for a quarter more records, and four: about what memory has
_LEAST_ROOM: Final = 4


def pack(changed: Ints, stretches: Table, head: NDArray[np.int64], heap: Table, slots: Table) -> tuple[Ints, Ints, PackedBytes]:
    """What to write for changed slots: the slots, the byte offset in each one's block (or WHOLE_BLOCK), and a copy of the bytes.

    Stretches of labelled records are written by themselves, where what is written of their block anyhow does not hold them. From now
    on headers and rooms are those that the blocks have once all this is written.
    """
    owners, places, at, starts, ends = np.empty((5, len(changed) + len(stretches)), np.int64)
    rows = _measure(changed, stretches, head, heap, slots, owners, places, at, starts, ends)
    out = np.empty((int(ends[rows - 1]) if rows else 0) + 8, np.uint8)  # `_put` writes eight at a time
    _pack(owners[:rows], places, at, ends, head, heap, slots, out)
    return owners[:rows], at[:rows], PackedBytes(out, starts[:rows], ends[:rows])


@compiled(makes_arrays=False)
def _put(out: Octets, to: int, word: int, octets: int) -> int:
    for place in range(8):  # those too many are overwritten
        out[np.uint64(to + place)] = word >> 8 * place & 255
    return to + octets


@compiled(makes_arrays=False)
def _fits(slot: int, first: int, head: NDArray[np.int64], heap: Table, slots: Table) -> bool:
    """Whether a slot's records from `first` on may be written into the block that the store has."""
    base = slots[slot, BASE]
    if slots[slot, END] - base > slots[slot, ROOM]:
        return False
    shape = head[slot, SHAPE]
    for place in range(base + first, slots[slot, END]):
        for field in range(shape & 0xFFFF):
            bits = 8 * octets_of(shape, field)
            word = heap[place, field]
            if field < FIRST_VALUE:
                word -= head[slot, BASES + field]
                if word <= 0 or (bits < 64 and word >> bits != 0):
                    return False
            elif word << 64 - bits >> 64 - bits != word:
                return False
    return True


@compiled(makes_arrays=False)
def _lay_out(slot: int, head: NDArray[np.int64], heap: Table, slots: Table) -> None:
    """Choose header and room of a block that is written whole: sizes for what its records hold, and spans a quarter longer."""
    base = slots[slot, BASE]
    count = slots[slot, END] - base
    fields = head[slot, SHAPE] & 0xFFFF
    shape = fields
    for field in range(fields):
        least = heap[base, field]
        greatest = least
        for place in range(base + 1, base + count):
            least = min(least, heap[place, field])
            greatest = max(greatest, heap[place, field])
        if field < FIRST_VALUE:
            head[slot, BASES + field] = least - 1
            span = greatest - least
            span += span // 4 + 1
            octets = np.int64(_LEAST_POSITION_BYTES if field == POSITIONS else _LEAST_TIME_BYTES)
            while octets < 8 and span >> 8 * octets:
                octets += 1
        else:
            octets = np.int64(1)
            while max(greatest, ~least) >> 8 * octets - 1:
                octets += 1
        if field < SHAPED:
            shape |= octets << 16 + 4 * field
    head[slot, SHAPE] = shape
    slots[slot, ROOM] = count + count // _ROOM_SHARE + _LEAST_ROOM
    crc = BEGINNING
    for word in range(HEADER_WORDS - 1):
        crc = sealed(crc, head[slot, word], 8)
    crc = sealed(crc, head[slot, ID + 1], 6)
    head[slot, ID + 1] = head[slot, ID + 1] & BELOW_SEAL | crc << SEAL_SHIFT


@compiled(
    "int64(const int64[::1], const int64[:, ::1], int64[:, ::1], const int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], int64[::1], "
    "int64[::1], int64[::1])",
    makes_arrays=False,
)
def _measure(
    changed: Ints,
    stretches: Table,
    head: NDArray[np.int64],
    heap: Table,
    slots: Table,
    owners: Ints,
    places: Ints,
    at: Ints,
    starts: Ints,
    ends: Ints,
) -> int:
    """Fill in whose each write is, its first record, where it goes and which stretch of the bytes it takes; returns how many there are."""
    size_bytes = 0
    rows = 0
    for i in range(len(changed) + len(stretches)):
        if i < len(changed):
            slot = changed[i]
            if slots[slot, WRITE_FROM] >= 0 and not _fits(slot, slots[slot, WRITE_FROM], head, heap, slots):
                slots[slot, WRITE_FROM] = -1
            if slots[slot, WRITE_FROM] < 0:
                _lay_out(slot, head, heap, slots)
            first = slots[slot, WRITE_FROM]
            beyond = slots[slot, END] - slots[slot, BASE]
        else:
            slot = stretches[i - len(changed), OWNER]
            first = stretches[i - len(changed), FIRST]
            beyond = min(stretches[i - len(changed), BEYOND], slots[slot, WRITE_FROM])  # -1 if all is written
        record_bytes = record_bytes_of(head[slot, SHAPE])
        if i < len(changed) and first < 0:
            at[rows] = WHOLE_BLOCK
            starts[rows] = size_bytes
            size_bytes += HEADER_BYTES + slots[slot, ROOM] * record_bytes
        elif first < beyond:
            at[rows] = HEADER_BYTES + first * record_bytes
            starts[rows] = size_bytes
            size_bytes += (beyond - first) * record_bytes
        else:
            continue
        owners[rows] = slot
        places[rows] = slots[slot, BASE] + max(first, 0)
        ends[rows] = size_bytes
        rows += 1
    return rows


@compiled(makes_arrays=False)
def _write(out: Octets, to: int, head: NDArray[np.int64], slot: int, heap: Table, place: int) -> int:
    """Put a record into the bytes; returns where it ends."""
    shape = head[slot, SHAPE]
    crc = head[slot, ID + 1] >> SEAL_SHIFT & 0xFFFF
    for field in range(shape & 0xFFFF):
        octets = octets_of(shape, field)
        word = heap[place, field]
        if field < FIRST_VALUE:
            word -= head[slot, BASES + field]
        crc = sealed(crc, word, octets)
        to = _put(out, to, word, octets)
    return _put(out, to, crc, SEAL_BYTES)


@compiled(
    "void(const int64[::1], const int64[::1], const int64[::1], const int64[::1], const int64[:, ::1], const int64[:, ::1], "
    "const int64[:, ::1], uint8[::1])",
    makes_arrays=False,
)
def _pack(owners: Ints, places: Ints, at: Ints, ends: Ints, head: NDArray[np.int64], heap: Table, slots: Table, out: Octets) -> None:
    to = 0
    for i in range(len(owners)):
        slot = owners[i]
        place = places[i]
        if at[i] == WHOLE_BLOCK:
            for word in range(HEADER_WORDS):
                to = _put(out, to, head[slot, word], 8)
        while to < ends[i] and place < slots[slot, END]:
            to = _write(out, to, head, slot, heap, place)
            place += 1
        while to < ends[i]:  # room
            out[to] = 0
            to += 1
