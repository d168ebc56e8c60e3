"""Label features: training sets in which nothing is known earlier than it was.

    --split train=07-25..08-01      --split test=08-08..08-15      --delay 7d

    07-25        08-01        08-08        08-15        08-22
      | train's    | train's    | test's     | test's     |
      | events     | labels     | events     | labels     |
                   | may still  |            | may still  |
                   | come       |            | come       |

A split's labels are those known when its delay is over: at its end and the delay after it, and never later than `known_by`. Where an event
has several by then, the last one holds. One without any counts as negative if its own delay is over by then, and is left out if not. A
split may not begin before what the splits before it know: they would have learned from what is yet to come.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.avro import AvroSchema
from schemas.columns import Column, Floats, Ints, Mask, Nullable, PackedBytes
from schemas.environment import TRAINING
from schemas.errors import HistoryError, SettingsError
from schemas.features import Json
from schemas.loose_table import kept as rows_kept
from schemas.read_table import TableReader
from schemas.table import Table, chosen, is_whole
from schemas.table_file import ParquetParts, Part
from streams.definition.bound import Bound
from streams.offline.build import ADDRESS, MANIFEST, written_aside
from streams.offline.featurize import VERDICT
from streams.offline.folder import FeatureFolder
from streams.offline.known_labels import Labels
from streams.offline.topic_history import Edge
from streams.offline.training_constraints import TrainingConstraints
from transforms.fixed_point import numbers
from transforms.keys import key_hashes
from transforms.label import event_id_hashes

TURN_ROWS = 50_000
LABEL, KNOWN_AT, WEIGHT = "label", "label_known_at", "weight"
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_DURATION = re.compile(r"(\d+)([dhms])")
_SPLIT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)\.\.(.+)")


@dataclass(frozen=True, slots=True)
class Split:
    """A part of the events by their time: from `start_ms` to before `end_ms`."""

    name: str
    start_ms: int
    end_ms: int

    @classmethod
    def parse(cls, text: str) -> Split:
        """``train=2018-07-25T00:00:00Z..2018-08-01T00:00:00Z``.

        Raises:
            SettingsError: it is none, or ends before it begins.
        """
        found = _SPLIT.fullmatch(text)
        edges = [Edge.parse(part).time_ms for part in found.groups()[1:]] if found else []
        if found is None or None in edges:
            raise SettingsError(f"{text!r} is no split; wanted NAME=TIME..TIME, such as train=2018-07-25T00:00:00Z..2018-08-01T00:00:00Z")
        start, end = (edge or 0 for edge in edges)
        if end <= start:
            raise SettingsError(f"split {found[1]!r} ends before it begins")
        return cls(found[1], start, end)


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How events are labelled.

    Attributes:
        splits: in order of time.
        delay_ms: how long it takes until an event that turned out bad is known.
        known_by_ms: nothing that became known after this is used; None = all of the file.
        dated: whether the labels say when they became known; else each does so when its event's delay is over.
        negatives: the share of negatives that is kept, chosen by their ids; each then weighs as many as it stands for.
        seed: another one chooses others.
        overwrite: whether a folder that is there is replaced.
    """

    splits: tuple[Split, ...]
    delay_ms: int
    known_by_ms: int | None = None
    dated: bool = True
    negatives: float = 1.0
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.splits:
            raise SettingsError("a training set needs a split; wanted --split NAME=TIME..TIME")
        if not 0 < self.negatives <= 1:
            raise SettingsError(f"--negatives {self.negatives}, wanted more than 0 and at most 1")
        for before, after in zip(self.splits, self.splits[1:], strict=False):
            if before.name == after.name:
                raise SettingsError(f"two splits are named {before.name!r}")
            if after.start_ms < self.known_ms(before):
                raise SettingsError(
                    f"split {after.name!r} begins at {_iso(after.start_ms)}, and the labels of {before.name!r} are those known at "
                    f"{_iso(self.known_ms(before))}: it would have learned from what is yet to come; wanted a beginning then or later"
                )

    def known_ms(self, split: Split) -> int:
        """By when a split's labels had to be known."""
        ripe = split.end_ms + self.delay_ms
        return ripe if self.known_by_ms is None else min(ripe, self.known_by_ms)


def label_features(bound: Bound, features: FeatureFolder, labels: Labels, to: Path, options: LabelOptions) -> dict[str, Json]:
    """Write the splits of a training set to a folder, a folder each; it is there whole, or not at all.

    Args:
        bound: the pipeline.
        features: its features over history.
        labels: what became of its events.
        to: the folder.
        options: see there.

    Returns:
        The account, by split: positives, negatives, and what was left out and why.

    Raises:
        HistoryError: the features are broken, no label is of their events, a split has no events, or the folder is there.
    """
    with written_aside(to, options.overwrite) as folder:
        account = _Labelling(bound, features, labels, options).run(folder)
    return {"to": str(to), **account}


class _Labelling:
    def __init__(self, bound: Bound, features: FeatureFolder, labels: Labels, options: LabelOptions) -> None:
        self._bound, self._features, self._labels, self._options = bound, features, labels, options
        self._counts: dict[str, Counter[str]] = {split.name: Counter() for split in options.splits}
        self._broken: dict[str, Counter[str]] = {split.name: Counter() for split in options.splits}
        self._training: list[TrainingConstraints | None] = []  # one, once the shape of the set is known
        self._parts: list[Json] = []

    def run(self, folder: Path) -> dict[str, Json]:
        writers = {}
        for split in self._options.splits:
            (folder / split.name).mkdir()
            writers[split.name] = ParquetParts(folder / split.name, self._describer(split), ADDRESS[1], 1_000_000)
        done = False
        try:
            for _, file in self._features.files():
                reader = self._reader(file.shape, str(file.path))
                row = 0
                for table in file.tables(TURN_ROWS):
                    columns = reader.columns(table, row)
                    for split in self._options.splits:
                        writers[split.name].write(self._labelled(split, table, columns))
                    row += len(table)
            for split in self._options.splits:
                for part in writers[split.name].close():
                    self._parts.append({"file": str(part.path.relative_to(folder)), "rows": part.rows, "split": split.name})
            done = True
        finally:
            if not done:
                for writer in writers.values():
                    writer.abandon()
        self._check()
        facts: dict[str, Json] = {
            "feature_fingerprint": self._bound.features.fingerprint,
            "splits": {split.name: self._said(split) for split in self._options.splits},
            "labels": len(self._labels.ids),
            "labels_of_unknown_events": int((~self._labels.matched).sum()),
        }
        said = {**self._features.said, **facts, "parts": self._parts, "format": "training set 1", "environment": TRAINING}
        (folder / MANIFEST).write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
        return facts

    def _reader(self, shape: Table, where: str) -> TableReader:
        """For the event's id and time, and whether it was refused."""
        whole = is_whole(shape, self._bound.event_id) if self._bound.event_id in shape.column_names else False
        time: Json = {"type": "long", "logicalType": "timestamp-millis"}
        if self._bound.event_time.units_per_ms != 1 and is_whole(shape, self._bound.event_time.column):
            raise HistoryError(f"{where}: {self._bound.event_time.column} holds plain integers of microseconds; wanted times")
        fields: list[Json] = [
            {"name": self._bound.event_id, "type": ["null", "long" if whole else "string"]},
            {"name": self._bound.event_time.column, "type": ["null", time]},
            {"name": VERDICT[1], "type": ["null", "string"]},
        ]
        schema = AvroSchema.parse({"type": "record", "name": "Event", "fields": fields})
        return TableReader.of(shape, schema, where, self._features.said["source"].get("time_zone"))

    def _labelled(self, split: Split, table: Table, columns: Mapping[str, Column]) -> Table:
        """A split's events of a table, with their labels."""
        options, counts = self._options, self._counts[split.name]
        times = _ints(columns[self._bound.event_time.column])
        refused = columns[VERDICT[1]]
        assert isinstance(refused, Nullable)
        within = (times >= split.start_ms) & (times < split.end_ms)
        counts["refused"] += int((within & refused.valid).sum())
        rows = np.flatnonzero(within & ~refused.valid)
        ids = event_id_hashes(columns[self._bound.event_id])[rows]
        by_ms = options.known_ms(split)
        place, known_ms = self._known(ids, times[rows], by_ms)
        has = place >= 0
        positive = np.zeros(len(rows), np.bool_)
        positive[has] = self._labels.values[place[has]] == 1
        ripe = has | (times[rows] + options.delay_ms <= by_ms)
        counts["unripe"] += int((~ripe).sum())
        kept = ripe & (positive | self._sampled(ids))
        counts["positives"] += int(positive.sum())
        counts["negatives"] += int((ripe & ~positive).sum())
        counts["negatives_kept"] += int((kept & ~positive).sum())
        mask = np.zeros(len(table), np.bool_)
        mask[rows[kept]] = True
        weights: Floats = np.where(positive, 1.0, 1.0 / options.negatives)[kept]
        set_of = chosen(table, mask, {LABEL: positive[kept].astype(np.int8), KNOWN_AT: known_ms[kept].astype("M8[ms]"), WEIGHT: weights})
        return self._sound(split, set_of)

    def _sound(self, split: Split, table: Table) -> Table:
        """Its rows that are as training wants them."""
        if not self._training:
            where = f"the training set of {self._features.path}"
            self._training = [TrainingConstraints.of(self._bound, table, LABEL, where, self._features.said["source"].get("time_zone"))]
        if self._training[0] is None:
            return table
        sound, broken = self._training[0].look(table)
        self._broken[split.name].update(broken)
        return rows_kept(table, sound)

    def _known(self, ids: Ints, times: Ints, by_ms: int) -> tuple[NDArray[np.intp], Ints]:
        """The place of each event's label known by then, and when it, or that there is none, became known."""
        ripe_ms = times + self._options.delay_ms
        if self._options.dated:
            place = self._labels.at(ids, by_ms)
            return place, np.where(place >= 0, self._labels.known_ms[place], ripe_ms)
        place = self._labels.at(ids, by_ms)
        return np.where(ripe_ms <= by_ms, place, -1), ripe_ms

    def _sampled(self, ids: Ints) -> Mask:
        """Which negatives are kept: those of a share of all hashes."""
        if self._options.negatives == 1:
            return np.ones(len(ids), np.bool_)
        limit = np.uint64(self._options.negatives * float(1 << 64))
        octets = np.ascontiguousarray(ids).view(np.uint8)
        starts = np.arange(len(ids), dtype=np.int64) * 8
        return np.asarray(key_hashes(PackedBytes(octets, starts, starts + 8), self._options.seed + 1)[:, 0] < limit)

    def _check(self) -> None:
        for name, counts in self._counts.items():
            if not counts["positives"] + counts["negatives"]:
                raise HistoryError(
                    f"split {name!r} has no events whose label is known ({counts['unripe']} are too young); nothing was written"
                )
        if not self._labels.matched.any():
            raise HistoryError(f"none of {len(self._labels.ids)} labels is of an event in {self._features.path}; is it another history's?")

    def _said(self, split: Split) -> Json:
        options = self._options
        return {
            "start": _iso(split.start_ms),
            "end": _iso(split.end_ms),
            "labels_known_by": _iso(options.known_ms(split)),
            "delay_ms": options.delay_ms,
            **{name: self._counts[split.name][name] for name in ("positives", "negatives", "negatives_kept", "unripe", "refused")},
            "broken": dict(sorted(self._broken[split.name].items())),
        }

    def _describer(self, split: Split) -> Any:
        def describe(part: Part) -> Json:
            said = self._features.said
            kept = {name: said[name] for name in ("pipeline", "feature_fingerprint", "model_inputs", "features", "source")}
            window = {"start": _iso(split.start_ms), "end": _iso(split.end_ms), "labels_known_by": _iso(self._options.known_ms(split))}
            return {**kept, "split": split.name, "rows": part.rows, **window}

        return describe


def parse_duration(text: str) -> int:
    """``7d`` or ``12h`` in milliseconds.

    Raises:
        SettingsError: it is no duration.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise SettingsError(f"{text!r} is no duration; wanted a number with d, h, m or s, such as 7d")
    return int(found[1]) * _UNITS_MS[found[2]]


def label_words(facts: Mapping[str, Any]) -> str:
    """The account in words: a line a split."""
    lines = [f"training set at {facts['to']}, features {facts['feature_fingerprint']}"]
    for name, said in facts["splits"].items():
        share = said["positives"] / (said["positives"] + said["negatives"])
        sampled = f" ({said['negatives_kept']:,} kept)" if said["negatives_kept"] != said["negatives"] else ""
        lines.append(
            f"  {name}: {said['positives']:,} positives, {said['negatives']:,} negatives{sampled}, {share:.3%} positive; "
            f"labels known by {said['labels_known_by']}; left out: {said['unripe']:,} too young, {said['refused']:,} refused"
        )
        lines += [f"    left out by the constraints of {TRAINING}: {count:,} {name}" for name, count in said["broken"].items()]
    if facts["labels_of_unknown_events"]:
        lines.append(f"  {facts['labels_of_unknown_events']:,} of {facts['labels']:,} labels are of events that are in no split")
    return "\n".join(lines)


def _ints(column: Column) -> Ints:
    return numbers("time", column).astype(np.int64)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat()
