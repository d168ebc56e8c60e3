"""Compiles columns to what the encode kernel reads: a program, the words of all slots, and one buffer of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas import encode_kernel as op
from schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Record, Union, parse_type, write_value
from schemas.columns import Column, Columns, Constant, Ints, Mask, Nullable, Octets, PackedBytes, Ragged, Symbols
from schemas.default import varint
from schemas.layout import is_covered, is_small_decimal, items_of

_LIMITS = {"int": (-(1 << 31), (1 << 31) - 1), "long": (-(1 << 63), (1 << 63) - 1)}


class Scratch:
    """Words to work in, kept from batch to batch: fresh memory costs more than filling it."""

    def __init__(self) -> None:
        self._words = np.zeros(0, np.int64)

    def of(self, size: int) -> Ints:
        """So many words, which hold anything."""
        if size > len(self._words):
            self._words = np.zeros(size + size // 4, np.int64)
        return self._words[:size]


@dataclass
class EncodeProgram:
    """Collects a program while walking a schema and its columns.

    Attributes:
        named: the schema's named types.
        chosen: shape (n,), which rows are going to be encoded; the others may hold anything.
        constants: bytes of constants met in earlier batches, by path and value.
    """

    named: Mapping[str, AvroType]
    chosen: Mask
    constants: dict[tuple[str, type, object], bytes] = field(default_factory=dict)
    code: list[list[int]] = field(default_factory=list)
    words: list[NDArray[Any]] = field(default_factory=list)
    literals: bytearray = field(default_factory=bytearray)
    buffers: list[Octets] = field(default_factory=list)
    _offsets: dict[tuple[int, int], int] = field(default_factory=dict)
    _sealed: int = 0  # literals before this row of the program are some jump's target's: nothing may be joined to them

    def literal(self, data: bytes) -> None:
        """Put out the same bytes in every row; joined to those put out just before."""
        last = self.code[-1] if self.code else None
        if last is not None and last[0] == op.LITERAL and len(self.code) > self._sealed:
            last[3] += len(data)
        elif data:
            self.code.append([op.LITERAL, 0, len(self.literals), len(data)])
        self.literals += data

    def add(self, kind: AvroType, columns: Columns, path: str, chosen: Mask) -> None:
        """Put out a value of a type: from the column of its path or, for a record, from those of its fields.

        Raises:
            KeyError: a column is missing.
            TypeError: a column holds something else.
            ValueError: a chosen row holds null, or a number out of range, where the type has no such value.
        """
        if isinstance(kind, Record):
            for each in kind.fields:
                self.add(each.type, columns, f"{path}.{each.name}" if path else each.name, chosen)
        elif not is_covered(kind):
            self._opaque(kind, _at(columns, path), path, chosen)
        elif isinstance(kind, Union):
            self._option(kind, columns, path, chosen)
        elif kind.kind != "null":
            self._value(kind, _without_nulls(_at(columns, path), path, chosen), path, chosen)

    def _option(self, kind: Union, columns: Columns, path: str, chosen: Mask) -> None:
        inner = kind.nullable
        assert inner is not None
        null = [branch.kind for branch in kind.branches].index("null")
        valid = _valid(inner, columns, path, len(chosen))
        if valid is None:
            self.literal(varint(1 - null))
            self.add(inner, columns, path, chosen)
        elif not (valid & chosen).any():
            self.literal(varint(null))
        else:
            option = self._emit(op.OPTION, self._slot(valid.astype(np.int64)), null)
            self.add(inner, columns, path, chosen & valid)
            self._land(option)

    def _value(self, kind: AvroType, column: Column, path: str, chosen: Mask) -> None:
        if isinstance(column, Constant):
            known = (path, type(column.value), column.value)
            if known not in self.constants:
                self.constants[known] = _constant(kind, column, path)
            self.literal(self.constants[known])
        elif isinstance(kind, Array | Map):
            self._array(kind, column, path, chosen)
        elif is_small_decimal(kind):
            self._decimal(kind, _numbers(column, path, "iu"), path, chosen)
        elif isinstance(kind, Enum):
            self._emit(op.VARINT, self._slot(_codes(kind, column, path, chosen)))
        elif kind.kind in ("string", "bytes", "fixed"):
            self._text(kind, column, path, chosen)
        else:
            self._number(kind, column, path, chosen)

    def _number(self, kind: AvroType, column: Column, path: str, chosen: Mask) -> None:
        if kind.kind == "boolean":
            self._emit(op.BOOLEAN, self._slot(_numbers(column, path, "b").astype(np.int64)))
        elif kind.kind == "double":
            slot = self._slot(_numbers(column, path, "fiu").astype(np.float64, copy=False).view(np.int64))
            last = self.code[-1] if self.code else None
            if last is not None and last[0] == op.DOUBLES and last[1] + last[2] == slot and len(self.code) > self._sealed:
                last[2] += 1
            else:
                self._emit(op.DOUBLES, slot, 1)
        elif kind.kind == "float":
            bits = _numbers(column, path, "fiu").astype(np.float32, copy=False).view(np.int32)
            self._emit(op.FLOAT, self._slot(bits.astype(np.int64)))
        else:
            numbers = _numbers(column, path, "iu")
            if numbers.dtype.itemsize > (4 if kind.kind == "int" else 8) or numbers.dtype.kind == "u":
                _check_range(numbers, chosen, *_LIMITS[kind.kind], path)
            self._emit(op.VARINT, self._slot(numbers.astype(np.int64, copy=False)))

    def _text(self, kind: AvroType, column: Column, path: str, chosen: Mask) -> None:
        if isinstance(column, Symbols):
            column = PackedBytes.pack([symbol.encode() for symbol in column.symbols]).take(column.codes)
        if not isinstance(column, PackedBytes):
            raise TypeError(f"column {path!r} holds {_found(column)}, wanted {kind.kind}")
        sizes = column.ends - column.starts
        if isinstance(kind, Fixed) and (sizes[chosen] != kind.size_bytes).any():
            raise ValueError(f"column {path!r} holds values of other than {kind.size_bytes} bytes")
        if len(sizes) and (column.starts.min() < 0 or column.ends.max() > len(column.data) or sizes.min() < 0):
            raise ValueError(f"column {path!r} has stretches outside its buffer")
        offset = self._offset(column.data)
        starts, ends = (column.starts + offset, column.ends + offset) if offset else (column.starts, column.ends)
        slot = self._slot(starts)
        self._slot(ends)
        self._emit(op.RAW if isinstance(kind, Fixed) else op.TEXT, slot)

    def _decimal(self, kind: AvroType, numbers: NDArray[Any], path: str, chosen: Mask) -> None:
        size = kind.size_bytes if isinstance(kind, Fixed) else -1
        if 0 <= size < 8:
            limit = 1 << max(8 * size - 1, 0)
            _check_range(numbers, chosen, -limit, limit - 1, path)
        self._emit(op.DECIMAL, self._slot(numbers.astype(np.int64, copy=False)), size)

    def _array(self, kind: Array | Map, column: Column, path: str, chosen: Mask) -> None:
        if not isinstance(column, Ragged):
            raise TypeError(f"column {path!r} holds {_found(column)}, wanted arrays")
        items, of = items_of(kind), column.items
        columns = of if isinstance(of, Mapping) else {path: of}
        size = min((len(each) for each in columns.values()), default=int(column.ends.max(initial=0)))
        starts, ends = column.starts[chosen], column.ends[chosen]
        if len(starts) and (starts.min() < 0 or ends.max() > size or (ends < starts).any()):
            raise ValueError(f"column {path!r} has stretches outside its items")
        slot = self._slot(column.starts)
        self._slot(column.ends)
        begin = self._emit(op.ARRAY, slot)
        self._sealed = len(self.code)
        self.add(items, columns, "" if isinstance(of, Mapping) else path, _items_chosen(starts, ends, size))
        self.code[begin][3] = self._emit(op.NEXT, 0, 0, begin + 1)
        self._sealed = len(self.code)

    def _opaque(self, kind: AvroType, column: Column, path: str, chosen: Mask) -> None:
        if not isinstance(column, np.ndarray) or column.dtype != np.object_:
            raise TypeError(f"column {path!r} holds {_found(column)}, wanted Python objects for its {kind.kind}")
        schema = parse_type(kind, self.named)
        packed = PackedBytes.pack([write_value(value, schema) if wanted else b"" for value, wanted in zip(column, chosen, strict=True)])
        slot = self._slot(packed.starts + (offset := self._offset(packed.data)))
        self._slot(packed.ends + offset)
        self._emit(op.RAW, slot)

    def _emit(self, code: int, slot: int = 0, a: int = 0, b: int = 0) -> int:
        self.code.append([code, slot, a, b])
        return len(self.code) - 1

    def _land(self, option: int) -> None:
        self.code[option][3] = self._sealed = len(self.code)

    def _slot(self, words: NDArray[Any]) -> int:
        self.words.append(words)
        return len(self.words) - 1

    def _offset(self, data: Octets) -> int:
        """Where a buffer stands in the one buffer; columns that share theirs share it here."""
        place = (data.__array_interface__["data"][0], len(data))
        if place not in self._offsets:
            self._offsets[place] = sum(map(len, self.buffers))
            self.buffers.append(data)
        return self._offsets[place]

    def finish(self, scratch: Scratch) -> tuple[NDArray[np.int64], Ints, Ints, Octets, Octets]:
        """The program, the words of all slots (in `scratch`), where each slot's start, the literals, and the buffer."""
        self._emit(op.END)
        sizes = np.fromiter(map(len, self.words), np.int64, len(self.words))
        base = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
        words = scratch.of(int(base[-1]))
        if self.words:
            np.concatenate(self.words, out=words)
        data = np.concatenate(self.buffers) if len(self.buffers) > 1 else np.ascontiguousarray([*self.buffers, np.zeros(0, np.uint8)][0])
        return np.array(self.code, np.int64), words, base, np.frombuffer(bytes(self.literals), np.uint8), data


def _at(columns: Columns, path: str) -> Column:
    if path not in columns:
        raise KeyError(f"there is no column {path!r}; there are {', '.join(columns)}")
    return columns[path]


def _leaves(kind: AvroType, path: str) -> Iterator[tuple[Field, str]]:
    """The paths of a type's columns."""
    if isinstance(kind, Record):
        for each in kind.fields:
            yield from _leaves(each.type, f"{path}.{each.name}" if path else each.name)
    elif isinstance(kind, Union) and isinstance(kind.nullable, Record) and is_covered(kind):
        yield from _leaves(kind.nullable, path)
    else:
        yield Field(path, kind), path


def _valid(kind: AvroType, columns: Columns, path: str, rows: int) -> Mask | None:
    """Shape (n,): which rows have a value; None if all do. A record is null where all its columns are."""
    valid = np.zeros(rows, np.bool_)
    for _, leaf in _leaves(kind, path):
        column = _at(columns, leaf)
        if not isinstance(column, Nullable):
            return None
        valid |= column.valid
    return valid


def _without_nulls(column: Column, path: str, chosen: Mask) -> Column:
    if isinstance(column, Nullable):
        if (chosen & ~column.valid).any():
            raise ValueError(f"column {path!r} is null in row {int(np.argmax(chosen & ~column.valid))}, and its type has no null")
        return _without_nulls(column.values, path, chosen)
    if len(column) != len(chosen):
        raise ValueError(f"column {path!r} has {len(column)} rows, wanted {len(chosen)}")
    return column


def _numbers(column: Column, path: str, kinds: str) -> NDArray[Any]:
    if not isinstance(column, np.ndarray) or column.dtype.kind not in kinds:
        raise TypeError(f"column {path!r} holds {_found(column)}, wanted numbers of kind {' or '.join(kinds)}")
    return column


def _check_range(numbers: NDArray[Any], chosen: Mask, low: int, high: int, path: str) -> None:
    given = numbers[chosen]
    if len(given) and (int(given.min()) < low or int(given.max()) > high):
        raise ValueError(f"column {path!r} holds {given.min()} to {given.max()}, wanted {low} to {high}")


def _codes(kind: Enum, column: Column, path: str, chosen: Mask) -> Ints:
    if not isinstance(column, Symbols):
        raise TypeError(f"column {path!r} holds {_found(column)}, wanted symbols")
    codes = column.codes.astype(np.int64)
    if column.symbols != kind.symbols:
        known = [kind.symbols.index(symbol) if symbol in kind.symbols else -1 for symbol in column.symbols]
        codes = np.array([*known, -1], np.int64)[np.clip(codes, 0, len(known))]
    _check_range(codes, chosen, 0, len(kind.symbols) - 1, path)
    return codes


def _constant(kind: AvroType, column: Constant, path: str) -> bytes:
    """A constant's bytes: those of a column of one row."""
    value = column.value
    single: Column
    if isinstance(kind, Enum) and isinstance(value, bytes):
        single = Symbols(np.zeros(1, np.int32), (value.decode(),))
    elif isinstance(value, bytes):
        single = PackedBytes.pack([value])
    else:
        single = np.array([value])
    return encode_columns(EncodeProgram({}, np.ones(1, np.bool_)), kind, {path: single}, path)


def encode_columns(program: EncodeProgram, kind: AvroType, columns: Columns, path: str) -> bytes:
    """The bytes of one row."""
    program.add(kind, columns, path, program.chosen)
    code, words, base, literals, data = program.finish(Scratch())
    out, ends = np.empty(len(literals) + len(data) + 64 * len(code), np.uint8), np.zeros(1, np.int64)
    op.encode(data, words, base, code, literals, np.zeros(1, np.int64), out, ends, np.empty(op.STACK_WORDS, np.int64), 0, 0)
    return out[: ends[0]].tobytes()


def _items_chosen(starts: Ints, ends: Ints, size: int) -> Mask:
    """Shape (size,): items that stand in a chosen row's array."""
    edges = np.zeros(size + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, ends, -1)
    return np.asarray(np.cumsum(edges[:-1]) > 0)


def _found(column: Column) -> str:
    return f"an array of {column.dtype}" if isinstance(column, np.ndarray) else type(column).__name__
