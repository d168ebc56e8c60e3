"""Redis' wire format: commands as bytes, and replies found in bytes, without a Python object for each.

A batch of some thousand commands is laid out by one compiled loop, and its replies are looked through by another: every one is
read, since a command that fails inside a transaction says so only in its own reply (`docs/decisions/0005-read-every-reply.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Octets, PackedBytes
from schemas.compiled import compiled
from transforms.store import WHOLE_BLOCK, Writes

HASH_DIGITS: Final = 32  # of a key's hash, its 16 bytes in hexadecimal
_MOST_AROUND_BYTES: Final = 64  # in a command, beside its head, its key's hash and its data: two numbers and their frames
_KEYS_AT_ONCE: Final = 500  # in one MGET: other clients wait while it runs

SIMPLE: Final = ord("+")
ERROR: Final = ord("-")
NUMBER: Final = ord(":")
BULK: Final = ord("$")
ARRAY: Final = ord("*")
NULL: Final = ord("_")

COMPLETE: Final = 0
MORE_BYTES: Final = 1
MORE_ROOM: Final = 2
GARBLED: Final = 3

AT: Final = 0  # in a scan's progress: the first byte not looked at
PENDING: Final = 1  # replies and elements still to come
COUNT: Final = 2  # found so far


class GarbledError(Exception):
    """These bytes are no replies."""


def command(*parts: bytes) -> bytes:
    """One command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def pack_writes(prefix: bytes, writes: Writes) -> Octets:
    """One SETRANGE or SET for each row; a block's key is the prefix and its hash in hexadecimal."""
    key = b"$%d\r\n%s" % (len(prefix) + HASH_DIGITS, prefix)
    part, whole = b"*4\r\n$8\r\nSETRANGE\r\n" + key, b"*3\r\n$3\r\nSET\r\n" + key
    data = writes.data
    sizes_bytes = int((data.ends - data.starts).sum())
    out = np.empty(sizes_bytes + len(data) * (len(part) + HASH_DIGITS + _MOST_AROUND_BYTES), np.uint8)
    size_bytes = _pack_writes(
        np.frombuffer(part, np.uint8),
        np.frombuffer(whole, np.uint8),
        _octets(writes.keys),
        np.ascontiguousarray(writes.at),
        data.data,
        np.ascontiguousarray(data.starts),
        np.ascontiguousarray(data.ends),
        out,
    )
    return out[:size_bytes]


def pack_reads(prefix: bytes, keys: NDArray[np.uint64]) -> tuple[bytes, int]:
    """MGET for all keys, in several commands if they are many; and how many commands."""
    head = b"$%d\r\n%s" % (len(prefix) + HASH_DIGITS, prefix)
    row_bytes = len(head) + HASH_DIGITS + 2
    out = np.empty(len(keys) * row_bytes, np.uint8)
    _pack_keys(np.frombuffer(head, np.uint8), _octets(keys), out)
    rows = out.tobytes()
    parts = []
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        last = min(first + _KEYS_AT_ONCE, len(keys))
        parts += [b"*%d\r\n$4\r\nMGET\r\n" % (last - first + 1), rows[first * row_bytes : last * row_bytes]]
    return b"".join(parts), len(parts) // 2


@dataclass(frozen=True, slots=True)
class Replies:
    """Replies as they came: element i is a `kind` and the stretch ``data[starts[i]:ends[i]]``.

    An array stands as its own element, with its length for a stretch's start, before its elements.
    """

    data: Octets
    kinds: NDArray[np.uint8]  # shape (n,)
    starts: Ints  # shape (n,)
    ends: Ints  # shape (n,)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, element: int) -> bytes | None:
        """The bytes of an element; None for a null."""
        if self.kinds[element] == NULL:
            return None
        return self.data[self.starts[element] : self.ends[element]].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        """The elements that aren't arrays."""
        return (self[element] for element in np.flatnonzero(self.kinds != ARRAY).tolist())

    def error(self, elements: slice = slice(None)) -> str | None:
        """The first error among these elements, in the server's words."""
        bad = np.flatnonzero(self.kinds[elements] == ERROR)
        if not len(bad):
            return None
        return (self[range(len(self))[elements][int(bad[0])]] or b"").decode(errors="replace")

    def blocks(self, count: int) -> PackedBytes:
        """The first `count` values of the arrays that stand first, an empty stretch for a null; shares the buffer."""
        values = np.flatnonzero(self.kinds != ARRAY)[:count]
        return PackedBytes(self.data, self.starts[values], self.ends[values])


class Incoming:
    """The replies to what was sent, as they come in.

    Args:
        replies: how many are awaited.
        elements: room for these many to begin with: replies, and elements of arrays.
    """

    def __init__(self, replies: int, elements: int = 64) -> None:
        self._data = np.empty(1 << 16, np.uint8)
        self._end = 0
        self._progress = np.array([0, replies, 0], np.int64)
        self._kinds = np.empty(elements, np.uint8)
        self._starts = np.empty(elements, np.int64)
        self._ends = np.empty(elements, np.int64)

    @property
    def is_complete(self) -> bool:
        """Whether all that is awaited has come."""
        return bool(self._progress[PENDING] == 0)

    def room(self) -> memoryview:
        """Where the next bytes go."""
        if self._end == len(self._data):
            self._data = np.concatenate((self._data, np.empty_like(self._data)))
        return self._data[self._end :].data

    def take(self, size_bytes: int) -> None:
        """These many bytes have come into the room.

        Raises:
            GarbledError: they are no replies.
        """
        self._end += size_bytes
        while (found := _scan(self._data, self._end, self._progress, self._kinds, self._starts, self._ends)) == MORE_ROOM:
            self._kinds = np.concatenate((self._kinds, np.empty_like(self._kinds)))
            self._starts = np.concatenate((self._starts, np.empty_like(self._starts)))
            self._ends = np.concatenate((self._ends, np.empty_like(self._ends)))
        at = int(self._progress[AT])
        if found == GARBLED or (found == COMPLETE and at != self._end):
            raise GarbledError(f"{self._data[at : min(at + 40, self._end)].tobytes()!r} is no reply that was asked for")

    def replies(self) -> Replies:
        """What has come."""
        count = int(self._progress[COUNT])
        return Replies(self._data, self._kinds[:count], self._starts[:count], self._ends[:count])


def _octets(keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(keys, np.uint64).view(np.uint8).reshape(len(keys), 16)


@compiled()
def _put(out: Octets, at: int, data: Octets, start: int, end: int) -> int:
    for place in range(start, end):
        out[at] = data[place]
        at += 1
    return at


@compiled()
def _put_end(out: Octets, at: int) -> int:
    out[at] = 13
    out[at + 1] = 10
    return at + 2


@compiled()
def _digits(number: int) -> int:
    digits = 1
    while number >= 10:
        number //= 10
        digits += 1
    return digits


@compiled()
def _put_number(out: Octets, at: int, number: int) -> int:
    after = at + _digits(number)
    for place in range(after - 1, at - 1, -1):
        out[place] = 48 + number % 10
        number //= 10
    return _put_end(out, after)


@compiled()
def _digit(number: int) -> int:
    return number + (48 if number < 10 else 87)


@compiled()
def _put_hash(out: Octets, at: int, octets: Octets) -> int:
    for octet in octets:
        out[at] = _digit(octet >> 4)
        out[at + 1] = _digit(octet & 15)
        at += 2
    return _put_end(out, at)


@compiled(
    "int64(const uint8[::1], const uint8[::1], const uint8[:, ::1], const int64[::1], "
    "const uint8[::1], const int64[::1], const int64[::1], uint8[::1])"
)
def _pack_writes(
    part: Octets, whole: Octets, keys: NDArray[np.uint8], at: Ints, data: Octets, starts: Ints, ends: Ints, out: Octets
) -> int:
    to = 0
    for row in range(len(at)):
        if at[row] == WHOLE_BLOCK:
            to = _put(out, to, whole, 0, len(whole))
            to = _put_hash(out, to, keys[row])
        else:
            to = _put(out, to, part, 0, len(part))
            to = _put_hash(out, to, keys[row])
            out[to] = BULK
            to = _put_number(out, to + 1, _digits(at[row]))
            to = _put_number(out, to, at[row])
        out[to] = BULK
        to = _put_number(out, to + 1, ends[row] - starts[row])
        to = _put(out, to, data, starts[row], ends[row])
        to = _put_end(out, to)
    return to


@compiled("void(const uint8[::1], const uint8[:, ::1], uint8[::1])")
def _pack_keys(head: Octets, keys: NDArray[np.uint8], out: Octets) -> None:
    to = 0
    for row in range(len(keys)):
        to = _put(out, to, head, 0, len(head))
        to = _put_hash(out, to, keys[row])


@compiled("int64(const uint8[::1], int64, int64[::1], uint8[::1], int64[::1], int64[::1])")
def _scan(data: Octets, end: int, progress: Ints, kinds: NDArray[np.uint8], starts: Ints, ends: Ints) -> int:
    """Go on where the last scan stopped. An array's elements are awaited like replies, so nesting needs no stack."""
    at = progress[AT]
    pending = progress[PENDING]
    count = progress[COUNT]
    found = COMPLETE
    while pending > 0:
        line = at + 1
        while line < end and data[line] != 10:
            line += 1
        if line >= end:
            found = MORE_BYTES
            break
        if count == len(kinds):
            found = MORE_ROOM
            break
        kind = data[at]
        start = at + 1
        stop = line - 1
        after = line + 1
        if kind in (BULK, ARRAY):
            null = data[start] == 45  # "-1"
            number = 0
            for place in range(start + (1 if null else 0), stop):
                digit = int(np.int64(data[place])) - 48
                if digit < 0 or digit > 9 or number > 1 << 40:
                    found = GARBLED
                number = number * 10 + digit
            if found == GARBLED:
                break
            if null:
                kind = np.uint8(NULL)
                start = stop = 0
            elif kind == ARRAY:
                pending += number
                start = stop = number
            else:
                start = after
                stop = after + number
                after = stop + 2
                if after > end:
                    found = MORE_BYTES
                    break
        elif kind not in (SIMPLE, ERROR, NUMBER):
            found = GARBLED
            break
        kinds[count] = kind
        starts[count] = start
        ends[count] = stop
        count += 1
        pending -= 1
        at = after
    progress[AT] = at
    progress[PENDING] = pending
    progress[COUNT] = count
    return found
