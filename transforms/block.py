"""Blocks: the bytes of one key in the store; `transforms/pack.py` writes them, `transforms/unpack.py` reads them.

    bytes    0..8    magic, with the format's version
             8..10   fields in a record (uint16): position, event time, values
            10..16   how many bytes each takes, four bits for each of the first twelve; later ones take 8
            16..32   the key's 128-bit hash
            32..40   what positions + 1 are counted from
            40..48   what event times are counted from
            48..62   the first 14 bytes of the key's id, zeros after a shorter one
            62..64   the header's seal
            64..     records: the fields, side by side, and a seal of two bytes; then room: zeros, in which more records will stand

all little-endian. Position + 1 and event time are counted from less than the least of them, and are never zero; values are signed.
A header says what its records were when the block was written whole: any other record has the block written whole again, with bytes
enough for it. So does one that finds no room, as a string that Redis makes longer gets twice the memory it needs.

A block has no count: its records end where only zeros follow, and a new one is written there. Where a block was lost, such a write
leaves a hole of zeros before it; since neither the magic nor a record begins with zero, a hole is found as soon as the block is read.

A seal is a CRC-16: the header's is over all before it, a record's goes on from there over its fields. It finds any one, two or three
bits that changed in header and record, any stretch of up to 16, and a record of another key; of other damage one in 65,536 goes
unseen, in each record that is hit.

Blocks of format 2 are read as well, and written whole as soon as something of them is to be written: their records are whole words,
position + 1 with a seal in its upper 16 bits over the key's hash and the record, event time, values, and they have no room.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Octets, PackedBytes
from schemas.compiled import compiled
from transforms.seal import BEGINNING, sealed

MAGIC: Final = int.from_bytes(b"MILLRC\x00\x03", "little")
MAGIC_2: Final = int.from_bytes(b"MILLRC\x00\x02", "little")
HEADER_BYTES: Final = 64
SEAL_BYTES: Final = 2
ID_BYTES: Final = 14

SHAPE: Final = 1  # words of a header: how many fields, and the bytes of each
HASH: Final = 2
BASES: Final = 4  # what positions and times are counted from
ID: Final = 6  # and the header's seal
HEADER_WORDS: Final = 8

SHAPED: Final = 12  # fields whose size the header has room for
SEAL_SHIFT: Final = 48
BELOW_SEAL: Final = (1 << SEAL_SHIFT) - 1

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("the words of headers are written as they stand in memory, which must be little-endian")


def headers(ids: PackedBytes, hashes: NDArray[np.uint64], fields: int) -> NDArray[np.int64]:
    """Shape (n, 8): the headers of n keys that have no block yet, as words."""
    head = np.zeros((len(ids), HEADER_WORDS), np.int64)
    head[:, 0] = MAGIC
    head[:, SHAPE] = fields
    head[:, HASH : HASH + 2] = hashes.view(np.int64)
    octets = head.view(np.uint8).reshape(len(ids), HEADER_BYTES)
    for row in range(len(ids)):  # new keys only
        start = ids.starts[row]
        end = min(ids.ends[row], start + ID_BYTES)
        octets[row, 8 * ID : 8 * ID + end - start] = ids.data[start:end]
    return head


def identity_of(block: bytes) -> str:
    """The id of the key that a block is of, or the first bytes of it, for a person."""
    if block[:8] == MAGIC_2.to_bytes(8, "little"):
        return readable(block[32:64].rstrip(b"\0"))
    return readable(block[8 * ID : 8 * ID + ID_BYTES].rstrip(b"\0"))


def readable(identity: bytes) -> str:
    """A key's id, or the first bytes of it, for a person."""
    parts = []
    while len(identity) > 5 and identity[:1] in b"is":
        kind, size = identity[:1], int.from_bytes(identity[1:5], "little")
        part = identity[5 : 5 + size]
        identity = identity[5 + size :]
        parts.append(str(int.from_bytes(part, "little", signed=True)) if kind == b"i" else part.decode(errors="replace"))
    return ", ".join(parts)


@compiled(makes_arrays=False)
def word_until(data: Octets, end: int) -> int:
    """The eight bytes before a place, as a number."""
    word = np.int64(0)
    for place in range(8):
        word |= np.int64(data[np.uint64(end - 8 + place)]) << 8 * place
    return word  # type: ignore[return-value]


@compiled(makes_arrays=False)
def word_at(data: Octets, at: int, octets: int) -> int:
    """The number that so many octets of a block hold; below zero only if it takes eight. There are eight before its end."""
    return np.int64(np.uint64(word_until(data, at + octets)) >> np.uint64(8 * (8 - octets)))  # type: ignore[return-value]


@compiled(makes_arrays=False)
def octets_of(shape: int, field: int) -> int:
    """How many bytes a field of a record takes."""
    return shape >> 16 + 4 * field & 15 if field < SHAPED else 8


@compiled(makes_arrays=False)
def has_sizes(shape: int) -> bool:
    """Whether a shape says how many bytes its fields take: that of a block of format 2 does not, nor that of none."""
    return shape >> 16 != 0


@compiled(makes_arrays=False)
def record_bytes_of(shape: int) -> int:
    """How many bytes a record takes."""
    fields = shape & 0xFFFF
    if not has_sizes(shape):
        return 8 * fields
    octets = SEAL_BYTES
    for field in range(fields):
        octets += octets_of(shape, field)
    return octets


@compiled(makes_arrays=False)
def header_seal(data: Octets, at: int) -> int:
    """The seal that a header should have."""
    crc = BEGINNING
    for word in range(HEADER_WORDS - 1):
        crc = sealed(crc, word_at(data, at + 8 * word, 8), 8)
    return sealed(crc, word_at(data, at + HEADER_BYTES - 8, 6), 6)
