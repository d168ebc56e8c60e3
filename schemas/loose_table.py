"""Tables that may be broken: CSV and Parquet in turns, in which a row that can't be read is told of and the next one read.

`schemas/table_file.py` takes sound files only, and is much faster. Rows are numbered from 0, the header of a CSV file not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from schemas.avro import AvroSchema
from schemas.columns import Column, Ints
from schemas.errors import HistoryError, RecordError, SchemaError
from schemas.features import Json
from schemas.infer import NAME
from schemas.read_table import TableReader
from schemas.table import Table, words_of
from schemas.table_file import open_table_file

_BLOCK_BYTES = 1 << 20
_OF_ALL_ROWS = ("without a time zone", " is of type ", " has no ", " as times in ")
_STAMPS = {"s": "millis", "ms": "millis", "us": "micros", "ns": "micros"}


@dataclass(frozen=True)
class LooseTurn:
    """Some rows of a file: those that are whole, under their numbers, and why the others are not."""

    table: Table
    numbers: Ints  # of the table's rows
    broken: Mapping[int, RecordError]  # by number


@dataclass(frozen=True)
class LooseTable:
    """A file of a table, opened.

    Attributes:
        path: of the file.
        shape: a table of its columns, without rows.
        text: whether all its columns are text to be parsed.
    """

    path: Path
    shape: Table
    text: bool

    def turns(self, rows: int) -> Iterator[LooseTurn]:
        """Its rows in order, so many at a time or fewer.

        Raises:
            HistoryError: nothing can be read from some place on; names how many rows came before.
        """
        done = 0
        try:
            for turn in self._csv() if self.text else self._parquet(rows):
                for first in range(0, max(len(turn.table), 1), rows):
                    part = turn.table.slice(first, rows)
                    yield LooseTurn(part, turn.numbers[first : first + rows], turn.broken if first == 0 else {})
                done += len(turn.table) + len(turn.broken)
        except (pa.ArrowException, OSError) as error:
            raise HistoryError(f"{self.path} is broken after {done} rows: {words_of(error)}") from error

    def _parquet(self, rows: int) -> Iterator[LooseTurn]:
        first = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(rows):
                table = pa.Table.from_batches([batch])
                yield LooseTurn(table, np.arange(first, first + len(table), dtype=np.int64), {})
                first += len(table)

    def _csv(self) -> Iterator[LooseTurn]:
        odd: dict[int, RecordError] = {}
        told = 0

        def note(row: Any) -> str:
            odd[row.number - 2] = RecordError("wrong_columns", f"{row.actual_columns} columns, wanted {row.expected_columns}")
            return "skip"

        reader = arrow_csv.open_csv(
            self.path,
            read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(self.shape.column_names, pa.binary()), strings_can_be_null=False, check_utf8=False
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        )
        at = 0
        for batch in reader:
            numbers = np.empty(len(batch), np.int64)
            for row in range(len(batch)):
                while at in odd:
                    at += 1
                numbers[row] = at
                at += 1
            table, whole, broken = _texts(pa.Table.from_batches([batch]), numbers)
            ready = [number for number in sorted(odd)[told:] if number < at]
            told += len(ready)
            yield LooseTurn(table, whole, {**broken, **{number: odd[number] for number in ready}})
        left = dict(sorted(odd.items())[told:])
        if left:
            yield LooseTurn(self.shape, np.zeros(0, np.int64), left)


def open_loose(path: Path) -> LooseTable:
    """Open a Parquet file, or a CSV file whose first line names its columns.

    Raises:
        HistoryError: it is missing, empty, or none of these.
    """
    if path.suffix == ".csv" and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            header = file.readline()
        try:
            header.decode()
        except UnicodeDecodeError as error:
            raise HistoryError(f"{path}: its header is no UTF-8: byte {error.start} is {header[error.start]:#04x}") from error
        names = arrow_csv.open_csv(
            pa.py_buffer(header + b"\n"), convert_options=arrow_csv.ConvertOptions(check_utf8=False)
        ).schema.names  # the header alone: what follows may be anything
        return LooseTable(path, pa.table({name: pa.array([], pa.string()) for name in names}), True)
    found = open_table_file(path)
    return LooseTable(path, found.shape, found.text)


@dataclass(frozen=True)
class LooseReader:
    """Reads a table's rows as a schema's columns, each row that is of another type left out and told of."""

    reader: TableReader

    def columns(self, turn: LooseTurn) -> tuple[dict[str, Column], Ints, dict[int, RecordError]]:
        """The columns of the rows that can be read, their numbers, and why the others can't.

        Raises:
            HistoryError: a whole column can't be.
        """
        troubles = dict(turn.broken)
        kept = self._sound(turn.table, turn.numbers, troubles)
        table = turn.table if len(kept) == len(turn.table) else turn.table.take(pa.array(kept))
        return self.reader.columns(table, 0), turn.numbers[kept], troubles

    def _sound(self, table: Table, numbers: Ints, troubles: dict[int, RecordError]) -> Ints:
        """Places of rows that can be read: a stretch that can't be is halved until the row at fault stands alone."""
        good: list[Ints] = []
        waiting = [(0, len(table))]
        while waiting:
            first, end = waiting.pop()
            try:
                self.reader.columns(table.slice(first, end - first), 0)
            except HistoryError as error:
                if any(words in str(error) for words in _OF_ALL_ROWS):
                    raise
                if end - first <= 1:
                    troubles[int(numbers[first])] = RecordError("not_encodable", _after_row(str(error)))
                else:
                    middle = (first + end) // 2
                    waiting += [(middle, end), (first, middle)]
            else:
                good.append(np.arange(first, end, dtype=np.int64))
        return np.concatenate(good) if good else np.zeros(0, np.int64)


def schema_of_table(shape: Table, name: str, may_be_null: bool = True) -> AvroSchema:
    """The Avro schema that a typed table's columns come to.

    Raises:
        SchemaError: a column's name can't be Avro's, or its values are of a type that Avro has not.
    """
    fields = []
    for each in shape.schema:
        kind = _avro(each.type, f"{name}_{each.name}", each.name)
        _check_name(each.name)
        nullable = may_be_null and each.nullable
        fields.append({"name": each.name, "type": ["null", kind], "default": None} if nullable else {"name": each.name, "type": kind})
    return AvroSchema.parse({"type": "record", "name": name, "fields": fields}, f"the draft of {name}")


def records(table: Table, text: bool) -> Iterator[dict[str, Any]]:
    """Rows as JSON would have them; of a table of text, each value as what it looks like."""
    for row in table.to_pylist():
        yield {name: _guess(value) if text else _plain(value) for name, value in row.items()}


@dataclass
class Nulls:
    """Which columns of a table were null anywhere."""

    seen: set[str] = field(default_factory=set)

    def add(self, table: Table) -> None:
        """Look at some rows."""
        self.seen.update(name for name in table.column_names if table.column(name).null_count)


def without_null(schema: AvroSchema, nulls: Nulls) -> AvroSchema:
    """A draft in which only fields that were null may be."""
    root: Any = schema.definition
    fields = []
    for each in root["fields"]:
        nullable = isinstance(each["type"], list)
        fields.append(each if not nullable or each["name"] in nulls.seen else {"name": each["name"], "type": each["type"][1]})
    return AvroSchema.parse({**root, "fields": fields})


def _texts(table: Table, numbers: Ints) -> tuple[Table, Ints, dict[int, RecordError]]:
    """Octets as text; rows that are none are left out."""
    try:
        return table.cast(pa.schema([(name, pa.string()) for name in table.column_names])), numbers, {}
    except pa.ArrowException:
        pass
    broken: dict[int, RecordError] = {}
    good = np.ones(len(table), np.bool_)
    for name in table.column_names:
        column = table.column(name)
        try:
            column.cast(pa.string())
            continue
        except pa.ArrowException:
            pass
        for row, value in enumerate(column.to_pylist()):
            try:
                value.decode()
            except UnicodeDecodeError as error:
                good[row] = False
                words = f"{name} is no UTF-8: byte {error.start} is {value[error.start]:#04x}"
                broken.setdefault(int(numbers[row]), RecordError("bad_utf8", words))
    whole = table.filter(pa.array(good))
    return whole.cast(pa.schema([(name, pa.string()) for name in table.column_names])), numbers[good], broken


def _after_row(message: str) -> str:
    """What is said of a row, without file and number: those are known."""
    _, found, words = message.partition(", row 0: ")
    return words if found else message


def _avro(kind: Any, name: str, path: str) -> Json:
    types = pa.types
    if types.is_dictionary(kind):
        return _avro(kind.value_type, name, path)
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind):
        return "long" if kind.bit_width == 64 or (kind.bit_width == 32 and types.is_unsigned_integer(kind)) else "int"
    if types.is_floating(kind):
        return "double" if kind.bit_width == 64 else "float"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "string"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    if types.is_timestamp(kind):
        return {"type": "long", "logicalType": f"timestamp-{_STAMPS[kind.unit]}"}
    if types.is_date(kind):
        return {"type": "int", "logicalType": "date"}
    if types.is_decimal(kind):
        return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    if types.is_null(kind):
        return "string"
    if types.is_list(kind) or types.is_large_list(kind):
        return {"type": "array", "items": ["null", _avro(kind.value_type, f"{name}_item", path)]}
    if types.is_struct(kind):
        fields: list[Json] = []
        for each in (kind.field(place) for place in range(kind.num_fields)):
            _check_name(each.name)
            fields.append(
                {"name": each.name, "type": ["null", _avro(each.type, f"{name}_{each.name}", f"{path}.{each.name}")], "default": None}
            )
        return {"type": "record", "name": name, "fields": fields}
    raise SchemaError(f"column {path!r} is of type {kind}, which no Avro type holds")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise SchemaError(f"column {name!r}: Avro's names are letters, digits and _, and begin with no digit; rename it")


def _guess(text: str) -> Any:
    if text == "":
        return None
    if text in ("true", "false", "True", "False"):
        return text in ("true", "True")
    stripped = text.strip()
    for kind in (int, float):
        if stripped[:1] in "+-.0123456789" and "_" not in stripped and (len(stripped) < 2 or stripped[0] != "0" or not stripped.isdigit()):
            try:
                return kind(stripped)
            except ValueError:
                continue
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value


def with_column(table: Table, name: str, values: Any, as_boolean: bool) -> Table:
    """A table with a column under a name, in place of the one that has it; numbers as true and false, if that is what they mean."""
    values = values.cast(pa.bool_()) if as_boolean else values
    place = table.column_names.index(name) if name in table.column_names else -1
    return table.set_column(place, name, values) if place >= 0 else table.append_column(name, values)


def kept(table: Table, rows: Any) -> Table:
    """The rows of a table that a mask keeps."""
    return table.filter(pa.array(rows))
