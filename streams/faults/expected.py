"""What a run should have put out, worked out slowly from the bytes of its logs.

fastavro reads them, every key's past is a list (`transforms.slow_windows`), sums are Python's, and ONNX Runtime scores. Of the engine
nothing is used but the pipeline's declarations, and the user's own functions, which are the definition.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from schemas.columns import Column, Columns, Nullable, PackedBytes, Symbols
from schemas.rules import Rule
from streams.definition.bound import Bound, BoundLabels
from streams.faults.log import History, Place, Record
from streams.faults.plain_reader import PlainReader, column_of, flat
from streams.hop import HopSchema, leaf_types
from streams.planning.stage import Stage, stages
from transforms.derive import derive
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.slow_windows import UNMATCHED, Past, feature

SCORED_AT_ONCE = 20_000
OLD_REASON = "unknown_schema"

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hopped:
    """What a record of an internal topic says of where it came from."""

    record: Record
    source: Place
    is_label: bool
    fields: Fields  # event id, event time, keys, label


@dataclass(slots=True)
class Answer:
    """What one event should come to."""

    event_id: str
    event_ms: int
    key: bytes | None
    schema_id: int
    timing: int
    features: dict[str, float]  # every column that the model is given, and every window feature
    score: float = 0.0
    is_scored: bool = True  # False: the model gives no finite number, and the event is refused for that


@dataclass(frozen=True)
class Expected:
    """What should have come out.

    Attributes:
        answers: of each event that is not refused, by its place in the input.
        refused: places of events that are.
        labels: places of labels that are taken; `unmatched` of those whose event no entity remembers.
        refused_labels: places of labels that can't be used.
        crossed: by stage behind a hop, its log.
    """

    answers: Mapping[Place, Answer]
    refused: frozenset[Place]
    labels: frozenset[Place]
    refused_labels: frozenset[Place]
    unmatched: frozenset[Place]
    crossed: Mapping[str, Sequence[Hopped]]


def expect(bound: Bound, history: History, folder: Path) -> Expected:
    """What should have come out of a history; `folder` has the writers' schemas."""
    return _Working(bound, history, folder).expected()


def first_refused(letters: Sequence[Record]) -> dict[tuple[int, int], int]:
    """By partition and schema id, where a schema was first refused for being unknown: it stays refused, whenever it is registered."""
    found: dict[tuple[int, int], int] = {}
    for letter in letters:
        said = dict(letter.headers)
        if said.get("millrace.reason") == OLD_REASON.encode():
            place = int(said["__connect.errors.partition"] or 0), int(said["millrace.schema_id"] or 0)
            offset = int(said["__connect.errors.offset"] or 0)
            found[place] = min(offset, found.get(place, offset))
    return found


class _Working:
    def __init__(self, bound: Bound, history: History, folder: Path) -> None:
        self._bound, self._history, self._folder = bound, history, folder
        self._stages = stages(bound, history.partitions)
        self._ids: dict[object, int] = {}  # a number for every text that is only told apart

    def expected(self) -> Expected:
        bound, history = self._bound, self._history
        events = self._usable(bound, history.inputs, history.letters)
        self._derive(events)
        answers = {at: self._begun(at, fields) for at, fields in events.items()}
        labels: dict[Place, Fields] = {}
        if bound.labels is not None:
            labels = self._usable(bound.labels, history.labels, history.label_letters)
        crossed = {stage.name: self._hopped(stage) for stage in self._stages if stage.kind == "hop"}
        unmatched: set[Place] = set()
        for stage in self._stages:
            for entity in stage.entities:
                self._remember(entity, list(self._log(stage, crossed, events)), events, answers, unmatched)
        self._score(answers)
        return Expected(
            answers,
            frozenset(record.place for record in history.inputs if record.place not in events),
            frozenset(labels),
            frozenset(record.place for record in history.labels if record.place not in labels),
            frozenset(unmatched),
            crossed,
        )

    # --- which records can be used ---

    def _usable(self, read: Bound | BoundLabels, records: Sequence[Record], letters: Sequence[Record]) -> dict[Place, Fields]:
        """The records that no rule refuses, by place, in the order of the log; each with its schema's id under an empty name."""
        topic = read.input if isinstance(read, Bound) else read.topic
        reader = PlainReader(read.schema.definition, "bare" if topic.framing == "bare" else "confluent", self._folder)
        since = first_refused(letters)
        found: dict[Place, Fields] = {}
        for record in records:
            said = reader.read(record.value)
            if said.fields is None or record.offset >= since.get((record.partition, said.schema_id), record.offset + 1):
                continue
            fields = flat(said.fields, read.columns)
            time = fields[read.event_time.column]
            fields[read.event_time.column] = None if time is None else time // read.event_time.units_per_ms
            if record.key is not None and record.key == _text(fields[read.key]):
                found[record.place] = fields | {"": (said.schema_id, record)}
        holds = _all_hold(read.rules, _columns(read, list(found.values())), len(found))
        return {at: fields for (at, fields), good in zip(found.items(), holds, strict=True) if good}

    def _derive(self, events: Mapping[Place, Fields]) -> None:
        """Add the user's derived columns."""
        rows = list(events.values())
        columns = _columns(self._bound, rows)
        made = derive(columns, self._bound.pipeline.derived, np.ones(len(rows), np.bool_))
        for each in self._bound.pipeline.derived:
            for fields, value in zip(rows, _plain(made[each.name]), strict=True):
                fields[each.name] = value

    def _begun(self, at: Place, fields: Fields) -> Answer:
        bound = self._bound
        schema_id, record = fields[""]
        given = {name: float(fields[name]) for name in bound.model.inputs if name in fields}
        return Answer(fields[bound.event_id], fields[bound.event_time.column], record.key, schema_id, 0, given)

    # --- the logs that feed entities ---

    def _hopped(self, stage: Stage) -> list[Hopped]:
        bound, hop = self._bound, HopSchema.of(self._bound, stage)
        reader = PlainReader(hop.schema.definition, "bare")
        found = []
        for record in self._history.hops[stage.name]:
            said = reader.read(record.value).fields or {}
            fields = {
                bound.event_id: said.get("event_id"),
                bound.event_time.column: said.get("event_time"),
                "": said.get("label"),
                **{name: _nested(said.get("keys"), name) for name in hop.key_columns},
            }
            place = int(said.get("source_partition", -1)), int(said.get("source_offset", -1))
            found.append(Hopped(record, place, said.get("kind") == "label", fields))
        return found

    def _log(
        self, stage: Stage, crossed: Mapping[str, Sequence[Hopped]], events: Mapping[Place, Fields]
    ) -> Iterator[tuple[int, Place, Fields | None]]:
        """What a stage reads, in its order: the partition, where the event entered the pipeline, and the label if it is one."""
        if stage.kind == "events":
            for at in events:
                yield at[0], at, None
            return
        for each in crossed[stage.name]:
            yield each.record.partition, each.source, each.fields if each.is_label else None

    def _remember(
        self,
        entity: Entity,
        log: Sequence[tuple[int, Place, Fields | None]],
        events: Mapping[Place, Fields],
        answers: Mapping[Place, Answer],
        unmatched: set[Place],
    ) -> None:
        bound = self._bound
        time, event_id = bound.event_time.column, bound.event_id
        kept = entity.values
        pasts: dict[tuple[Any, ...], Past] = defaultdict(partial(Past, entity.windows, entity.lateness_ms, entity.guard))
        for partition, at, label in log:
            if label is not None:
                if entity.has_labels:
                    key = tuple(label[name] for name in entity.key_columns)
                    said = pasts[partition, key].label(self._number(label[event_id]), label[time], int(label[""]))
                    if said == UNMATCHED:
                        unmatched.add(at)
                continue
            event, answer = events.get(at), answers.get(at)
            if event is None or answer is None:
                continue  # what crossed and should not have is found by its place
            key = tuple(event[name] for name in entity.key_columns)
            if any(part in (None, "", b"") for part in key):
                answer.features |= dict(zip(entity.feature_names, entity.empty_features, strict=True))
                continue
            values = tuple(self._units(value, event) for value in kept)
            number = self._number(event[event_id]) if entity.has_labels else None
            timing, seen = pasts[partition, key].look(event[time], values, event[""][1].timestamp_ms, number)
            answer.timing = max(answer.timing, timing)
            names = iter(entity.feature_names)
            for window, held in zip(entity.windows, seen, strict=True):
                for aggregate in entity.aggregates:
                    place = kept.index(aggregate.value) if aggregate.value is not None else 0
                    own = values[place] if values else 0
                    answer.features[next(names)] = float(feature(aggregate, window, held[place], own))

    def _units(self, value: FixedPoint | str, event: Fields) -> int:
        if isinstance(value, FixedPoint):
            given = event[value.column]
            return int(given) * value.scale if isinstance(given, int) else round(float(given) * value.scale)
        return self._number((type(event[value]), event[value]))

    def _number(self, thing: object) -> int:
        return self._ids.setdefault(thing, len(self._ids))

    # --- the model ---

    def _score(self, answers: Mapping[Place, Answer]) -> None:
        model = _Model(self._bound.model_path)
        rows = list(answers.values())
        for first in range(0, len(rows), SCORED_AT_ONCE):
            some = rows[first : first + SCORED_AT_ONCE]
            for answer, score in zip(
                some, model([[each.features[name] for name in self._bound.features.names] for each in some]), strict=True
            ):
                answer.score, answer.is_scored = score, math.isfinite(score)


class _Model:
    """ONNX Runtime's own answer, on one thread."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        self._inputs = [port.name for port in self._session.get_inputs()]
        (self._output,) = [port.name for port in self._session.get_outputs() if port.type == "tensor(float)"]

    def __call__(self, features: Sequence[Sequence[float]]) -> list[float]:
        with np.errstate(over="ignore"):
            table = np.array(features, np.float64).astype(np.float32)
        fed = {self._inputs[0]: table} if len(self._inputs) == 1 else {n: table[:, [c]] for c, n in enumerate(self._inputs)}
        (made,) = self._session.run([self._output], fed)
        scores = np.asarray(made).reshape(len(table), -1)[:, -1]
        return list(np.where(np.isfinite(table).all(axis=1), scores, np.float32("nan")).tolist())


def card_of(path: Path) -> dict[str, str]:
    """What a model's file says of itself, by name."""
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return {name.removeprefix("millrace."): text for name, text in session.get_modelmeta().custom_metadata_map.items()}


def _all_hold(rules: Sequence[Rule], columns: Columns, count: int) -> list[bool]:
    good = np.ones(count, np.bool_)
    with np.errstate(all="ignore"):
        for rule in rules if count else ():
            good &= rule.holds(columns)
    return list(good.tolist())


def _columns(read: Bound | BoundLabels, rows: Sequence[Fields]) -> dict[str, Column]:
    types = leaf_types(read.schema)
    return {name: column_of([row[name] for row in rows], column, types[name]) for name, column in read.columns.items()}


def _plain(column: Column) -> list[Any]:
    if isinstance(column, Nullable):
        return [value if valid else None for value, valid in zip(_plain(column.values), column.valid.tolist(), strict=True)]
    if isinstance(column, PackedBytes):
        return list(column)
    if isinstance(column, Symbols):
        return [column.symbols[code] for code in column.codes.tolist()]
    assert isinstance(column, np.ndarray), f"a derived column of {type(column).__name__}"
    return list(column.tolist())


def _nested(said: Any, name: str) -> Any:
    for part in name.split("."):
        said = None if said is None else said.get(part)
    return said


def _text(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()
