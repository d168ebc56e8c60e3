"""Skew: the features of a span of the live stream, computed again from its log and compared with those that were served, bit by bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Decoder
from schemas.columns import Columns, Floats, Ints, PackedBytes, Symbols
from schemas.errors import HistoryError
from schemas.features import Json
from schemas.registry import open_registry
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.kafka import ANSWER_SECONDS, Record, TopicPartition, admin, plain_consumer, topic_facts
from streams.offline.featurize import Featurize
from streams.offline.topic_history import READER_GROUP, Edge, TopicHistory, records_between
from streams.refusal import refusal
from streams.scored_event import TIMINGS, output_schema
from streams.settings import Settings
from transforms.fixed_point import numbers

MOST_SHOWN = 10


@dataclass
class Served:
    """What was served of the events of a partition, in the order of their offsets."""

    offsets: Ints  # shape (n,)
    features: Floats  # shape (n, k)
    timing: NDArray[np.uint8]  # shape (n,): indices into TIMINGS
    fingerprints: list[str]
    repeated: int = 0  # served once more

    def find(self, offsets: Ints) -> NDArray[np.intp]:
        """Shape (m,): where each offset stands here; -1 = it was not served."""
        if not len(self.offsets):
            return np.full(len(offsets), -1, np.intp)
        at = np.minimum(np.searchsorted(self.offsets, offsets), len(self.offsets) - 1)
        return np.where(self.offsets[at] == offsets, at, -1)


@dataclass
class _Account:
    compared: int = 0
    equal: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    shown: list[Json] = field(default_factory=list)

    def differ(self, at: str, reason: str, columns: Mapping[str, list[float]] | None = None, detail: str = "") -> None:
        """One row differs."""
        self.reasons[reason] += 1
        self.columns.update(list(columns or ()))
        if len(self.shown) < MOST_SHOWN:
            self.shown.append({"at": at, "reason": reason, "detail": detail, "columns": dict(columns or {})})


def skew(
    bound: Bound,
    settings: Settings,
    start: Edge | None = None,
    end: Edge | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Json]:
    """Compare what a span of the input should have been served with what the output says was served.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        start: the first events to compare; earlier ones fill the windows. None = the earliest there are.
        end: the first not to compare any more; None = what is there now.
        progress: told how many more events are computed.

    Returns:
        The account: events compared, equal ones, the others by reason and by column, and the first that differ.

    Raises:
        HistoryError: scored events do not carry their features, or the order of an entity's events is not that of the input.
        TopicError: a topic is missing.
        KafkaDown: the broker does not answer.
    """
    if not bound.pipeline.include_features:
        raise HistoryError(f"pipeline {bound.name!r} has include_features=False: what was served is not in its output")
    history = TopicHistory(bound, settings, bound.input.name, start, end)
    spans = {stretch.partition: (stretch.first, stretch.end) for stretch in history.stretches}
    served, unreadable = _served(bound, settings, spans)
    account = _Account()
    featurize = Featurize(bound, history.decoder, history.max_record_bytes)
    for turn in history.turns():
        batch = featurize.remember(featurize.read(turn.past))
        if turn.wanted:
            _compare(bound, history.decoder, batch, served[turn.past.partition], account)
        progress(len(batch))
    return {
        "topic": bound.input.name,
        "spans": {str(partition): list(span) for partition, span in spans.items()},
        "feature_fingerprint": bound.features.fingerprint,
        "compared": account.compared,
        "equal": account.equal,
        "reasons": {reason: count for reason, count in sorted(account.reasons.items()) if count},
        "columns": dict(account.columns.most_common()),
        "served_again": sum(each.repeated for each in served.values()),
        "unreadable": unreadable,
        "log_begins": {str(stretch.partition): stretch.read_from for stretch in history.stretches},
        "first": account.shown,
    }


def _compare(bound: Bound, decoder: Decoder, batch: Batch, served: Served, account: _Account) -> None:
    names = bound.features.names
    made = np.column_stack([numbers(name, batch.columns[name]).astype(np.float64, copy=False) for name in names])
    place = served.find(batch.offsets)
    usable, last = batch.usable, int(served.offsets[-1]) if len(served.offsets) else -1
    assert batch.timing is not None
    both = np.flatnonzero(usable & (place >= 0))
    account.compared += len(both)
    bits = made[both].view(np.int64) != served.features[place[both]].view(np.int64)
    timing = batch.timing[both] != served.timing[place[both]]
    other = np.array([served.fingerprints[at] != bound.features.fingerprint for at in place[both].tolist()], np.bool_)
    bad = bits.any(axis=1) | timing | other
    account.equal += int((~bad).sum())
    for found in np.flatnonzero(bad).tolist():
        row, at = int(both[found]), int(place[both[found]])
        columns = {names[c]: [float(served.features[at, c]), float(made[row, c])] for c in np.flatnonzero(bits[found]).tolist()}
        account.differ(str(batch.address(row)), *_why(bound, batch, served, row, at, columns))
    for row in np.flatnonzero(usable & (place < 0)).tolist():
        offset = int(batch.offsets[row])
        account.differ(str(batch.address(row)), "not served" if offset < last else "not served yet")
    for row in np.flatnonzero(~usable & (place >= 0)).tolist():
        error = refusal(bound, decoder, batch, row)[0]
        account.differ(str(batch.address(row)), "served, and would be refused", None, str(error))


def _why(
    bound: Bound, batch: Batch, served: Served, row: int, at: int, columns: dict[str, list[float]]
) -> tuple[str, dict[str, list[float]], str]:
    assert batch.timing is not None
    if served.fingerprints[at] != bound.features.fingerprint:
        return "other features", columns, f"served by features {served.fingerprints[at]}, computed by {bound.features.fingerprint}"
    was, now = TIMINGS[served.timing[at]], TIMINGS[batch.timing[row]]
    if was != now:
        return "other timing", columns, f"served as {was}, computed as {now}: another order of events, or another past"
    return (
        "other values",
        columns,
        "other bits by the same definitions: another past, or a function changed without its version",
    )


def _served(bound: Bound, settings: Settings, spans: Mapping[int, tuple[int, int]]) -> tuple[dict[int, Served], int]:
    """What was served of these spans, by partition of the input; and how many outputs can't be read by the pipeline's schema."""
    registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
    decoder = Decoder(output_schema(bound), bound.output.framing, registry)
    parts: dict[int, list[tuple[Ints, Floats, NDArray[np.uint8], list[str]]]] = {partition: [] for partition in spans}
    unreadable = 0
    for records in _outputs(bound, settings):
        decoded = decoder.decode(PackedBytes.pack([record.value() or b"" for record in records]))
        unreadable += int((decoded.rejected != 0).sum())
        columns = decoded.columns
        partitions = numbers("source_partition", columns["source_partition"])
        offsets = numbers("source_offset", columns["source_offset"])
        ours = (decoded.rejected == 0) & _is_topic(columns, bound.input.name)
        for partition, (first, end) in spans.items():
            rows = np.flatnonzero(ours & (partitions == partition) & (offsets >= first) & (offsets < end))
            if len(rows):
                parts[partition].append(_rows(bound, columns, rows, offsets))
    return {partition: _joined(found, len(bound.features.names)) for partition, found in parts.items()}, unreadable


def _outputs(bound: Bound, settings: Settings) -> Iterator[list[Record]]:
    topic = bound.output.name
    count = topic_facts(admin(settings.kafka), (topic,))[topic].partitions
    consumer = plain_consumer(settings.kafka, READER_GROUP)
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS) for partition in range(count)]
    finally:
        consumer.close()
    for partition, (low, high) in enumerate(ends):
        yield from records_between(settings, topic, partition, low, high)


def _is_topic(columns: Columns, topic: str) -> NDArray[np.bool_]:
    column = columns["source_topic"]
    assert isinstance(column, PackedBytes)
    return column.equals(topic)


def _rows(bound: Bound, columns: Columns, rows: NDArray[np.intp], offsets: Ints) -> tuple[Ints, Floats, NDArray[np.uint8], list[str]]:
    features = np.column_stack([numbers(name, columns[f"features.{name}"])[rows] for name in bound.features.names])
    timing = columns["timing"]
    assert isinstance(timing, Symbols)
    prints = columns["feature_fingerprint"]
    assert isinstance(prints, PackedBytes)
    known = [text.decode() for text in prints.take(rows)]
    return offsets[rows], features.astype(np.float64, copy=False), timing.codes[rows].astype(np.uint8), known


def _joined(parts: list[tuple[Ints, Floats, NDArray[np.uint8], list[str]]], width: int) -> Served:
    if not parts:
        return Served(np.zeros(0, np.int64), np.zeros((0, width)), np.zeros(0, np.uint8), [])
    offsets = np.concatenate([part[0] for part in parts])
    kept, first = np.unique(offsets, return_index=True)
    prints = [each for part in parts for each in part[3]]
    return Served(
        kept,
        np.ascontiguousarray(np.concatenate([part[1] for part in parts])[first]),
        np.concatenate([part[2] for part in parts])[first],
        [prints[at] for at in first.tolist()],
        len(offsets) - len(kept),
    )


def skew_words(facts: Mapping[str, Any]) -> str:
    """The account in words."""
    differing = facts["compared"] - facts["equal"]
    verdict = "same to the bit" if not facts["reasons"] else "not the same"
    lines = [f"{facts['compared']:,} events of {facts['topic']} compared, {differing:,} differ: {verdict}"]
    lines += [f"  {count:,} {reason}" for reason, count in facts["reasons"].items()]
    lines += [f"  {count:,} rows differ in {name}" for name, count in facts["columns"].items()]
    for each in facts["first"]:
        lines.append(f"{each['at']}: {each['reason']}" + (f": {each['detail']}" if each["detail"] else ""))
        lines += [f"    {name}: served {was!r}, computed {now!r}" for name, (was, now) in each["columns"].items()]
    if facts["unreadable"]:
        lines.append(f"{facts['unreadable']:,} scored events can't be read by the output's schema: they were served by another version")
    if facts["served_again"]:
        lines.append(f"{facts['served_again']:,} were served more than once")
    return "\n".join(lines)
