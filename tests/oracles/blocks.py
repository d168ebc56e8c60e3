"""A block as the page for readers in other languages has it, octet by octet: slower than `transforms/block.py`, and more obvious."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HEADER_BYTES = 64


def crc16(octets: bytes | bytearray) -> int:
    """CCITT, lowest bit first, from 0xFFFF: bit by bit."""
    found = 0xFFFF
    for octet in octets:
        found ^= octet
        for _ in range(8):
            found = found >> 1 ^ (0x8408 if found & 1 else 0)
    return found


@dataclass(frozen=True, slots=True)
class Shape:
    """What a header says of its records."""

    header: bytes
    sizes: tuple[int, ...]  # in bytes, of each field
    position: int  # positions + 1 and times are counted from here
    time_ms: int

    @classmethod
    def of(cls, block: bytes | bytearray) -> Shape:
        """That of a block of format 3, whose header is what was written."""
        magic, fields, sizes, _, position, time_ms, _, seal = struct.unpack_from("<8sH6s16sqq14sH", block)
        assert magic == b"MILLRC\0\3"
        assert seal == crc16(block[:62])
        nibbles = [octet >> shift & 15 for octet in sizes for shift in (0, 4)]
        assert not any(nibbles[fields:])
        return cls(bytes(block[:HEADER_BYTES]), tuple(nibbles[:fields]) + (8,) * (fields - 12), position, time_ms)

    @property
    def record_bytes(self) -> int:
        """How much one record takes."""
        return sum(self.sizes) + 2

    def record(self, octets: bytes | bytearray) -> list[int]:
        """Position + 1, time and values of a record, which is what was written."""
        assert int.from_bytes(octets[-2:], "little") == crc16(self.header[:62] + octets[:-2])
        found, at = [], 0
        for field, size in enumerate(self.sizes):
            found.append(int.from_bytes(octets[at : at + size], "little", signed=field > 1))
            at += size
        assert found[0] > 0
        assert found[1] > 0
        return [found[0] + self.position, found[1] + self.time_ms, *found[2:]]

    def records(self, data: bytes | bytearray) -> list[list[int]]:
        """Those of a stretch of whole ones, up to the room behind them."""
        size = self.record_bytes
        assert len(data) % size == 0
        rows = [data[at : at + size] for at in range(0, len(data), size)]
        while rows and not any(rows[-1]):
            rows.pop()
        return [self.record(row) for row in rows]


def records_of(block: bytes | bytearray) -> list[list[int]]:
    """Position + 1, time and values of each record of a block."""
    return Shape.of(block).records(block[HEADER_BYTES:])


def block_of_format_2(key: bytes, identity: bytes, records: Sequence[Sequence[int]]) -> bytes:
    """A block as it was before records got narrow; `records` as `records_of` gives them, `key` the 16 bytes of the hash."""
    head = struct.pack("<8sII16s32s", b"MILLRC\0\2", len(records[0]), len(identity), key, identity[:32])
    found = [head]
    for position, *rest in records:
        words = struct.pack(f"<{len(rest) + 1}q", position, *rest)
        found.append(struct.pack("<Q", position | crc16(key + words) << 48) + words[8:])
    return b"".join(found)
