"""The encode kernel: runs one program over each row's words, into Avro's bytes.

A row of the program is ``(op, slot, a, b)``. Slot s is a column of 64-bit words, one for each row, or for each item of an array; texts
take two slots, where they start and end in the buffer. What is alike in all rows was put together into literals beforehand.

    op        slot          a                 b                 puts out
    END                                                         nothing: the row is done
    LITERAL                 its start         its size          bytes that are alike in every row
    VARINT    value                                             an int, a long or an enum's index
    FLOAT     bits                                              4 bytes
    DOUBLES   first bits    how many slots                      8 bytes a slot
    BOOLEAN   value                                             one byte
    TEXT      start, end                                        a length and bytes
    RAW       start, end                                        bytes
    DECIMAL   value         size, -1 = any                      a big-endian two's-complement number
    OPTION    valid         index of null     where to go       a union's index, and on null nothing more
    ARRAY     start, end                      its NEXT          how many items there are
    NEXT                                      its first item    a zero after the last item
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Octets
from schemas.compiled import compiled
from schemas.decode_kernel import Integer

END: Final = 0
LITERAL: Final = 1
VARINT: Final = 2
FLOAT: Final = 3
DOUBLES: Final = 4
BOOLEAN: Final = 5
TEXT: Final = 6
RAW: Final = 7
DECIMAL: Final = 8
OPTION: Final = 9
ARRAY: Final = 10
NEXT: Final = 11

MOST_VARINT_BYTES: Final = 10
STACK_WORDS: Final = 64
_FRAME_WORDS: Final = 3


@compiled()
def _put_varint(out: Octets, at: Integer, value: Integer) -> Integer:
    """Write a zigzag varint; where it ends."""
    rest = (value << 1) ^ (value >> 63)
    while rest & -128 != 0:
        out[at] = rest & 127 | 128
        at += 1
        rest = (rest >> 7) & 0x01FFFFFFFFFFFFFF
    out[at] = rest
    return at + 1


@compiled()
def _put_word(out: Octets, at: Integer, word: Integer) -> None:
    """Write 8 bytes, lowest first: one store once compiled, since an unsigned place can't count from the end."""
    place = np.uint64(at)
    out[place] = word & 255
    out[place + np.uint64(1)] = (word >> 8) & 255
    out[place + np.uint64(2)] = (word >> 16) & 255
    out[place + np.uint64(3)] = (word >> 24) & 255
    out[place + np.uint64(4)] = (word >> 32) & 255
    out[place + np.uint64(5)] = (word >> 40) & 255
    out[place + np.uint64(6)] = (word >> 48) & 255
    out[place + np.uint64(7)] = (word >> 56) & 255


@compiled()
def _decimal_bytes(value: Integer) -> Integer:
    """How many bytes a two's-complement number takes."""
    size = 1
    while size < 8 and value >> (8 * size - 1) != value >> 63:
        size += 1
    return size


def straight_bytes(code: list[list[int]]) -> int:
    """The most that one pass through a program can put out, texts aside."""
    most = 0
    for op, _, a, b in code:
        most += b if op == LITERAL else 8 * a if op == DOUBLES else MOST_VARINT_BYTES + (max(a, 0) if op == DECIMAL else 0)
    return most


@compiled(
    "int64(const uint8[::1], const int64[::1], const int64[::1], const int64[:, ::1], const uint8[::1], const int64[::1], "
    "uint8[::1], int64[::1], int64[::1], int64, int64)",
    makes_arrays=False,
)
def encode(
    data: Octets,  # what texts point into
    words: Ints,  # all slots
    base: Ints,  # (slots,) where each slot's words start in `words`
    code: NDArray[np.int64],  # (rows, 4) the program
    literals: Octets,
    rows: Ints,  # (m,) which rows
    out: Octets,  # the bytes
    ends: Ints,  # (m,) where each row ends in `out`
    stack: Ints,  # (STACK_WORDS,) room to work in
    most_bytes: int,  # that one pass through the program can put out, texts aside
    first: int,
) -> int:
    """Encode rows from `first` on; the number done so far: fewer than m if `out` has no room for the next."""
    at: Integer = ends[first - 1] if first > 0 else 0
    for row in range(first, len(rows)):
        index: Integer = rows[row]
        pc: Integer = 0
        depth: Integer = 0
        if most_bytes > len(out) - at:
            return row
        while True:
            op = code[pc, 0]
            slot = code[pc, 1]
            a = code[pc, 2]
            if op == LITERAL:
                for i in range(code[pc, 3]):
                    out[at + i] = literals[a + i]
                at += code[pc, 3]
                pc += 1
            elif op == DOUBLES:
                for i in range(a):
                    _put_word(out, at, words[base[slot + i] + index])
                    at += 8
                pc += 1
            elif op == VARINT:
                at = _put_varint(out, at, words[base[slot] + index])
                pc += 1
            elif op in (TEXT, RAW):
                start = words[base[slot] + index]
                size: Integer = words[base[slot + 1] + index] - start
                if size + most_bytes > len(out) - at:
                    return row
                if op == TEXT:
                    at = _put_varint(out, at, size)
                for i in range(size):
                    out[at + i] = data[start + i]
                at += size
                pc += 1
            elif op == FLOAT:
                word = words[base[slot] + index]
                place = np.uint64(at)
                for i in range(4):
                    out[place + np.uint64(i)] = (word >> (8 * i)) & 255
                at += 4
                pc += 1
            elif op == BOOLEAN:
                out[at] = 1 if words[base[slot] + index] != 0 else 0
                at += 1
                pc += 1
            elif op == OPTION:
                if words[base[slot] + index] != 0:
                    out[at] = 2 - 2 * a
                    pc += 1
                else:
                    out[at] = 2 * a
                    pc = code[pc, 3]
                at += 1
            elif op == ARRAY:
                start = words[base[slot] + index]
                end = words[base[slot + 1] + index]
                if end > start:
                    at = _put_varint(out, at, end - start)
                stack[depth] = index
                stack[depth + 1] = start
                stack[depth + 2] = end
                depth += _FRAME_WORDS
                pc = code[pc, 3]
            elif op == NEXT:
                start = stack[depth - 2]
                if most_bytes > len(out) - at:
                    return row
                if start < stack[depth - 1]:
                    stack[depth - 2] = start + 1
                    index = start
                    pc = code[pc, 3]
                else:
                    out[at] = 0
                    at += 1
                    depth -= _FRAME_WORDS
                    index = stack[depth]
                    pc += 1
            elif op == DECIMAL:
                word = words[base[slot] + index]
                size = a
                if a < 0:
                    size = _decimal_bytes(word)
                    at = _put_varint(out, at, size)
                for i in range(size):
                    shift = min(8 * (size - 1 - i), 63)
                    out[at + i] = (word >> shift) & 255
                at += size
                pc += 1
            else:
                break
        ends[row] = at
    return len(rows)
