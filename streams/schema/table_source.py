"""Tables as a source of data to look at: Parquet and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from schemas.avro import AvroSchema
from schemas.codec import Decoder
from schemas.columns import Column, Ints, PackedBytes
from schemas.errors import HistoryError
from schemas.infer import Profile
from schemas.loose_table import LooseReader, LooseTurn, Nulls, open_loose, records, schema_of_table, without_null
from schemas.read_table import TableReader
from schemas.statistics import chosen
from streams.schema.source import TURN_ROWS, Reading, Rows, Trouble, reencoded


class TableSource:
    """Parquet or CSV files, one after the other."""

    def __init__(self, files: Sequence[Path], how: Reading) -> None:
        self._files, self._how = [open_loose(path) for path in files], how
        self.name = str(files[0]) if len(files) == 1 else f"{files[0]} (+{len(files) - 1})"
        self.profile: Profile | None = None
        self.schema = how.schema if how.schema is not None else self._draft()
        self.troubles: list[str] = []  # of whole files: what makes all of their rows unreadable

    def _draft(self) -> AvroSchema:
        if not self._files[0].text:
            nulls = Nulls()
            for file in self._files:
                for turn in self._limited(file.turns(TURN_ROWS)):
                    nulls.add(turn.table)
            return without_null(schema_of_table(self._files[0].shape, self._how.name), nulls)
        self.profile = Profile()
        for file in self._files:
            for turn in self._limited(file.turns(TURN_ROWS)):
                for record in records(turn.table, True):
                    self.profile.add(record)
        return self.profile.schema(self._how.name)

    def rows(self) -> Iterator[Rows]:
        """See `Source`."""
        known = {each.name for each in self.schema.fields}
        for file in self._files:
            unexpected = [name for name in dict.fromkeys(name.partition(".")[0] for name in file.shape.column_names) if name not in known]
            try:
                reader = LooseReader(TableReader.of(file.shape, self.schema, file.path.name, self._how.time_zone, file.text))
                reader.reader.columns(file.shape, 0)
            except HistoryError as error:
                if "without a time zone" in str(error):
                    raise
                yield from self._unreadable(file.turns(TURN_ROWS), file.path, str(error), unexpected)
                continue
            for turn in self._limited(file.turns(TURN_ROWS)):
                yield self._read(turn, reader, file.path, unexpected)

    def _read(self, turn: LooseTurn, reader: LooseReader, path: Path, unexpected: Sequence[str]) -> Rows:
        columns, numbers, broken = reader.columns(turn)
        read = dict(reencoded(columns, reader.reader.schema, self.schema))
        everything = np.concatenate((numbers, np.array(sorted(broken), np.int64)))
        rows = np.argsort(everything, kind="stable")
        places = everything[rows]
        usable = rows < len(numbers)
        found = {name: _spread(column, rows, len(numbers)) for name, column in read.items()}
        troubles = {int(row): Trouble.of(broken[int(places[row])]) for row in np.flatnonzero(~usable)}
        counts = dict.fromkeys(unexpected, len(places))
        return Rows(found, usable, troubles, lambda row: f"{path.name} row {places[row]}", unexpected=counts)

    def _unreadable(self, turns: Iterator[LooseTurn], path: Path, words: str, unexpected: Sequence[str]) -> Iterator[Rows]:
        """Rows of a file none of which can be read, since a column is missing or of another type."""
        nothing = Decoder(self.schema, "bare")
        said = words.partition(": ")[2] or words.partition(path.name)[2].strip()
        name = next((part for part in words.split("'")[1:2]), "")
        reason = "missing_column" if " has no column" in words else "wrong_type"
        for turn in self._limited(turns):
            numbers = np.sort(np.concatenate((turn.numbers, np.array(list(turn.broken), np.int64))))
            n = len(numbers)
            columns = nothing.decode(PackedBytes.pack([b""] * n)).columns
            troubles = {row: Trouble(reason, name, said) for row in range(n)}
            places = numbers
            yield Rows(
                columns,
                np.zeros(n, np.bool_),
                troubles,
                lambda row, places=places: f"{path.name} row {places[row]}",  # type: ignore[misc]
                unexpected=dict.fromkeys(unexpected, n),
            )

    def _limited(self, turns: Iterator[LooseTurn]) -> Iterator[LooseTurn]:
        left = self._how.limit
        for turn in turns:
            if left is None:
                yield turn
                continue
            if left <= 0:
                return
            yield LooseTurn(turn.table.slice(0, left), turn.numbers[:left], turn.broken)
            left -= len(turn.table)


def _spread(column: Column, rows: Ints, there: int) -> Column:
    """A column over more rows than it has: those beyond mean nothing, and stand for the first."""
    if there == 0:
        return column
    return column if there == len(rows) and np.array_equal(rows, np.arange(there)) else chosen(column, np.where(rows < there, rows, 0))
