"""Single-object Avro: fingerprints by the specification's own arithmetic, and the schemas they stand for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import AvroSchema, write_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.dress import single_object
from schemas.errors import SchemaError
from schemas.framing import SingleObject
from schemas.read_record import as_written
from schemas.reject import Reject
from tests.schemas.avro_cases import plain_bytes, row_of, same, schemas, values
from tests.schemas.test_decode import field, record

EMPTY = 0xC15D213AA4D7A795
NOW = record(field("x", "long"), field("note", "string", default="-"), name="Event")
BEFORE = record(field("x", "int"), name="Event")
MILLIS = record(field("x", {"type": "long", "logicalType": "timestamp-millis"}), name="Event")
MICROS = record(field("x", {"type": "long", "logicalType": "timestamp-micros"}), name="Event")


def slow_rabin(text: bytes) -> int:
    """The fingerprint bit by bit, as the specification defines it."""
    value = EMPTY
    for octet in text:
        value ^= octet
        for _ in range(8):
            value = (value >> 1) ^ (EMPTY if value & 1 else 0)
    return value


def framed(schema: AvroSchema, said: Any) -> bytes:
    fingerprint = slow_rabin(schema.canonical.encode())
    return b"\xc3\x01" + fingerprint.to_bytes(8, "little") + write_value(said, schema.parsed)


def test_the_fingerprints_of_null_and_int_are_those_of_avros_own_tests() -> None:
    assert AvroSchema.parse('"null"').rabin == bytes.fromhex("63dd24e7cc258f8a")[::-1]
    assert AvroSchema.parse('"int"').rabin == bytes.fromhex("7275d51a3f395c8f")[::-1]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_written_with_one_of_the_schemas_is_read_by_it(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    assert int.from_bytes(schema.rabin, "little") == slow_rabin(schema.canonical.encode())
    avro = plain_bytes(schema.root, data.draw(values(schema.root)))
    value, headers = single_object(schema)(avro, ())
    assert (value, headers) == (b"\xc3\x01" + slow_rabin(schema.canonical.encode()).to_bytes(8, "little") + avro, ())
    if avro:
        of_bare = Decoder(schema, "bare").decode(PackedBytes.pack([avro]))
        of_object = Decoder(schema, SingleObject()).decode(PackedBytes.pack([value]))
        assert of_object.rejected.tolist() == [0]
        assert same(row_of(of_object.columns, 0), row_of(of_bare.columns, 0))


def test_every_record_is_read_with_the_schema_it_names() -> None:
    decoder = Decoder(NOW, SingleObject((BEFORE,)))
    batch = [framed(NOW, {"x": 1, "note": "a"}), framed(BEFORE, {"x": 2}), framed(NOW, {"x": 3, "note": "c"})]
    decoded = decoder.decode(PackedBytes.pack(batch))
    assert decoded.rejected.tolist() == [0, 0, 0]
    assert [row_of(decoded.columns, row) for row in range(3)] == [
        {"x": 1, "note": b"a"}, {"x": 2, "note": b"-"}, {"x": 3, "note": b"c"},
    ]  # fmt: skip
    ids = decoded.schema_ids.tolist()
    assert ids[0] == ids[2] == -1
    assert ids[1] < -1
    assert ids == Decoder(NOW, SingleObject((BEFORE,))).decode(PackedBytes.pack(batch)).schema_ids.tolist()
    assert as_written(decoder, batch[1]) == {"x": 2}


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [
        (framed(record(field("y", "int")), {"y": 1}), "unknown_fingerprint", "wanted one of the topic's schemas"),
        (b"\0\0\0\0\x07\x02\x02\x02\x02\x02\x02", "bad_magic", "begins with 00 00 00 00 07"),
        (b"\xc3\x01\x02", "bad_magic", "begins with c3 01 02, wanted c3 01, eight bytes of fingerprint"),
        (framed(NOW, {"x": 1, "note": "abc"})[:-1], "truncated", "note, at byte "),
        (framed(BEFORE, {"x": 1}) + b"\0", "trailing_bytes", "the record ends here"),
        (b"", "empty_value", "no bytes"),
    ],
)
def test_what_names_no_known_schema_has_a_reason_and_its_neighbours_stay(value: bytes, reason: str, words: str) -> None:
    decoder, good = Decoder(NOW, SingleObject((BEFORE,))), framed(NOW, {"x": 1, "note": "a"})
    decoded = decoder.decode(PackedBytes.pack([good, value, good]))
    assert [Reject(code).label for code in decoded.rejected.tolist()] == ["usable", reason, "usable"]
    said = decoder.explain(value)
    assert said.reason == reason
    assert words in said.detail


def test_two_schemas_of_one_fingerprint_that_mean_different_things_are_refused() -> None:
    assert MILLIS.rabin == MICROS.rabin
    with pytest.raises(SchemaError, match="other logical types"):
        Decoder(MILLIS, SingleObject((MICROS,)))
    Decoder(MILLIS, SingleObject((AvroSchema.parse(MILLIS.definition),)))  # the same twice is no contradiction
