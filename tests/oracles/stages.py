"""What two stages with labels should have put out, worked out slowly from the logs that feed them, and what they did otherwise.

A customer's past is its input partition, a terminal's the partition of the internal topic between the stages: that log's order is the
truth, and it is read as a consumer of committed records finds it. fastavro decodes it; sums are Python's.

    input ─────────┐
    labels ────────┤
    internal ──────┼──▶ faults(): lost, duplicated, wrong, state_ahead
    output ────────┤
    dead letters ──┘
"""

from __future__ import annotations

import io
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import fastavro

from tests.oracles.payments import (
    HOUR_MS,
    TIMINGS,
    Fault,
    Past,
    Payments,
    Record,
    differences,
    forest_score,
    letters_by_source,
    read_letter,
    to_ms,
)

DELAY_MS = 2 * HOUR_MS
WINDOWS_MS = {"1h": HOUR_MS, "12h": 12 * HOUR_MS, "2d": 48 * HOUR_MS}
SIGHT_MS = max(WINDOWS_MS.values()) + DELAY_MS + HOUR_MS  # the last hour is how late an event may be
Place = tuple[int, int]  # partition and offset


@dataclass(frozen=True)
class Evidence:
    """Everything that is left of a run."""

    inputs: Sequence[Record]
    labels: Sequence[Record]
    hops: Sequence[Record]
    outputs: Sequence[Record]
    letters: Sequence[Record]
    label_letters: Sequence[Record]
    committed: Mapping[str, Mapping[int, int | None]]  # by stage and partition: the group's offset
    positions: Mapping[str, Mapping[int, int | None]]  # by stage and partition: how far the state has come


class Remembered(NamedTuple):
    """An event of a terminal's past."""

    event_id: str
    event_ms: int


@dataclass
class TerminalPast:
    """One terminal's remembered payments and what became of them, in any order."""

    events: list[Remembered] = field(default_factory=list)
    said: dict[int, int] = field(default_factory=dict)  # by place in `events`: the last label

    @property
    def newest_ms(self) -> int:
        return max(event.event_ms for event in self.events)

    def window(self, end_ms: int, length_ms: int) -> list[int]:
        """Labels of the payments in (end - length, end], 0 where none came."""
        return [self.said.get(i, 0) for i, each in enumerate(self.events) if end_ms - length_ms < each.event_ms <= end_ms]

    def label(self, event_id: str, event_ms: int, label: int) -> str:
        """Take a label: matched, repeated or unmatched."""
        if not self.events:
            return "unmatched"
        mine = [i for i, each in enumerate(self.events) if each.event_id == event_id and each.event_ms > self.newest_ms - SIGHT_MS]
        mine = [i for i in mine if self.events[i].event_ms == event_ms] or mine
        if not mine:
            return "unmatched"
        if all(self.said.get(i) == label for i in mine):
            return "repeated"
        self.said.update(dict.fromkeys(mine, label))
        return "matched"


@dataclass(frozen=True)
class Stages:
    """The example's pipeline in two stages: customers by the input's key, terminals with labels over a hop.

    Attributes:
        payments: judges the input, and knows customers.
        hop: the schema of the internal topic's records, after the bytes that name their layout's reader.
        label: the schema of labels.
        names: of the input's and the labels' topics.
    """

    payments: Payments
    hop: Any
    label: Any
    input_topic: str
    label_topic: str

    def faults(self, evidence: Evidence) -> list[Fault]:
        """All that is wrong, when everything should have been read."""
        found: list[Fault] = []
        usable, customers = self._customers(evidence.inputs)
        hops = [(record, self._hop(record)) for record in sorted(evidence.hops, key=lambda each: (each.partition, each.offset))]
        found += self._crossed(evidence, usable, [said for _, said in hops])
        expected, outcomes = self._terminals(hops, usable, customers)
        found += self._scored(evidence, usable, expected)
        found += self._refused(evidence, usable)
        found += self._labelled(evidence, outcomes)
        for stage, positions in evidence.positions.items():
            for partition, position in positions.items():
                committed = evidence.committed[stage].get(partition) or 0
                if position is not None and position > committed:
                    found.append(Fault("state_ahead", f"{stage}[{partition}]", f"stands at {position}, committed is {committed}"))
        return found

    def outcomes(self, evidence: Evidence) -> Counter[str]:
        """How many labels were matched, repeated and unmatched."""
        usable, customers = self._customers(evidence.inputs)
        hops = [(record, self._hop(record)) for record in sorted(evidence.hops, key=lambda each: (each.partition, each.offset))]
        return Counter(self._terminals(hops, usable, customers)[1].values())

    # --- the input, and the hop's log ---

    def _customers(self, inputs: Iterable[Record]) -> tuple[dict[Place, dict[str, Any] | None], dict[Place, tuple[dict[str, float], str]]]:
        """Each input's payment, or None where it is to be refused; and of each payment the customer's features and timing."""
        payments: dict[Place, dict[str, Any] | None] = {}
        features: dict[Place, tuple[dict[str, float], str]] = {}
        pasts: dict[tuple[int, str], Past] = defaultdict(lambda: Past(self.payments.lateness_ms))
        for record in sorted(inputs, key=lambda each: (each.partition, each.offset)):
            at = record.partition, record.offset
            payment = payments[at] = self.payments.payment(record)
            if payment is not None:
                made = self.payments.of_payment(payment)
                past = pasts[record.partition, payment["customer_id"]]
                timing = self.payments.of_customer(past, to_ms(payment["event_time"]), round(payment["amount"] * 100), made)
                features[at] = made, timing
        return payments, features

    def _hop(self, record: Record) -> dict[str, Any]:
        said: Any = fastavro.schemaless_reader(io.BytesIO(record.value or b""), self.hop, None)
        return dict(said)

    def _crossed(self, evidence: Evidence, usable: Mapping[Place, dict[str, Any] | None], hops: Sequence[Mapping[str, Any]]) -> list[Fault]:
        """Every payment and every label crosses once, under its terminal's key."""
        found: list[Fault] = []
        labels = {(each.partition, each.offset): each for each in evidence.labels if self._label(each) is not None}
        for kind, wanted in (("event", {at for at, payment in usable.items() if payment is not None}), ("label", set(labels))):
            crossed = Counter((hop["source_partition"], hop["source_offset"]) for hop in hops if hop["kind"] == kind)
            found += [Fault("lost", f"{kind}{at}", "is not in the internal topic") for at in wanted - set(crossed)]
            found += [Fault("wrong", f"{kind}{at}", "crossed and should not have") for at in set(crossed) - wanted]
            found += [Fault("duplicated", f"{kind}{at}", f"crossed {times} times") for at, times in crossed.items() if times > 1]
        found += [
            Fault("wrong", f"internal[{record.partition}]@{record.offset}", f"has the key {record.key!r}")
            for record, hop in zip(sorted(evidence.hops, key=lambda each: (each.partition, each.offset)), hops, strict=True)
            if record.key != hop["keys"]["terminal_id"].encode()
        ]
        return found

    # --- terminals, in the order of the hop's log ---

    def _terminals(
        self,
        hops: Iterable[tuple[Record, Mapping[str, Any]]],
        usable: Mapping[Place, dict[str, Any] | None],
        customers: Mapping[Place, tuple[dict[str, float], str]],
    ) -> tuple[dict[Place, dict[str, Any]], dict[Place, str]]:
        """The scored event of each payment, by its place in the input; what each label came to, by its place among the labels."""
        scored: dict[Place, dict[str, Any]] = {}
        outcomes: dict[Place, str] = {}
        pasts: dict[str, TerminalPast] = defaultdict(TerminalPast)
        for _, hop in hops:
            at = hop["source_partition"], hop["source_offset"]
            past = pasts[hop["keys"]["terminal_id"]]
            t = to_ms(hop["event_time"])
            if hop["kind"] == "label":
                outcomes[at] = past.label(hop["event_id"], t, hop["label"])
                continue
            payment = usable.get(at)
            if payment is None:
                continue
            features, timing = customers[at]
            mine, terminal_timing = self._terminal(past, payment["payment_id"], to_ms(payment["event_time"]))
            scored[at] = self._event(payment, features | mine, max(timing, terminal_timing, key=TIMINGS.index))
        return scored, outcomes

    def _terminal(self, past: TerminalPast, event_id: str, t: int) -> tuple[dict[str, float], str]:
        newest = past.newest_ms if past.events else t
        timing = "on_time" if t >= newest else "late" if t >= newest - HOUR_MS else "too_late"
        end = max(t, newest - HOUR_MS)
        features: dict[str, float] = {}
        for name, length_ms in WINDOWS_MS.items():
            labels = past.window(end - DELAY_MS, length_ms)
            features[f"terminal_count_{name}_delay_2h"] = float(len(labels))
            features[f"terminal_label_count_{name}_delay_2h"] = float(sum(labels))
            features[f"terminal_label_rate_{name}_delay_2h"] = sum(labels) / len(labels) if labels else 0.0
        if timing != "too_late":
            past.events.append(Remembered(event_id, t))
        return features, timing

    def _event(self, payment: Mapping[str, Any], features: Mapping[str, float], timing: str) -> dict[str, Any]:
        judge = self.payments
        score = forest_score(list(features.values()))
        return {
            "event_id": payment["payment_id"],
            "event_time": payment["event_time"],
            "decision": "positive" if score >= judge.threshold else "negative",
            "threshold": judge.threshold,
            "scores": [{"model": judge.model, "version": judge.version, "role": "champion", "score": score}],
            "timing": timing,
            "schema_id": 1,
            "source_topic": self.input_topic,
            "features": features,
        }

    # --- what came out ---

    def _scored(
        self, evidence: Evidence, usable: Mapping[Place, dict[str, Any] | None], expected: Mapping[Place, Mapping[str, Any]]
    ) -> list[Fault]:
        found: list[Fault] = []
        answers: dict[Place, list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
        for record in evidence.outputs:
            said = self.payments.read(record)
            answers[said["source_partition"], said["source_offset"]].append((record, said))
        inputs = {(each.partition, each.offset): each for each in evidence.inputs}
        for at, payment in usable.items():
            given = answers.pop(at, [])
            if payment is None:
                found += [Fault("wrong", f"input{at}", "is scored and should have been refused")] * bool(given)
                continue
            if len(given) != 1:
                found.append(Fault("duplicated" if given else "lost", f"input{at}", f"{len(given)} scored events"))
            for record, said in given:
                found += [Fault("wrong", f"input{at}", words) for words in differences(expected.get(at, {}), said)]
                if record.key != inputs[at].key:
                    found.append(Fault("wrong", f"input{at}", f"the scored event's key is {record.key!r}"))
        return found + [Fault("wrong", f"input{at}", "is scored and isn't there") for at in answers]

    def _refused(self, evidence: Evidence, usable: Mapping[Place, dict[str, Any] | None]) -> list[Fault]:
        wanted = {at for at, payment in usable.items() if payment is None}
        return self._letters(evidence.letters, wanted, self.input_topic, evidence.inputs)

    def _labelled(self, evidence: Evidence, outcomes: Mapping[Place, str]) -> list[Fault]:
        broken = {(each.partition, each.offset) for each in evidence.labels if self._label(each) is None}
        unmatched = {at for at, outcome in outcomes.items() if outcome == "unmatched"}
        found = self._letters(evidence.label_letters, broken | unmatched, self.label_topic, evidence.labels)
        reasons = {at: said["reason"] for at, said in letters_by_source(evidence.label_letters).items()}
        return found + [
            Fault("wrong", f"label{at}", f"is refused for {reason}")
            for at, reason in reasons.items()
            if (reason == "unmatched_label") != (at in unmatched)
        ]

    def _label(self, record: Record) -> dict[str, Any] | None:
        value = record.value or b""
        if value[:5] != b"\0" + struct.pack(">i", 3):
            return None
        body = io.BytesIO(value[5:])
        try:
            said: Any = fastavro.schemaless_reader(body, self.label, None)
        except (EOFError, IndexError, ValueError, struct.error):
            return None
        good = record.key == said["payment_id"].encode() and said["payment_id"] and said["terminal_id"]
        return dict(said) if good and isinstance(said["event_time"], datetime) and not body.read(1) else None

    def _letters(self, letters: Sequence[Record], wanted: set[Place], topic: str, originals: Sequence[Record]) -> list[Fault]:
        found: list[Fault] = []
        records = {(each.partition, each.offset): each for each in originals}
        given = Counter[Place]()
        for record in letters:
            said = read_letter(record)
            at = said["source_partition"], said["source_offset"]
            given[at] += 1
            if said["source_topic"] != topic:
                found.append(Fault("wrong", f"letter{at}", f"is said to come from {said['source_topic']}"))
            elif at in records and (record.key, record.value) != (records[at].key, records[at].value):
                found.append(Fault("wrong", f"{topic}{at}", "its letter's key or value is not the record's"))
        found += [Fault("lost", f"{topic}{at}", "has no dead letter") for at in wanted - set(given)]
        found += [Fault("wrong", f"{topic}{at}", "has a dead letter") for at in set(given) - wanted]
        return found + [Fault("duplicated", f"{topic}{at}", f"has {times} letters") for at, times in given.items() if times > 1]
