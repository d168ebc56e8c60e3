"""Build features: a history's events with the features a worker would have served, as Parquet files that say what they are made of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.columns import Ints, Nullable
from schemas.errors import HistoryError
from schemas.features import Json
from schemas.rules import show
from schemas.table import Table, beside, counts_of, table_of, to_arrow
from schemas.table_file import ParquetParts, Part
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.offline.ahead import ahead
from streams.offline.featurize import VERDICT, Featurize
from streams.offline.history import History, Turn
from transforms.keys import identities

FORMAT = 1
ADDRESS = ("source_partition", "source_offset")  # as scored events call them
MANIFEST = "_features.json"
MEMORY_SHARE = 0.6  # of the machine's, for state


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How features are built.

    Attributes:
        rows_per_file: of each file but the last.
        unique_ids: whether an event id that comes twice is refused; else it is two events, as in a stream.
        overwrite: whether a folder that is there is replaced.
        state_bytes: most memory for state; None = a share of the machine's.
    """

    rows_per_file: int = 1_000_000
    unique_ids: bool = False
    overwrite: bool = False
    state_bytes: int | None = None


def build_features(
    bound: Bound, history: History, to: Path, options: BuildOptions, progress: Callable[[int], None] = lambda rows: None
) -> dict[str, Json]:
    """Write the features of a history to a folder; it is there whole, or not at all.

    Args:
        bound: the pipeline.
        history: its events.
        to: the folder.
        options: see there.
        progress: told how many more events are done.

    Returns:
        The account: events, refused ones by reason, keys, files.

    Raises:
        HistoryError: the history is empty or broken, an id comes twice, there are more keys than memory, or the folder is there.
        KafkaDown: the broker does not answer.
    """
    build = _Build(bound, history, options, progress)
    with written_aside(to, options.overwrite) as folder:
        build.run(folder)
    return {"to": str(to), **build.account()}


class _Build:
    """One run: read ahead in one thread, compute in the next, write in the last."""

    def __init__(self, bound: Bound, history: History, options: BuildOptions, progress: Callable[[int], None]) -> None:
        self._bound, self._history, self._options, self._progress = bound, history, options, progress
        self._featurize = Featurize(bound, history.decoder, history.max_record_bytes, history.labelled)
        self._ids = UniqueIds(bound) if options.unique_ids else None
        self._most_bytes = options.state_bytes or int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE)
        self._keys: dict[str, int] = {}
        self._events = 0
        self._refused: dict[str, int] = {}
        self._parts: list[Json] = []
        self._partition: int | None = None
        self._writer: ParquetParts | None = None

    def run(self, folder: Path) -> None:
        done = False
        try:
            for partition, table, rows in ahead(self._computed()):
                if table is not None:
                    self._writer_for(partition, folder).write(table)
                    self._events += len(table)
                self._progress(rows)
            self._end_partition(folder)
            done = True
        finally:
            if not done and self._writer is not None:
                self._writer.abandon()
        if self._events == 0:
            raise HistoryError("the history holds no events; nothing was written")
        (folder / MANIFEST).write_text(json.dumps({**self._said(), "parts": self._parts}, indent=2, sort_keys=True) + "\n")

    def account(self) -> dict[str, Json]:
        return {
            "events": self._events,
            "refused": sum(self._refused.values()),
            "reasons": dict(sorted(self._refused.items())),
            "keys": self._keys,
            "feature_fingerprint": self._bound.features.fingerprint,
            "files": len(self._parts),
        }

    def _read(self) -> Iterator[tuple[Turn, Batch]]:
        for turn in self._history.turns():
            batch = self._featurize.read(turn.past, turn.is_label, turn.value)
            if self._ids is not None:
                self._ids.check(batch)
            yield turn, batch

    def _computed(self) -> Iterator[tuple[int, Table | None, int]]:
        partition = None
        for turn, read in ahead(self._read()):
            if partition is not None and partition != turn.past.partition:
                self._featurize.forget(partition)
            partition = turn.past.partition
            batch = self._featurize.remember(read)
            self._check_memory(batch)
            yield partition, self._table(turn, batch) if turn.wanted else None, len(batch) - _labels_in(batch)
            self._keys = self._featurize.keys

    def _check_memory(self, batch: Batch) -> None:
        held = self._featurize.state_bytes
        if held > self._most_bytes:
            keys = ", ".join(f"{count} of {name}" for name, count in self._featurize.keys.items())
            raise HistoryError(
                f"more keys than memory: at {batch} the state of {keys} takes {held >> 20} MiB, wanted {self._most_bytes >> 20} at most; "
                "build the events of some keys at a time, or raise --state-memory"
            )

    def _table(self, turn: Turn, batch: Batch) -> Table:
        features = self._featurize.features(batch, turn.troubles)
        for reason, count in counts_of(features.column(VERDICT[1])).items():
            self._refused[reason] = self._refused.get(reason, 0) + count
        events = turn.table if turn.table is not None and turn.has_events else self._featurize.events(batch)
        if turn.table is not None and not turn.has_events:
            events = beside(events, turn.table)
        for name in ADDRESS:
            if name in events.column_names:
                raise HistoryError(f"the history has a column {name!r}; wanted none of that name, since it says where an event stands")
        # The partition is in the path, where lakes look for it.
        offsets = batch.offsets if batch.labels is None else batch.offsets[~batch.labels.is_label]
        return beside(beside(events, features), table_of({ADDRESS[1]: to_arrow(offsets)}))

    def _writer_for(self, partition: int, folder: Path) -> ParquetParts:
        if self._writer is None or partition != self._partition:
            self._end_partition(folder)
            self._partition = partition
            within = folder / f"{ADDRESS[0]}={partition}"
            within.mkdir()
            self._writer = ParquetParts(within, lambda part: {**self._said(), **self._span(part)}, ADDRESS[1], self._options.rows_per_file)
        return self._writer

    def _end_partition(self, folder: Path) -> None:
        if self._writer is None:
            return
        for part in self._writer.close():
            digest = hashlib.sha256(part.path.read_bytes()).hexdigest()
            self._parts.append({"file": str(part.path.relative_to(folder)), "rows": part.rows, "sha256": digest, **self._span(part)})
        self._writer = None

    def _span(self, part: Part) -> dict[str, Json]:
        return {"partition": self._partition, "offsets": [part.first_offset, part.last_offset + 1]}

    def _said(self) -> dict[str, Json]:
        """What every file says alike."""
        bound = self._bound
        return {
            "format": FORMAT,
            "pipeline": bound.name,
            "pipeline_fingerprint": bound.fingerprint,
            "feature_fingerprint": bound.features.fingerprint,
            "state_fingerprint": bound.state_fingerprint,
            "model_inputs": list(bound.features.names),
            "features": list(self._featurize.names),
            "environment": bound.input.environment,
            "event_id": bound.event_id,
            "event_time": bound.event_time.column,
            "schema": bound.schema.definition,
            "schema_fingerprint": bound.schema.fingerprint,
            "source": self._history.describe(),
        }


def _labels_in(batch: Batch) -> int:
    return 0 if batch.labels is None else int(batch.labels.is_label.sum())


class UniqueIds:
    """Finds an event id that comes twice, by 64 bits of its hash: eight bytes an event, in sorted runs that are merged as they grow."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._runs: list[Ints] = []

    def check(self, batch: Batch) -> None:
        """Learn the ids of a batch's usable rows.

        Raises:
            HistoryError: one came before; names both it and the row.
        """
        rows = np.flatnonzero(batch.usable if batch.labels is None else batch.usable & ~batch.labels.is_label)
        if not len(rows):
            return
        column = batch.columns[self._bound.event_id]
        hashes = identities(self._bound.event_id, column.values if isinstance(column, Nullable) else column)[rows]
        kept, first = np.unique(hashes, return_index=True)
        again = np.ones(len(hashes), np.bool_)
        again[first] = False
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            again |= run[at] == hashes
        if again.any():
            row = int(rows[np.argmax(again)])
            name = show(batch.columns[self._bound.event_id], row)
            raise HistoryError(f"{batch.address(row)}: event id {name} came before; wanted each once, or leave --unique-ids out")
        self._runs.append(kept)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs.append(np.sort(np.concatenate((self._runs.pop(), self._runs.pop())), kind="stable"))


@contextmanager
def written_aside(to: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside the one that is wanted, put in its place when the block ends well and removed when it does not.

    Raises:
        HistoryError: there is something at that place, and it is not to be replaced or is none of ours; or the disk refuses.
    """
    if to.exists() and not overwrite:
        raise HistoryError(f"{to} is there already; wanted a new folder, or --overwrite")
    if to.exists() and not (to / MANIFEST).is_file():
        raise HistoryError(f"{to} holds no features of ours (it has no {MANIFEST}) and is left as it is; wanted another folder")
    aside = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        yield aside
        old = to.with_name(f".{to.name}.{os.getpid()}.old")
        if to.exists():
            os.rename(to, old)
        os.rename(aside, to)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise HistoryError(f"{to} can't be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def build_words(facts: dict[str, Any]) -> str:
    """The account in words."""
    lines = [f"{facts['events']:,} events in {facts['files']} files at {facts['to']}, features {facts['feature_fingerprint']}"]
    lines += [f"  {count:,} keys of {name}" for name, count in facts["keys"].items()]
    lines += [f"  {count:,} refused: {reason}" for reason, count in facts["reasons"].items()]
    return "\n".join(lines)
