"""What a producer's events are held against before they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.avro import AvroSchema, read_value
from schemas.errors import RecordError
from schemas.json_record import as_it_travels
from schemas.rules import in_range, one_of
from streams.definition.pipeline import Topic
from streams.producer.event_writer import _Check
from tests.schemas.test_decode import field

SCHEMA = AvroSchema.parse(
    {
        "type": "record",
        "name": "Payment",
        "fields": [
            field("id", "string"),
            field("at", {"type": "long", "logicalType": "timestamp-micros"}),
            field("amount", "double"),
            field("price", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, default="\u0000"),
            field("day", {"type": "int", "logicalType": "date"}, default=0),
            field("note", ["null", "string"], default=None),
        ],
    }
)
RULES = (in_range("amount", 0, 10), one_of("id", ("a", "b")), in_range("at", 0, 2_000_000_000_000))
CHECK = _Check(Topic("payments", schema="p.avsc", key="id", event_time="at"), SCHEMA, RULES)


@dataclass(frozen=True)
class Payment:
    id: str
    at: datetime
    amount: float
    price: Decimal = Decimal("1.25")
    day: date = date(1970, 1, 3)


def test_an_event_is_written_as_the_schema_says_whatever_python_calls_it() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    written = {"id": "a", "at": int(at.timestamp() * 1_000_000), "amount": 2.0, "price": b"\x7d", "day": 2, "note": None}
    for event in (
        Payment("a", at, 2),
        {"id": "a", "at": at.isoformat(), "amount": 2, "price": 1.25, "day": "1970-01-03", "note": None},
    ):
        record, value = CHECK.record(0, event)
        CHECK.rules([value])  # times are in milliseconds for the rules
        assert record == written
        assert read_value(value, as_it_travels(SCHEMA)) == written


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"amount": "much"}, "not_encodable", "amount is 'much', wanted a number"),
        ({"amount": 11.0}, "amount_in_range", "amount is 11.0, wanted 0 to 10"),
        ({"id": "c"}, "id_one_of", "id is 'c', wanted one of a, b"),
        ({"at": 3_000_000_000_000_000}, "at_in_range", "at is 3000000000000, wanted 0 to 2000000000000"),
        ({"amuont": 1.0}, "not_encodable", "'amuont' is no field of Payment; there are amount, at, day, id, note, price"),
        ({"price": "1.255"}, "not_encodable", "price is '1.255', wanted a number of at most 9 digits, 2 of them after the point"),
        ({"at": None}, "not_encodable", "at is None, wanted a whole number"),
    ],
)
def test_an_event_that_would_be_refused_is_told_of_and_which_one_it_is(changes: dict[str, Any], reason: str, words: str) -> None:
    good = {"id": "a", "at": 0, "amount": 1.0}
    with pytest.raises(RecordError) as raised:
        CHECK.rules([CHECK.record(row, event)[1] for row, event in enumerate([good, good | changes])])
    assert (raised.value.reason, getattr(raised.value, "row", None)) == (reason, 1)
    assert raised.value.detail.startswith(words)


def test_what_is_no_mapping_is_no_event() -> None:
    with pytest.raises(RecordError, match="the event is str, wanted a mapping or a dataclass"):
        CHECK.record(0, "payment")
