"""The judge of the live tests is judged: it is content with what is right, and finds each kind of fault that is planted."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import pytest

from streams.scored_event import scored_event_schema
from tests.oracles.payments import WINDOWS_DAYS, Evidence, Payments, Record

TOPIC = "payments"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)  # a Monday
FIELDS = {"payment_id": "string", "customer_id": "string", "terminal_id": "string", "amount": "double", "currency": "string"}
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Payment",
        "fields": [
            {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            *({"name": name, "type": kind} for name, kind in FIELDS.items()),
        ],
    }
)
CUSTOMER = [f"customer_{word}_{d}d" for d in WINDOWS_DAYS for word in ("count", "amount_mean", "amount_std", "amount_ratio_to_mean")]
NAMES = ["amount", "weekend", "night", *CUSTOMER, *(f"terminal_count_{d}d_delay_7d" for d in WINDOWS_DAYS)]
SCORED: Any = scored_event_schema("payments", NAMES)
OUTPUT: Any = fastavro.parse_schema(SCORED)
JUDGE = Payments({1: SCHEMA}, OUTPUT, "model", "1", ["f" * 16])


def framed(schema: Any, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return b"\0\0\0\0\1" + out.getvalue()


def paid(offset: int, after: timedelta, amount: float = 10.0, customer: str = "c", terminal: str = "t", **changes: Any) -> Record:
    payment = {
        "payment_id": f"p{offset}",
        "event_time": NOON + after,
        "customer_id": customer,
        "terminal_id": terminal,
        "amount": amount,
        "currency": "EUR",
        **changes,
    }
    return Record(0, offset, payment["customer_id"].encode(), framed(SCHEMA, payment))


def a_right_run() -> Evidence:
    """What a worker without faults leaves of four payments and a record that is none."""
    inputs = [paid(0, timedelta(0)), paid(1, timedelta(hours=1), 30.0), Record(0, 2, b"c", b"?"), paid(3, timedelta(days=8), 50.0)]
    outputs: list[Record] = []
    letters: list[Record] = []
    for record, event in JUDGE.expected(inputs):
        if event is None:
            said = {"topic": TOPIC, "partition": "0", "offset": str(record.offset), "exception.message": "?"}
            headers = [(f"__connect.errors.{name}", text.encode()) for name, text in said.items()]
            headers += [(f"millrace.{name}", b"?") for name in ("reason", "stage", "counted")]
            letters.append(Record(0, len(letters), record.key, record.value, tuple(headers)))
            continue
        source: dict[str, Any] = {"source_topic": TOPIC, "source_partition": 0, "source_offset": record.offset, "pipeline": "payments"}
        source["feature_fingerprint"] = "f" * 16
        stamp = round(event["event_time"].timestamp() * 1_000)
        outputs.append(Record(0, len(outputs), record.key, framed(OUTPUT, {**event, **source}), (), stamp))
    return Evidence(TOPIC, inputs, outputs, letters, {0: 4}, {0: 4})


def changed(record: Record, **fields: Any) -> Record:
    """A scored event that says something else."""
    said: Any = fastavro.schemaless_reader(io.BytesIO((record.value or b"")[5:]), OUTPUT, None)
    said["features"].update({name: value for name, value in fields.items() if name in said["features"]})
    said.update({name: value for name, value in fields.items() if name not in said["features"]})
    return record._replace(value=framed(OUTPUT, said))


def features_of(*records: Record) -> list[dict[str, Any]]:
    return [event["features"] | {"timing": event["timing"]} for _, event in JUDGE.expected(records) if event]


def test_a_run_without_faults_is_given_none() -> None:
    assert JUDGE.faults(a_right_run()) == []


def test_the_features_are_those_worked_out_by_hand() -> None:
    first, second, third = features_of(paid(0, timedelta(0)), paid(1, timedelta(hours=1), 30.0), paid(2, timedelta(days=7), 50.0))
    assert (first["customer_count_1d"], first["customer_amount_std_1d"], first["customer_amount_ratio_to_mean_1d"]) == (1.0, 0.0, 0.0)
    assert (second["customer_count_1d"], second["customer_amount_mean_1d"], second["customer_amount_ratio_to_mean_1d"]) == (2.0, 20.0, 3.0)
    assert second["customer_amount_std_1d"] == pytest.approx(14.142135623730951)
    # Seven days later the first payment is just outside the week, and just inside what the delayed window of the terminal sees.
    assert (third["customer_count_1d"], third["customer_count_7d"], third["customer_count_30d"]) == (1.0, 2.0, 3.0)
    assert (third["terminal_count_1d_delay_7d"], second["terminal_count_30d_delay_7d"]) == (1.0, 0.0)


def test_late_and_too_late_payments_are_evaluated_where_the_definition_says() -> None:
    new, late, too_late, after = features_of(
        paid(0, timedelta(0)), paid(1, timedelta(hours=-1), 30.0), paid(2, timedelta(hours=-2), 50.0), paid(3, timedelta(0), 10.0)
    )
    assert [each["timing"] for each in (new, late, too_late, after)] == ["on_time", "late", "too_late", "on_time"]
    assert (late["customer_count_1d"], too_late["customer_count_1d"]) == (1.0, 2.0)  # neither sees what lies after its time
    assert after["customer_count_1d"] == 3.0  # the late one is remembered, the one too late is not


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        ("lost", lambda run: replace(run, outputs=run.outputs[:-1])),
        ("lost", lambda run: replace(run, letters=[])),
        ("duplicated", lambda run: replace(run, outputs=[*run.outputs, run.outputs[-1]._replace(offset=9)])),
        ("duplicated", lambda run: replace(run, letters=[*run.letters, run.letters[-1]._replace(offset=9)])),
        ("out_of_order", lambda run: replace(run, outputs=[run.outputs[0]._replace(offset=9), *run.outputs[1:]])),
        ("offset_behind", lambda run: replace(run, committed={0: 3})),
        ("offset_behind", lambda run: replace(run, committed={0: None}, positions={0: None})),
        ("state_ahead", lambda run: replace(run, positions={0: 5})),
        ("wrong", lambda run: replace(run, outputs=[changed(run.outputs[0], customer_count_7d=2.0), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[changed(run.outputs[0], amount=10.000000000000002), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[changed(run.outputs[0], timing="late"), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[changed(run.outputs[0], scores=[]), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[changed(run.outputs[0], feature_fingerprint="e"), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[changed(run.outputs[0], source_topic="other"), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[run.outputs[0]._replace(key=b"other"), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, outputs=[run.outputs[0]._replace(timestamp_ms=0), *run.outputs[1:]])),
        ("wrong", lambda run: replace(run, letters=[run.letters[0]._replace(value=b"!")])),
        ("wrong", lambda run: replace(run, inputs=run.inputs[:-1])),
        ("wrong", lambda run: replace(run, inputs=[*run.inputs[:2], paid(2, timedelta(0)), run.inputs[3]])),
    ],
)
def test_a_planted_fault_is_found(kind: str, plant: Callable[[Evidence], Evidence]) -> None:
    assert kind in {fault.kind for fault in JUDGE.faults(plant(a_right_run()))}


def test_what_is_not_read_yet_is_lost_only_at_rest() -> None:
    run = a_right_run()
    cut = replace(run, outputs=run.outputs[:-1], committed={0: 3}, positions={0: 3})
    assert JUDGE.faults(cut, at_rest=False) == []
    assert [fault.kind for fault in JUDGE.faults(cut)] == ["lost"]


@pytest.mark.parametrize(
    "record",
    [
        Record(0, 0, b"c", None),
        Record(0, 0, b"c", b""),
        Record(0, 0, b"c", b"\0" + struct.pack(">i", 9)),
        paid(0, timedelta(0))._replace(key=b"d"),
        paid(0, timedelta(0))._replace(key=None),
        paid(0, timedelta(0), amount=-1.0),
        paid(0, timedelta(0), amount=float("nan")),
        paid(0, timedelta(0), amount=0.001),
        paid(0, timedelta(0), amount=50_000.01),
        paid(0, timedelta(0), currency="USD"),
        paid(0, timedelta(0), terminal=""),
        paid(0, timedelta(0))._replace(value=(paid(0, timedelta(0)).value or b"")[:-1]),
        paid(0, timedelta(0))._replace(value=(paid(0, timedelta(0)).value or b"") + b"!"),
    ],
)
def test_a_record_that_cannot_be_used_should_be_refused(record: Record) -> None:
    assert JUDGE.payment(record) is None
