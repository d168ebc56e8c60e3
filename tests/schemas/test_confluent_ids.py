"""Schema ids outside of values: what Confluent's client writes into headers and behind a one, and what it reads of ours."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import (
    dual_schema_id_deserializer,
    header_schema_id_serializer,
    prefix_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.avro import AvroSchema, write_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.dress import guid_in_header, id_before
from schemas.framing import VALUE_SCHEMA_ID, Header
from schemas.read_record import as_read, as_written
from schemas.registry import ConfluentRegistry, FileRegistry
from schemas.reject import Reject
from schemas.undress import number_of
from tests.schemas.avro_cases import row_of
from tests.schemas.test_decode import Known, field, framed, record

NOW = record(field("id", "string"), field("amount", "double"), field("note", "string", default="-"), name="Payment")
BEFORE = record(field("id", "string"), field("amount", "double"), name="Payment")
FLAGGED = record(field("flag", "boolean"), field("text", "string"))
SAID = {"id": "P1", "amount": 2.5}

Written = tuple[bytes, list[Header]]


def ones_prefix(payload: bytes, ctx: Any, schema_id: Any) -> bytes:
    """The third way that the client reads: a one and the GUID before the value."""
    return bytes(schema_id.guid_to_bytes() + payload)


class Client:
    """Confluent's own client, with the registry that we read from."""

    def __init__(self) -> None:
        self.registry = ConfluentRegistry(f"mock://{uuid.uuid4()}")
        self._client = self.registry._client

    def write(self, schema: AvroSchema, way: Callable[..., bytes], said: dict[str, Any] = SAID) -> Written:
        serializer = AvroSerializer(self._client, json.dumps(schema.definition), conf={"schema.id.serializer": way})
        headers: list[Any] = []
        value = serializer(said, SerializationContext("payments", MessageField.VALUE, headers))
        assert value is not None
        return value, headers

    def read(self, value: bytes, headers: list[Header]) -> Any:
        deserializer = AvroDeserializer(self._client, conf={"schema.id.deserializer": dual_schema_id_deserializer})
        given: list[Any] = list(headers)
        return deserializer(value, SerializationContext("payments", MessageField.VALUE, given))


def decoded_all(decoder: Decoder, records: list[Written]) -> Any:
    headers = {row: given for row, (_, given) in enumerate(records) if given}
    return decoder.decode(PackedBytes.pack([value for value, _ in records]), None, headers)


def test_whatever_the_client_writes_is_read_in_one_batch() -> None:
    client = Client()
    ways = (prefix_schema_id_serializer, header_schema_id_serializer, ones_prefix)
    records = [client.write(schema, way, {**SAID, "note": "new"} if schema is NOW else SAID) for schema in (BEFORE, NOW) for way in ways]
    decoder = Decoder(NOW, "confluent-header", client.registry)
    decoded = decoded_all(decoder, records)
    assert decoded.rejected.tolist() == [0] * 6
    for row in range(6):
        note = b"-" if row < 3 else b"new"
        assert row_of(decoded.columns, row) == {"id": b"P1", "amount": 2.5, "note": note}
        said = {**SAID, "note": "-"} if row < 3 else {**SAID, "note": "new"}
        assert as_read(decoder, *records[row]) == said
        assert as_written(decoder, *records[row]) == (SAID if row < 3 else said)
        assert decoder.explain(*records[row]).reason == "usable"
    ids = decoded.schema_ids.tolist()
    assert ids[0] == 1
    assert ids[3] == 2
    assert ids[1] == ids[2] < -1 > ids[4] == ids[5] != ids[1]


def test_the_client_reads_what_we_write_with_the_guid_in_a_header_and_with_the_id_before() -> None:
    client = Client()
    schema_id = client.registry.register("payments-value", NOW)
    guid = client.registry.guid_of("payments-value", NOW)
    assert guid is not None
    said = {**SAID, "note": "x"}
    avro = write_value(said, NOW.parsed)
    for dress in (guid_in_header(guid), id_before(schema_id)):
        value, headers = dress(avro, [("trace", b"7"), (VALUE_SCHEMA_ID, b"another's")])
        assert headers[0] == ("trace", b"7")
        assert client.read(value, list(headers)) == said
        assert decoded_all(Decoder(NOW, "confluent", client.registry), [(value, list(headers))]).rejected.tolist() == [0]


def test_a_header_stands_above_what_the_value_begins_with() -> None:
    body = b"\0\0\0\0\x08" + write_value(3, "int")  # as Avro: a string of no bytes and five numbers
    schema = record(field("text", "string"), *(field(f"n{i}", "int") for i in range(5)))
    decoder = Decoder(schema, "confluent", Known(_7=schema, _8=record(field("other", "int"))))
    in_header = decoded_all(decoder, [(body, [(VALUE_SCHEMA_ID, framed(7, b""))])])
    assert in_header.rejected.tolist() == [0]
    assert in_header.schema_ids.tolist() == [7]
    assert row_of(in_header.columns, 0) == {"text": b"", "n0": 0, "n1": 0, "n2": 0, "n3": 4, "n4": 3}
    assert decoded_all(decoder, [(body, [(VALUE_SCHEMA_ID, None), ("__key_schema_id", framed(7, b""))])]).schema_ids.tolist() == [8]


def test_a_header_stands_above_a_one_as_well_and_the_first_of_its_name_above_the_others() -> None:
    body = b"\x01" + b"\x28" + b"x" * 20  # an id of its own is not looked for: Avro bytes alone, which may begin with a one
    decoder = Decoder(FLAGGED, "confluent", Known(_7=record(field("text", "string")), _8=FLAGGED))
    headers: list[Header] = [(VALUE_SCHEMA_ID, framed(8, b"")), (VALUE_SCHEMA_ID, framed(7, b""))]
    decoded = decoded_all(decoder, [(body, headers)])
    assert (decoded.rejected.tolist(), decoded.schema_ids.tolist()) == ([0], [8])
    assert row_of(decoded.columns, 0) == {"flag": True, "text": b"x" * 20}


def test_values_without_bytes_may_stand_anywhere() -> None:
    good = framed(7, write_value(SAID, BEFORE.parsed))
    for batch in ([good, b""], [b"", good], [b""], []):
        decoded = Decoder(BEFORE, "confluent", Known(_7=BEFORE)).decode(PackedBytes.pack(batch))
        assert decoded.rejected.tolist() == [0 if each else Reject.EMPTY_VALUE for each in batch]


@pytest.mark.parametrize("header", [b"", b"\0\0\0\0", b"\0\0\0\0\x07\0", b"\x01" * 16, b"\x02" + bytes(16), b"7"])
def test_a_header_that_names_nothing_is_a_reason_and_its_neighbours_stay(header: bytes) -> None:
    decoder, good = Decoder(BEFORE, "confluent", Known(_7=BEFORE)), framed(7, write_value(SAID, BEFORE.parsed))
    wrong: Written = (good, [(VALUE_SCHEMA_ID, header)])
    decoded = decoded_all(decoder, [(good, []), wrong, (good, [("trace", b"1")])])
    assert decoded.schema_ids.tolist() == [7, -1, 7]
    assert [Reject(code).label for code in decoded.rejected.tolist()] == ["usable", "bad_magic", "usable"]
    said = decoder.explain(*wrong)
    assert said.reason == "bad_magic"
    assert f"header __value_schema_id is {header.hex(' ')}, wanted 00 and four bytes of schema id" in said.detail


def test_a_guid_the_registry_does_not_know_is_named_and_read_once_it_does() -> None:
    client, guid = Client(), uuid.uuid4()
    decoder = Decoder(BEFORE, "confluent-header", client.registry)
    avro = write_value(SAID, BEFORE.parsed)
    unknown: list[Written] = [(b"\x01" + guid.bytes + avro, []), (avro, [(VALUE_SCHEMA_ID, b"\x01" + guid.bytes)])]
    decoded = decoded_all(decoder, unknown)
    assert decoded.rejected.tolist() == [Reject.UNKNOWN_SCHEMA] * 2
    assert len(set(decoded.schema_ids.tolist())) == 1
    assert decoder.explain(*unknown[0]).detail == f"no schema has the GUID {guid}"
    assert decoder.schema_words(*unknown[1]) == f"GUID {guid}"
    value, headers = client.write(BEFORE, header_schema_id_serializer)
    assert decoded_all(decoder, [(value, headers)]).rejected.tolist() == [0]


def test_a_one_without_room_for_a_guid_says_both_ways_that_are_read() -> None:
    decoder = Decoder(BEFORE, "confluent-header", Known(_7=BEFORE))
    said = decoder.explain(b"\x01\x02\x03")
    assert said.reason == "bad_magic"
    assert "begins with 01 02 03, wanted 00, four bytes of schema id and an Avro record, or 01, sixteen bytes" in said.detail


def test_a_guid_before_the_value_is_looked_for_only_where_that_is_declared() -> None:
    client = Client()
    value, headers = client.write(BEFORE, ones_prefix)
    assert decoded_all(Decoder(BEFORE, "confluent-header", client.registry), [(value, headers)]).rejected.tolist() == [0]
    decoder = Decoder(BEFORE, "confluent", client.registry)
    assert decoded_all(decoder, [(value, headers)]).rejected.tolist() == [Reject.BAD_MAGIC]
    assert decoder.explain(value).detail.endswith("wanted 00, four bytes of schema id and an Avro record")


def test_a_folder_gives_each_schema_a_guid_of_its_text(tmp_path: Path) -> None:
    folder = FileRegistry(tmp_path)
    folder.register("payments-value", BEFORE)
    folder.register("payments-value", NOW)
    guids = [folder.guid_of("payments-value", each) for each in (BEFORE, NOW)]
    assert None not in guids
    assert len(set(guids)) == 2
    records: list[Written] = []
    for guid, schema in zip(guids, (BEFORE, NOW), strict=True):
        assert guid is not None
        value, headers = guid_in_header(guid)(write_value({**SAID, "note": "n"}, schema.parsed), ())
        records.append((value, list(headers)))
    decoded = decoded_all(Decoder(NOW, "confluent", FileRegistry(tmp_path)), records)
    assert decoded.rejected.tolist() == [0, 0]
    assert [row_of(decoded.columns, row)["note"] for row in (0, 1)] == [b"-", b"n"]


def test_explaining_places_damage_in_the_whole_value() -> None:
    client = Client()
    value, _ = client.write(BEFORE, ones_prefix)
    decoder = Decoder(BEFORE, "confluent-header", client.registry)
    said = decoder.explain(value[:-1])
    assert said.reason == "truncated"
    assert said.detail.startswith(f"amount, at byte {len(value) - 8} of {len(value) - 1}: ")


def two_of_one_number() -> tuple[bytes, bytes]:
    """GUIDs found by trying: some ten thousand make a pair likely."""
    found: dict[int, bytes] = {}
    for n in range(1 << 20):
        guid = n.to_bytes(16, "big")
        before = found.setdefault(number_of(guid), guid)
        if before != guid:
            return before, guid
    raise AssertionError("a million GUIDs, and no two of one number")


def test_of_two_guids_that_count_under_one_number_the_second_is_a_dead_letter() -> None:
    decoder, avro = Decoder(BEFORE, "confluent", Known(_7=BEFORE)), write_value(SAID, BEFORE.parsed)
    records: list[Written] = [(avro, [(VALUE_SCHEMA_ID, b"\x01" + guid)]) for guid in two_of_one_number()]
    decoded = decoded_all(decoder, [*records, (framed(7, avro), [])])
    assert [Reject(code).label for code in decoded.rejected.tolist()] == ["unknown_schema", "bad_magic", "usable"]
