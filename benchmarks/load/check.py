"""The answer of a run: every event answered once, and features of some keys equal to the slow definition, to the last bit.

The log decides: generators race each other, and a topic between two stages has an order of its own. So the events' order is read from
the topics, by their ids; the events themselves are made again from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from benchmarks.load.events import BLOCK_ROWS, Events, rows_of_ids
from benchmarks.load.reader import MOST_RECORDS, Answers, WrongAnswer, partitions_of
from benchmarks.load.stand import Stand
from schemas.codec import Decoder
from schemas.columns import Column, Floats, Ints, Mask, Nullable, PackedBytes, Symbols
from streams.hop import HopSchema
from streams.kafka import KafkaDown, KafkaError, TopicPartition, next_messages, plain_consumer
from streams.planning.stage import Stage, stages
from streams.scored_event import TIMINGS
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.slow_windows import Past, feature

QUIET_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Checked:
    """What was held against what.

    Attributes:
        answered: events with exactly one answer; all of them, else there was none of this.
        letters: of these, poisoned records that came back as dead letters.
        features: numbers compared with the slow definition.
        keys: of how many keys, over all entities.
        timing: events by how they were in time.
    """

    answered: int
    letters: int
    features: int
    keys: int
    timing: dict[str, int]


def check(stand: Stand, events: Events, sent: Mask, keys: int) -> Checked:
    """Hold everything that came out against what was sent.

    Args:
        stand: where it was.
        events: what was sent.
        sent: by row, whether it was: a run that was ended left some out.
        keys: how many of each entity's are held against the slow definition.

    Raises:
        WrongAnswer: something is missing, twice or different; says what.
    """
    rows = len(sent)
    sampled = _sampled_rows(stand, events, rows, keys)
    wanted = np.zeros(rows, np.bool_)
    for of_entity in sampled.values():
        for key_rows in of_entity:
            wanted[key_rows] = True
    counts, letters, served, timing = _read(stand, rows, wanted)
    wrong = np.flatnonzero(counts != sent)
    if len(wrong):
        lost, odd = np.count_nonzero(counts[wrong] < sent[wrong]), int(wrong[0])
        raise WrongAnswer(
            f"of {np.count_nonzero(sent):,} events {lost:,} have no answer and {len(wrong) - lost:,} more than they should, "
            f"such as the one in row {odd}, which was {'' if sent[odd] else 'not '}sent and has {counts[odd]}"
        )
    compared = 0
    for entity in stand.bound.pipeline.entities:
        for key_rows in sampled[entity.name]:
            compared += _compare(stand, events, entity, key_rows, served)
    return Checked(int(np.count_nonzero(sent)), letters, compared, sum(map(len, sampled.values())), timing)


def _sampled_rows(stand: Stand, events: Events, rows: int, keys: int) -> dict[str, list[Ints]]:
    """By entity, for each sampled key the rows of its good events, in the order of the log that feeds its state."""
    found: dict[str, list[Ints]] = {}
    for stage in stages(stand.bound, stand.partitions):
        if not stage.entities:
            continue
        order = _order_of(stand, stage)
        order = order[(order >= 0) & (order < rows)]  # of what else there is the answers tell
        for entity in stage.entities:
            of = events.key_numbers(entity, rows)[order]
            there = np.unique(of)
            found[entity.name] = [order[of == key] for key in there[:: max(len(there) // max(keys, 1), 1)][:keys]]
    return found


def _order_of(stand: Stand, stage: Stage) -> Ints:
    """The rows of a stage's log, partition by partition, each in its order; poisoned records are none."""
    bound = stand.bound
    consumer = plain_consumer(stand.settings.kafka, "millrace-bench-check")
    if stage.kind == "hop":
        hop = HopSchema.of(bound, stage)
        decoder, column = hop.decoder(), "event_id"
    else:
        decoder, column = Decoder(bound.schema, bound.input.framing, stand.registry), bound.event_id
    found: list[Ints] = []
    try:
        for place in partitions_of(consumer, stage.input.name):
            consumer.assign([TopicPartition(place.topic, place.partition, 0)])
            at_end = False
            while not at_end:
                messages = next_messages(consumer, stage.input.name, MOST_RECORDS)
                values = [message.value() or b"" for message in messages if message.error() is None]
                at_end = any(error is not None and error.code() == KafkaError._PARTITION_EOF for error in (m.error() for m in messages))
                decoded = decoder.decode(PackedBytes.pack(values))
                ids = _plain(decoded.columns[column])
                assert isinstance(ids, PackedBytes)
                found.append(rows_of_ids(ids.take(decoded.rejected == 0)))
    finally:
        consumer.close()
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _read(stand: Stand, rows: int, wanted: Any) -> tuple[Ints, int, dict[str, Floats], dict[str, int]]:
    """Answers by row; how many were letters; of the wanted rows the features that went out; events by timing."""
    bound = stand.bound
    names = [f"features.{name}" for entity in bound.pipeline.entities for name in entity.feature_names]
    names = [name for name in names if bound.pipeline.include_features and name.removeprefix("features.") in bound.features.names]
    counts = np.zeros(rows, np.int64)
    served = {name: np.full(rows, np.nan) for name in names}
    timing = np.zeros(len(TIMINGS), np.int64)
    letters = 0
    answers = Answers(bound, stand.settings.kafka, stand.registry, from_beginning=True)
    try:
        while not answers.at_end:
            taken = answers.take(QUIET_SECONDS)
            if taken is None:
                raise KafkaDown(f"the broker gives nothing of {bound.output.name} for {QUIET_SECONDS:.0f} seconds")
            found, _, columns = taken
            strange = (found < 0) | (found >= rows)
            if strange.any():
                raise WrongAnswer(f"{np.count_nonzero(strange)} answers are to events that were never sent")
            counts += np.bincount(found, minlength=rows)
            scored = cast("Ints", columns["row"])
            letters += len(found) - len(scored)
            timing += np.bincount(cast("Symbols", columns["timing"]).codes, minlength=len(TIMINGS))
            mine = wanted[scored]
            for name in names:
                served[name][scored[mine]] = np.asarray(columns[name])[mine]
    finally:
        answers.close()
    return counts, letters, served, dict(zip(TIMINGS, timing.tolist(), strict=True))


def _compare(stand: Stand, events: Events, entity: Entity, key_rows: Ints, served: dict[str, Floats]) -> int:
    """Let one key's events pass through the slow definition; how many features were compared."""
    event_ms, values = _remake(events, entity, key_rows)
    past = Past(entity.windows, entity.lateness_ms)
    compared = 0
    for place, row in enumerate(key_rows.tolist()):
        own = tuple(int(column[place]) for column in values)
        _, windows = past.look(int(event_ms[place]), own or (0,))
        names = iter(entity.feature_names)
        for window, seen in zip(entity.windows, windows, strict=True):
            for aggregate in entity.aggregates:
                name = next(names)
                if f"features.{name}" not in served:
                    continue
                at = 0 if aggregate.value is None else entity.values.index(aggregate.value)
                expected, found = feature(aggregate, window, seen[at], own[at] if own else 0), float(served[f"features.{name}"][row])
                if expected != found:
                    raise WrongAnswer(f"{entity.name} {name} of row {row} is {found!r}, by the definition {expected!r}")
                compared += 1
    return compared


def _remake(events: Events, entity: Entity, key_rows: Ints) -> tuple[Ints, Sequence[Ints]]:
    """Event times and values of some rows."""
    event_ms = np.zeros(len(key_rows), np.int64)
    values = [np.zeros(len(key_rows), np.int64) for _ in entity.values]
    words: dict[object, int] = {}
    for number in np.unique(key_rows // BLOCK_ROWS).tolist():
        (block,) = events.blocks(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
        places = np.flatnonzero(key_rows // BLOCK_ROWS == number)
        inside = key_rows[places] - block.first_row
        event_ms[places] = block.event_ms[inside]
        for column, value in zip(values, entity.values, strict=True):
            column[places] = _integers(block.columns[value.column if isinstance(value, FixedPoint) else value], value, words)[inside]
    return event_ms, values


def _integers(column: Column, value: FixedPoint | str, words: dict[object, int]) -> Ints:
    """A value's integers: units of a fixed point, or a number for each word."""
    plain = _plain(column)
    if isinstance(value, FixedPoint):
        return np.rint(np.asarray(plain, np.float64) * value.scale).astype(np.int64)
    each = plain.codes.tolist() if isinstance(plain, Symbols) else list(cast("PackedBytes", plain))
    return np.array([words.setdefault(word, len(words)) for word in each], np.int64)


def _plain(column: Column) -> Column:
    return column.values if isinstance(column, Nullable) else column
