"""Tables of what is in memory: any library's to pyarrow's, and columns to tables. With `schemas/read_table.py`, the door to pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.avro import Array, AvroType, Map, Record, Union
from schemas.columns import Column, Constant, Mask, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import HistoryError
from schemas.layout import is_small_decimal, items_of

Table: TypeAlias = Any  # pyarrow.Table
Frame: TypeAlias = Any  # a polars or pandas DataFrame, or a pyarrow Table

STAMP_UNITS = {"timestamp-millis": "ms", "timestamp-micros": "us", "local-timestamp-millis": "ms", "local-timestamp-micros": "us"}
CLOCKS = {"time-millis": pa.time32("ms"), "time-micros": pa.time64("us"), "date": pa.date32()}


def as_table(frame: Frame) -> Table:
    """A polars, pandas or pyarrow table as pyarrow's.

    Raises:
        HistoryError: it is none, or one of its columns is of no one type.
    """
    try:
        if isinstance(frame, pa.Table):
            return frame
        if _library(frame) == "pandas":
            return pa.Table.from_pandas(frame, preserve_index=False)
        if not hasattr(frame, "__arrow_c_stream__"):
            raise HistoryError(f"{type(frame).__name__} is no table; wanted one of polars, pandas or pyarrow")
        return _without_views(pa.table(frame))
    except pa.ArrowException as error:
        raise HistoryError(f"the table has a column of no one type: {words_of(error)}") from error


def _without_views(table: Table) -> Table:
    """Polars hands out texts as views, which few functions of pyarrow take."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in table.schema]
    return table if all(field.type not in plain for field in table.schema) else table.cast(pa.schema(fields))


def beside(frame: Frame, more: Table) -> Frame:
    """A table with more columns, of the kind it was; its own are left as they are.

    Raises:
        HistoryError: it has a column of one of these names already.
    """
    names = list(frame.column_names if isinstance(frame, pa.Table) else frame.columns)
    taken = [name for name in more.column_names if name in names]
    if taken:
        raise HistoryError(f"the table has a column {taken[0]!r} already; wanted a table without it, since that is what is computed")
    library = _library(frame)
    if library == "polars":
        return frame.hstack(import_module("polars").from_arrow(more))
    if library == "pandas":
        added = more.to_pandas()
        added.index = frame.index
        return import_module("pandas").concat([frame, added], axis=1)
    table = as_table(frame)
    for name in more.column_names:
        table = table.append_column(name, more.column(name))
    return table


def rows_of_table(table: Table, first: int, end: int) -> Table:
    """A stretch of a table's rows, sharing what lies under it."""
    return table.slice(first, end - first)


def to_arrow(column: Column, kind: AvroType | None = None, valid: Mask | None = None) -> Any:
    """A column as pyarrow's array.

    Args:
        column: of n rows.
        kind: the field's type, for times, dates, decimals and text; None = what the column says by itself.
        valid: shape (n,): rows that have a value at all; the others become null.
    """
    if isinstance(kind, Union) and kind.nullable is not None:
        return to_arrow(column, kind.nullable, valid)
    if isinstance(column, Nullable):
        return to_arrow(column.values, kind, column.valid if valid is None else column.valid & valid)
    mask = None if valid is None or valid.all() else ~valid
    if isinstance(column, Constant):
        value = column.value.decode() if isinstance(column.value, bytes) and kind is not None and kind.kind != "bytes" else column.value
        array = pa.array([value] * column.rows)
        return array if mask is None else pc.if_else(pa.array(~mask), array, None)
    if isinstance(column, PackedBytes):
        return _text_array(column, kind is None or kind.kind == "string", valid)
    if isinstance(column, Symbols):
        codes = np.clip(column.codes, 0, max(len(column.symbols) - 1, 0)).astype(np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=mask), pa.array(column.symbols, pa.string())).cast(pa.string())
    if isinstance(column, Ragged):
        return _list_array(column, kind, valid)
    if column.dtype == np.object_:
        return pa.array([None if mask is not None and mask[row] else str(value) for row, value in enumerate(column.tolist())], pa.string())
    array = pa.array(column, mask=mask)
    wanted = arrow_type(kind)
    if wanted is not None and pa.types.is_decimal(wanted):
        return array.cast(pa.decimal128(19, 0)).view(pa.decimal128(19, wanted.scale))
    return array if wanted is None else array.view(wanted)


def arrow_type(kind: AvroType | None) -> Any:
    """What the integers of a type mean: a time, a date, a decimal; None if they are just numbers."""
    logical = getattr(kind, "logical", None)
    if kind is not None and is_small_decimal(kind):
        return pa.decimal128(19, getattr(kind, "scale", 0))
    if logical in STAMP_UNITS:
        return pa.timestamp(STAMP_UNITS[logical], "UTC" if logical.startswith("timestamp") else None)
    return CLOCKS.get(logical) if logical else None


def table_of(arrays: Mapping[str, Any]) -> Table:
    """Arrays of equal length as a table."""
    return pa.table(dict(arrays))


def rows_at(table: Table, places: NDArray[np.intp]) -> Table:
    """The rows at some places, in that order."""
    return table.take(pa.array(places))


def concat(tables: Sequence[Table]) -> Table:
    """Tables of one shape, one after the other."""
    return pa.concat_tables(tables)


def chosen(table: Table, rows: Mask, more: Mapping[str, NDArray[Any]]) -> Table:
    """Some rows of a table, with more columns, which have a value for each chosen row."""
    found = table.filter(pa.array(rows))
    for name, values in more.items():
        found = found.append_column(name, pa.array(values))
    return found


def is_whole(table: Table, name: str) -> bool:
    """Whether a column holds whole numbers."""
    return bool(pa.types.is_integer(table.schema.field(name).type))


def is_true_or_false(table: Table, name: str) -> bool:
    """Whether a column holds booleans."""
    return bool(pa.types.is_boolean(table.schema.field(name).type))


def counts_of(array: Any) -> dict[str, int]:
    """How often each text stands in an array, nulls left out."""
    return {each["values"]: each["counts"] for each in pc.value_counts(pc.drop_null(array)).to_pylist()}


def strings(values: Sequence[str | None]) -> Any:
    """An array of text and nulls."""
    return pa.array(values, pa.string())


def texts_of(column: Column) -> Sequence[bytes | None]:
    """Each row as the bytes a record's key would be: text in UTF-8, an integer in decimals; None for null."""
    if isinstance(column, Nullable):
        found = texts_of(column.values)
        return [text if there else None for text, there in zip(found, column.valid.tolist(), strict=True)]
    if isinstance(column, PackedBytes):
        return column
    if isinstance(column, Symbols):
        known = [symbol.encode() for symbol in column.symbols]
        return [known[code] for code in column.codes.tolist()]
    assert isinstance(column, np.ndarray)
    return [b"%d" % number for number in column.tolist()]


def _text_array(column: PackedBytes, is_text: bool, valid: Mask | None) -> Any:
    sizes = column.ends - column.starts if valid is None else np.where(valid, column.ends - column.starts, 0)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    at = np.repeat(column.starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    data = column.data[at] if len(at) else np.zeros(0, np.uint8)
    bits = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    kind = pa.large_string() if is_text else pa.large_binary()
    array = pa.Array.from_buffers(kind, len(column), [bits, pa.py_buffer(offsets), pa.py_buffer(data)])
    return array.cast(pa.string() if is_text else pa.binary())


def _list_array(column: Ragged, kind: AvroType | None, valid: Mask | None) -> Any:
    inner = items_of(kind) if isinstance(kind, Array | Map) else None
    if isinstance(column.items, Mapping):
        record = inner.nullable if isinstance(inner, Union) else inner
        types = {each.name: each.type for each in record.fields} if isinstance(record, Record) else {}
        items = pa.StructArray.from_arrays([to_arrow(each, types.get(name)) for name, each in column.items.items()], list(column.items))
    else:
        items = to_arrow(column.items, inner)
    sizes = column.ends - column.starts if valid is None else np.where(valid, column.ends - column.starts, 0)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    at = np.repeat(column.starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    mask = None if valid is None else pa.array(~valid)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items.take(pa.array(at)), mask=mask)


def _library(frame: Frame) -> str:
    return type(frame).__module__.partition(".")[0]


def words_of(error: Exception) -> str:
    """The first line of what pyarrow says."""
    return str(error.args[0] if error.args else error).splitlines()[0]
