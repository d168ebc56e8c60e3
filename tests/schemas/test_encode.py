"""The encoder: what it writes, fastavro and the decoder read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas.avro import read_value
from schemas.codec import Decoder, Encoder
from schemas.columns import Column, Constant, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import SchemaError
from tests.schemas.avro_cases import plain_bytes, row_of, same, schemas, values
from tests.schemas.test_decode import field, record

INTS = np.arange(3, dtype=np.int64)


def packed(*values: str) -> PackedBytes:
    return PackedBytes.pack([value.encode() for value in values])


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_was_decoded_is_written_and_read_again_the_same(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    records = [plain_bytes(schema.root, data.draw(values(schema.root))) for _ in range(data.draw(st.integers(1, 4)))]
    assume(all(records))
    decoder = Decoder(schema, "bare")
    columns = decoder.decode(PackedBytes.pack(records)).columns
    assume(columns)
    rows = np.array(data.draw(st.lists(st.integers(0, len(records) - 1), max_size=5)), np.int64)
    written = Encoder(schema, "bare").encode(columns, rows)
    again = decoder.decode(written)
    assert not again.rejected.any()
    assert len(written) == len(rows)
    for place, row in enumerate(rows.tolist()):
        read_value(written[place], schema.parsed)
        assert same(row_of(again.columns, place), row_of(columns, row))


@pytest.mark.parametrize(
    ("kind", "column", "holds"),
    [
        ("string", Constant(b"same", 3), ["same"] * 3),
        ("string", Symbols(np.array([1, 0, 1], np.int32), ("a", "b")), ["b", "a", "b"]),
        ("double", Constant(0.5, 3), [0.5] * 3),
        ("double", INTS, [0.0, 1.0, 2.0]),
        ("float", np.array([0.5, 1.5, 2.5]), [0.5, 1.5, 2.5]),
        ("long", INTS.astype(np.int32), [0, 1, 2]),
        ("int", INTS - 1, [-1, 0, 1]),
        ("boolean", np.array([True, False, True]), [True, False, True]),
        ("boolean", Constant(True, 3), [True] * 3),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, Symbols(np.array([0, 1, 0], np.int32), ("B", "A")), ["B", "A", "B"]),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, Constant(b"B", 3), ["B"] * 3),
        (["null", "int"], Nullable(INTS, np.array([True, False, True])), [0, None, 2]),
        (["int", "null"], Nullable(INTS, np.zeros(3, np.bool_)), [None] * 3),
        (["int", "null"], INTS, [0, 1, 2]),
        (["null", "string"], Nullable(Constant(b"x", 3), np.array([True, False, True])), ["x", None, "x"]),
        ({"type": "array", "items": "long"}, Ragged(INTS, np.array([0, 1, 1]), np.array([3, 1, 2])), [[0, 1, 2], [], [1]]),
        ({"type": "fixed", "name": "F", "size": 2}, packed("ab", "cd", "ef"), [b"ab", b"cd", b"ef"]),
    ],
)
def test_each_kind_of_column_fills_a_field(kind: Any, column: Column, holds: list[Any]) -> None:
    schema = record(field("before", "int"), field("x", kind), field("after", "double"))
    columns = {"before": INTS, "x": column, "after": np.ones(3)}
    written = Encoder(schema, "bare").encode(columns)
    assert [read_value(each, schema.parsed) for each in written] == [{"before": i, "x": holds[i], "after": 1.0} for i in range(3)]


def test_constants_and_columns_mix_inside_an_array_of_records() -> None:
    score = {"type": "record", "name": "S", "fields": [field("model", "string"), field("score", "float"), field("role", "string")]}
    schema = record(field("scores", {"type": "array", "items": score}), field("id", "string"))
    items: dict[str, Column] = {
        "model": Constant(b"m", 4),
        "score": np.array([0.5, 0.25, 1, 2], np.float32),
        "role": packed("a", "b", "c", "d"),
    }
    columns: dict[str, Column] = {"scores": Ragged(items, np.array([0, 2]), np.array([2, 4])), "id": packed("x", "y")}
    written = Encoder(schema, "bare").encode(columns, np.array([1, 0]))
    assert [read_value(each, schema.parsed) for each in written] == [
        {"scores": [{"model": "m", "score": 1, "role": "c"}, {"model": "m", "score": 2, "role": "d"}], "id": "y"},
        {"scores": [{"model": "m", "score": 0.5, "role": "a"}, {"model": "m", "score": 0.25, "role": "b"}], "id": "x"},
    ]


def test_a_framed_value_begins_with_its_schemas_id() -> None:
    written = Encoder(record(field("x", "int")), "confluent", 0xFFFFFFFE).encode({"x": INTS})
    assert written[1] == b"\x00\xff\xff\xff\xfe\x02"
    with pytest.raises(SchemaError, match="four bytes"):
        Encoder(record(field("x", "int")), "confluent", 1 << 32)


def test_large_values_after_small_ones_find_room() -> None:
    schema = record(field("s", "string"))
    encoder = Encoder(schema, "bare")
    assert len(encoder.encode({"s": packed("a")})) == 1
    texts = ["x" * 5000 * i for i in range(20)]
    assert [read_value(each, schema.parsed)["s"] for each in encoder.encode({"s": packed(*texts)})] == texts


def test_opaque_values_are_written_by_fastavro() -> None:
    schema = record(field("u", ["string", "long", "null"]), field("k", "int"))
    objects = np.array(["a", 7, None], np.object_)
    written = Encoder(schema, "bare").encode({"u": objects, "k": INTS})
    assert [read_value(each, schema.parsed) for each in written] == [{"u": "a", "k": 0}, {"u": 7, "k": 1}, {"u": None, "k": 2}]


def test_rows_that_are_not_written_may_hold_anything() -> None:
    schema = record(field("x", "int"))
    column = Nullable(np.array([1, 1 << 40, 3]), np.array([True, True, False]))
    assert list(Encoder(schema, "bare").encode({"x": column}, np.array([0]))) == [b"\x02"]


@pytest.mark.parametrize(
    ("kind", "column", "error", "reason"),
    [
        ("int", Nullable(INTS, np.array([True, True, False])), ValueError, "'x' is null in row 2"),
        ("int", INTS + (1 << 31), ValueError, "wanted -2147483648 to 2147483647"),
        ("int", np.ones(3), TypeError, "'x' holds an array of float64"),
        ("string", INTS, TypeError, "wanted string"),
        ("long", INTS[:2], ValueError, "has 2 rows, wanted 3"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, Symbols(np.array([0, 1, 0], np.int32), ("A", "B")), ValueError, "-1 to 0"),
        ({"type": "fixed", "name": "F", "size": 2}, packed("ab", "c", "de"), ValueError, "other than 2 bytes"),
        ({"type": "array", "items": "int"}, Ragged(INTS, INTS, INTS + 2), ValueError, "outside its items"),
        ("string", PackedBytes(np.zeros(2, np.uint8), INTS, INTS + 1), ValueError, "outside its buffer"),
    ],
)
def test_a_column_that_does_not_fit_its_field_is_named(kind: Any, column: Column, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        Encoder(record(field("first", "long"), field("x", kind)), "bare").encode({"first": INTS, "x": column})


def test_a_missing_column_and_a_missing_row_are_named() -> None:
    encoder = Encoder(record(field("x", "long")), "bare")
    with pytest.raises(KeyError, match="no column 'x'"):
        encoder.encode({"y": INTS})
    with pytest.raises(IndexError, match="rows 0 to 3 of 3"):
        encoder.encode({"x": INTS}, np.array([0, 3]))
