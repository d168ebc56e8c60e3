"""Files of tables: Parquet and CSV read in turns, Parquet written so that the same rows give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from schemas.errors import HistoryError
from schemas.features import Json
from schemas.table import Table, words_of

METADATA_KEY = b"millrace"
_CSV_BLOCK_BYTES = 8 << 20
_BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table, opened.

    Attributes:
        path: of the file.
        shape: a table of its columns, without rows.
        rows: how many it has; None if that is known only at its end.
        text: whether all its columns are text to be parsed.
    """

    path: Path
    shape: Table
    rows: int | None
    text: bool

    def tables(self, turn_rows: int) -> Iterator[Table]:
        """Its rows in order, so many at a time or fewer.

        Raises:
            HistoryError: the file is broken further on; names how many rows were sound.
        """
        done = 0
        try:
            for batch in self._batches(turn_rows):
                table = pa.Table.from_batches([batch])
                for first in range(0, len(table), turn_rows):
                    yield table.slice(first, turn_rows)
                done += len(table)
        except _BROKEN as error:
            raise HistoryError(f"{self.path} is broken after {done} rows: {words_of(error)}") from error

    def _batches(self, turn_rows: int) -> Iterator[Any]:
        if self.text:
            yield from _open_csv(self.path, {name: pa.string() for name in self.shape.column_names})
        else:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(turn_rows)


def open_table_file(path: Path) -> TableFile:
    """Open a Parquet file, or a CSV file whose first line names its columns; which one is told by its last letters.

    Raises:
        HistoryError: it is missing, empty or broken.
    """
    try:
        if path.stat().st_size == 0:
            raise HistoryError(f"{path} is empty: it has not even a header")
        if path.suffix == ".csv":
            with _open_csv(path, None) as file:
                return TableFile(path, pa.table({name: pa.array([], pa.string()) for name in file.schema.names}), None, True)
        with pq.ParquetFile(path) as file:
            return TableFile(path, file.schema_arrow.empty_table(), file.metadata.num_rows, False)
    except FileNotFoundError as error:
        raise HistoryError(f"{path} is missing") from error
    except (*_BROKEN, ValueError) as error:
        raise HistoryError(f"{path} is no sound {'CSV' if path.suffix == '.csv' else 'Parquet'} file: {words_of(error)}") from error


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What was said of a Parquet file when it was written here; None if it was written by somebody else.

    Raises:
        HistoryError: it is missing or broken.
    """
    try:
        found = (pq.read_metadata(path).metadata or {}).get(METADATA_KEY)
    except _BROKEN as error:
        raise HistoryError(f"{path} is no sound Parquet file: {words_of(error)}") from error
    return None if found is None else json.loads(found)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the files that a table was written to."""

    path: Path
    rows: int
    first_offset: int
    last_offset: int


class ParquetParts:
    """Writes tables one after the other into files ``part-00000.parquet`` and so on of so many rows each.

    The same rows give the same bytes, however they are cut into tables: files and the groups in them end at fixed numbers of rows.

    Args:
        folder: for the files; it is there.
        describe: what is said of a file in its metadata.
        offsets: the column of the rows' places in their log.
        rows_per_file: of each file but the last.
        rows_per_group: of each group of a file but the last; divides `rows_per_file`.
    """

    def __init__(
        self, folder: Path, describe: Callable[[Part], Json], offsets: str, rows_per_file: int, rows_per_group: int = 1 << 17
    ) -> None:
        self._folder = folder
        self._describe = describe
        self._offsets = offsets
        self._rows_per_file = rows_per_file
        self._rows_per_group = min(rows_per_group, rows_per_file)
        self._waiting: list[Table] = []
        self._rows_waiting = 0
        self._schema: Any = None
        self._writer: Any = None
        self._rows = 0  # of the open file
        self._span = (0, 0)
        self.parts: list[Part] = []

    def write(self, table: Table) -> None:
        """Add the rows of a table.

        Raises:
            HistoryError: a column is of another type than in the tables before.
        """
        if self._schema is None:
            self._schema = table.schema.remove_metadata()
        try:
            table = table.select(self._schema.names).cast(self._schema)
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise HistoryError(f"the columns change from one file to the next: {words_of(error)}") from error
        self._waiting.append(table)
        self._rows_waiting += len(table)
        while self._rows_waiting >= self._next_group:
            self._put(self._next_group)

    def close(self) -> list[Part]:
        """Write what is left, and give all files."""
        if self._rows_waiting:
            self._put(self._rows_waiting)
        self._end_file()
        return self.parts

    def abandon(self) -> None:
        """Let go of the open file, which stays unfinished."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def _next_group(self) -> int:
        return min(self._rows_per_group, self._rows_per_file - self._rows)

    def _put(self, rows: int) -> None:
        whole = pa.concat_tables(self._waiting)
        group, rest = whole.slice(0, rows).combine_chunks(), whole.slice(rows)
        self._waiting, self._rows_waiting = [rest], len(rest)
        places = group.column(self._offsets)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd", use_dictionary=_text_columns(self._schema))
            self._span = (places[0].as_py(), 0)
        self._writer.write_table(group, row_group_size=rows)
        self._rows += rows
        self._span = (self._span[0], places[-1].as_py())
        if self._rows == self._rows_per_file:
            self._end_file()

    @property
    def _path(self) -> Path:
        return self._folder / f"part-{len(self.parts):05d}.parquet"

    def _end_file(self) -> None:
        if self._writer is None:
            return
        part = Part(self._path, self._rows, *self._span)
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(self._describe(part), sort_keys=True).encode()})
        self._writer.close()
        self._writer, self._rows = None, 0
        self.parts.append(part)


def _open_csv(path: Path, types: Mapping[str, Any] | None) -> Any:
    return arrow_csv.open_csv(
        path,
        read_options=arrow_csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
        convert_options=arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False, check_utf8=True),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
    )


def _text_columns(schema: Any) -> list[str]:
    return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
