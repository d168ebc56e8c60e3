"""JSON objects as Avro records, and files of events."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas.avro import AvroSchema, read_value, write_value
from schemas.errors import RecordError, SchemaError
from schemas.event_file import FileEvent, read_events
from schemas.json_record import as_it_travels, record_of_json

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
DAY = {"type": "int", "logicalType": "date"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
FIXED_MONEY = {"type": "fixed", "name": "Money", "size": 3, "logicalType": "decimal", "precision": 6, "scale": 2}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}
PLACE = {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}
LINK = {
    "type": "record",
    "name": "Link",
    "fields": [{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Link"], "default": None}],
}


def schema_of(kind: Any, **field: Any) -> AvroSchema:
    return AvroSchema.parse({"type": "record", "name": "E", "fields": [{"name": "x", "type": kind, **field}]})


def through(kind: Any, value: Any) -> Any:
    """What a reader finds of a JSON value that was written: fastavro's own view, logical types and all."""
    schema = schema_of(kind)
    return read_value(write_value(record_of_json(schema)({"x": value}), as_it_travels(schema)), schema.parsed)["x"]


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("int", 5, 5),
        ("long", -(2**63), -(2**63)),
        ("double", 5, 5.0),
        ("float", 0.5, 0.5),
        ("boolean", True, True),
        ("string", "a", "a"),
        ("bytes", "\u0000\u00ff", b"\x00\xff"),
        (MILLIS, 1_500, datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)),
        (MILLIS, "1970-01-01T00:00:01.500Z", datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)),
        (MILLIS, "1970-01-01 01:00:00+01:00", datetime(1970, 1, 1, tzinfo=UTC)),
        (MILLIS, "1969-12-31T23:59:59.999", datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)),
        (MICROS, "1970-01-01T00:00:00.000007", datetime(1970, 1, 1, 0, 0, 0, 7, UTC)),
        (DAY, "1970-01-03", datetime(1970, 1, 3, tzinfo=UTC).date()),
        (MONEY, 12.34, Decimal("12.34")),
        (MONEY, "-0.01", Decimal("-0.01")),
        (MONEY, 0, Decimal("0.00")),
        (FIXED_MONEY, -1.28, Decimal("-1.28")),
        (COLOUR, "BLUE", "BLUE"),
        (["null", "string"], None, None),
        (["null", "string"], "a", "a"),
        (["null", COLOUR], "RED", "RED"),
        (["null", PLACE], {"city": "B"}, {"city": "B"}),
        (["string", "int"], 7, 7),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "int"}, {"a": 1}, {"a": 1}),
        (LINK, {"n": 1, "next": {"n": 2}}, {"n": 1, "next": {"n": 2, "next": None}}),
    ],
)
def test_a_json_value_is_read_back_as_what_it_means(kind: Any, value: Any, found: Any) -> None:
    assert through(kind, value) == found


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("int", 2**31, "x is 2147483648, wanted a whole number from -2147483648 to 2147483647"),
        ("int", 1.5, "x is 1.5, wanted a whole number"),
        ("long", True, "x is True, wanted a whole number"),
        ("long", "5", "x is '5', wanted a whole number"),
        ("double", "a", "x is 'a', wanted a number"),
        ("double", False, "x is False, wanted a number"),
        ("string", 5, "x is 5, wanted text"),
        ("boolean", 1, "x is 1, wanted true or false"),
        ("bytes", "\u0100", "wanted text of the characters"),
        (MILLIS, "yesterday", "x is 'yesterday', wanted a time"),
        (MONEY, 0.001, "wanted a number of at most 6 digits, 2 of them after the point"),
        (MONEY, 10_000, "wanted a number of at most 6 digits"),
        (MONEY, "many", "wanted a number"),
        (COLOUR, "GREEN", "x is 'GREEN', wanted one of RED, BLUE"),
        (["null", "string"], 5, "x is 5, wanted text"),
        ({"type": "array", "items": "int"}, [1, "b"], "x[1] is 'b', wanted a whole number"),
        ({"type": "array", "items": "int"}, 3, "x is 3, wanted an array"),
        (PLACE, {"city": 5}, "x.city is 5, wanted text"),
        (PLACE, {}, "x.city is missing"),
        (PLACE, "here", "x is 'here', wanted an object"),
        ({"type": "fixed", "name": "F", "size": 2}, "abc", "wanted 2 bytes"),
    ],
)
def test_a_json_value_that_is_not_the_schemas_is_said_in_words(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(RecordError) as caught:
        through(kind, value)
    assert caught.value.reason == "not_encodable"
    assert words in caught.value.detail


def test_missing_fields_get_their_default_or_null_and_unknown_ones_are_passed_over() -> None:
    assert record_of_json(schema_of("int", default=3))({"y": 1}) == {"x": 3}
    assert record_of_json(schema_of(["null", "int"]))({}) == {"x": None}
    with pytest.raises(RecordError, match="x is missing"):
        record_of_json(schema_of("int"))({})


# --- files ---

EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "id", "type": "string"}, {"name": "at", "type": MILLIS}, {"name": "n", "type": "int", "default": 7}],
}


def read(path: Path, definition: Any = EVENT, key: str = "id") -> list[FileEvent]:
    return list(read_events(path, AvroSchema.parse(definition), key))


def values(events: list[FileEvent], definition: Any = EVENT) -> list[Any]:
    reader = as_it_travels(AvroSchema.parse(definition))
    return [read_value(event.value, reader) for event in events if event.value is not None]


def container(path: Path, records: list[Any], definition: Any = EVENT, codec: str = "deflate") -> Path:
    with path.open("wb") as file:
        fastavro.writer(file, definition, records, codec=codec, sync_interval=100)
    return path


def test_json_lines_are_read_with_their_numbers_keys_and_troubles(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"id": "a", "at": 5}\n\n{"id": 5, "at": 5}\nnot json\n{"id": "\u00fc", "at": "1970-01-01T00:00:01Z", "n": 1}')
    events = read(file)
    assert [event.number for event in events] == [1, 3, 4, 5]
    assert [event.key for event in events] == [b"a", None, None, "\u00fc".encode()]
    assert values(events) == [{"id": "a", "at": 5, "n": 7}, {"id": "\u00fc", "at": 1_000, "n": 1}]
    details = [event.trouble.detail for event in events if event.trouble]
    assert len(details) == 2
    assert "id is 5, wanted text" in details[0]
    assert "no JSON" in details[1]


def test_a_line_that_is_not_utf8_is_a_trouble_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"id": "\xff", "at": 5}\n{"id": "b", "at": 5}\n')
    events = read(file)
    assert [event.trouble is None for event in events] == [False, True]


def test_a_container_is_read_whatever_times_it_holds(tmp_path: Path) -> None:
    records = [{"id": str(n), "at": (2**62 if n == 3 else n), "n": n} for n in range(500)]
    events = read(container(tmp_path / "events.avro", records))
    assert values(events) == records
    assert [event.number for event in events] == list(range(1, 501))
    assert events[3].key == b"3"


def test_a_container_with_another_schema_is_resolved_to_the_readers(tmp_path: Path) -> None:
    older = {**EVENT, "fields": [*EVENT["fields"][:2], {"name": "gone", "type": "string"}]}
    events = read(container(tmp_path / "events.avro", [{"id": "a", "at": 1, "gone": "x"}], older))
    assert values(events) == [{"id": "a", "at": 1, "n": 7}]


def test_a_container_with_a_schema_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    other = {"type": "record", "name": "Event", "fields": [{"name": "id", "type": "int"}]}
    with pytest.raises(SchemaError, match=r"events\.avro"):
        read(container(tmp_path / "events.avro", [{"id": 5}], other))


@pytest.mark.parametrize("cut", [6, 60, -20])
def test_a_torn_container_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    file = container(tmp_path / "events.avro", [{"id": str(n), "at": n, "n": n} for n in range(500)])
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(SchemaError, match=r"events\.avro"):
        read(file)


@pytest.mark.parametrize("place", range(0, 900, 29))
def test_a_damaged_container_is_refused_or_read_never_a_crash(tmp_path: Path, place: int) -> None:
    file = container(tmp_path / "events.avro", [{"id": str(n), "at": n, "n": n} for n in range(50)], codec="null")
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 0xFF
    file.write_bytes(data)
    with contextlib.suppress(SchemaError):
        assert all((event.value is None) != (event.trouble is None) for event in read(file))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"nothing\.jsonl can't be read"):
        read(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("kind", "value", "key"), [("int", 5, b"5"), ("bytes", "\u00ff", b"\xff"), (COLOUR, "RED", b"RED"), (["null", "string"], None, None)]
)
def test_the_key_is_the_text_of_its_field(tmp_path: Path, kind: Any, value: Any, key: bytes | None) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps({"x": value}))
    definition = {"type": "record", "name": "E", "fields": [{"name": "x", "type": kind}]}
    assert [event.key for event in read(file, definition, "x")] == [key]


def test_text_that_utf8_does_not_have_is_a_trouble_of_its_event_alone(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"x": "\\ud800"}\n{"x": "good"}\n')
    odd, good = read_events(file, schema_of("string"), "x")
    assert (odd.value, good.key, good.trouble) == (None, b"good", None)
    assert odd.trouble is not None
    assert odd.trouble.reason == "not_encodable"
    assert "surrogates not allowed" in odd.trouble.detail


def test_a_file_keeps_all_the_digits_of_a_price(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"x": 1234567890123456.78}\n')
    schema = schema_of({**MONEY, "precision": 18})
    (event,) = read_events(file, schema, "x")
    assert event.value is not None
    assert read_value(event.value, schema.parsed)["x"] == Decimal("1234567890123456.78")
