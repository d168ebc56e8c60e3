"""The programs of the codec: what the decode kernel does for each writer's schema, as rows of integers.

A program is compiled from a writer's and a reader's schema (`schemas/resolve.py`) and run once a record
(`schemas/decode_kernel.py`). A row is ``(op, slot, a, b, c)``. Every value goes into 64-bit words: *slot* s of *domain* d is a
column of words, one for each record (domain 0) or for each item of an array (a domain of its own). Texts take two slots, where they
start and end in the buffer. Slots 0 and 1 are scratch: what the reader does not want is read like all else, and lands there.

    op             slot          a                  b                c              takes from the bytes
    END                                                                             nothing: the record is done
    BOOLEAN        value                                                            one byte, 0 or 1
    INT            value                                                            a varint of 32 bits
    LONG           value                                                            a varint of 64 bits
    INT_AS_FLOAT   bits          wide: 64 bits      double: 64 bits                 a varint, for a reader's float or double
    FLOAT          bits                                                             4 bytes
    FLOAT_AS_DOUBLE bits                                                            4 bytes, for a reader's double
    DOUBLE         bits                                                             8 bytes
    TEXT           start, end                                                       a length and bytes that must be UTF-8
    BYTES          start, end                                                       a length and bytes
    FIXED          start, end    size                                               bytes
    DECIMAL        value         size, -1 = given                                   a two's-complement number of at most 64 bits
    ENUM           code          table of codes     symbols                         a varint
    OPTION         valid         index of null      where to go on null             a union's index, 0 or 1
    UNION                        table of places    branches                        a union's index; goes to its branch
    VALID          valid         0 or 1                                             nothing
    JUMP                         where to go                                        nothing
    REFUSE                       reject code                                        nothing: the record is refused
    ARRAY          start, end    domain, -1 = none  its NEXT                        nothing: goes to NEXT
    NEXT                         domain, -1 = none  its first item   least bytes    a block's count where one begins; goes to the
                                                                     of an item     item, or on after the last
    START          start                                                            nothing: notes where an opaque value starts
    STOP           end                                                              nothing: notes where it ends
    CALL                         where to go                                        nothing: a recursive type's routine
    RETURN                                                                          nothing
    POOL                         start in the pool  its size                        nothing: reads a default value from the pool
    LEAVE                                                                           nothing: back to the record's own bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

END: Final = 0
BOOLEAN: Final = 1
INT: Final = 2
LONG: Final = 3
INT_AS_FLOAT: Final = 4
FLOAT: Final = 5
FLOAT_AS_DOUBLE: Final = 6
DOUBLE: Final = 7
TEXT: Final = 8
BYTES: Final = 9
FIXED: Final = 10
DECIMAL: Final = 11
ENUM: Final = 12
OPTION: Final = 13
UNION: Final = 14
VALID: Final = 15
JUMP: Final = 16
REFUSE: Final = 17
ARRAY: Final = 18
NEXT: Final = 19
START: Final = 20
STOP: Final = 21
CALL: Final = 22
RETURN: Final = 23
POOL: Final = 24
LEAVE: Final = 25

SCRATCH: Final = 0  # slots 0 and 1
FIRST_SLOT: Final = 2
NO_DOMAIN: Final = -1

Code = NDArray[np.int64]


class Program(NamedTuple):
    """What the kernel reads: the rows of all programs, the tables they point into, and the bytes of default values."""

    code: Code  # shape (rows, 5)
    tables: NDArray[np.int64]
    pool: NDArray[np.uint8]


class Assembler:
    """Collects the programs of one reader's writers, one after the other."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.paths: list[str] = []  # of each row: the field it reads, for messages
        self.tables: list[int] = []
        self.pool = bytearray()
        self._path: list[str] = []

    @property
    def here(self) -> int:
        """Where the next row will stand."""
        return len(self.rows)

    @property
    def path(self) -> str:
        """The field being compiled."""
        return ".".join(self._path)

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Compile what belongs to a field."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    def emit(self, op: int, slot: int = SCRATCH, a: int = 0, b: int = 0, c: int = 0) -> int:
        """Append a row and tell where it stands."""
        self.rows.append([op, slot, a, b, c])
        self.paths.append(self.path)
        return self.here - 1

    def table(self, entries: list[int]) -> int:
        """Append a table and tell where it starts."""
        self.tables.extend(entries)
        return len(self.tables) - len(entries)

    def keep(self, data: bytes) -> int:
        """Append bytes to the pool and tell where they start."""
        self.pool += data
        return len(self.pool) - len(data)

    def forget(self, here: int) -> None:
        """Drop the rows from one place on: what was begun can't be finished."""
        del self.rows[here:], self.paths[here:]

    def assembled(self) -> Program:
        """All programs so far."""
        code = np.array(self.rows or [[END, 0, 0, 0, 0]], np.int64)
        return Program(code, np.array(self.tables or [0], np.int64), np.frombuffer(bytes(self.pool), np.uint8))
