"""Resolution of a writer's schema to a reader's, against fastavro's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import AvroSchema, read_value, write_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.reject import Reject
from tests.schemas.avro_cases import plain_bytes, row_of, same, values, wanted
from tests.schemas.test_decode import Known, field, framed, record

ENUM_AB = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
ENUM_CB = {"type": "enum", "name": "E", "symbols": ["C", "B"]}
ENUM_CB_ELSE_C = {**ENUM_CB, "default": "C"}
INNER_XY = {"type": "record", "name": "ns.I", "fields": [field("x", "int"), field("y", "string")]}
INNER_YZ = {"type": "record", "name": "I", "fields": [field("z", "double", default=1.5), field("y", "string")]}

PAIRS: list[tuple[Any, Any]] = [
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
    ("int", "int"),
    ("long", "int"),
    ("string", "int"),
    ("double", "float"),
    ("boolean", "int"),
    (ENUM_AB, ENUM_CB),
    (ENUM_AB, ENUM_CB_ELSE_C),
    ("int", ["null", "long"]),
    (["null", "int"], ["double", "null"]),
    (["null", "int"], "int"),
    (["null", "int"], ["null", "string"]),
    (["int", "string", "null"], ["null", "string"]),
    (["int", "string"], "bytes"),
    ("null", ["null", "int"]),
    (INNER_XY, INNER_YZ),
    (INNER_XY, {**INNER_YZ, "name": "J", "aliases": ["I"]}),
    (INNER_XY, {**INNER_YZ, "name": "J"}),
    (["null", INNER_XY], ["null", INNER_YZ]),
    (INNER_XY, ["null", INNER_YZ]),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}),
    ({"type": "array", "items": INNER_XY}, {"type": "array", "items": INNER_YZ}),
    ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}),
    ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}),
    ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 2}),
    ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 3}),
    (["int", "string"], ["string", "long", "null"]),
    ("string", ["long", "string", "null"]),
]


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_field_resolves_to_what_fastavro_resolves_it_to(data: st.DataObject) -> None:
    wrote, wants = data.draw(st.sampled_from(PAIRS))
    extra = field("gone", data.draw(st.sampled_from(["string", {"type": "array", "items": "int"}, ["null", "long", "string"]])))
    writer = record(*data.draw(st.permutations([field("x", wrote), extra, field("kept", "int")])))
    reader = record(*data.draw(st.permutations([field("x", wants), field("kept", "long"), field("new", ["null", "string"], default=None)])))
    value = plain_bytes(writer.root, data.draw(values(writer.root)))
    decoded = Decoder(reader, "confluent", Known(_1=writer)).decode(PackedBytes.pack([framed(1, value)]))
    try:
        found = read_value(value, writer.parsed, reader.parsed)
    except ValueError:
        assert decoded.rejected[0]
    else:
        assert not decoded.rejected[0]
        assert same(row_of(decoded.columns, 0), wanted(reader.root, found))


@pytest.mark.parametrize(
    ("kind", "default", "holds"),
    [
        ("int", -3, -3),
        ("double", 2, 2.0),
        ("string", "né", "né".encode()),
        ("bytes", "\u00ff", b"\xff"),
        ({"type": "fixed", "name": "F", "size": 2}, "\u0001\u00fe", b"\x01\xfe"),
        (ENUM_AB, "B", "B"),
        (["null", "int"], None, None),
        (["int", "null"], 5, 5),
        ({"type": "array", "items": "long"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "long"}, {"a": 1}, [{"key": b"a", "value": 1}]),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 1}, "\u0001\u0000", 256),
        (["string", "int", "null"], "wide", "wide"),
    ],
)
def test_a_field_the_writer_left_out_takes_its_default(kind: Any, default: Any, holds: Any) -> None:
    writer, reader = record(field("a", "int")), record(field("x", kind, default=default), field("a", "int"))
    decoder = Decoder(reader, "confluent", Known(_1=writer, _2=reader))
    decoded = decoder.decode(PackedBytes.pack([framed(1, write_value({"a": i}, writer.parsed)) for i in range(3)]))
    assert not decoded.rejected.any()
    assert [row_of(decoded.columns, row) for row in range(3)] == [{"x": holds, "a": i} for i in range(3)]


def test_a_default_record_fills_in_its_own_fields_defaults() -> None:
    inner = {"type": "record", "name": "I", "fields": [field("a", "int", default=4), field("b", "string")]}
    writer, reader = record(field("k", "int")), record(field("k", "int"), field("r", inner, default={"b": "x"}))
    decoded = Decoder(reader, "confluent", Known(_1=writer)).decode(PackedBytes.pack([framed(1, write_value({"k": 1}, writer.parsed))]))
    assert row_of(decoded.columns, 0) == {"k": 1, "r.a": 4, "r.b": b"x"}


def test_a_recursive_default_is_read_too() -> None:
    reader = AvroSchema.parse(
        {"type": "record", "name": "R", "fields": [field("v", "int", default=1), field("next", ["null", "R"], default=None)]}
    )
    writer = record(field("v", "int"))
    decoded = Decoder(reader, "confluent", Known(_1=writer)).decode(PackedBytes.pack([framed(1, write_value({"v": 9}, writer.parsed))]))
    assert row_of(decoded.columns, 0) == {"v": 9, "next": None}


def test_a_field_found_by_its_alias_takes_the_readers_name() -> None:
    writer, reader = record(field("old", "int")), record(field("new", "int", aliases=["old"]))
    decoded = Decoder(reader, "confluent", Known(_1=writer)).decode(PackedBytes.pack([framed(1, write_value({"old": 3}, writer.parsed))]))
    assert row_of(decoded.columns, 0) == {"new": 3}


def test_writers_of_one_batch_keep_the_order_of_the_log() -> None:
    first = record(field("a", "int"), field("s", "string"))
    second = record(field("s", "string"), field("b", {"type": "array", "items": "string"}), field("a", "int"))
    third = record(field("a", "long"))
    reader = record(field("a", "long"), field("s", "string", default="none"))
    known = Known(_1=first, _2=second, _3=third)
    log = [(i % 3 + 1, {"a": i, "s": f"s{i}", "b": ["x"] * i}) for i in range(30)]
    decoded = Decoder(reader, "confluent", known).decode(
        PackedBytes.pack([framed(i, write_value(value, known.by_id[i].parsed)) for i, value in log])
    )
    assert decoded.schema_ids.tolist() == [i for i, _ in log]
    assert [row_of(decoded.columns, row) for row in range(30)] == [
        {"a": value["a"], "s": b"none" if i == 3 else str(value["s"]).encode()} for i, value in log
    ]


@pytest.mark.parametrize(
    ("writer", "reader", "reason"),
    [
        (record(field("a", "int")), record(field("b", "int")), "b: the writer's schema has no such field"),
        (record(field("a", "int")), record(field("a", "int"), name="Other"), "record R is not the reader's record Other"),
        (
            record(field("a", "int")),
            record(field("b", {"type": "array", "items": "int"}, default=["x"])),
            "the default of b is 'x', which is no int",
        ),
        (
            record(field("t", {"type": "long", "logicalType": "timestamp-micros"})),
            record(field("t", {"type": "long", "logicalType": "timestamp-millis"})),
            "t: the writer counts timestamp-micros, the reader timestamp-millis",
        ),
        (
            record(field("d", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1})),
            record(field("d", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2})),
            "d: the writer's decimal has scale 1, the reader's 2",
        ),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused_with_the_field_named(writer: AvroSchema, reader: AvroSchema, reason: str) -> None:
    decoder = Decoder(reader, "confluent", Known(_1=writer))
    assert decoder.decode(PackedBytes.pack([framed(1, b"\x02")])).rejected.tolist() == [Reject.UNREADABLE_SCHEMA]
    assert reason in decoder.explain(framed(1, b"\x02")).detail


@pytest.mark.parametrize(
    ("wrote", "wants", "data", "reject"),
    [(ENUM_AB, ENUM_CB, b"\x00", Reject.UNKNOWN_SYMBOL), (["null", "int"], "int", b"\x00", Reject.WRONG_BRANCH)],
)
def test_a_value_the_reader_does_not_take_is_told_from_broken_bytes(wrote: Any, wants: Any, data: bytes, reject: Reject) -> None:
    decoder = Decoder(record(field("x", wants)), "confluent", Known(_1=record(field("x", wrote))))
    assert decoder.decode(PackedBytes.pack([framed(1, data)])).rejected.tolist() == [reject]
    assert reject.stage == "schema"
    assert decoder.explain(framed(1, data)).detail.startswith("x, at byte ")
