"""Blocks as they were at an earlier position of the log: without the records that came at it or after it."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled
from schemas.errors import LostBlock
from transforms.block import (
    BASES,
    HEADER_BYTES,
    ID,
    ID_BYTES,
    MAGIC,
    SEAL_BYTES,
    SHAPE,
    header_seal,
    octets_of,
    readable,
    record_bytes_of,
    word_at,
)
from transforms.kernel import POSITIONS

_ZEROS: Final = 1  # what may be wrong with a block
_FORMAT: Final = 2
_BROKEN_SEAL: Final = 3
_FAULTS = {
    _ZEROS: "has a hole of zeros: it was lost, and written to afterwards",
    _FORMAT: "is no header and whole records",
    _BROKEN_SEAL: "has a header that isn't what was written: its seal is broken",
}
_LEAST_RECORD_BYTES: Final = 3


def cut(blocks: PackedBytes, position: int) -> PackedBytes:
    """The same blocks without their records at or above a position, and without room; an empty stretch where no record is left.

    Nothing is looked at but the header's shape, and the position that each record begins with. Blocks of an older format stay of it.

    Raises:
        LostBlock: a block that is no header and whole records, or has a hole of zeros.
    """
    starts, ends = np.empty((2, len(blocks)), np.int64)
    out = np.empty(int((blocks.ends - blocks.starts).sum()), np.uint8)
    fault = int(_cut(blocks.data, blocks.starts, blocks.ends, position, out, starts, ends))
    if fault:
        row, kind = divmod(fault, 8)
        head = blocks[row][:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
        raise LostBlock(f"the block {head[16:32].hex()} ({readable(head[8 * ID : 8 * ID + ID_BYTES])}) {_FAULTS[kind]}")
    return PackedBytes(out, starts, ends)


@compiled(
    "int64(const uint8[::1], const int64[::1], const int64[::1], int64, uint8[::1], int64[::1], int64[::1])",
    makes_arrays=False,
)
def _cut(data: Octets, starts: Ints, ends: Ints, position: int, out: Octets, new_starts: Ints, new_ends: Ints) -> int:
    """Returns 0, or row x 8 + what is wrong there."""
    to = 0
    for row in range(len(starts)):
        new_starts[row] = to
        new_ends[row] = to
        at = starts[row]
        end = ends[row]
        if at == end:
            continue
        if end - at < HEADER_BYTES:
            return row * 8 + _FORMAT
        magic = word_at(data, at, 8)
        if magic == 0:
            return row * 8 + _ZEROS
        if magic == MAGIC:
            if word_at(data, at + HEADER_BYTES - SEAL_BYTES, SEAL_BYTES) != header_seal(data, at):
                return row * 8 + _BROKEN_SEAL
            shape = word_at(data, at + 8 * SHAPE, 8)
            base = word_at(data, at + 8 * BASES, 8)
            octets = octets_of(shape, POSITIONS)
            while end > at + HEADER_BYTES and data[end - 1] == 0:
                end -= 1
        else:
            shape = word_at(data, at + 8 * SHAPE, 2)
            base = 0
            octets = 6
        record_bytes = record_bytes_of(shape)
        if record_bytes < _LEAST_RECORD_BYTES or (ends[row] - at - HEADER_BYTES) % record_bytes:
            return row * 8 + _FORMAT
        for byte in range(HEADER_BYTES):
            out[to + byte] = data[at + byte]
        last = to + HEADER_BYTES
        record = at + HEADER_BYTES
        while record < end:
            number = word_at(data, record, octets)
            if number <= 0:
                return row * 8 + _ZEROS
            if base + number <= position:  # one more than the record's position
                for byte in range(record_bytes):
                    out[last + byte] = data[record + byte]
                last += record_bytes
            record += record_bytes
        if last > to + HEADER_BYTES:
            to = last
        new_ends[row] = to
    return 0
