"""Blocks as they were at an earlier position of the log: without the records that came at it or after it."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled
from schemas.errors import LostBlock
from transforms.block import HEADER_BYTES, POSITION_MASK, readable

_ZEROS: Final = 1  # what may be wrong with a block
_FORMAT: Final = 2
_FAULTS = {_ZEROS: "has a hole of zeros: it was lost, and written to afterwards", _FORMAT: "is no header and whole records"}
_LEAST_RECORD_BYTES: Final = 16


def cut(blocks: PackedBytes, position: int) -> PackedBytes:
    """The same blocks without their records at or above a position; an empty stretch where no record is left.

    Only what all formats share is looked at: the header's record size, and the position that each record begins with.

    Raises:
        LostBlock: a block that is no header and whole records, or has a hole of zeros.
    """
    starts, ends = np.empty((2, len(blocks)), np.int64)
    out = np.empty(int((blocks.ends - blocks.starts).sum()), np.uint8)
    fault = int(_cut(blocks.data, blocks.starts, blocks.ends, position, out, starts, ends))
    if fault:
        row, kind = divmod(fault, 8)
        head = blocks[row][:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
        raise LostBlock(f"the block {head[16:32].hex()} ({readable(head[32:64])}) {_FAULTS[kind]}")
    return PackedBytes(out, starts, ends)


@compiled(makes_arrays=False)
def _word(data: Octets, at: int, size: int) -> int:
    word = np.uint64(0)
    for byte in range(size):
        word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return np.int64(word)  # type: ignore[return-value]


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
        if _word(data, at, 8) == 0:
            return row * 8 + _ZEROS
        record_bytes = 8 * _word(data, at + 8, 4)
        if record_bytes < _LEAST_RECORD_BYTES or (end - at - HEADER_BYTES) % record_bytes:
            return row * 8 + _FORMAT
        for byte in range(HEADER_BYTES):
            out[to + byte] = data[at + byte]
        last = to + HEADER_BYTES
        record = at + HEADER_BYTES
        while record < end:
            number = _word(data, record, 8) & POSITION_MASK  # one more than the record's position
            if number <= 0:
                return row * 8 + _ZEROS
            if number <= position:
                for byte in range(record_bytes):
                    out[last + byte] = data[record + byte]
                last += record_bytes
            record += record_bytes
        if last > to + HEADER_BYTES:
            to = last
        new_ends[row] = to
    return 0
