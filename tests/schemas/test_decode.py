"""The decoder against fastavro: same values for what both read, a reason for everything else."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import AvroSchema, read_value, write_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes, Ragged
from schemas.decode_kernel import MOST_EMPTY_ITEMS
from schemas.default import varint
from schemas.errors import RecordError, SchemaError
from schemas.registry import FileRegistry
from schemas.reject import Reject
from tests.schemas.avro_cases import plain_bytes, row_of, same, schemas, values, wanted, without_logical

CASES = settings(max_examples=120, deadline=None)


class Known:
    """A registry of given schemas."""

    def __init__(self, **by_id: AvroSchema) -> None:
        self.by_id = {int(name[1:]): schema for name, schema in by_id.items()}

    def schema(self, schema_id: int) -> AvroSchema | None:
        return self.by_id.get(schema_id)

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        raise AssertionError("a decoder has no subject")

    def register(self, subject: str, schema: AvroSchema) -> int:
        raise AssertionError("a decoder registers nothing")


def record(*fields: Any, name: str = "R", **more: Any) -> AvroSchema:
    return AvroSchema.parse({"type": "record", "name": name, "fields": list(fields), **more})


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def framed(schema_id: int, data: bytes) -> bytes:
    return b"\0" + struct.pack(">I", schema_id) + data


def reference(schema: AvroSchema, data: bytes) -> Any:
    plain = AvroSchema.parse(without_logical(schema.definition))
    return read_value(data, plain.parsed)


def refusal(schema: AvroSchema, data: bytes) -> Reject:
    return Reject(int(Decoder(schema, "bare").decode(PackedBytes.pack([data])).rejected[0]))


@CASES
@given(st.data())
def test_what_fastavro_reads_stands_in_the_columns(data: st.DataObject) -> None:
    schema = data.draw(schemas(wide=True))
    records = [plain_bytes(schema.root, data.draw(values(schema.root))) for _ in range(data.draw(st.integers(1, 4)))]
    records = [each for each in records if each]  # a value of no bytes is refused
    decoded = Decoder(schema, "bare").decode(PackedBytes.pack(records))
    assert not decoded.rejected.any()
    for row, each in enumerate(records):
        assert same(row_of(decoded.columns, row), wanted(schema.root, reference(schema, each)))


@CASES
@given(st.data())
def test_damaged_bytes_give_a_reason_or_the_same_as_fastavro_and_leave_their_neighbours_alone(data: st.DataObject) -> None:
    schema = data.draw(schemas(wide=True))
    good = plain_bytes(schema.root, data.draw(values(schema.root))) or b"?"
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(bad)[: data.draw(st.integers(0, len(bad)))] + data.draw(st.binary(max_size=2))
    decoder = Decoder(schema, "bare")
    decoded = decoder.decode(PackedBytes.pack([good, damaged, good]))
    alone = decoder.decode(PackedBytes.pack([good]))
    for row in (0, 2):
        assert decoded.rejected[row] == alone.rejected[0]
        if not alone.rejected[0]:
            assert same(row_of(decoded.columns, row), row_of(alone.columns, 0))
    if decoded.rejected[1]:
        error = decoder.explain(damaged)
        assert error.reason == Reject(int(decoded.rejected[1])).label
        assert error.detail
    else:
        assert same(row_of(decoded.columns, 1), wanted(schema.root, reference(schema, damaged)))


@CASES
@given(st.data())
def test_a_record_cut_short_anywhere_is_never_usable(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    whole = plain_bytes(schema.root, data.draw(values(schema.root)))
    cuts = [whole[:size] for size in range(len(whole))]
    assert Decoder(schema, "bare").decode(PackedBytes.pack(cuts)).rejected.all()


@pytest.mark.parametrize(
    ("kind", "data", "reject"),
    [
        ("long", b"\x80", Reject.TRUNCATED),
        ("long", b"\x80" * 10 + b"\x01", Reject.MALFORMED),
        ("long", b"\xff" * 9 + b"\x02", Reject.MALFORMED),
        ("int", varint(1 << 31), Reject.MALFORMED),
        ("int", varint(-(1 << 31) - 1), Reject.MALFORMED),
        ("boolean", b"\x02", Reject.BAD_BOOLEAN),
        ("string", varint(-1), Reject.MALFORMED),
        ("string", varint(5) + b"abcd", Reject.TRUNCATED),
        ("string", varint((1 << 63) - 1) + b"abcd", Reject.TRUNCATED),
        ("string", varint(2) + b"\xc0\x80", Reject.BAD_UTF8),
        ("string", varint(3) + b"\xed\xa0\x80", Reject.BAD_UTF8),
        ("string", varint(4) + b"\xf4\x90\x80\x80", Reject.BAD_UTF8),
        ("string", varint(9) + b"12345678\xc3", Reject.BAD_UTF8),
        ("double", b"1234567", Reject.TRUNCATED),
        ("float", b"123", Reject.TRUNCATED),
        ("int", varint(1) + b"x", Reject.TRAILING_BYTES),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, varint(2), Reject.BAD_ENUM),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, varint(-1), Reject.BAD_ENUM),
        (["null", "int"], varint(2), Reject.BAD_UNION),
        (["null", "int", "string"], varint(-1), Reject.BAD_UNION),
        ({"type": "fixed", "name": "F", "size": 4}, b"abc", Reject.TRUNCATED),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, varint(9) + b"\x01" + bytes(8), Reject.OUT_OF_RANGE),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, varint(0), Reject.MALFORMED),
        ({"type": "array", "items": "int"}, varint(1 << 40), Reject.TRUNCATED),
        ({"type": "array", "items": "int"}, varint(-(1 << 63)) + varint(1), Reject.MALFORMED),
        ({"type": "array", "items": "int"}, varint(-1) + varint(-1) + varint(7) + varint(0), Reject.MALFORMED),
        ({"type": "array", "items": "int"}, varint(-1) + varint(2) + varint(7) + varint(0), Reject.MALFORMED),
        ({"type": "array", "items": "null"}, varint(1 << 40) + varint(0), Reject.MALFORMED),
        ({"type": "array", "items": "null"}, varint(MOST_EMPTY_ITEMS + 1) + varint(0), Reject.MALFORMED),
    ],
)  # fmt: skip
def test_bytes_that_no_schema_means_are_refused_for_what_is_wrong(kind: Any, data: bytes, reject: Reject) -> None:
    schema = record(field("before", "int"), field("x", kind))
    whole = varint(1) + data
    assert refusal(schema, whole) is reject
    error = Decoder(schema, "bare").explain(whole)
    assert error.reason == reject.label
    assert ("the record" if reject is Reject.TRAILING_BYTES else "x, at byte") in error.detail


def test_an_array_in_blocks_that_say_their_size_is_read() -> None:
    items = b"".join(map(varint, (7, 8)))
    data = varint(-2) + varint(len(items)) + items + varint(1) + varint(9) + varint(0)
    column = Decoder(record(field("x", {"type": "array", "items": "int"})), "bare").decode(PackedBytes.pack([data])).columns["x"]
    assert isinstance(column, Ragged) and isinstance(column.items, np.ndarray)
    assert column.items.tolist() == [7, 8, 9]


def test_arrays_that_outgrow_their_room_are_read_whole() -> None:
    schema = record(field("x", {"type": "array", "items": "long"}), field("s", "string"))
    records = [{"x": list(range(i * 7 % 500)), "s": f"{i}"} for i in range(300)]
    decoded = Decoder(schema, "bare").decode(PackedBytes.pack([write_value(each, schema.parsed) for each in records]))
    assert not decoded.rejected.any()
    assert [row_of(decoded.columns, row) for row in range(300)] == [{"x": each["x"], "s": str(each["s"]).encode()} for each in records]


def test_one_record_of_many_items_does_not_make_every_later_batch_large() -> None:
    decoder = Decoder(record(field("x", {"type": "array", "items": "long"})), "bare")
    assert not decoder.decode(PackedBytes.pack([varint(10_000) + bytes(10_000) + varint(0)])).rejected.any()
    few = decoder.decode(PackedBytes.pack([varint(0)] * 1_000)).columns["x"]
    assert isinstance(few, Ragged) and isinstance(few.items, np.ndarray)
    assert isinstance(words := few.items.base, np.ndarray)
    assert words.nbytes < 100_000


def test_a_refused_record_leaves_no_items_behind() -> None:
    schema = record(field("x", {"type": "array", "items": "long"}), field("b", "boolean"))
    good = write_value({"x": [1, 2], "b": True}, schema.parsed)
    decoded = Decoder(schema, "bare").decode(PackedBytes.pack([good[:-1] + b"\x07", good]))
    column = decoded.columns["x"]
    assert isinstance(column, Ragged) and isinstance(column.items, np.ndarray)
    assert decoded.rejected.tolist() == [Reject.BAD_BOOLEAN, 0]
    assert (column.starts.tolist(), column.ends.tolist(), column.items.tolist()) == ([0, 0], [0, 2], [1, 2])


def test_the_wire_format_is_checked_before_the_record() -> None:
    schema, other = record(field("x", "int")), record(field("x", "string"))
    decoder = Decoder(schema, "confluent", Known(_7=schema, _8=other))
    values = PackedBytes.pack([framed(7, varint(5)), b"", b"", b"\x01\0\0\0\x07\x02", b"\0\0\0", framed(9, b"\x02"), framed(8, b"\x00")])
    decoded = decoder.decode(values, np.array([False, True, False, False, False, False, False]))
    assert [Reject(code).name for code in decoded.rejected.tolist()] == [
        "USABLE", "TOMBSTONE", "EMPTY_VALUE", "BAD_MAGIC", "BAD_MAGIC", "UNKNOWN_SCHEMA", "UNREADABLE_SCHEMA",
    ]  # fmt: skip
    assert decoded.schema_ids.tolist() == [7, -1, -1, -1, -1, 9, 8]
    assert decoder.explain(None).reason == "tombstone"
    assert "the id 9" in decoder.explain(framed(9, b"")).detail
    assert "x: the writer's string is not the reader's int" in decoder.explain(framed(8, b"\x00")).detail
    assert decoder.explain(framed(7, varint(5))).reason == "usable"


def test_a_schema_registered_later_is_found_when_its_id_comes_again() -> None:
    schema = record(field("x", "int"))
    known = Known(_7=schema)
    decoder = Decoder(schema, "confluent", known)
    batch = PackedBytes.pack([framed(7, varint(1)), framed(9, varint(2))])
    assert decoder.decode(batch).rejected.tolist() == [0, Reject.UNKNOWN_SCHEMA]
    known.by_id[9] = schema
    assert decoder.decode(batch).rejected.tolist() == [0, 0]


@pytest.mark.parametrize("first", ["half", "twice", "whole"])
def test_a_schemas_file_is_never_what_makes_a_verdict_final(first: str, tmp_path: Path) -> None:
    schema = record(field("x", "int"))
    whole = json.dumps(schema.definition)
    (tmp_path / "9-late.avsc").write_text(whole[:-2] if first == "half" else whole)
    (tmp_path / "09-again.avsc").write_text(whole)
    if first != "twice":
        (tmp_path / "09-again.avsc").rename(tmp_path / "10-other.avsc")
        (tmp_path / "010-other.avsc").write_text("{")
    decoder = Decoder(schema, "confluent", FileRegistry(tmp_path))
    batch = PackedBytes.pack([framed(9, varint(2))])
    assert decoder.decode(batch).rejected.tolist() == [0 if first == "whole" else Reject.UNKNOWN_SCHEMA]
    assert decoder.explain(batch[0]).reason == ("usable" if first == "whole" else "unknown_schema")
    (tmp_path / "9-late.avsc").write_text(whole)
    (tmp_path / "09-again.avsc").unlink(missing_ok=True)
    assert decoder.decode(batch).rejected.tolist() == [0]


def test_one_record_may_be_explained_while_another_thread_decodes() -> None:
    schema, other = record(field("x", "int")), record(field("x", "int"), field("y", "string"))
    value = framed(8, varint(5) + varint(0))
    seen: list[RecordError] = []

    class Asked(Known):
        """Has one record explained while the schema after its own is asked for."""

        def schema(self, schema_id: int) -> AvroSchema | None:
            if schema_id == 9 and not seen:
                beside = threading.Thread(target=lambda: seen.append(decoder.explain(value)))
                beside.start()
                beside.join(10)
            return super().schema(schema_id)

    decoder = Decoder(schema, "confluent", Asked(_8=other, _9=other))
    values = PackedBytes.pack([value, framed(9, varint(6) + varint(0))])
    assert decoder.decode(values).columns["x"].tolist() == [5, 6]  # type: ignore[union-attr]
    assert [error.reason for error in seen] == ["usable"]


def test_an_explained_record_of_many_items_does_not_make_the_next_batch_large() -> None:
    schema = record(field("x", {"type": "array", "items": "long"}), field("s", "string"))
    decoder = Decoder(schema, "bare")
    assert decoder.explain(write_value({"x": [0] * 10_000, "s": ""}, schema.parsed)).reason == "usable"
    column = decoder.decode(PackedBytes.pack([write_value({"x": [], "s": "s" * 50}, schema.parsed)] * 1_000)).columns["x"]
    assert isinstance(column, Ragged) and isinstance(column.items, np.ndarray)
    assert isinstance(words := column.items.base, np.ndarray)
    assert words.nbytes < 100_000


def test_an_id_with_its_high_bit_set_is_an_id() -> None:
    schema = record(field("x", "int"))
    decoded = Decoder(schema, "confluent", Known(_4294967295=schema)).decode(PackedBytes.pack([framed(4294967295, varint(3))]))
    assert row_of(decoded.columns, 0) == {"x": 3}


def test_texts_share_the_buffer_that_came_in() -> None:
    schema = record(field("s", "string"))
    values = PackedBytes.pack([write_value({"s": "abc"}, schema.parsed)] * 3)
    column = Decoder(schema, "bare").decode(values).columns["s"]
    assert isinstance(column, PackedBytes)
    assert np.shares_memory(column.data, values.data)


def test_a_null_record_makes_its_fields_null() -> None:
    inner = {"type": "record", "name": "I", "fields": [field("a", "int"), field("b", ["null", "string"])]}
    schema = record(field("r", ["null", inner]))
    data = [write_value({"r": each}, schema.parsed) for each in (None, {"a": 1, "b": None}, {"a": 2, "b": "x"})]
    columns = Decoder(schema, "bare").decode(PackedBytes.pack(data)).columns
    assert [row_of(columns, row) for row in range(3)] == [{"r.a": None, "r.b": None}, {"r.a": 1, "r.b": None}, {"r.a": 2, "r.b": b"x"}]


def test_a_recursive_field_becomes_objects_and_too_deep_ones_are_refused() -> None:
    schema = record(field("v", "int"), field("next", ["null", "R"]))
    nested: Any = None
    for depth in range(200):
        nested = {"v": depth, "next": nested}
        if depth == 2:
            short = nested
    decoded = Decoder(schema, "bare").decode(PackedBytes.pack([write_value(each, schema.parsed) for each in (short, nested)]))
    assert decoded.rejected.tolist() == [0, Reject.MALFORMED]
    assert row_of(decoded.columns, 0) == {"v": 2, "next": {"v": 1, "next": {"v": 0, "next": None}}}


def test_a_schema_without_a_record_and_framing_without_a_registry_are_refused() -> None:
    with pytest.raises(SchemaError, match="wanted a record"):
        Decoder(AvroSchema.parse('"string"'), "bare")
    with pytest.raises(SchemaError, match="registry"):
        Decoder(record(field("x", "int")), "confluent", None)


def test_no_records_give_empty_columns() -> None:
    schema = record(field("x", "int"), field("y", {"type": "array", "items": "string"}))
    decoded = Decoder(schema, "bare").decode(PackedBytes.pack([]))
    assert {name: len(column) for name, column in decoded.columns.items()} == {"x": 0, "y": 0}
