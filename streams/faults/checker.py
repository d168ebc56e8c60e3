"""The history checker: what came out of a run, held against what should have.

    lost            neither scored nor a dead letter, or not handed on between two stages
    duplicated      more than one answer
    wrong           another answer than the definition's: a bit of a number, a refusal, a key, an address
    out_of_order    answers of one log stand in another order than it
    offset_behind   an answer is visible, and the offset of its record is not committed
    state_ahead     the state holds records whose offsets are not committed
    stuck           nothing came any more, though nothing was broken (seen while it ran)

Each finding says where. It runs on a history alone (`streams.faults.log`), and shares no code with what it judges.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from streams.definition.bound import Bound
from streams.faults.expected import Answer, Expected, card_of, expect
from streams.faults.log import History, Place, Record
from streams.faults.plain_reader import HEADER_BYTES, PlainReader
from streams.planning.stage import Stage, stages
from streams.scored_event import DECISIONS, TIMINGS, output_schema

Kind = Literal["lost", "duplicated", "wrong", "out_of_order", "offset_behind", "state_ahead", "stuck"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNMATCHED_LABEL, NO_SCORE = "unmatched_label", "non_finite_score"


class Finding(NamedTuple):
    """One thing that is not as it should be; prints as ``lost payments[0]@17: ...``."""

    kind: Kind
    at: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.at}: {self.detail}"


@dataclass(frozen=True)
class Verdict:
    """What the checker came to.

    Attributes:
        findings: all that is wrong.
        inputs: events read.
        scored: of them, to be answered by a score.
        refused: to be answered by a dead letter.
        labels: labels read.
    """

    findings: Sequence[Finding]
    inputs: int
    scored: int
    refused: int
    labels: int

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS}


def check(bound: Bound, history: History, folder: Path, *, at_rest: bool = True) -> Verdict:
    """Hold a history against the pipeline's definition.

    Args:
        bound: the pipeline.
        history: what is left of the run.
        folder: has the writers' schemas.
        at_rest: whether everything was read, and should have been answered.
    """
    expected = expect(bound, history, folder)
    findings = list(_Checker(bound, history, expected, at_rest).findings())
    scored = sum(answer.is_scored for answer in expected.answers.values())
    return Verdict(findings, len(history.inputs), scored, len(history.inputs) - scored, len(history.labels))


class _Checker:
    def __init__(self, bound: Bound, history: History, expected: Expected, at_rest: bool) -> None:
        self._bound, self._history, self._expected, self._at_rest = bound, history, expected, at_rest
        self._stages = {stage.name: stage for stage in stages(bound, history.partitions)}
        card = card_of(bound.model_path)
        threshold = float(card["threshold"]) if bound.model.threshold is None else bound.model.threshold
        self._threshold = struct.unpack("<f", struct.pack("<f", threshold))[0]
        self._version = card["version"]
        self._fingerprint = bound.features.fingerprint

    def findings(self) -> Iterator[Finding]:
        yield from self._state_ahead()
        for stage in self._stages.values():
            if stage.kind == "hop":
                yield from self._crossed(stage)
        yield from self._answered()
        if self._bound.labels is not None:
            yield from self._told_of_labels(self._bound.labels.topic.name)

    # --- offsets and state ---

    def _state_ahead(self) -> Iterator[Finding]:
        for stage, positions in self._history.positions.items():
            for partition, position in positions.items():
                committed = self._history.committed[stage].get(partition)
                if position is not None and position > (committed or 0):
                    where = f"{self._stages[stage].input.name}[{partition}]"
                    yield Finding("state_ahead", where, f"the state stands at {position}, the committed offset is {committed}")

    def _is_read(self, stage: Stage, place: Place) -> bool:
        """Whether a stage has put out what it has to say of a record of its input."""
        return self._at_rest or place[1] < (self._history.committed[stage.name].get(place[0]) or 0)

    def _behind(self, stage: Stage, place: Place, what: str) -> Iterator[Finding]:
        committed = self._history.committed[stage.name].get(place[0]) or 0
        if place[1] >= committed:
            yield Finding("offset_behind", _at(stage.input.name, place), f"{what} is visible, the committed offset is {committed}")

    # --- from stage to stage ---

    def _crossed(self, stage: Stage) -> Iterator[Finding]:
        """Every event and every label that can be used is handed on once, under its key, in the order of its log."""
        crossed = self._expected.crossed[stage.name]
        for kind, is_label in (("event", False), ("label", True)):
            writer = self._writer_of(stage, is_label)
            if writer is None:
                continue
            wanted = self._expected.labels if is_label else frozenset(self._expected.answers)
            came = [each for each in crossed if each.is_label == is_label]
            sources = self._sources(writer) if writer.kind == "hop" else {}
            topic = writer.input.name
            times = Counter(each.source for each in came)
            for place in sorted(wanted - set(times)):
                if self._is_read(writer, sources.get(place, place)) and (writer.kind != "hop" or place in sources):
                    yield Finding("lost", _at(topic, place), f"the {kind} is not in {stage.input.name}")
            for place in sorted(set(times) - wanted):
                yield Finding("wrong", _at(topic, place), f"is in {stage.input.name} as a {kind}, and should not be")
            for place, count in times.items():
                if count > 1:
                    yield Finding("duplicated", _at(topic, place), f"the {kind} is in {stage.input.name} {count} times")
                yield from self._behind(writer, sources.get(place, place), f"the {kind} in {stage.input.name}")
            order = [(each.record, sources.get(each.source, each.source)) for each in came]
            yield from _disorder(order, writer.input.name, stage.input.name)
        for each in crossed:
            key = self._hop_key(stage, each.fields)
            if key is not None and each.record.key != key:
                yield Finding("wrong", _at(stage.input.name, each.record.place), f"has the key {each.record.key!r}, wanted {key!r}")

    def _writer_of(self, stage: Stage, is_label: bool) -> Stage | None:
        writers = [each for each in self._stages.values() if stage.name in each.feeds and (each.kind == "labels") == is_label]
        return writers[0] if writers else None

    def _sources(self, stage: Stage) -> dict[Place, Place]:
        """Where in the log of a stage behind a hop each event stands, by its place in the pipeline's input."""
        return {each.source: each.record.place for each in self._expected.crossed[stage.name] if not each.is_label}

    def _hop_key(self, stage: Stage, fields: Mapping[str, Any]) -> bytes | None:
        """The key of a record of an internal topic, where it is one text."""
        names = stage.key_columns
        value = fields[names[0]]
        return value.encode() if len(names) == 1 and isinstance(value, str) and value else None

    # --- answers ---

    def _answered(self) -> Iterator[Finding]:
        bound, topic = self._bound, self._bound.input.name
        last = next(stage for stage in self._stages.values() if stage.is_last)
        sources = self._sources(last) if last.kind == "hop" else {}
        given: dict[Place, list[tuple[Record, Mapping[str, Any]]]] = defaultdict(list)
        reader = PlainReader(output_schema(bound).definition, "bare")
        order = []
        header = HEADER_BYTES if bound.output.framing == "confluent" else 0
        for record in self._history.outputs:
            said = reader.body((record.value or b"")[header:])
            if said is None:
                yield Finding("wrong", _at(bound.output.name, record.place), "can't be read as a scored event")
                continue
            place = said["source_partition"], said["source_offset"]
            given[place].append((record, said))
            order.append((record, sources.get(place, place)))
        letters = _by_source(self._history.letters)
        inputs = {record.place: record for record in self._history.inputs}
        for place, record in inputs.items():
            answer = self._expected.answers.get(place)
            scores, refusals = given.pop(place, []), letters.pop((topic, *place), [])
            at = _at(topic, place)
            wanted = answer is not None and answer.is_scored
            if len(scores) + len(refusals) > 1:
                yield Finding("duplicated", at, f"has {len(scores)} scores and {len(refusals)} dead letters")
            right, other = (scores, refusals) if wanted else (refusals, scores)
            if other:
                yield Finding("wrong", at, "is a dead letter, and should be scored" if wanted else "is scored, and should be a dead letter")
            elif not right and self._should_be_answered(last, place, sources, answer):
                yield Finding("lost", at, "is neither scored nor a dead letter")
            for output, said in scores:
                if answer is not None:
                    yield from (Finding("wrong", at, words) for words in self._differences(answer, place, record, output, said))
            yield from (Finding("wrong", at, words) for letter in refusals for words in _altered(letter, record))
            if scores and (last.kind != "hop" or place in sources):
                yield from self._behind(last, sources.get(place, place), "its score")
        for place in given:
            yield Finding("wrong", _at(topic, place), "is scored, and is not there")
        for source in letters:
            if source[0] == topic:
                yield Finding("wrong", _at(topic, source[1:]), "has a dead letter, and is not there")
        yield from _disorder(order, last.input.name, bound.output.name)

    def _should_be_answered(self, last: Stage, place: Place, sources: Mapping[Place, Place], answer: Answer | None) -> bool:
        first = next(stage for stage in self._stages.values() if stage.kind == "events")
        if answer is None or last.kind != "hop":
            return self._is_read(first, place)
        return place in sources and self._is_read(last, sources[place])

    def _differences(self, answer: Answer, place: Place, record: Record, output: Record, said: Mapping[str, Any]) -> Iterator[str]:
        bound = self._bound
        score = float(answer.score)
        wanted: dict[str, Any] = {
            "event_id": answer.event_id,
            "event_time": answer.event_ms,
            "decision": DECISIONS[score >= self._threshold],
            "threshold": self._threshold,
            "timing": TIMINGS[answer.timing],
            "pipeline": bound.name,
            "feature_fingerprint": self._fingerprint,
            "schema_id": answer.schema_id,
            "source_topic": bound.input.name,
        }
        for name, value in wanted.items():
            if said[name] != value:
                yield f"{name} is {said[name]!r}, wanted {value!r}"
        (first, *_) = said["scores"]
        if (first["model"], first["version"]) != (bound.model.name, self._version):
            yield f"was scored by {first['model']} {first['version']}, wanted {bound.model.name} {self._version}"
        if not _same_bits("<f", first["score"], score):
            yield f"the score is {first['score']!r}, wanted {score!r}"
        for name in bound.features.names if bound.pipeline.include_features else ():
            if not _same_bits("<d", said["features"][name], answer.features[name]):
                yield f"{name} is {said['features'][name]!r}, wanted {answer.features[name]!r}"
        if output.key != record.key:
            yield f"its score's key is {output.key!r}, wanted {record.key!r}"

    # --- labels ---

    def _told_of_labels(self, topic: str) -> Iterator[Finding]:
        letters = _by_source(self._history.label_letters)
        expected = self._expected
        records = {record.place: record for record in self._history.labels}
        reader = self._stages["labels"]
        for place, record in records.items():
            found = letters.pop((topic, *place), [])
            wanted = place in expected.refused_labels or place in expected.unmatched
            at = _at(topic, place)
            if len(found) > 1:
                yield Finding("duplicated", at, f"has {len(found)} dead letters")
            if found and not wanted:
                yield Finding("wrong", at, f"has a dead letter ({_reason(found[0])}), and should have none")
            if wanted and not found and self._at_rest and self._is_read(reader, place):
                yield Finding("lost", at, "should have a dead letter")
            for letter in found:
                if wanted and (_reason(letter) == UNMATCHED_LABEL) != (place in expected.unmatched):
                    yield Finding("wrong", at, f"is refused as {_reason(letter)}")
                yield from (Finding("wrong", at, words) for words in _altered(letter, record))
        for source in letters:
            yield Finding("wrong", _at(str(source[0]), source[1:]), "has a dead letter among the labels', and is not there")


def _disorder(came: Iterable[tuple[Record, Place]], source: str, topic: str) -> Iterator[Finding]:
    """What one partition of a log led to stands, in each partition that it went to, in the log's order."""
    last: dict[tuple[int, int], int] = {}
    for record, (partition, offset) in came:
        lane = record.partition, partition
        if last.get(lane, -1) > offset:
            where = _at(source, (partition, offset))
            yield Finding("out_of_order", where, f"{_at(topic, record.place)} stands behind that of offset {last[lane]}")
        last[lane] = max(last.get(lane, -1), offset)


def _by_source(letters: Sequence[Record]) -> dict[tuple[str, int, int], list[Record]]:
    """Dead letters by the topic, partition and offset that they say they are of."""
    found: dict[tuple[str, int, int], list[Record]] = defaultdict(list)
    for letter in letters:
        said = {name: (text or b"").decode() for name, text in letter.headers if name.startswith("__connect.errors.")}
        place = said["__connect.errors.topic"], int(said["__connect.errors.partition"]), int(said["__connect.errors.offset"])
        found[place].append(letter)
    return found


def _altered(letter: Record, record: Record) -> Iterator[str]:
    if (letter.key, letter.value) != (record.key, record.value):
        yield "its dead letter's key or value is not the record's"


def _reason(letter: Record) -> str:
    return (dict(letter.headers).get("millrace.reason") or b"").decode()


def _same_bits(form: str, left: float, right: float) -> bool:
    return struct.pack(form, left) == struct.pack(form, right) or (math.isnan(left) and math.isnan(right))


def _at(topic: str, place: Sequence[Any]) -> str:
    return f"{topic}[{place[0]}]@{place[1]}"
