"""The decode kernel: runs each record's program (`schemas/program.py`) over its bytes, into columns of 64-bit words.

It trusts no byte: every read is checked against the record's end, every length and index against what it can be, and the work a
record can cause is bounded by its size. A record it refuses leaves zeros in its row, and nothing elsewhere.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Octets
from schemas.compiled import compiled
from schemas.program import (
    ARRAY,
    BOOLEAN,
    BYTES,
    CALL,
    DECIMAL,
    DOUBLE,
    END,
    ENUM,
    FIXED,
    FLOAT,
    FLOAT_AS_DOUBLE,
    INT,
    INT_AS_FLOAT,
    JUMP,
    LEAVE,
    LONG,
    NEXT,
    OPTION,
    POOL,
    REFUSE,
    RETURN,
    START,
    STOP,
    TEXT,
    UNION,
    VALID,
)

# `Reject` codes: a kernel takes plain numbers.
_TOMBSTONE: Final = 1
_EMPTY_VALUE: Final = 2
_BAD_MAGIC: Final = 3
_TRUNCATED: Final = 4
_MALFORMED: Final = 5
_TRAILING_BYTES: Final = 6
_BAD_UTF8: Final = 7
_BAD_ENUM: Final = 8
_BAD_UNION: Final = 9
_BAD_BOOLEAN: Final = 10
_OUT_OF_RANGE: Final = 12
_UNKNOWN_SCHEMA: Final = 20
_UNKNOWN_SYMBOL: Final = 22

PREFIX: Final = -2  # in place of a schema's id: the value begins with it
UNREADABLE: Final = -1  # in place of a program's start, for a writer whose schema can't be resolved
_UNREADABLE_SCHEMA: Final = 21

HEADER_BYTES: Final = 5  # Confluent's wire format: a zero, then the schema's id, big-endian
MOST_EMPTY_ITEMS: Final = 65_536  # a record; items of no bytes cost their writer nothing, and us memory
STACK_WORDS: Final = 512  # arrays and recursive values inside each other: about 70 deep
_FRAME_WORDS: Final = 6  # of an array; fewer for the others

Integer: TypeAlias = "int | np.int64"

_HIGH_BITS: Final = -0x7F7F7F7F7F7F7F80  # 0x80 in each of eight bytes
_MOST_INT: Final = (1 << 31) - 1
_LEAST_INT: Final = -(1 << 31)


@compiled()
def _half_word(data: Octets, at: Integer) -> Integer:
    """4 bytes, lowest first: one load once compiled, since an unsigned place can't count from the end."""
    place = np.uint64(at)
    low = np.int64(data[place]) | np.int64(data[place + np.uint64(1)]) << 8
    return low | np.int64(data[place + np.uint64(2)]) << 16 | np.int64(data[place + np.uint64(3)]) << 24


@compiled()
def _word(data: Octets, at: Integer) -> Integer:
    """8 bytes, lowest first."""
    return _half_word(data, at) | _half_word(data, at + 4) << 32


@compiled()
def _varint(data: Octets, at: Integer, end: Integer) -> tuple[Integer, Integer]:
    """The integer at `at` and where it ends; in place of that, minus the code of what is wrong with it."""
    value: Integer = np.int64(0)
    shift = np.int64(0)
    while True:
        if at >= end:
            return value, -_TRUNCATED
        octet = np.int64(data[at])
        at += 1
        if shift == 63 and octet > 1:
            return value, -_MALFORMED
        value |= (octet & 127) << shift
        if octet < 128:
            return ((value >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), at
        shift += 7


@compiled()
def _is_utf8(data: Octets, at: Integer, end: Integer) -> bool:
    """Whether bytes are UTF-8 as RFC 3629 has it: shortest forms only, no surrogates, nothing above U+10FFFF."""
    while at + 8 <= end and _word(data, at) & _HIGH_BITS == 0:
        at += 8
    while at < end:
        lead = np.int64(data[at])
        at += 1
        if lead < 128:
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 + np.int64(lead >= 0xE0) + np.int64(lead >= 0xF0)
        if at + more > end:
            return False
        least = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
        most = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
        if data[at] < least or data[at] > most:
            return False
        for i in range(1, more):
            if data[at + i] & 0xC0 != 0x80:
                return False
        at += more
    return True


@compiled()
def _signed(data: Octets, at: Integer, size: Integer) -> tuple[Integer, bool]:
    """A big-endian two's-complement number of at least one byte, and whether 64 bits hold it."""
    sign = -np.int64(data[at] >> 7)
    value: Integer = sign
    fits = True
    for i in range(size):
        octet = np.int64(data[at + i])
        if i + 8 < size and octet != sign & 255:
            fits = False
        if i + 8 == size and octet >> 7 != sign & 1:
            fits = False
        value = value << 8 | octet
    return value, fits


@compiled(
    "int64(const uint8[::1], const int64[::1], const int64[::1], const boolean[::1], int64, const int64[::1], const int64[::1], "
    "const int64[::1], const int64[:, ::1], const int64[::1], int64, const int64[::1], const int64[::1], const int64[::1], "
    "int64[::1], int64[::1], uint8[::1], int32[::1], int64[::1], int64[:, ::1], int64)",
    makes_arrays=False,
)
def decode(
    data: Octets,  # the records' bytes, then the pool
    starts: Ints,  # (n,) of each record
    ends: Ints,  # (n,)
    absent: NDArray[np.bool_],  # (n,) records without a value
    framed: int,  # 1: each value begins with its schema's id; 2: `numbers` says of each record
    numbers: Ints,  # (n,) if framed is 2: the schema's id, or PREFIX: the value begins with it; -1 is the reader's own
    ids: Ints,  # (writers,) known schema ids; one of any value if not framed
    entries: Ints,  # (writers,) where their programs start, or UNREADABLE
    code: NDArray[np.int64],  # (rows, 5) the programs
    tables: Ints,
    pool_start: int,
    base: Ints,  # (slots,) where each slot's words start in `words`
    row_slots: Ints,  # the slots of the records' own domain
    room: Ints,  # (domains,) words each slot of a domain has
    used: Ints,  # (domains,) words used so far; of domain 0 nothing
    words: Ints,  # all slots
    rejected: Octets,  # (n,) reject codes
    schema_ids: NDArray[np.int32],  # (n,) -1 where there is none
    trouble: Ints,  # (2,) the last refusal: where in the program, where in the data
    scratch: NDArray[np.int64],  # (2, STACK_WORDS) room to work in; as many words at least as there are domains
    first: int,
) -> int:
    """Decode records from `first` on; the number done so far: fewer than n if a domain has no room left for an array's items."""
    stack = scratch[0]
    before = scratch[1]
    for domain in range(len(used)):
        before[domain] = used[domain]
    last = 0
    for row in range(first, len(starts)):
        at: Integer = starts[row]
        end: Integer = ends[row]
        pc: Integer = np.int64(-1)
        reject: Integer = 0
        schema_ids[row] = -1
        if absent[row]:
            reject = _TOMBSTONE
        elif at >= end:
            reject = _EMPTY_VALUE
        elif framed == 0:
            pc = entries[0]
        elif (framed == 1 or numbers[row] == PREFIX) and (data[at] != 0 or end - at < HEADER_BYTES):
            reject = _BAD_MAGIC
        else:
            if framed == 1 or numbers[row] == PREFIX:
                schema_id = (
                    np.int64(data[at + 1]) << 24 | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 8 | np.int64(data[at + 4])
                )
                at += HEADER_BYTES
            else:
                schema_id = numbers[row]
            schema_ids[row] = np.int32(schema_id if schema_id < 0 else schema_id - ((schema_id >> 31) << 32))
            if last >= len(ids) or ids[last] != schema_id:
                last = 0
                while last < len(ids) and ids[last] != schema_id:
                    last += 1
            if last == len(ids):
                reject = _UNKNOWN_SCHEMA
            elif entries[last] == UNREADABLE:
                reject = _UNREADABLE_SCHEMA
            else:
                pc = entries[last]
        index = np.int64(row)
        depth = np.int64(0)
        empty_items = np.int64(0)
        start = at
        while reject == 0:
            op = code[pc, 0]
            slot = code[pc, 1]
            a = code[pc, 2]
            b = code[pc, 3]
            place = base[slot] + (index if slot > 1 else 0)
            start = at
            if op in (TEXT, BYTES):
                size, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif size < 0:
                    reject = _MALFORMED
                elif size > end - at:
                    reject = _TRUNCATED
                elif op == TEXT and not _is_utf8(data, at, at + size):
                    reject = _BAD_UTF8
                else:
                    words[place] = at
                    at += size
                    words[base[slot + 1] + (index if slot > 1 else 0)] = at
                    pc += 1
            elif op == LONG:
                value, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                else:
                    words[place] = value
                    pc += 1
            elif op == DOUBLE:
                if end - at < 8:
                    reject = _TRUNCATED
                else:
                    words[place] = _word(data, at)
                    at += 8
                    pc += 1
            elif op == END:
                if at != end:
                    reject = _TRAILING_BYTES
                break
            elif op == INT:
                value, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif value > _MOST_INT or value < _LEAST_INT:
                    reject = _MALFORMED
                else:
                    words[place] = value
                    pc += 1
            elif op == OPTION:
                value, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif value < 0 or value > 1:
                    reject = _BAD_UNION
                elif value == a:
                    words[place] = 0
                    pc = b
                else:
                    words[place] = 1
                    pc += 1
            elif op == ENUM:
                value, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif value < 0 or value >= b:
                    reject = _BAD_ENUM
                elif tables[a + value] < 0:
                    reject = _UNKNOWN_SYMBOL
                else:
                    words[place] = tables[a + value]
                    pc += 1
            elif op == BOOLEAN:
                if at >= end:
                    reject = _TRUNCATED
                elif data[at] > 1:
                    reject = _BAD_BOOLEAN
                else:
                    words[place] = data[at]
                    at += 1
                    pc += 1
            elif op == FLOAT:
                if end - at < 4:
                    reject = _TRUNCATED
                else:
                    words[place] = _half_word(data, at)
                    at += 4
                    pc += 1
            elif op == FLOAT_AS_DOUBLE:
                if end - at < 4:
                    reject = _TRUNCATED
                else:
                    words[place] = np.float64(np.int32(_half_word(data, at)).view(np.float32)).view(np.int64)
                    at += 4
                    pc += 1
            elif op == INT_AS_FLOAT:
                value, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif a == 0 and (value > _MOST_INT or value < _LEAST_INT):
                    reject = _MALFORMED
                else:
                    if b == 1:
                        words[place] = np.float64(value).view(np.int64)
                    else:
                        words[place] = np.int64(np.float32(value).view(np.int32))
                    pc += 1
            elif op == FIXED:
                if end - at < a:
                    reject = _TRUNCATED
                else:
                    words[place] = at
                    at += a
                    words[base[slot + 1] + (index if slot > 1 else 0)] = at
                    pc += 1
            elif op == DECIMAL:
                size = a
                if a < 0:
                    size, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif size < 1:
                    reject = _MALFORMED
                elif size > end - at:
                    reject = _TRUNCATED
                else:
                    value, fits = _signed(data, at, size)
                    if fits:
                        words[place] = value
                        at += size
                        pc += 1
                    else:
                        reject = _OUT_OF_RANGE
            elif op == NEXT:
                # The frame on top: items left in the block, where the block must end (-1: unsaid), the index of the array's own row.
                if stack[depth - 1] == 0:
                    count, at = _varint(data, at, end)
                    block_end: Integer = np.int64(-1)
                    if at < 0:
                        reject = -at
                    elif stack[depth - 2] >= 0 and start != stack[depth - 2]:
                        reject = _MALFORMED
                    elif count == 0:
                        depth -= _FRAME_WORDS
                        index = stack[depth + 3]
                        if a >= 0:
                            array = stack[depth]
                            words[base[array + 1] + (index if array > 1 else 0)] = used[a]
                        pc += 1
                        continue
                    elif count < 0:
                        count = -count
                        size, at = _varint(data, at, end)
                        if at < 0:
                            reject = -at
                        elif count < 0 or size < 0:
                            reject = _MALFORMED
                        elif size > end - at:
                            reject = _TRUNCATED
                        block_end = at + size
                    if reject == 0:
                        least = code[pc, 4]
                        if least > 0 and count > (end - at) // least:
                            reject = _TRUNCATED
                        elif least == 0 and count > MOST_EMPTY_ITEMS - empty_items:
                            reject = _MALFORMED
                        elif least == 0:
                            empty_items += count
                        stack[depth - 1] = count
                        stack[depth - 2] = block_end
                if reject == 0:
                    stack[depth - 1] -= 1
                    if a >= 0:
                        if used[a] == room[a]:
                            for domain in range(len(used)):
                                used[domain] = before[domain]
                            return row
                        index = used[a]
                        used[a] += 1
                    pc = b
            elif op == ARRAY:
                if depth + _FRAME_WORDS > STACK_WORDS:
                    reject = _MALFORMED
                else:
                    if a >= 0:
                        words[place] = used[a]
                    stack[depth] = slot
                    stack[depth + 3] = index
                    stack[depth + 4] = -1
                    stack[depth + 5] = 0
                    depth += _FRAME_WORDS
                    pc = b
            elif op == UNION:
                value, at = _varint(data, at, end)
                if at < 0:
                    reject = -at
                elif value < 0 or value >= b:
                    reject = _BAD_UNION
                else:
                    pc = tables[a + value]
            elif op == VALID:
                words[place] = a
                pc += 1
            elif op == JUMP:
                pc = a
            elif op == REFUSE:
                reject = a
            elif op in (START, STOP):
                words[place] = at
                pc += 1
            elif op == CALL:
                if depth + _FRAME_WORDS > STACK_WORDS:
                    reject = _MALFORMED
                else:
                    stack[depth] = pc + 1
                    depth += _FRAME_WORDS
                    pc = a
            elif op == RETURN:
                depth -= _FRAME_WORDS
                pc = stack[depth]
            elif op == POOL:
                if depth + _FRAME_WORDS > STACK_WORDS:
                    reject = _MALFORMED
                else:
                    stack[depth] = at
                    stack[depth + 1] = end
                    depth += _FRAME_WORDS
                    at = pool_start + a
                    end = at + b
                    pc += 1
            elif op == LEAVE:
                depth -= _FRAME_WORDS
                at = stack[depth]
                end = stack[depth + 1]
                pc += 1
            else:
                reject = _MALFORMED
        rejected[row] = reject
        if reject != 0:
            trouble[0] = pc
            trouble[1] = start
            for slot in row_slots:
                words[base[slot] + row] = 0
            for domain in range(len(used)):
                used[domain] = before[domain]
        else:
            for domain in range(len(used)):
                before[domain] = used[domain]
    return len(starts)
