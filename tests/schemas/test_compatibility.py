"""What a reader can't read of a writer: the words agree with what the decoder does to the bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import AvroSchema
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.compatibility import MODES, Filled, breaks, filled, judge
from schemas.errors import SchemaError
from schemas.reject import Reject
from tests.schemas.avro_cases import plain_bytes, schemas, values
from tests.schemas.test_decode import Known, field, framed, record
from tests.schemas.test_resolve import ENUM_AB, PAIRS


def schema(*fields: Any, **more: Any) -> AvroSchema:
    return AvroSchema.parse({"type": "record", "name": "R", "fields": list(fields), **more})


def words(writer: AvroSchema, reader: AvroSchema) -> list[str]:
    return [str(each) for each in breaks(writer, reader)]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@settings(max_examples=15)
@given(data=st.data())
def test_what_is_compatible_is_read_and_what_is_not_is_refused(pair: tuple[Any, Any], data: st.DataObject) -> None:
    writer, reader = (record(field("x", kind)) for kind in pair)
    found = breaks(writer, reader)
    written = data.draw(st.lists(values(writer.root), min_size=1, max_size=8))
    packed = PackedBytes.pack([framed(1, plain_bytes(writer.root, value)) for value in written])
    rejected = Decoder(reader, "confluent", Known(_1=writer)).decode(packed).rejected
    if not found:
        assert set(rejected.tolist()) <= {0, Reject.BAD_UTF8}  # bytes may stand for text, and need not be any
    elif not any(each.some for each in found):
        assert rejected.all()


@given(schemas())
def test_a_schema_reads_itself(one: AvroSchema) -> None:
    assert breaks(one, one) == ()
    assert filled(one, one) == ()


def test_each_reason_is_told_in_words() -> None:
    old = schema(
        field("a", "long"), field("b", "string"), field("c", ENUM_AB), field("d", {"type": "long", "logicalType": "timestamp-millis"})
    )
    new = schema(
        field("a", "string"),
        field("c", {**ENUM_AB, "symbols": ["A"]}),
        field("d", {"type": "long", "logicalType": "timestamp-micros"}),
        field("e", "int"),
    )
    assert words(old, new) == [
        "a: is long, which can't be read as string",
        "c: may be B, which the reader's enum E does not have, nor a default",
        "d: counts timestamp-millis, and the reader timestamp-micros: its numbers would be taken for others",
        "e: is not written, and the reader has no default for it",
    ]
    assert [each.some for each in breaks(old, new)] == [False, True, False, False]
    assert words(schema(field("a", ["null", "int"])), schema(field("a", "int"))) == ["a: may be null, and int takes no null"]


def test_a_field_that_was_renamed_is_found_by_its_alias_and_one_that_is_gone_gets_its_default() -> None:
    old = schema(field("amount", "long"), field("note", "string"))
    assert words(old, schema(field("sum", "long", aliases=["amount"]))) == []
    assert words(old, schema(field("sum", "long"))) == ["sum: is not written, and the reader has no default for it"]
    assert filled(old, schema(field("sum", "long", default=0))) == (Filled("sum", 0),)


def test_a_recursive_schema_is_compared_to_its_end() -> None:
    def chain(kind: str) -> AvroSchema:
        return schema(field("value", kind), field("next", ["null", "R"]))

    assert breaks(chain("int"), chain("long")) == ()
    assert words(chain("string"), chain("long")) == ["value: is string, which can't be read as long"]


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("NONE", []),
        ("BACKWARD", [(2, "backward")]),
        ("BACKWARD_TRANSITIVE", [(1, "backward"), (2, "backward")]),
        ("FORWARD", []),
        ("FORWARD_TRANSITIVE", [(1, "forward")]),
        ("FULL", [(2, "backward")]),
        ("FULL_TRANSITIVE", [(1, "backward"), (1, "forward"), (2, "backward")]),
    ],
)
def test_a_mode_says_which_versions_must_be_read_by_whom(mode: Any, found: list[tuple[int, str]]) -> None:
    versions = [(1, schema(field("a", "int"), field("x", "int"))), (2, schema(field("a", "int")))]
    new = schema(field("a", "int"), field("b", "int"))
    assert mode in MODES
    assert [(each.version, each.direction) for each in judge(new, versions, mode)] == found


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(SchemaError, match="'SIDEWAYS'; there are BACKWARD, "):
        judge(schema(field("a", "int")), [], "SIDEWAYS")  # type: ignore[arg-type]
