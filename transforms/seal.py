"""The seal: a CRC-16 (CCITT, lowest bit first), octet after octet."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import compiled

BEGINNING: Final = 0xFFFF  # the CRC of nothing


def _tables() -> NDArray[np.int64]:
    """Shape (8 x 256,): what an octet does to the CRC that so many more octets follow, none of them first."""
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


@compiled(makes_arrays=False)
def sealed(crc: int, word: int, octets: int) -> int:
    """A CRC with the first `octets` of a word's eight in it as well.

    They are moved to the word's end: zeros before the first octet leave a CRC of zero as it is.
    """
    moved = (word ^ crc) << 8 * (8 - octets)
    found = _TABLES[1792 + (moved & 255)] ^ _TABLES[1536 + (moved >> 8 & 255)]
    found ^= _TABLES[1280 + (moved >> 16 & 255)] ^ _TABLES[1024 + (moved >> 24 & 255)]
    found ^= _TABLES[768 + (moved >> 32 & 255)] ^ _TABLES[512 + (moved >> 40 & 255)]
    found ^= _TABLES[256 + (moved >> 48 & 255)] ^ _TABLES[moved >> 56 & 255]
    return found ^ crc >> 8 if octets == 1 else found  # type: ignore[no-any-return]
