"""What a worker over the example's payments should have put out, worked out slowly from the input's bytes, and what it did otherwise.

Independent of what it judges: fastavro decodes, each key's past is two sorted lists, sums are Python's integers, the model is a handful of
comparisons. Nothing of Millrace is imported but the schema that names the output's fields.

    input ───────────┐
    output ──────────┼──▶ faults(): lost, duplicated, wrong, out_of_order, offset_behind, state_ahead
    dead letters ────┘
"""

from __future__ import annotations

import io
import math
import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import fastavro
import numpy as np

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOWS_DAYS = (1, 7, 30)
TERMINAL_DELAY_MS = 7 * DAY_MS
TIMINGS = ("on_time", "late", "too_late")
DECISION_THRESHOLD = 0.125


class Record(NamedTuple):
    """A record as it lies in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1


@dataclass(frozen=True)
class Evidence:
    """Everything that is left of a run."""

    topic: str
    inputs: Sequence[Record]
    outputs: Sequence[Record]
    letters: Sequence[Record]
    committed: Mapping[int, int | None]  # by partition: the group's offset
    positions: Mapping[int, int | None]  # by partition: how far the state has come


class Fault(NamedTuple):
    """One thing that is not as it should be; prints as ``lost payments[0]@17: ...``."""

    kind: str
    at: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.at}: {self.detail}"


@dataclass
class Past:
    """One key's remembered payments, oldest first, those of one time in the order of the log."""

    lateness_ms: int
    times: list[int] = field(default_factory=list)
    cents: list[int] = field(default_factory=list)

    def evaluated_at(self, t: int) -> tuple[int, str]:
        """The time its windows end at, and the payment's timing."""
        if not self.times or t >= self.times[-1]:
            return t, "on_time"
        oldest = self.times[-1] - self.lateness_ms
        return (t, "late") if t >= oldest else (oldest, "too_late")

    def window(self, end: int, length_ms: int) -> list[int]:
        """Amounts of the payments in (end - length, end]."""
        return self.cents[bisect_right(self.times, end - length_ms) : bisect_right(self.times, end)]

    def remember(self, t: int, cents: int) -> None:
        place = bisect_right(self.times, t)
        self.times.insert(place, t)
        self.cents.insert(place, cents)


@dataclass(frozen=True)
class Payments:
    """The example's pipeline, or the half of it that knows customers only.

    Attributes:
        schemas: by id, what writers wrote with.
        output: the schema of the scored events.
        terminals: whether terminals are an entity.
        threshold: of the decision.
        model, version: what scored events should say.
        fingerprints: one of them they should say: a pipeline that was changed has several.
        lateness_ms: of both entities.
        most_bytes: of a value.
    """

    schemas: Mapping[int, Any]
    output: Any
    model: str
    version: str
    fingerprints: Sequence[str]
    terminals: bool = True
    threshold: float = DECISION_THRESHOLD
    lateness_ms: int = HOUR_MS
    most_bytes: int = 1_048_588

    def faults(self, evidence: Evidence, *, at_rest: bool = True) -> list[Fault]:
        """All that is wrong.

        Args:
            evidence: what is left of the run.
            at_rest: whether everything should have been read.
        """
        answers: dict[tuple[int, int], list[tuple[str, Record, Any]]] = defaultdict(list)
        found: list[Fault] = []
        found += self._collect(evidence, answers)
        for place, expected in self.expected(evidence.inputs):
            found += self._judge(evidence, place, expected, answers.pop((place.partition, place.offset), []), at_rest)
        for (partition, offset), strays in answers.items():
            found.append(Fault("wrong", f"{evidence.topic}[{partition}]@{offset}", f"{len(strays)} answers to a record that isn't there"))
        for partition, position in evidence.positions.items():
            if position is not None and position > (evidence.committed.get(partition) or 0):
                detail = f"the state stands at {position}, the committed offset is {evidence.committed.get(partition)}"
                found.append(Fault("state_ahead", f"{evidence.topic}[{partition}]", detail))
        return found

    # --- what should be ---

    def expected(self, inputs: Iterable[Record]) -> Iterable[tuple[Record, dict[str, Any] | None]]:
        """Each input with its scored event, or None where it should have been refused."""
        pasts: dict[tuple[Any, ...], Past] = defaultdict(lambda: Past(self.lateness_ms))
        for record in sorted(inputs, key=lambda each: (each.partition, each.offset)):
            payment = self.payment(record)
            yield record, None if payment is None else self._scored(record, payment, pasts)

    def payment(self, record: Record) -> dict[str, Any] | None:
        """What a record says, or None where it can't be used."""
        value = record.value
        if value is None or not 5 <= len(value) <= self.most_bytes or value[0] != 0:
            return None
        schema = self.schemas.get(struct.unpack(">i", value[1:5])[0])
        if schema is None:
            return None
        body = io.BytesIO(value[5:])
        try:
            payment: Any = fastavro.schemaless_reader(body, schema, None)
        except (EOFError, IndexError, ValueError, struct.error, OverflowError):
            return None
        if body.read(1):
            return None
        return payment if self._allowed(record, payment) else None

    def _allowed(self, record: Record, payment: Mapping[str, Any]) -> bool:
        amount = payment["amount"]
        return (
            amount is not None
            and record.key is not None
            and record.key == payment["customer_id"].encode()
            and all(payment[name] for name in ("payment_id", "customer_id", "terminal_id"))
            and isinstance(payment["event_time"], datetime)  # fastavro leaves what no calendar has as a number
            and math.isfinite(amount)
            and 0 <= amount <= 50_000
            and round(amount * 100) / 100 == amount
            and payment["currency"] == "EUR"
        )

    def _scored(self, record: Record, payment: Mapping[str, Any], pasts: dict[tuple[Any, ...], Past]) -> dict[str, Any]:
        t = to_ms(payment["event_time"])
        cents = round(payment["amount"] * 100)
        features = self.of_payment(payment)
        customer = pasts["customer", record.partition, payment["customer_id"]]
        timings = [self.of_customer(customer, t, cents, features)]
        if self.terminals:
            timings.append(self._terminal(pasts["terminal", record.partition, payment["terminal_id"]], t, cents, features))
        score = forest_score(list(features.values()))
        schema_id = struct.unpack(">i", (record.value or b"")[1:5])[0]
        return {
            "event_id": payment["payment_id"],
            "event_time": payment["event_time"],
            "decision": "positive" if score >= self.threshold else "negative",
            "threshold": self.threshold,
            "scores": [{"model": self.model, "version": self.version, "role": "champion", "score": score}],
            "timing": max(timings, key=TIMINGS.index),
            "schema_id": schema_id,
            "features": features,
        }

    def of_payment(self, payment: Mapping[str, Any]) -> dict[str, float]:
        """The features a payment has of itself."""
        day = payment["event_time"]
        return {"amount": payment["amount"], "weekend": float(day.weekday() >= 5), "night": float(day.hour <= 6)}

    def of_customer(self, past: Past, t: int, cents: int, features: dict[str, float]) -> str:
        """Add a customer's features to those of a payment, and remember it; its timing."""
        end, timing = past.evaluated_at(t)
        for days in WINDOWS_DAYS:
            others = past.window(end, days * DAY_MS)
            n, s1, s2 = len(others) + 1, sum(others) + cents, sum(c * c for c in others) + cents * cents
            spread = float(n * s2 - s1 * s1)
            name = f"customer_{{}}_{days}d"
            features[name.format("count")] = float(n)
            features[name.format("amount_mean")] = s1 / (n * 100.0)
            features[name.format("amount_std")] = math.sqrt(spread / (n * (n - 1.0))) / 100.0 if n > 1 else 0.0
            ratio = cents / ((s1 - cents) / (n - 1.0)) if n > 1 and s1 > cents else 0.0
            features[name.format("amount_ratio_to_mean")] = ratio
        if timing != "too_late":
            past.remember(t, cents)
        return timing

    def _terminal(self, past: Past, t: int, cents: int, features: dict[str, float]) -> str:
        end, timing = past.evaluated_at(t)
        for days in WINDOWS_DAYS:
            # A millisecond is a cell of its own: the last one wholly before or at end - delay is that millisecond itself.
            features[f"terminal_count_{days}d_delay_7d"] = float(len(past.window(end - TERMINAL_DELAY_MS, days * DAY_MS)))
        if timing != "too_late":
            past.remember(t, cents)
        return timing

    # --- what is ---

    def _collect(self, evidence: Evidence, answers: dict[tuple[int, int], list[tuple[str, Record, Any]]]) -> list[Fault]:
        found: list[Fault] = []
        last: dict[tuple[str, int, bytes | None], int] = {}
        for kind, records in (("output", evidence.outputs), ("letter", evidence.letters)):
            for record in sorted(records, key=lambda each: (each.partition, each.offset)):
                said = self.read(record) if kind == "output" else read_letter(record)
                source = said["source_partition"], said["source_offset"]
                at = f"{evidence.topic}[{source[0]}]@{source[1]}"
                if said["source_topic"] != evidence.topic:
                    found.append(Fault("wrong", at, f"says it comes from {said['source_topic']}"))
                answers[source].append((kind, record, said))
                lane = kind, record.partition, record.key
                if last.get(lane, -1) > source[1]:
                    found.append(Fault("out_of_order", at, f"{kind} stands behind that of offset {last[lane]} of the same key"))
                last[lane] = max(last.get(lane, -1), source[1])
                committed = evidence.committed.get(source[0]) or 0
                if source[1] >= committed:
                    found.append(Fault("offset_behind", at, f"{kind} is visible, the committed offset is {committed}"))
        return found

    def _judge(
        self, evidence: Evidence, record: Record, expected: dict[str, Any] | None, given: list[tuple[str, Record, Any]], at_rest: bool
    ) -> list[Fault]:
        at = f"{evidence.topic}[{record.partition}]@{record.offset}"
        if not given:
            if at_rest or record.offset < (evidence.committed.get(record.partition) or 0):
                return [Fault("lost", at, "neither scored nor a dead letter")]
            return []
        found = [Fault("duplicated", at, f"{len(given)} answers: {', '.join(kind for kind, _, _ in given)}")] if len(given) > 1 else []
        wanted = "letter" if expected is None else "output"
        for kind, answer, said in given:
            if kind != wanted:
                found.append(Fault("wrong", at, f"is answered by an {kind}, wanted an {wanted}: {said}"))
            elif expected is not None:
                found += [Fault("wrong", at, words) for words in differences(expected, said)]
                if said["feature_fingerprint"] not in self.fingerprints:
                    found.append(Fault("wrong", at, f"features are said to be {said['feature_fingerprint']}"))
            if answer.key != record.key or (kind == "letter" and answer.value != record.value):
                found.append(Fault("wrong", at, f"the {kind}'s key or value is not the record's"))
            if kind == "output" and expected is not None and answer.timestamp_ms != max(to_ms(expected["event_time"]), 1):
                found.append(Fault("wrong", at, f"is stamped {answer.timestamp_ms}, wanted its event time"))
        return found

    def read(self, record: Record) -> dict[str, Any]:
        """What a scored event says."""
        value = record.value or b""
        said: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), self.output, None)
        return dict(said)


def differences(expected: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """Fields of a scored event that are not as expected; floats are compared by their bits."""
    found = []
    for name, wanted in expected.items():
        got: Any = said.get(name)
        if name == "features":
            found += [f"{each} is {got.get(each)!r}, wanted {w!r}" for each, w in wanted.items() if not _same(got.get(each), w)]
            if list(got) != list(wanted):
                found.append(f"features are {list(got)}, wanted {list(wanted)}")
        elif not _same(got, wanted):
            found.append(f"{name} is {got!r}, wanted {wanted!r}")
    return found


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    return bool(left == right)


def read_letter(record: Record) -> dict[str, Any]:
    """What a dead letter says of its record."""
    headers = {name: (text or b"").decode() for name, text in record.headers if name.startswith(("__connect.errors.", "millrace."))}
    return {
        "source_topic": headers["__connect.errors.topic"],
        "source_partition": int(headers["__connect.errors.partition"]),
        "source_offset": int(headers["__connect.errors.offset"]),
        "reason": headers["millrace.reason"],
        "stage": headers["millrace.stage"],
        "counted": headers["millrace.counted"],
        "message": headers["__connect.errors.exception.message"],
    }


def letters_by_source(letters: Iterable[Record]) -> dict[tuple[int, int], dict[str, Any]]:
    """What each dead letter says, by the partition and offset of its record."""
    said = [read_letter(record) for record in letters]
    return {(each["source_partition"], each["source_offset"]): each for each in said}


def forest_score(features: Sequence[float]) -> float:
    """The score of `tests.live.model`: a stump for each feature; the sums are exact in float32, in any order."""
    return sum((stump_weight(i) for i, value in enumerate(features) if np.float32(value) > np.float32(stump_threshold(i))), 0.0)


def stump_threshold(feature: int) -> float:
    """Where the stump of a feature splits: amounts, flags, then counts and means of some size."""
    first = (60.0, 0.5, 0.5, 1.5, 45.0, 20.0, 1.25, 8.5, 50.0, 25.0, 1.5, 30.5, 55.0, 22.5, 0.75, 1.5, 7.5, 30.5)
    return (*first, 30.5, 5.5, 0.125, 99.5, 12.5, 0.0625)[feature]


def stump_weight(feature: int) -> float:
    """What it adds above that."""
    return (feature + 1) / 512


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000
