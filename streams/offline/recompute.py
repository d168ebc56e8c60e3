"""Recompute: the features of a span of the input once more, by every stage from its own log.

A stage's log is the truth about the order in which it met events and labels, so each stage is played over its own: the first one over the
input, the others over their internal topics, whose records name the event they are of. Each contributes the features it computes itself;
what it hands on is held against what the next one was handed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Encoder
from schemas.columns import Floats, Ints, Mask
from schemas.errors import HistoryError, RecordError, StateError
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.hop import HopSchema
from streams.offline.featurize import Featurize
from streams.offline.served import Served
from streams.offline.topic_history import TopicHistory
from streams.planning.stage import Stage, fed_by
from streams.refusal import refusal
from streams.settings import Settings
from streams.stage_outputs import origins_of
from transforms.fixed_point import numbers


@dataclass(slots=True)
class Recomputed:
    """What the records of a span of one partition of the input came to; rows are offsets from `first` on."""

    first: int
    features: Floats  # shape (n, k); what no stage came to is NaN
    timing: NDArray[np.uint8]  # shape (n,): the worst of all stages
    had_by: Ints  # shape (n,): a bit for each stage that had it, by its index; 0 = there is no such record
    usable: Mask  # shape (n,): no stage has refused it so far
    handed: Ints  # shape (n,): what the last of them handed on, as a hash
    otherwise: Mask  # shape (n,): a stage was handed something else than the one before it hands on here
    refused: dict[int, RecordError] = field(default_factory=dict)  # by row; only of those that were served

    @classmethod
    def empty(cls, first: int, end: int, width: int) -> Recomputed:
        n = end - first
        nothing, no = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        return cls(first, np.full((n, width), np.nan), np.zeros(n, np.uint8), nothing, ~no, nothing.copy(), no)


class Recompute:
    """Plays the stages of a pipeline one after the other.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        planned: its stages.
        history: of the input: the span, and what comes before it.
        served: by partition of the input, what was served.
    """

    def __init__(
        self, bound: Bound, settings: Settings, planned: Sequence[Stage], history: TopicHistory, served: Mapping[int, Served]
    ) -> None:
        self._bound, self._settings, self._served = bound, settings, served
        self._stages = [stage for stage in planned if stage.kind != "labels"]
        self._history = history
        self._handing = {stage.name: _Handing.to(bound, reader) for stage in self._stages for reader in fed_by(stage, planned)}
        self._names = bound.features.names
        width = len(self._names)
        self.found = {each.partition: Recomputed.empty(each.first, each.end, width) for each in history.stretches}
        self.logs: dict[str, dict[str, int]] = {}  # by stage: records read, and the labels among them
        self.handed_again = 0  # events that a stage was handed more than once

    def run(self, progress: Callable[[int], None]) -> None:
        """Fill `found`.

        Args:
            progress: told how many more records were read.

        Raises:
            HistoryError: a stage's log was written by another definition of the pipeline.
            KafkaDown: the broker does not answer.
        """
        for stage in self._stages:
            log = self.logs[stage.name] = {"records": 0, "labels": 0}
            for batch, wanted, featurize in self._batches(stage):
                if wanted:
                    self._take(stage, batch, featurize)
                log["records"] += len(batch)
                log["labels"] += 0 if batch.labels is None else int(batch.labels.is_label.sum())
                progress(len(batch))

    def _batches(self, stage: Stage) -> Iterator[tuple[Batch, bool, Featurize]]:
        # An internal topic reaches as far back as its windows: all of it is read, whatever is wanted of it.
        history = self._history if stage.kind == "events" else TopicHistory(self._bound, self._settings, stage.input.name, stage=stage)
        featurize = Featurize(self._bound, history.decoder, history.max_record_bytes, stage=stage)
        for turn in history.turns():
            try:
                batch = featurize.read(turn.past)
            except StateError as error:
                raise HistoryError(f"what stage {stage.name!r} was handed can't be computed again: {error}") from error
            yield featurize.remember(batch), turn.wanted, featurize

    def _take(self, stage: Stage, batch: Batch, featurize: Featurize) -> None:
        """Note what a stage made of a batch."""
        events = np.ones(len(batch), np.bool_) if batch.labels is None else ~batch.labels.is_label
        if batch.origins is not None:
            events &= batch.origins.codes == 0  # what can't be decoded stands for itself
        handed = self._handed_on(stage, batch)
        partitions, offsets = batch.entered_at
        for partition, found in self.found.items():
            place = offsets - found.first
            rows = np.flatnonzero(events & (partitions == partition) & (place >= 0) & (place < len(found.had_by)))
            again = np.ones(len(rows), np.bool_)
            again[np.unique(place[rows], return_index=True)[1]] = False
            again |= found.had_by[place[rows]] & 1 << stage.index != 0
            self.handed_again += int(again.sum())
            self._note(stage, batch, featurize, partition, rows[~again], handed)

    def _note(
        self, stage: Stage, batch: Batch, featurize: Featurize, partition: int, rows: NDArray[np.intp], handed: Mapping[int, int]
    ) -> None:
        found = self.found[partition]
        at = (batch.offsets if batch.origins is None else batch.origins.offsets)[rows] - found.first
        if stage.index:
            was_handed = np.array([hash((batch.keys[row], batch.raw[row])) for row in rows.tolist()], np.int64)
            found.otherwise[at] |= was_handed != found.handed[at]
        found.had_by[at] |= 1 << stage.index
        usable = batch.usable[rows]
        found.usable[at] &= usable
        for place, name in enumerate(self._names):
            if self._is_made_by(stage, name):
                found.features[at[usable], place] = numbers(name, batch.columns[name])[rows[usable]]
        assert batch.timing is not None
        found.timing[at] = np.maximum(found.timing[at], batch.timing[rows])
        if handed:
            found.handed[at] = [handed.get(row, 0) for row in rows.tolist()]
        refused = rows[~usable]
        was_served = self._served[partition].find(at[~usable] + found.first) >= 0
        for row, place in zip(refused[was_served].tolist(), at[~usable][was_served].tolist(), strict=True):
            found.refused[place] = refusal(self._bound, featurize.decoder, batch, row)[0]

    def _is_made_by(self, stage: Stage, name: str) -> bool:
        """Whether a model's input is first known in this stage: the first one has all that no later one computes."""
        if stage.index:
            return any(name in entity.feature_names for entity in stage.entities)
        return not any(name in entity.feature_names for later in self._stages[1:] for entity in later.entities)

    def _handed_on(self, stage: Stage, batch: Batch) -> dict[int, int]:
        """By row, a hash of the record that the next stage is to be handed."""
        to = self._handing.get(stage.name)
        if to is None:
            return {}
        rows = np.flatnonzero(batch.outgoing)
        values = to.encoder.encode(to.hop.columns(batch.columns, origins_of(batch)), rows)
        keys = to.hop.keys(batch.columns)
        return {row: hash((keys[row], value)) for row, value in zip(rows.tolist(), values, strict=True)}


@dataclass(frozen=True, slots=True)
class _Handing:
    """How a stage hands events on."""

    hop: HopSchema
    encoder: Encoder

    @classmethod
    def to(cls, bound: Bound, reader: Stage) -> _Handing:
        hop = HopSchema.of(bound, reader)
        return cls(hop, hop.encoder())
