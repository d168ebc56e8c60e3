"""What passes from one stage to the next and from labels to events, without a broker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.scorer import ConstantScorer
from schemas.codec import Decoder, Encoder
from schemas.columns import Column, Columns, Constant, PackedBytes, Symbols
from schemas.errors import StateError
from schemas.reject import Reject
from streams.account import Account
from streams.batch import Address, Batch
from streams.come_back import COUNTED_AT, Headers, first_offset
from streams.definition.bound import Bound
from streams.extract import Extract, ExtractHop
from streams.health import Health
from streams.hop import HopSchema
from streams.kafka import STAND_IN_SETTINGS, TopicFacts
from streams.metrics import Metrics, expose
from streams.output import Parcel
from streams.planning.stage import Stage, stages
from streams.refusal import refusal
from streams.refusals import Refusals
from streams.score import Score
from streams.scored_event import Stamp, output_schema, scored_columns
from streams.stage_outputs import hop_outputs, scored_output
from streams.transform import Transform
from tests.streams.batches import batch_of
from tests.streams.payment import bound_pipeline
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000
PARTITION = 3
LABELS = {
    "type": "record",
    "name": "Label",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "terminal_id", "type": "string"},
        {"name": "fraud", "type": "boolean"},
    ],
}
CHANGES = {
    "pipeline = Pipeline(": """
terminal = Entity(
    "terminal", key="terminal_id", windows=(Window(days(1)),), aggregates=(Count(), LabelCount()), lateness_ms=hours(1)
)
labels = Labels(
    Topic("labels", schema="labels.avsc", key="payment_id", event_time="event_time", event_id="payment_id", framing="bare"), value="fraud"
)
pipeline = Pipeline(""",
    "entities=(customer,)": "entities=(customer, terminal),\n    labels=labels",
    "*customer.feature_names": "*customer.feature_names, *terminal.feature_names",
    'event_id="payment_id"),\n    rules': 'event_id="payment_id", framing="bare"),\n    rules',
}


class Line:
    """The steps of one stage, without a broker."""

    def __init__(self, bound: Bound, stage: Stage, all_stages: tuple[Stage, ...]) -> None:
        self.stage = stage
        store = MemoryStore()
        store.claim("3", {})
        open_state = ShardState("3", stage.entities, store, bound.event_time.column, 1_000)
        self.transform = Transform(bound, lambda partition: open_state, lambda: {PARTITION: 1}, stage)
        schema = bound.labels.schema if stage.kind == "labels" and bound.labels else bound.schema
        read = bound.labels if stage.kind == "labels" and bound.labels else bound
        self.extract = (
            ExtractHop(HopSchema.of(bound, stage))
            if stage.kind == "hop"
            else Extract(read, Decoder(schema, "bare"), Refusals(), 1_000_000, 0)
        )
        facts = {each.input.name: TopicFacts(each.input.name, 4, STAND_IN_SETTINGS) for each in all_stages}
        self.outputs = hop_outputs(bound, stage, all_stages, facts) if stage.feeds else ()

    def __call__(self, batch: Batch) -> Batch:
        read = self.extract(batch)
        return read if self.stage.kind == "labels" else self.transform(read)

    def passes_on(self, batch: Batch) -> Parcel:
        (output,) = self.outputs
        return output.parcel(batch, NOON_MS)


class Stand:
    """Both stages, the labels' router, and what comes over the hop."""

    def __init__(self, folder: Path) -> None:
        (folder / "labels.avsc").write_text(json.dumps(LABELS))
        self.bound = bound_pipeline(folder, CHANGES)
        all_stages = stages(self.bound, 4)
        self.customers, self.terminals, self.labels = (Line(self.bound, stage, all_stages) for stage in all_stages)
        self._next = 0

    def pay(self, *ids: str, hour: float = 0.0, terminal: str = "T1", first_offset: int = 100) -> Batch:
        """Payments of customer C1, a second apart, through the first stage."""
        n = len(ids)
        columns: dict[str, Column] = {
            "payment_id": texts(ids),
            "event_time": NOON_MS + int(hour * HOUR_MS) + np.arange(n, dtype=np.int64) * 1_000,
            "customer_id": Constant(b"C1", n),
            "terminal_id": Constant(terminal.encode(), n),
            "amount": np.arange(1.0, n + 1),
            "currency": Constant(b"EUR", n),
        }
        return self.customers(self._batch(self.bound.schema, columns, [b"C1"] * n, first_offset, NOON_MS + 5))

    def label(self, *ids: str, hour: float = 0.0, fraud: bool = True, terminal: str = "T1") -> Batch:
        """Labels through the router."""
        n = len(ids)
        columns: dict[str, Column] = {
            "payment_id": texts(ids),
            "event_time": NOON_MS + int(hour * HOUR_MS) + np.arange(n, dtype=np.int64) * 1_000,
            "terminal_id": Constant(terminal.encode(), n),
            "fraud": np.full(n, fraud),
        }
        assert self.bound.labels is not None
        return self.labels(self._batch(self.bound.labels.schema, columns, [each.encode() for each in ids], 500, NOON_MS + 9))

    def hop(self, *parcels: Parcel) -> Batch:
        """What was passed on, through the last stage's steps before the score."""
        values = [value for parcel in parcels for value in parcel.values]
        batch = batch_of(values, [key for parcel in parcels for key in parcel.keys], first_offset=self._next)
        self._next += len(values)
        span = replace(batch.spans[0], topic=self.terminals.stage.input.name)
        return self.terminals(replace(batch, spans=(span,)))

    def _batch(self, schema: object, columns: Columns, keys: Sequence[bytes], first_offset: int, arrived_ms: int) -> Batch:
        encoder = Encoder(schema, "bare")  # type: ignore[arg-type]
        return batch_of(list(encoder.encode(columns)), keys, first_offset=first_offset, arrived_ms=arrived_ms)


def texts(values: Sequence[str]) -> PackedBytes:
    return PackedBytes.pack([value.encode() for value in values])


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def feature(batch: Batch, name: str) -> list[float]:
    found: list[float] = np.asarray(batch.columns[name]).tolist()
    return found


def test_an_event_keeps_its_columns_features_and_address_over_the_hop(stand: Stand) -> None:
    paid = stand.pay("P1", "P2", "P3")
    parcel = stand.customers.passes_on(paid)
    assert (parcel.topic, parcel.keys) == ("payments.by-terminal", [b"T1"] * 3)
    hopped = stand.hop(parcel)
    assert feature(hopped, "customer_count_1d") == [1, 2, 3]
    assert feature(hopped, "terminal_count_1d") == [1, 2, 3]
    assert feature(hopped, "amount") == [1, 2, 3]
    assert [hopped.origin(row) for row in range(3)] == [Address("payments", 3, 100 + row) for row in range(3)]
    assert hopped.address(0) == Address("payments.by-terminal", 3, 0)
    assert hopped.arrived_ms.tolist() == [NOON_MS + 5] * 3


def test_the_scored_event_names_the_original_and_has_its_key(stand: Stand) -> None:
    hopped = stand.hop(stand.customers.passes_on(stand.pay("P1", "P2")))
    scored = Score(ConstantScorer(0.75), stand.bound.features.names)(hopped)
    stamp = Stamp("payments", "m", "1", "champion", 0.5, "f" * 16, stand.bound.features.names, "payment_id", "event_time")
    columns = scored_columns(scored, stamp)
    topic = columns["source_topic"]
    assert isinstance(topic, Symbols)
    assert [topic.symbols[code] for code in topic.codes.tolist()] == ["payments", "payments"]
    assert np.asarray(columns["source_offset"]).tolist() == [100, 101]
    output = scored_output(
        stand.terminals.stage,
        Encoder(output_schema(stand.bound), "confluent", 1),
        stamp,
        stand.bound.key,
        {"payments.scored": TopicFacts("payments.scored", 4, STAND_IN_SETTINGS)},
    )
    parcel = output.parcel(scored, NOON_MS)
    assert list(parcel.keys) == [b"C1", b"C1"]
    assert list(parcel.stamps_ms) == [NOON_MS, NOON_MS + 1_000]


def test_the_worst_timing_of_all_stages_stands(stand: Stand) -> None:
    stand.hop(stand.customers.passes_on(stand.pay("P1", hour=2)))
    assert stand.hop(stand.customers.passes_on(stand.pay("P2", hour=1.5))).timing == np.array([1])
    # Another terminal, whose newest event this is; for the customer it is late.
    assert stand.hop(stand.customers.passes_on(stand.pay("P3", hour=1.5, terminal="T2"))).timing == np.array([1])


def test_labels_go_to_their_event_and_no_further(stand: Stand) -> None:
    stand.hop(stand.customers.passes_on(stand.pay("P1", "P2")))
    routed = stand.labels.passes_on(stand.label("P2", "nobody"))
    assert routed.keys == [b"T1", b"T1"]
    told = stand.hop(routed)
    assert told.rejected.tolist() == [0, Reject.UNMATCHED_LABEL]
    assert not told.outgoing.any()
    assert told.origin(1) == Address("labels", 3, 501)
    later = stand.hop(stand.customers.passes_on(stand.pay("P3", hour=1)))
    assert feature(later, "terminal_label_count_1d") == [1]
    assert feature(later, "terminal_count_1d") == [3]
    again = stand.hop(stand.labels.passes_on(stand.label("P2", hour=1 / 3600)))
    assert again.repeated is not None
    assert again.repeated.tolist() == [True]
    corrected = stand.hop(stand.labels.passes_on(stand.label("P2", fraud=False)), stand.customers.passes_on(stand.pay("P4", hour=1.1)))
    assert feature(corrected, "terminal_label_count_1d")[1] == 0


def test_only_events_are_scored(stand: Stand) -> None:
    stand.hop(stand.customers.passes_on(stand.pay("P1")))
    mixed = stand.hop(stand.labels.passes_on(stand.label("P1")), stand.customers.passes_on(stand.pay("P2")))
    assert mixed.outgoing.tolist() == [False, True]
    scored = Score(ConstantScorer(0.75), stand.bound.features.names)(mixed)
    assert scored.scores is not None
    assert scored.scores.tolist() == [0, 0.75]


def test_what_came_back_says_on_the_hop_where_the_next_stage_holds_it(stand: Stand) -> None:
    topic = stand.terminals.stage.input.name
    came: Headers = ((COUNTED_AT + topic, b"3@41"), (COUNTED_AT + "a.later.one", b"1@2"), ("trace", b"7"))
    paid = stand.pay("P1", "P2", "P3")
    headers: dict[int, Headers] = {0: came, 1: came, 2: ((COUNTED_AT + "a.later.one", b"1@2"),)}
    back = replace(paid, first_offsets=np.array([-1, 100, 101]), headers=headers)
    parcel = stand.customers.passes_on(back)
    assert list(parcel.headers) == [1], "the first did not come back, and the next stage knows nothing of the third"
    assert first_offset(topic, 3, parcel.headers[1]) == 41
    assert dict(parcel.headers[1])[COUNTED_AT + "a.later.one"] == b"1@2"
    assert "trace" not in dict(parcel.headers[1])


def test_an_unmatched_label_is_refused_in_words(stand: Stand) -> None:
    told = stand.hop(stand.labels.passes_on(stand.label("nobody")))
    error, refused_by = refusal(stand.bound, HopSchema.of(stand.bound, stand.terminals.stage).decoder(), told, 0)
    assert (error.reason, refused_by) == ("unmatched_label", "feature")
    assert "no event with the label's id is remembered" in error.detail


def test_a_record_of_another_definition_stops_the_stage_by_its_place(stand: Stand) -> None:
    parcel = stand.customers.passes_on(stand.pay("P1"))
    foreign = replace(parcel, values=[b"\1" + value[1:] for value in parcel.values])
    with pytest.raises(StateError, match=r"payments\.by-terminal\[3\]@0 was written by another definition"):
        stand.hop(foreign)


def test_bytes_nobody_of_ours_wrote_stand_for_themselves(stand: Stand) -> None:
    parcel = stand.customers.passes_on(stand.pay("P1"))
    broken = stand.hop(replace(parcel, values=[b"short"]), parcel)
    assert broken.usable.tolist() == [False, True]
    assert broken.origin(0) == Address("payments.by-terminal", 3, 0)
    assert broken.origin(1) == Address("payments", 3, 100)


def test_the_account_of_a_stage_with_labels_adds_up(stand: Stand) -> None:
    metrics = Metrics("payments", "m", "1", "f" * 16)
    account = Account(metrics, Health(60, dict), (), "m", "1", 0.5, dict)
    stand.hop(stand.customers.passes_on(stand.pay("P1", "P2")))
    told = stand.hop(
        stand.labels.passes_on(stand.label("P1", "P2")),
        stand.labels.passes_on(stand.label("P1", "nobody")),
        stand.customers.passes_on(stand.pay("P3")),
    )
    account.final(Score(ConstantScorer(0.75), stand.bound.features.names)(told), 0.01)
    lines: Mapping[str, str] = dict(line.rsplit(" ", 1) for line in expose({"last": metrics}).decode().splitlines() if line[0] != "#")
    assert lines['millrace_records_read_total{partition="3",stage="last",topic="payments.by-terminal"}'] == "5.0"
    outcomes = {word: lines[f'millrace_labels_total{{outcome="{word}",stage="last"}}'] for word in ("matched", "repeated", "unmatched")}
    assert outcomes == {"matched": "2.0", "repeated": "1.0", "unmatched": "1.0"}
    assert lines['millrace_records_refused_total{reason="unmatched_label",refused_by="feature",stage="last"}'] == "1.0"
    assert lines['millrace_events_scored_total{model="m",model_version="1",stage="last"}'] == "1.0"
