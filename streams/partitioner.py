"""Whether records lie in the partition that their key belongs to: the one that Java's client, and our producers, would have chosen.

Features are exact however a topic is partitioned, as long as all events of an entity are in one partition. A producer with another
partitioner among those that write the topic (librdkafka's own default is CRC32) breaks that: the same customer then has two pasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled

SAMPLE_RECORDS = 32  # looked at in each partition of a batch

_SEED: Final = 0x9747B28C
_MIX: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


def misplaced(keys: Sequence[bytes | None], partition: int, partitions: int) -> tuple[int, int]:
    """Of a sample of the keys found in a partition: how many were looked at, and how many belong elsewhere. Null keys belong anywhere."""
    stride = -(-len(keys) // SAMPLE_RECORDS) or 1
    sample = PackedBytes.pack([key for key in keys[::stride] if key is not None])
    return len(sample), _elsewhere(sample.data, sample.starts, sample.ends, partition, partitions)


def partitions_of(keys: PackedBytes, partitions: int) -> Ints:
    """Shape (n,): the partition that records of these keys belong to, of so many."""
    found = np.empty(len(keys), np.int64)
    _place(keys.data, keys.starts, keys.ends, partitions, found)
    return found


@compiled("void(const uint8[::1], const int64[::1], const int64[::1], int64, int64[::1])", makes_arrays=False)
def _place(data: Octets, starts: Ints, ends: Ints, partitions: int, found: Ints) -> None:
    for row in range(len(starts)):
        found[row] = (_murmur2(data, starts[row], ends[row]) & 0x7FFFFFFF) % partitions


@compiled("int64(const uint8[::1], const int64[::1], const int64[::1], int64, int64)", makes_arrays=False)
def _elsewhere(data: Octets, starts: Ints, ends: Ints, partition: int, partitions: int) -> int:
    found = 0
    for row in range(len(starts)):
        if (_murmur2(data, starts[row], ends[row]) & 0x7FFFFFFF) % partitions != partition:
            found += 1
    return found


@compiled(makes_arrays=False)
def _murmur2(data: Octets, start: int, end: int) -> int:
    """MurmurHash2 as Kafka's Java client computes it; products of a word and the multiplier stay below 2**63."""
    found = _SEED ^ (end - start)
    at = start
    while at + 4 <= end:
        word = (
            int(np.int64(data[at]))
            | int(np.int64(data[at + 1])) << 8
            | int(np.int64(data[at + 2])) << 16
            | int(np.int64(data[at + 3])) << 24
        )
        word = (word * _MIX) & _WORD
        word = ((word ^ (word >> 24)) * _MIX) & _WORD
        found = ((found * _MIX) & _WORD) ^ word
        at += 4
    if at < end:
        for place in range(end - 1, at - 1, -1):
            found ^= int(np.int64(data[place])) << (8 * (place - at))
        found = (found * _MIX) & _WORD
    found ^= found >> 13
    found = (found * _MIX) & _WORD
    return found ^ (found >> 15)
