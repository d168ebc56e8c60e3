"""CloudEvents in Kafka's binding: both modes, both kinds of data, and a reason for what is none."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from confluent_kafka.schema_registry import header_schema_id_serializer, prefix_schema_id_serializer
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from schemas.avro import AvroSchema, write_value
from schemas.cloud_event import microseconds, read_event
from schemas.codec import Decoder
from schemas.columns import Nullable, PackedBytes
from schemas.dress import CloudEventText, bare
from schemas.errors import DefinitionError, RecordError, SchemaError
from schemas.framing import CloudEvents, Header, Headers
from schemas.read_record import as_read, as_written
from schemas.reject import Reject
from tests.schemas.avro_cases import row_of
from tests.schemas.test_confluent_ids import Client
from tests.schemas.test_decode import Known, field, record

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
READER = record(field("id", "string"), field("at", MILLIS), field("amount", "double"), name="Payment")
DATA = record(field("amount", "double"), name="Payment")
WHOLE = CloudEvents(id="id", time="at", avro="bare")
TIME = "2026-01-31T12:00:00.25Z"
TIME_MS = 1_769_860_800_250


def binary(media: str | None = "application/json", **changes: str | None) -> list[Header]:
    said: dict[str, str | None] = {"specversion": "1.0", "id": "E-7", "source": "/shops/1", "type": "shop.paid", "time": TIME, **changes}
    headers: list[Header] = [(f"ce_{name}", text.encode()) for name, text in said.items() if text is not None]
    return headers if media is None else [*headers, ("content-type", media.encode())]


def structured(**changes: Any) -> bytes:
    said = {"specversion": "1.0", "id": "E-7", "source": "/shops/1", "type": "shop.paid", "time": TIME, **changes}
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


STRUCTURED: list[Header] = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
AVRO = write_value({"amount": 2.5}, DATA.parsed)
WHOLE_AVRO = write_value({"id": "inner", "at": 1, "amount": 2.5}, READER.parsed)
JSON = b'{"amount": 2.5}'


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (JSON, binary()),
        (JSON, binary("application/json; charset=utf-8")),
        (JSON, binary("Application/Vnd.Shop+JSON")),
        (JSON, binary(None)),
        (b'{"amount": 2.5, "id": "inner", "at": 1}', binary()),
        (WHOLE_AVRO, binary("application/avro")),
        (WHOLE_AVRO, binary("avro/binary")),
        (WHOLE_AVRO, binary("application/vnd.apache.avro+binary")),
        (structured(data={"amount": 2.5}), STRUCTURED),
        (structured(data={"amount": 2.5}, datacontenttype="text/json"), STRUCTURED),
        (structured(data_base64=base64.b64encode(JSON).decode()), STRUCTURED),
        (structured(data_base64=base64.b64encode(WHOLE_AVRO).decode(), datacontenttype="application/avro"), STRUCTURED),
        (structured(data={"amount": 2.5}), [*binary("application/cloudevents+json", id="of the header")]),
    ],
)
def test_every_way_to_say_an_event_is_the_same_columns(value: bytes, headers: list[Header]) -> None:
    decoder = Decoder(READER, WHOLE)
    decoded = decoder.decode(PackedBytes.pack([value]), None, {0: headers})
    assert decoded.rejected.tolist() == [0]
    assert row_of(decoded.columns, 0) == {"id": b"E-7", "at": TIME_MS, "amount": 2.5}
    assert decoder.explain(value, headers).reason == "usable"
    assert as_read(decoder, value, headers) == {"id": "E-7", "at": TIME_MS, "amount": 2.5}
    assert as_written(decoder, value, headers)["id"] == "E-7"


def test_avro_data_name_their_schema_as_confluent_has_it() -> None:
    client = Client()
    ways = (prefix_schema_id_serializer, header_schema_id_serializer)
    written = [client.write(DATA, way, {"amount": 2.5}) for way in ways]
    records = [(JSON, binary()), *((value, [*headers, *binary("application/avro")]) for value, headers in written)]
    decoder = Decoder(READER, CloudEvents(id="id", time="at"), client.registry)
    decoded = decoder.decode(
        PackedBytes.pack([value for value, _ in records]), None, {row: given for row, (_, given) in enumerate(records)}
    )
    assert decoded.rejected.tolist() == [0, 0, 0]
    for row, (value, headers) in enumerate(records):
        assert row_of(decoded.columns, row) == {"id": b"E-7", "at": TIME_MS, "amount": 2.5}
        assert as_read(decoder, value, headers) == {"id": "E-7", "at": TIME_MS, "amount": 2.5}
    assert decoded.schema_ids.tolist()[:2] == [-1, 1]
    assert decoded.schema_ids[2] < -1


def test_attributes_go_nowhere_unless_the_topic_says_where() -> None:
    decoder = Decoder(READER, CloudEvents(avro="bare"))
    text = b'{"amount": 2.5, "id": "inner", "at": 1}'
    decoded = decoder.decode(PackedBytes.pack([text, JSON]), None, {0: binary(time=None), 1: binary()})
    assert row_of(decoded.columns, 0) == {"id": b"inner", "at": 1, "amount": 2.5}
    assert [Reject(code).label for code in decoded.rejected.tolist()] == ["usable", "bad_field"]


def test_a_field_that_may_be_null_and_one_in_microseconds_take_them_too() -> None:
    reader = record(field("id", ["null", "string"]), field("at", ["null", MICROS], default=None), field("amount", "double"))
    decoded = Decoder(reader, WHOLE).decode(PackedBytes.pack([JSON]), None, {0: binary(time="2026-01-31T13:00:00.250001999+01:00")})
    assert row_of(decoded.columns, 0) == {"id": b"E-7", "at": TIME_MS * 1_000 + 1, "amount": 2.5}
    assert isinstance(decoded.columns["id"], Nullable)
    assert isinstance(decoded.columns["at"], Nullable)


BAD = [
    (JSON, [], "bad_envelope", "there is no content-type and no ce_specversion"),
    (JSON, [("content-type", b"application/json")], "bad_envelope", "content-type is 'application/json' and no ce_specversion"),
    (JSON, binary(specversion="0.3"), "bad_envelope", "ce_specversion is '0.3', wanted '1.0'"),
    (JSON, binary(id=None), "bad_envelope", "ce_id is missing"),
    (JSON, binary(id=""), "bad_envelope", "ce_id is '', wanted text that is not empty"),
    (JSON, binary(source=None), "bad_envelope", "ce_source is missing"),
    (JSON, binary(type=None), "bad_envelope", "ce_type is missing"),
    (JSON, binary(time=None), "bad_envelope", "the event has no time, and field 'at' is to hold it"),
    (JSON, binary(time="2026-01-31 12:00"), "bad_envelope", "ce_time is '2026-01-31 12:00', wanted a time as RFC 3339 has it"),
    (JSON, binary(time="2026-02-30T12:00:00Z"), "bad_envelope", "which no calendar has"),
    (JSON, [*binary(id=None), ("ce_id", b"\xff")], "bad_envelope", "header ce_id is b'\\xff', which is no UTF-8"),
    (JSON, binary("image/png"), "bad_envelope", "the data are 'image/png', wanted JSON or Avro"),
    (b"{", binary(), "bad_json", "the body is no JSON"),
    (b'{"amount": "x"}', binary(), "bad_field", "amount is 'x', wanted a number"),
    (b"", binary(), "empty_value", "no bytes"),
    (WHOLE_AVRO[:-1], binary("application/avro"), "truncated", "amount, at byte "),
    (b"", STRUCTURED, "bad_envelope", "the value has no bytes, wanted a CloudEvent"),
    (b"[]", STRUCTURED, "bad_json", "a JSON array, wanted an object"),
    (structured(id=7, data={}), STRUCTURED, "bad_envelope", "id is 7, wanted text"),
    (structured(id="\ud800", data={"amount": 1}), STRUCTURED, "bad_envelope", "is no UTF-8"),
    (structured(), STRUCTURED, "bad_envelope", "the event has no data"),
    (structured(data={}, data_base64="e30="), STRUCTURED, "bad_envelope", "there are data and data_base64"),
    (structured(data_base64="*"), STRUCTURED, "bad_envelope", "data_base64 is no base64"),
    (structured(data_base64=7), STRUCTURED, "bad_envelope", "data_base64 is no base64"),
    (structured(data={}, datacontenttype=7), STRUCTURED, "bad_envelope", "datacontenttype is 7"),
    (structured(data={}, datacontenttype="application/avro"), STRUCTURED, "bad_envelope", "wanted data_base64"),
    (structured(data="x", datacontenttype="text/plain"), STRUCTURED, "bad_envelope", "the data are 'text/plain', wanted JSON or Avro"),
    (structured(data=[1]), STRUCTURED, "bad_field", "the event is [1], wanted an object"),
    (structured(data={}), [("content-type", b"application/cloudevents+avro")], "bad_envelope", "wanted application/cloudevents+json"),
    (structured(data={}), [("content-type", b"application/cloudevents-batch+json")], "bad_envelope", "wanted application/cloudevents+json"),
]


@pytest.mark.parametrize(("value", "headers", "reason", "words"), BAD)
def test_what_is_no_event_has_a_reason_and_its_neighbours_stay(value: bytes, headers: list[Header], reason: str, words: str) -> None:
    decoder = Decoder(READER, WHOLE)
    decoded = decoder.decode(PackedBytes.pack([JSON, value, JSON]), None, {0: binary(), **({1: headers} if headers else {}), 2: binary()})
    assert [Reject(code).label for code in decoded.rejected.tolist()] == ["usable", reason, "usable"]
    assert row_of(decoded.columns, 2) == {"id": b"E-7", "at": TIME_MS, "amount": 2.5}
    said = decoder.explain(value, headers)
    assert said.reason == reason
    assert words in said.detail


def test_a_record_without_a_value_is_a_tombstone_and_no_event() -> None:
    decoded = Decoder(READER, WHOLE).decode(PackedBytes.pack([b"", JSON]), np.array([True, False]), {0: binary(), 1: binary()})
    assert decoded.rejected.tolist() == [Reject.TOMBSTONE, 0]


TEXT = st.one_of(
    st.text(max_size=8), st.sampled_from(["1.0", TIME, "application/json", "application/cloudevents+json", "application/avro"])
)
NAMES = st.sampled_from(["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "__value_schema_id", "trace"])


@settings(max_examples=200, deadline=None)
@drawn(
    st.lists(st.tuples(NAMES, st.one_of(st.none(), TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=6)))),
    st.one_of(st.sampled_from([JSON, AVRO, WHOLE_AVRO, structured(data={"amount": 1.5})]), st.binary(max_size=30)),
)
def test_whatever_headers_come_the_record_is_read_or_has_a_reason(headers: Headers, value: bytes) -> None:
    decoder = Decoder(READER, CloudEvents(id="id", time="at"), Known(_1=DATA))
    decoded = decoder.decode(PackedBytes.pack([JSON, value, JSON]), None, {0: binary(), 1: headers, 2: binary()})
    assert decoded.rejected[[0, 2]].tolist() == [0, 0]
    said = decoder.explain(value, headers)
    assert said.reason == Reject(int(decoded.rejected[1])).label
    assert said.detail


def test_times_are_floored_to_what_the_field_counts() -> None:
    assert microseconds("1969-12-31T23:59:59.9999995Z") == -1
    assert microseconds("1970-01-01t00:00:00.000001z") == 1
    assert microseconds("1970-01-01T00:00:00-01:00") == 3_600_000_000


@pytest.mark.parametrize("data", ["json", "avro"])
def test_what_is_written_as_a_cloud_event_is_read_as_it_was(data: Any) -> None:
    framing = CloudEvents(id="id", time="at", avro="bare", data=data)
    avro = write_value({"id": "P1", "at": TIME_MS, "amount": 2.5}, READER.parsed)
    dress = CloudEventText(READER, framing, bare, "payments", "id", "at", 1)
    value, headers = dress(avro, [("trace", b"7"), ("ce_source", b"/shops/1"), ("ce_id", b"old"), ("ce_more", b"m")])
    assert dict(headers) == {
        "trace": b"7",
        "ce_source": b"/shops/1",
        "ce_more": b"m",
        "ce_specversion": b"1.0",
        "ce_id": b"P1",
        "ce_type": b"Payment",
        "ce_time": b"2026-01-31T12:00:00.250Z",
        "content-type": b"application/" + data.encode(),
    }
    assert len(headers) == len(dict(headers))
    decoder = Decoder(READER, framing)
    decoded = decoder.decode(PackedBytes.pack([value]), None, {0: headers})
    assert row_of(decoded.columns, 0) == {"id": b"P1", "at": TIME_MS, "amount": 2.5}
    event = read_event(value, headers)
    assert (event.id, event.source, event.type, event.time) == ("P1", "/shops/1", "Payment", "2026-01-31T12:00:00.250Z")


def test_what_no_cloud_event_can_say_is_not_written() -> None:
    dress = CloudEventText(READER, WHOLE, bare, "payments", "id", "at", 1)
    for said, words in (
        ({"id": "", "at": 1, "amount": 1.0}, "id is empty"),
        ({"id": "P", "at": 1, "amount": float("nan")}, "JSON does not have"),
        ({"id": "P", "at": 1 << 60, "amount": 1.0}, "which no calendar has"),
    ):
        with pytest.raises(RecordError, match=words):
            dress(write_value(said, as_numbers(READER).parsed), ())


def test_an_event_may_be_named_by_any_number() -> None:
    schema = record(field("number", "long"), field("amount", "double"), name="Payment")
    dress = CloudEventText(schema, CloudEvents(avro="bare"), bare, "payments", "number", None, 1)
    for number in (0, 7):
        _, headers = dress(write_value({"number": number, "amount": 1.0}, schema.parsed), ())
        assert dict(headers)["ce_id"] == str(number).encode()


def as_numbers(schema: AvroSchema) -> AvroSchema:
    """The schema without its logical types."""
    return record(*(field(each.name, each.type.kind) for each in schema.fields), name="Payment")


@pytest.mark.parametrize(
    ("framing", "words"),
    [
        (CloudEvents(id="nobody", avro="bare"), "id='nobody' is no field of Payment"),
        (CloudEvents(id="amount", avro="bare"), "id='amount' is of type double, wanted string"),
        (CloudEvents(time="id", avro="bare"), "time='id' is of type string, wanted a long with logical type timestamp-millis"),
        (CloudEvents(), "wanted a registry"),
    ],
)
def test_a_framing_that_goes_with_no_such_schema_is_refused(framing: CloudEvents, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        Decoder(READER, framing)


def test_a_framing_of_no_sense_is_refused_where_it_is_made() -> None:
    for wrong in ({"avro": "json"}, {"data": "xml"}, {"id": ""}, {"source": 7}):
        with pytest.raises(DefinitionError, match=f"CloudEvents: {next(iter(wrong))}="):
            CloudEvents(**wrong)
