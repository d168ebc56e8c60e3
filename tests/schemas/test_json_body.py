"""JSON bodies as columns: the same as of the Avro bytes that say the same, and a reason for everything else."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import Array, AvroSchema, AvroType, Enum, Fixed, Map, Primitive, Record, Union
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.dress import JsonText
from schemas.read_record import as_read, as_written
from schemas.reject import Reject
from tests.schemas.avro_cases import plain_bytes, row_of, same, schemas, values
from tests.schemas.test_decode import field, record

CASES = settings(max_examples=150, deadline=None)
TIME = {"type": "long", "logicalType": "timestamp-millis"}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
PAYMENT = record(
    field("id", "string"),
    field("at", TIME),
    field("price", PRICE),
    field("weight", "float", default=0.5),
    field("note", ["null", "string"]),
    field("place", {"type": "record", "name": "Place", "fields": [field("city", "string")]}),
)


def sayable(kind: AvroType, value: Any) -> Any:
    """The value, or one near it that JSON has: finite, and within the digits of its decimal."""
    if isinstance(kind, Record):
        return {each.name: sayable(each.type, value[each.name]) for each in kind.fields}
    if isinstance(kind, Array):
        return [sayable(kind.items, each) for each in value]
    if isinstance(kind, Map):
        return {key: sayable(kind.values, each) for key, each in value.items()}
    if isinstance(kind, Union):
        return value[0], sayable(kind.branches[value[0]], value[1])
    if isinstance(kind, Primitive | Fixed) and kind.logical == "decimal":
        number = int.from_bytes(value, "big", signed=True) % 10**kind.precision
        return number.to_bytes(kind.size_bytes if isinstance(kind, Fixed) else number.bit_length() // 8 + 1, "big", signed=True)
    return 0.25 if isinstance(value, float) and not np.isfinite(value) else value


def as_json(kind: AvroType, value: Any) -> Any:
    """The slow and obvious way to say a value in JSON."""
    if isinstance(kind, Record):
        return {each.name: as_json(each.type, value[each.name]) for each in kind.fields}
    if isinstance(kind, Array):
        return [as_json(kind.items, each) for each in value]
    if isinstance(kind, Map):
        return {key: as_json(kind.values, each) for key, each in value.items()}
    if isinstance(kind, Union):
        return as_json(kind.branches[value[0]], value[1])
    if isinstance(kind, Primitive | Fixed) and kind.logical == "decimal":
        return str(Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-kind.scale, Context(prec=99)))
    return value.decode("latin-1") if isinstance(value, bytes) and not isinstance(kind, Enum) else value


@CASES
@given(st.data())
def test_json_stands_in_the_columns_as_avro_that_says_the_same(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    said = [sayable(schema.root, data.draw(values(schema.root))) for _ in range(data.draw(st.integers(1, 4)))]
    said = [each for each in said if plain_bytes(schema.root, each)]  # a value of no bytes is refused
    texts = [json.dumps(as_json(schema.root, each), ensure_ascii=data.draw(st.booleans())).encode() for each in said]
    of_avro = Decoder(schema, "bare").decode(PackedBytes.pack([plain_bytes(schema.root, each) for each in said]))
    of_json = Decoder(schema, "json").decode(PackedBytes.pack(texts))
    assert not of_avro.rejected.any()
    assert not of_json.rejected.any()
    for row in range(len(said)):
        assert same(row_of(of_json.columns, row), row_of(of_avro.columns, row))


@CASES
@given(st.data())
def test_what_is_written_as_json_is_read_as_it_was(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    avro = plain_bytes(schema.root, sayable(schema.root, data.draw(values(schema.root))))
    if not avro:
        return
    text, headers = JsonText(schema)(avro, [("trace", b"7")])
    assert headers == (("trace", b"7"),)
    read, bare = Decoder(schema, "json"), Decoder(schema, "bare")
    decoded, wanted = read.decode(PackedBytes.pack([text])), bare.decode(PackedBytes.pack([avro]))
    assert same(row_of(decoded.columns, 0), row_of(wanted.columns, 0))
    assert same(as_read(read, text), as_read(bare, avro))
    assert same(as_written(read, text), as_written(bare, avro))


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from([10**400, "1e999999999", "\ud800"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@CASES
@given(st.data())
def test_whatever_json_comes_is_read_or_has_a_reason_and_its_neighbours_stay(data: st.DataObject) -> None:
    schema = data.draw(schemas(wide=True))
    names = [each.name for each in schema.fields]
    odd = json.dumps(data.draw(st.one_of(ANYTHING, st.fixed_dictionaries(dict.fromkeys(names, ANYTHING))))).encode()
    if data.draw(st.booleans()):
        odd = odd[: data.draw(st.integers(0, len(odd)))] + data.draw(st.binary(max_size=2))
    good_value = sayable(schema.root, data.draw(values(schema.root)))
    good = json.dumps(as_json(schema.root, good_value)).encode()
    decoder = Decoder(schema, "json")
    decoded, alone = decoder.decode(PackedBytes.pack([good, odd, good])), decoder.decode(PackedBytes.pack([good]))
    for row in (0, 2):
        assert decoded.rejected[row] == alone.rejected[0]
        if not alone.rejected[0]:
            assert same(row_of(decoded.columns, row), row_of(alone.columns, 0))
    said = decoder.explain(odd)
    assert said.reason == Reject(int(decoded.rejected[1])).label
    assert said.detail


GOOD = {"id": "P1", "at": "1970-01-01T00:00:01.5Z", "price": 12.34, "note": None, "place": {"city": "Zürich"}}


def test_people_may_write_times_and_prices_as_they_do_and_leave_out_what_has_a_default() -> None:
    without_note = {name: value for name, value in GOOD.items() if name != "note"}
    texts = [json.dumps(each).encode() for each in (GOOD, {**without_note, "at": 1_500, "price": "12.34", "more": [1]})]
    columns = Decoder(PAYMENT, "json").decode(PackedBytes.pack(texts)).columns
    for row in (0, 1):
        assert row_of(columns, row) == {
            "id": b"P1", "at": 1_500, "price": 1_234, "weight": 0.5, "note": None, "place.city": "Zürich".encode()
        }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b"", "empty_value", "no bytes"),
        (b"{", "bad_json", "the body is no JSON: "),
        (b"[1]", "bad_json", "the body is a JSON array, wanted an object"),
        (b"null", "bad_json", "the body is a JSON null, wanted an object"),
        (b'{"price": NaN}', "bad_json", "NaN is no number of JSON's"),
        (b"[" * 100_000, "bad_json", "the body is no JSON: "),
        (b'{"id": "\xff"}', "bad_utf8", "byte 8 is 0xff"),
        (b"\0\0\0\0\x01\x02", "bad_json", "the body is no JSON: "),
        ({**GOOD, "id": 7}, "bad_field", "id is 7, wanted text"),
        ({**GOOD, "id": "\ud800"}, "bad_field", "surrogates not allowed"),
        ({**GOOD, "at": "yesterday"}, "bad_field", "at is 'yesterday', wanted a time as ISO 8601 text"),
        ({**GOOD, "price": 1.234}, "bad_field", "price is 1.234, wanted a number of at most 6 digits, 2 of them after the point"),
        ({**GOOD, "price": "1e999999999"}, "bad_field", "price is '1e999999999', wanted a number"),
        ({**GOOD, "weight": 1e300}, "bad_field", "weight is 1e+300, wanted a number that a float holds"),
        ({**GOOD, "place": {}}, "bad_field", "place.city is missing"),
        ({"id": "P1"}, "bad_field", "at is missing"),
    ],
)
def test_a_body_that_is_none_says_which_field_what_was_found_and_what_was_wanted(body: Any, reason: str, words: str) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    decoder = Decoder(PAYMENT, "json")
    decoded = decoder.decode(PackedBytes.pack([text, json.dumps(GOOD).encode()]))
    assert [Reject(code).label for code in decoded.rejected.tolist()] == [reason, "usable"]
    said = decoder.explain(text)
    assert said.reason == reason
    assert words in said.detail


@pytest.mark.parametrize(
    ("text", "units"),
    [("1234567890123456.78", 123456789012345678), ("-9999999999999999.99", -999999999999999999), ("1.5e3", 150_000), ("7", 700)],
)
def test_a_price_keeps_all_the_digits_that_its_number_is_written_with(text: str, units: int) -> None:
    schema = record(field("price", {**PRICE, "precision": 18}))
    decoded = Decoder(schema, "json").decode(PackedBytes.pack([f'{{"price": {text}}}'.encode()]))
    assert row_of(decoded.columns, 0) == {"price": units}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ('"weight": 1e400', "weight is 1e400, wanted a number that a double holds"),
        ('"price": 1e-400', "price is 1e-400, wanted a number of at most 6 digits, 2 of them after the point"),
        ('"price": 1e999999999999999999999', "price is 1e999999999999999999999, wanted a number"),
    ],
)
def test_a_number_that_no_double_holds_is_refused_and_not_made_another(number: str, words: str) -> None:
    text = f'{{"id": "P1", "at": 1, "place": {{"city": "Bonn"}}, "price": 1, {number}}}'.encode()
    decoder = Decoder(PAYMENT, "json")
    assert decoder.decode(PackedBytes.pack([text])).rejected.tolist() == [Reject.BAD_FIELD]
    assert words in decoder.explain(text).detail


def test_a_tombstone_is_one_whatever_the_framing() -> None:
    decoder = Decoder(PAYMENT, "json")
    assert decoder.decode(PackedBytes.pack([b""]), np.array([True])).rejected.tolist() == [Reject.TOMBSTONE]
    assert decoder.explain(None).reason == "tombstone"


def test_rows_of_a_json_batch_name_no_schema() -> None:
    assert Decoder(AvroSchema.parse(PAYMENT.definition), "json").decode(PackedBytes.pack([json.dumps(GOOD).encode()])).schema_ids[0] == -1
