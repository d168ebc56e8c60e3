"""Any bytes at all are a record or a refusal, in time and memory that follow from their size."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.avro import DEEPEST, MOST_CHARACTERS, MOST_TYPES, AvroSchema, write_value
from schemas.codec import Decoder, Encoder
from schemas.columns import PackedBytes
from schemas.decode_kernel import MOST_EMPTY_ITEMS
from schemas.default import varint
from schemas.errors import RetryLater, SchemaError
from schemas.registry import ConfluentRegistry
from schemas.reject import Reject
from tests.schemas.avro_cases import plain_bytes, schemas, values
from tests.schemas.test_decode import Known, field, framed, record
from tests.schemas.test_registry import server

BYTES_A_BYTE = 200  # of memory: two words an item of an array, an item a byte, with room to grow
BYTES_AT_LEAST = 1 << 20

NESTED = record(
    field("id", "long"),
    field("tags", {"type": "map", "values": {"type": "array", "items": ["null", "string"]}}),
    field("deep", {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": "boolean"}}}),
    field("either", ["string", "long", "null"]),
    field("next", ["null", "R"]),
)


def decoded_within(decoder: Decoder, records: list[bytes]) -> Any:
    """Decode, and hold the memory that it took against the bytes that came."""
    tracemalloc.start()
    try:
        decoded = decoder.decode(PackedBytes.pack(records))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < BYTES_AT_LEAST + BYTES_A_BYTE * sum(map(len, records)), f"{peak_bytes:,} bytes for {sum(map(len, records)):,}"
    return decoded


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """The kernels are loaded before anybody's memory is measured."""
    Decoder(record(field("x", "int")), "bare").decode(PackedBytes.pack([b"\2"]))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(NESTED, "bare")


@settings(max_examples=100)
@given(records=st.lists(st.binary(max_size=200), min_size=1, max_size=4))
@example(records=[varint(1) + varint(2**62)])
@example(records=[varint(1) + varint(-(2**62)) + varint(2**62)])
@example(records=[varint(1) + varint(0) + varint(2**40)])
@example(records=[varint(1) + varint(0) + (varint(1) * 60)])
@example(records=[b"\xff" * 200])
def test_any_bytes_are_a_record_or_a_refusal_with_its_words(decoder: Decoder, records: list[bytes]) -> None:
    decoded = decoded_within(decoder, records)
    assert len(decoded.rejected) == len(records)
    for row, each in enumerate(records):
        reject = Reject(int(decoded.rejected[row]))
        said = decoder.explain(each)
        assert said.reason == (reject.label if reject else "usable")


@settings(max_examples=40)
@given(st.data())
def test_a_record_of_any_schema_damaged_anywhere_takes_no_more_memory_than_its_size_allows(data: st.DataObject) -> None:
    schema = data.draw(schemas(wide=True))
    damaged = bytearray(plain_bytes(schema.root, data.draw(values(schema.root))) * 3 or b"?")
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 254, 255]))
    decoded_within(Decoder(schema, "bare"), [bytes(damaged)])


def test_a_megabyte_of_the_smallest_items_is_read_within_its_memory() -> None:
    schema = record(field("deep", {"type": "array", "items": {"type": "array", "items": "boolean"}}))
    count = 1 << 20
    large = varint(count) + b"\0" * count + b"\0"
    decoder = Decoder(schema, "bare")
    assert not decoded_within(decoder, [large]).rejected.any()
    began = time.process_time()
    decoder.decode(PackedBytes.pack([large]))
    assert time.process_time() - began < 5.0


def test_items_of_no_bytes_are_limited_since_their_sender_pays_nothing_for_them() -> None:
    schema = record(field("x", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}))
    decoder = Decoder(schema, "bare")
    most, more = (varint(count) + b"\0" for count in (MOST_EMPTY_ITEMS, MOST_EMPTY_ITEMS + 1))
    assert decoder.decode(PackedBytes.pack([most, more])).rejected.tolist() == [0, Reject.MALFORMED]


@settings(max_examples=60)
@given(st.binary(max_size=12), st.sampled_from([0, 1, 7, 8, 2**31, 2**32 - 1]))
def test_any_header_before_any_bytes_is_a_record_or_a_refusal(rest: bytes, schema_id: int) -> None:
    schema = record(field("x", "int"), field("s", "string"))
    decoder = Decoder(schema, "confluent", Known(_7=schema, _8=record(field("y", "int"))))
    records = [framed(schema_id, rest), rest, b"\0" + rest, b"\1" + rest]
    decoded = decoded_within(decoder, records)
    for row, each in enumerate(records):
        assert decoder.explain(each).reason == Reject(int(decoded.rejected[row])).label or not decoded.rejected[row]


@settings(max_examples=60)
@given(st.data())
def test_what_was_decoded_is_written_back_as_the_same_bytes(data: st.DataObject) -> None:
    schema = record(field("x", "long"), field("s", "string"), field("o", ["null", "double"]), field("b", "bytes"))
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "x": st.integers(-(2**63), 2**63 - 1),
                    "s": st.text(max_size=20),
                    "o": st.none() | st.floats(allow_nan=False),
                    "b": st.binary(max_size=20),
                }
            ),
            min_size=1,
            max_size=5,
        )
    )
    written = [write_value(row, schema.parsed) for row in rows]
    columns = Decoder(schema, "bare").decode(PackedBytes.pack(written)).columns
    assert list(Encoder(schema, "bare").encode(columns)) == written


# --- schemas, which are data of whoever may register one ---


def doubling(levels: int) -> Any:
    """A record that uses the one before it twice, so many times over: short to write, and 2^levels types."""
    inner: Any = {"type": "record", "name": "L0", "fields": [field("x", "long")]}
    for level in range(1, levels + 1):
        inner = {"type": "record", "name": f"L{level}", "fields": [field("a", inner), field("b", f"L{level - 1}")]}
    return inner


def nested(levels: int, form: str) -> Any:
    inner: Any = "long"
    for level in range(levels):
        inner = {
            "record": {"type": "record", "name": f"N{level}", "fields": [field("a", inner)]},
            "array": {"type": "array", "items": inner},
            "map": [{"type": "map", "values": inner}, "null"],
        }[form]
    return inner


@pytest.mark.parametrize("levels", [18, 60, 90])
def test_a_schema_that_doubles_itself_is_refused_at_once(levels: int) -> None:
    began = time.process_time()
    with pytest.raises(SchemaError, match=f"more than {MOST_TYPES} types"):
        AvroSchema.parse({"type": "record", "name": "R", "fields": [field("d", doubling(levels))]}, "schema 7")
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("form", ["record", "array", "map"])
@pytest.mark.parametrize("levels", [DEEPEST + 1, 250, 400])
def test_a_schema_nested_too_deep_is_refused_and_none_that_is_not_breaks_the_decoder(form: str, levels: int) -> None:
    with pytest.raises(SchemaError, match="nested too deep"):
        AvroSchema.parse({"type": "record", "name": "R", "fields": [field("d", nested(levels, form))]}, "schema 7")
    allowed = DEEPEST // 2 - 1
    writer = record(field("id", "long"), field("d", nested(allowed, form)))
    for reader in (record(field("id", "long")), writer):
        decoder = Decoder(reader, "confluent", Known(_7=writer))
        assert decoder.decode(PackedBytes.pack([framed(7, b"\2")])).rejected.tolist() in ([0], [Reject.TRUNCATED])


def test_brackets_without_end_are_no_schema() -> None:
    with pytest.raises(SchemaError):
        AvroSchema.parse("[" * 100_000, "schema 7")


def test_a_schema_of_endless_text_is_refused_unread() -> None:
    with pytest.raises(SchemaError, match=f"wanted at most {MOST_CHARACTERS}"):
        AvroSchema.parse('{"doc": "' + "x" * MOST_CHARACTERS + '"}', "schema 7")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["AVRO", "record", "int", "R", '"int"']),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["schema", "schemaType", "id", "version", "references", "subject", "type", "name", "fields", "items"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


class Answers:
    """What a registry's server says next."""

    status = 200
    body = ""


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[Answers, ConfluentRegistry]]:
    """One server for all examples, and who asks it."""
    answers = Answers()
    with server(lambda method, path: (answers.status, answers.body)) as url:
        yield answers, ConfluentRegistry(url, {"max.retries": 0, "timeout": 5})


@settings(max_examples=40)
@given(status=st.sampled_from([200, 200, 200, 204, 400, 401, 404, 409, 500]), body=JSON | st.text(max_size=30), wrapped=st.booleans())
def test_whatever_a_registry_answers_is_a_schema_or_none_or_asked_again(
    asked: tuple[Answers, ConfluentRegistry], status: int, body: Any, wrapped: bool
) -> None:
    answers, registry = asked
    answers.status = status
    answers.body = json.dumps({"schema": body if isinstance(body, str) else json.dumps(body)} if wrapped else body)
    questions: tuple[Callable[[], object], ...] = (lambda: registry.schema(7), lambda: registry.latest("s"))
    for ask in questions:
        try:
            found = ask()
        except (RetryLater, SchemaError) as error:
            found = error
        known = isinstance(found, AvroSchema | tuple | None)
        assert known or "\n" not in str(found)
        registry._client.clear_caches()
        registry._known.clear()
