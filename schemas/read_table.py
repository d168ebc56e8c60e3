"""Tables read as the columns of a schema. With `schemas/table.py`, the door to pyarrow.

A row of a table stands for the record that a producer would have sent: the column of a field's name holds its values, a struct those of
a record in it, as do columns named by dotted path. A field may be left out where its schema has a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.avro import ABSENT, Array, AvroSchema, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union, to_json
from schemas.columns import Column, Ints, Mask, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import HistoryError
from schemas.layout import is_covered, is_small_decimal, items_of
from schemas.table import CLOCKS, STAMP_UNITS, Table, words_of

_UNITS_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True)
class TableReader:
    """Reads tables of one shape as the columns of a schema.

    Attributes:
        schema: of the records that the rows stand for: the reader's, without the fields that are left to their defaults.
        where: what messages call the table.
        time_zone: of times that have none; None = such times are refused.
        text: whether every column is text to be parsed, as a CSV file's are.
    """

    schema: AvroSchema
    where: str
    time_zone: str | None = None
    text: bool = False

    @classmethod
    def of(cls, table: Table, schema: AvroSchema, where: str, time_zone: str | None = None, text: bool = False) -> TableReader:
        """A reader for tables with the columns of this one.

        Raises:
            HistoryError: a column is missing, or stands twice.
        """
        names = table.column_names
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise HistoryError(f"{where} has two columns {twice[0]!r}; wanted one")
        tops = {name.partition(".")[0] for name in names}
        missing = [each.name for each in schema.fields if each.name not in tops and each.default is ABSENT]
        if missing:
            raise HistoryError(f"{where} has no column {', '.join(map(repr, missing))}; it has {', '.join(names) or 'none'}")
        root = schema.root
        assert isinstance(root, Record)
        there = tuple(each for each in root.fields if each.name in tops)
        written = schema if len(there) == len(root.fields) else AvroSchema(to_json(Record(root.name, there, root.aliases), schema.named))
        return cls(written, where, time_zone, text)

    def columns(self, table: Table, first_row: int) -> dict[str, Column]:
        """The columns of a table's rows, by dotted path, as an encoder takes them.

        Args:
            table: of the reader's shape.
            first_row: what its first row is called in messages; rows count from 0.

        Raises:
            HistoryError: a value is missing, or is not of its field's type: names column and row.
        """
        found: dict[str, Column] = {}
        for each in self.schema.fields:
            self._field(found, table, each, each.name, first_row)
        return found

    def times_ms(self, table: Table, name: str, first_row: int) -> Ints:
        """A column of times in milliseconds, as integers or as times.

        Raises:
            HistoryError: as `columns`.
        """
        found: dict[str, Column] = {}
        self._field(found, table, Field(name, Primitive("long", "timestamp-millis")), name, first_row)
        times = found[name]
        assert isinstance(times, np.ndarray)
        return times

    def _field(self, found: dict[str, Column], table: Table, field: Field, path: str, first_row: int) -> None:
        if path in table.column_names:
            array = table.column(path).combine_chunks()
            if isinstance(array, pa.ChunkedArray):  # one of no rows, or of more text than one array holds
                array = pa.concat_arrays([pa.array([], array.type), *array.chunks])
            found |= _Values(self, path, first_row).read(field.type, array)
        elif isinstance(field.type, Record):
            for each in field.type.fields:
                self._field(found, table, each, f"{path}.{each.name}", first_row)
        elif field.type.kind != "null":
            raise HistoryError(f"{self.where} has no column {path!r}; it has {', '.join(table.column_names)}")


@dataclass(frozen=True, slots=True)
class _Values:
    """Reads the values of one column of a table."""

    reader: TableReader
    path: str
    first_row: int

    def read(self, kind: AvroType, array: Any) -> dict[str, Column]:
        """The columns of a value's type, by dotted path."""
        if isinstance(kind, Union) and kind.nullable is not None:
            inner = kind.nullable
            if self.reader.text and _is_text(array):
                array = pc.if_else(pc.equal(array, ""), None, array)
            valid = _valid(array)
            return {name: _masked(column, valid) for name, column in self._inner(inner, array).items()}
        if kind.kind != "null" and array.null_count:
            raise self._trouble(int(np.argmin(_valid(array))), "null", kind)
        return self._inner(kind, array)

    def _inner(self, kind: AvroType, array: Any) -> dict[str, Column]:
        if isinstance(kind, Record):
            if not pa.types.is_struct(array.type):
                raise self._of_type(array, kind)
            return self._record(kind, array)
        return {self.path: self._value(kind, array)}

    def _record(self, kind: Record, array: Any) -> dict[str, Column]:
        members = dict(zip([array.type.field(place).name for place in range(array.type.num_fields)], array.flatten(), strict=True))
        found: dict[str, Column] = {}
        for each in kind.fields:
            name = f"{self.path}.{each.name}" if self.path else each.name
            if each.name not in members:
                raise HistoryError(f"{self.reader.where} has no field {name!r}; there are {', '.join(members)}")
            member = members[each.name]
            inside = _Values(self.reader, name, self.first_row)
            # Where the record is null, so are its fields, whatever their type.
            found |= inside.read(each.type if not array.null_count else _or_null(each.type), member)
        return found

    def _value(self, kind: AvroType, array: Any) -> Column:
        if isinstance(array.type, pa.DictionaryType):
            array = array.cast(array.type.value_type)
        if not is_covered(kind):
            raise HistoryError(f"{self.reader.where}: {self.path} is of type {kind.kind}, which no column of a table can hold")
        if isinstance(kind, Array | Map):
            return self._ragged(kind, array)
        if isinstance(kind, Enum):
            return self._symbols(kind, array)
        if is_small_decimal(kind):
            return self._decimal(kind, array)
        if kind.kind in ("string", "bytes", "fixed"):
            return self._texts(kind, array)
        return self._numbers(kind, array)

    def _numbers(self, kind: AvroType, array: Any) -> NDArray[Any]:
        logical = getattr(kind, "logical", None)
        if kind.kind == "long" and logical in STAMP_UNITS:
            return self._times(kind, array, STAMP_UNITS[logical])
        wanted = {"boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64()}[kind.kind]
        given = array.type
        if logical in CLOCKS and (pa.types.is_time(given) or pa.types.is_date(given)):
            array = array.cast(CLOCKS[logical], safe=False).view(wanted)
        elif self.reader.text and _is_text(array):
            array = self._parsed(kind, array, wanted)
        elif not _promotes(given, kind.kind):
            raise self._of_type(array, kind)
        return _numpy(self._cast(kind, array, wanted))

    def _times(self, kind: AvroType, array: Any, unit: str) -> Ints:
        """Times in the unit of the field, later digits cut off downwards."""
        if pa.types.is_integer(array.type):
            return _numpy(self._cast(kind, array, pa.int64())).astype(np.int64)
        if self.reader.text and _is_text(array):
            if pc.all(pc.match_substring_regex(array.drop_null(), r"^\s*-?\d+\s*$")).as_py():
                return _numpy(self._parsed(kind, array, pa.int64())).astype(np.int64)
            array = self._parsed_times(kind, array)
        if pa.types.is_date(array.type):
            array = array.cast(pa.timestamp("ms"))
        if not pa.types.is_timestamp(array.type):
            raise self._of_type(array, kind)
        if array.type.tz is None and str(getattr(kind, "logical", "")).startswith("timestamp"):
            array = self._in_zone(array)
        ticks = _numpy(array.cast(pa.int64())).astype(np.int64)
        given_ns, wanted_ns = _UNITS_NS[array.type.unit], _UNITS_NS[unit]
        return ticks // (wanted_ns // given_ns) if wanted_ns >= given_ns else ticks * (given_ns // wanted_ns)

    def _in_zone(self, array: Any) -> Any:
        if self.reader.time_zone is None:
            raise HistoryError(
                f"{self.reader.where}: {self.path} holds times without a time zone; wanted times with one, "
                "or the name of theirs (--time-zone UTC, time_zone='UTC')"
            )
        try:
            return pc.assume_timezone(array, self.reader.time_zone)
        except pa.ArrowException as error:
            raise HistoryError(f"{self.reader.where}: {self.path} as times in {self.reader.time_zone}: {words_of(error)}") from error

    def _parsed_times(self, kind: AvroType, array: Any) -> Any:
        for wanted in (pa.timestamp("ns", "UTC"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("us")):
            try:
                return array.cast(wanted)
            except pa.ArrowException:
                continue
        zoned = [str(value).rstrip()[-1:] == "Z" or "+" in str(value) for value in array[:1].to_pylist()]
        return self._parsed(kind, array, pa.timestamp("us", "UTC") if any(zoned) else pa.timestamp("us"))

    def _parsed(self, kind: AvroType, array: Any, wanted: Any) -> Any:
        """Text as values of a type; where that fails, the row is looked for."""
        if pa.types.is_integer(wanted) or pa.types.is_floating(wanted):
            array = pc.utf8_trim_whitespace(array)
        try:
            return array.cast(wanted)
        except pa.ArrowException as error:
            for row, value in enumerate(array.to_pylist()):
                try:
                    pa.array([value]).cast(wanted)
                except pa.ArrowException:
                    raise self._trouble(row, repr(value), kind) from error
            raise self._of_type(array, kind) from error

    def _cast(self, kind: AvroType, array: Any, wanted: Any) -> Any:
        try:
            return array.cast(wanted)
        except pa.ArrowException as error:
            raise HistoryError(f"{self.reader.where}: {self.path}, wanted {_named(kind)}: {words_of(error)}") from error

    def _texts(self, kind: AvroType, array: Any) -> PackedBytes:
        if not (_is_text(array) or (kind.kind != "string" and _is_binary(array))):
            raise self._of_type(array, kind)
        packed = _packed(array)
        if isinstance(kind, Fixed):
            odd = np.flatnonzero((packed.ends - packed.starts != kind.size_bytes) & _valid(array))
            if len(odd):
                size = int(packed.ends[odd[0]] - packed.starts[odd[0]])
                raise self._trouble(int(odd[0]), f"{size} bytes", kind)
        return packed

    def _symbols(self, kind: Enum, array: Any) -> Symbols:
        if not _is_text(array):
            raise self._of_type(array, kind)
        codes = pc.index_in(array, pa.array(kind.symbols, array.type))
        unknown = np.flatnonzero(~_valid(codes) & _valid(array))
        if len(unknown):
            raise self._trouble(int(unknown[0]), repr(array[int(unknown[0])].as_py()), kind)
        return Symbols(_numpy(codes).astype(np.int32), kind.symbols)

    def _decimal(self, kind: AvroType, array: Any) -> Ints:
        """Unscaled values of at most 18 digits: the low words of the decimals."""
        if not (pa.types.is_decimal(array.type) or pa.types.is_integer(array.type)):
            raise self._of_type(array, kind)
        scaled = self._cast(kind, array, pa.decimal128(38, getattr(kind, "scale", 0)))
        values = pc.fill_null(scaled, pa.scalar(0).cast(scaled.type)) if scaled.null_count else scaled
        words = np.frombuffer(values.buffers()[1], np.int64).reshape(-1, 2)[values.offset : values.offset + len(values)]
        wide = np.flatnonzero(words[:, 1] != words[:, 0] >> 63)
        if len(wide):
            raise self._trouble(int(wide[0]), str(scaled[int(wide[0])].as_py()), kind)
        return np.ascontiguousarray(words[:, 0])

    def _ragged(self, kind: Array | Map, array: Any) -> Ragged:
        if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_map(array.type)):
            raise self._of_type(array, kind)
        offsets = np.frombuffer(array.buffers()[1], np.int64 if pa.types.is_large_list(array.type) else np.int32)
        bounds: Ints = offsets[array.offset : array.offset + len(array) + 1].astype(np.int64)
        items = pa.array([], array.type.value_type) if len(array) == 0 else array.values
        if pa.types.is_map(array.type):
            items = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
            bounds = bounds - bounds[:1]
        inner = items_of(kind)
        deep = inner.nullable if isinstance(inner, Union) else inner
        if isinstance(deep, Record):
            inside = _Values(self.reader, "", 0)
            return Ragged(inside.read(inner, items), bounds[:-1], bounds[1:])
        return Ragged(_Values(self.reader, self.path, 0).read(inner, items)[self.path], bounds[:-1], bounds[1:])

    def _trouble(self, row: int, found: str, kind: AvroType) -> HistoryError:
        return HistoryError(f"{self.reader.where}, row {self.first_row + row}: {self.path} is {found}, wanted {_named(kind)}")

    def _of_type(self, array: Any, kind: AvroType) -> HistoryError:
        return HistoryError(f"{self.reader.where}: column {self.path!r} is of type {array.type}, wanted {_named(kind)}")


def _packed(array: Any) -> PackedBytes:
    """Texts as stretches of the table's own buffer."""
    wide = array.cast(pa.large_binary())
    if wide.null_count:
        wide = pc.fill_null(wide, b"")
    _, offsets, data = wide.buffers()
    bounds = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1] if len(wide) else np.zeros(1, np.int64)
    octets = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return PackedBytes(octets, bounds[:-1], bounds[1:])


def _numpy(array: Any) -> NDArray[Any]:
    if array.null_count:
        array = pc.fill_null(array, pa.scalar(0).cast(array.type))
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def _valid(array: Any) -> Mask:
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    valid: Mask = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _masked(column: Column, valid: Mask) -> Column:
    return Nullable(column.values, column.valid & valid) if isinstance(column, Nullable) else Nullable(column, valid)


def _or_null(kind: AvroType) -> AvroType:
    if isinstance(kind, Union) or kind.kind == "null":
        return kind
    return Union((Primitive("null"), kind))


def _promotes(given: Any, kind: str) -> bool:
    """Whether Avro would read one type as the other."""
    if kind == "boolean":
        return bool(pa.types.is_boolean(given))
    if kind in ("int", "long"):
        return bool(pa.types.is_integer(given))
    return bool(pa.types.is_integer(given) or pa.types.is_floating(given))


def _is_text(array: Any) -> bool:
    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type))


def _is_binary(array: Any) -> bool:
    kind = array.type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _named(kind: AvroType) -> str:
    logical = getattr(kind, "logical", None)
    if isinstance(kind, Enum):
        return f"one of {', '.join(kind.symbols)}"
    return f"{kind.kind} ({logical})" if logical else kind.kind
