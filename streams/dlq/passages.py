"""Passages: where events that windows hold already stand in the topics between a pipeline's stages.

The windows of a stage know an event by its offset in the topic that the stage reads. A letter says where its record stands in the input;
where it went from there is looked up in the internal topics, which name each record's place in the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from schemas.columns import Ints, PackedBytes
from schemas.errors import StateError
from streams.come_back import COUNTED_AT
from streams.definition.bound import Bound
from streams.dlq.letters import AT, Place, StoredLetter, text_of
from streams.explain.log import LogReader
from streams.hop import HopSchema
from streams.kafka import Record, TopicFacts, admin, topic_facts
from streams.planning.stage import stages
from streams.settings import Settings

CLOCKS_MS = 60_000  # how far apart the clocks of brokers may be
_PARTITION = 1 << 40  # partition and offset as one number: an offset has less


@dataclass(frozen=True, slots=True)
class Passage:
    """What is known of one event's way.

    Attributes:
        counted_at: by internal topic, where it stands under the name that its stage's windows know it by.
        trouble: why that can't be known, in words.
    """

    counted_at: Mapping[str, Place] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a topic says of some places of the input."""

    places: Mapping[Place, Place]
    reaches: bool  # whether it goes back to when they were read: what is not there never came
    trouble: str = ""


class Passages:
    """Looks up where events stand between the stages.

    Args:
        bound: the pipeline.
        settings: where its topics are.
        given: its input, as the broker has it.
    """

    def __init__(self, bound: Bound, settings: Settings, given: TopicFacts) -> None:
        self._settings = settings
        self.hops = tuple(HopSchema.of(bound, stage) for stage in stages(bound, given.partitions) if stage.kind == "hop")
        self._dated = given.settings["message.timestamp.type"] == "LogAppendTime"

    def __call__(self, letters: Sequence[StoredLetter]) -> list[Passage]:
        """One for each letter, in their order; each is of a record of the input that windows hold.

        Raises:
            TopicError: an internal topic is missing.
            KafkaDown: the broker does not answer.
        """
        passages = [Passage(_known_before(letter)) for letter in letters]
        going = list(range(len(letters)))
        with LogReader(self._settings) as log:
            for hop in self.hops:
                topic = hop.stage.input.name
                open_ones = [row for row in going if topic not in passages[row].counted_at]
                if not open_ones:
                    continue
                found = self._search(log, hop, [letters[row] for row in open_ones])
                for row in open_ones:
                    passages[row] = _with(passages[row], topic, found, letters[row])
                going = [row for row in going if topic in passages[row].counted_at]  # the others went no further
        return passages

    def _search(self, log: LogReader, hop: HopSchema, letters: Sequence[StoredLetter]) -> _Found:
        """Where a topic has the records of some letters, read from when the first of them came in."""
        topic, decoder = hop.stage.input.name, hop.decoder()
        wanted = {_source_of(letter) for letter in letters}
        numbers = np.array([partition * _PARTITION + offset for partition, offset in wanted], np.int64)
        since_ms = min(letter.timestamp_ms for letter in letters) - CLOCKS_MS if self._dated and self._is_stamped(topic) else 0
        places: dict[Place, Place] = {}
        reaches = True
        for partition in range(log.partitions(topic)):
            span, first = log.span(topic, partition), log.offset_at(topic, partition, since_ms)
            reaches = reaches and (span.start == 0 or first > span.start)
            for records in log.records(topic, partition, first, span.end):
                values = PackedBytes.pack([record.value() or b"" for record in records])
                try:
                    rows = hop.decode(decoder, values, partial(_at, topic, records))
                except StateError as error:
                    return _Found(places, False, str(error))
                came_from: Ints = rows.origins.partitions.astype(np.int64) * _PARTITION + rows.origins.offsets
                for row in np.flatnonzero((rows.rejected == 0) & ~rows.is_label & np.isin(came_from, numbers)).tolist():
                    source = int(rows.origins.partitions[row]), int(rows.origins.offsets[row])
                    places[source] = partition, records[row].offset()
                if len(places) == len(wanted):
                    return _Found(places, True)
        return _Found(places, reaches)

    def _is_stamped(self, topic: str) -> bool:
        """Whether its records bear the time they arrived, and not that of their events: before `since_ms` none is sought."""
        return topic_facts(admin(self._settings.kafka), (topic,))[topic].settings["message.timestamp.type"] == "LogAppendTime"


def _with(passage: Passage, topic: str, found: _Found, letter: StoredLetter) -> Passage:
    place = found.places.get(_source_of(letter))
    if place is not None:
        return Passage({**passage.counted_at, topic: place})
    if found.trouble:
        return Passage(passage.counted_at, found.trouble)
    # The model refuses nothing that did not come through all stages.
    if letter.stage == "model" or not found.reaches:
        words = f"windows hold its event under its place in {topic}, which does not have it any more: it would be counted twice"
        return Passage(passage.counted_at, words)
    return passage


def _known_before(letter: StoredLetter) -> dict[str, Place]:
    """What a record that came back before brought with it: it is held under the first place for good."""
    said = {name.removeprefix(COUNTED_AT): AT.fullmatch(text_of(text) or "") for name, text in letter.given if name.startswith(COUNTED_AT)}
    return {topic: (int(found[1]), int(found[2])) for topic, found in said.items() if found is not None}


def _at(topic: str, records: Sequence[Record], row: int) -> str:
    return f"{topic}[{records[row].partition()}]@{records[row].offset()}"


def _source_of(letter: StoredLetter) -> Place:
    assert letter.source is not None, "nothing else passes"
    return letter.source.partition, letter.source.offset
