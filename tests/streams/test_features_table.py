"""`Bound.transform`: equal to the bit to what the worker's steps give for the same rows, however they are cut."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Decoder, Encoder
from schemas.columns import Column, PackedBytes
from schemas.errors import HistoryError
from schemas.reject import label
from schemas.table import Table
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.extract import Extract
from streams.refusals import Refusals
from streams.scored_event import TIMINGS
from streams.transform import Transform
from tests.streams.batches import batch_of
from tests.streams.payment import bound_pipeline
from tests.streams.payments import Schemas, card_fraud
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
PARTITION = 3


def event(**changes: Any) -> dict[str, Any]:
    return {
        "payment_id": "p1",
        "event_time": START,
        "customer_id": "c1",
        "terminal_id": "t1",
        "amount": 12.5,
        "currency": "EUR",
        **changes,
    }


def table_of(*events: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(events), schema_overrides={"event_time": pl.Datetime("ms", "UTC")})


amounts = st.one_of(st.integers(0, 2_000_000).map(lambda cents: cents / 100), st.sampled_from([-1.0, 50_001.0, 0.001, float("nan")]))
logs = st.lists(
    st.builds(
        lambda customer, terminal, hours, amount, currency: event(
            customer_id=customer, terminal_id=terminal, event_time=START + timedelta(minutes=20 * hours), amount=amount, currency=currency
        ),
        st.sampled_from(["", "c1", "c2", "ä"]),
        st.sampled_from(["t1", "t2"]),
        st.integers(0, 3 * 24 * 60),
        amounts,
        st.sampled_from(["EUR", "EUR", "EUR", "USD"]),
    ),
    min_size=1,
    max_size=40,
)


def streamed(bound: Bound, events: list[dict[str, Any]], cuts: list[int]) -> list[Batch]:
    """The batches of a worker that reads these events from a topic, cut before these rows; its state goes through the store."""
    store = MemoryStore()
    store.claim(str(PARTITION), {})
    extract = Extract(bound, Decoder(bound.schema, "confluent", Schemas(1)), Refusals(), 1_000_000, 0)
    transform = Transform(
        bound,
        lambda partition: ShardState(str(partition), bound.pipeline.entities, store, bound.event_time.column, 1),
        lambda: {PARTITION: 1},
    )
    batches = []
    edges = sorted({0, *(cut for cut in cuts if cut < len(events)), len(events)})
    for first, end in pairwise(edges):
        part = events[first:end]
        columns: dict[str, Column] = {
            name: PackedBytes.pack([each[name].encode() for each in part])
            for name in ("payment_id", "customer_id", "terminal_id", "currency")
        }
        columns["event_time"] = np.array([round(each["event_time"].timestamp() * 1000) for each in part], np.int64)
        columns["amount"] = np.array([each["amount"] for each in part])
        values = list(Encoder(bound.schema, "confluent", 1).encode(columns))
        keys = [each["customer_id"].encode() for each in part]
        batch = transform(extract(batch_of(values, keys, partition=PARTITION, first_offset=first)))
        store.write(str(PARTITION), batch.writes[PARTITION], end)
        store.settle(str(PARTITION))
        transform.settled(PARTITION, end)
        batches.append(batch)
    return batches


@settings(max_examples=40, deadline=None)
@given(log=logs, cuts=st.lists(st.integers(1, 40), max_size=6))
def test_a_table_gives_the_bits_that_the_stream_gives(log: list[dict[str, Any]], cuts: list[int]) -> None:
    bound = card_fraud()
    found = bound.transform(table_of(*log))
    windows = [name for entity in bound.pipeline.entities for name in entity.feature_names]
    row = 0
    for batch in streamed(bound, log, cuts):
        for place in range(len(batch)):
            code = int(batch.rejected[place])
            refused = label(code, [rule.name for rule in bound.rules]) if code else None
            assert found["refused"][row] == refused
            assert batch.timing is not None
            assert found["timing"][row] == (None if refused else TIMINGS[batch.timing[place]])
            for name in (*windows, "weekend", "night"):
                given = found[name][row]
                if refused:
                    assert given is None
                else:
                    assert np.float64(given).tobytes() == np.float64(np.asarray(batch.columns[name])[place]).tobytes(), (row, name)
            row += 1
    assert row == len(found)


def frame_of(kind: str, table: pl.DataFrame) -> Any:
    return {"polars": table, "pyarrow": table.to_arrow(), "pandas": table.to_pandas()}[kind]


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "pandas"])
def test_a_table_comes_back_as_what_it_was_with_its_own_columns_first_and_untouched(kind: str) -> None:
    given = frame_of(kind, table_of(event(), event(amount=-1.0), event(amount=7.5)).with_columns(note=pl.Series([1, None, 3])))
    found = card_fraud().transform(given)
    assert type(found) is type(given)
    own = list(given.column_names if kind == "pyarrow" else given.columns)
    assert list(found.column_names if kind == "pyarrow" else found.columns)[: len(own)] == own
    back = found.select(own) if kind != "pandas" else found[own]
    assert back.equals(given)
    counts = found["customer_count_1d"]
    counted = counts.to_pylist() if kind == "pyarrow" else [None if pd.isna(each) else each for each in counts]
    assert counted == [1.0, None, 2.0]


def test_a_pandas_index_stays_with_its_rows() -> None:
    given = table_of(event(), event()).to_pandas()
    given.index = pd.Index(["b", "a"])
    found = card_fraud().transform(given)
    assert list(found.index) == ["b", "a"]
    assert list(found["customer_count_1d"]) == [1.0, 2.0]


def test_a_refused_row_says_why_and_is_in_no_window() -> None:
    found = card_fraud().transform(table_of(event(), event(amount=-1.0), event()))
    assert found["refused"].to_list() == [None, "amount_in_range", None]
    assert found["refused_detail"][1] == "amount is -1.0, wanted 0 to 50000"
    assert found["customer_count_1d"].to_list() == [1.0, None, 2.0]


def test_rows_out_of_order_are_late_and_never_an_error() -> None:
    hour = timedelta(hours=1)
    times = [START + 2 * hour, START + 1.5 * hour, START]
    found = card_fraud().transform(table_of(*(event(event_time=time) for time in times)))
    assert found["timing"].to_list() == ["on_time", "late", "too_late"]
    assert found["customer_count_1d"].to_list() == [1.0, 1.0, 1.0]


def test_no_rows_give_no_rows() -> None:
    found = card_fraud().transform(table_of(event())[:0])
    assert len(found) == 0
    assert found["customer_count_1d"].dtype == pl.Float64


def test_more_rows_than_a_turn_are_one_log(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [event(event_time=START + timedelta(seconds=row)) for row in range(7)]
    whole = card_fraud().transform(table_of(*events))
    monkeypatch.setattr("streams.offline.transform_table.TURN_ROWS", 2)
    assert card_fraud().transform(table_of(*events)).equals(whole)
    assert whole["customer_count_1d"].to_list() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amount": None}, "the table, row 1: amount is null, wanted double"),
        ({"event_time": None}, r"the table, row 1: event_time is null, wanted long \(timestamp-millis\)"),
    ],
)
def test_a_null_where_the_schema_takes_none_is_named_with_its_row(change: dict[str, Any], words: str) -> None:
    with pytest.raises(HistoryError, match=words):
        card_fraud().transform(table_of(event(), event(**change)))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(HistoryError, match=r"the table has no column 'amount'; it has payment_id, event_time, customer_id"):
        card_fraud().transform(table_of(event()).drop("amount"))


def test_a_column_of_another_type_is_named() -> None:
    with pytest.raises(HistoryError, match=r"the table: column 'customer_id' is of type int64, wanted string"):
        card_fraud().transform(table_of(event(customer_id=17)))


def test_times_without_a_zone_are_refused_unless_theirs_is_named() -> None:
    naive = table_of(event()).with_columns(pl.col("event_time").dt.convert_time_zone("Europe/Paris").dt.replace_time_zone(None))
    with pytest.raises(HistoryError, match="event_time holds times without a time zone; wanted times with one"):
        card_fraud().transform(naive)
    found = card_fraud().transform(naive, time_zone="Europe/Paris")
    assert found["night"].to_list() == [True]
    # An hour of Paris that the clocks passed over is no time.
    gap = pl.DataFrame([event(event_time=datetime(2026, 3, 29, 2, 30))])
    with pytest.raises(HistoryError, match="event_time as times in Europe/Paris: "):
        card_fraud().transform(gap, time_zone="Europe/Paris")


@pytest.mark.parametrize(("unit", "ticks"), [("s", -1), ("ms", -1_000), ("us", -1_000_001), ("ns", -1_000_000_001)])
def test_times_of_any_unit_are_cut_off_downwards(unit: str, ticks: int) -> None:
    table = table_of(event()).to_arrow().drop(["event_time"]).append_column("event_time", pa.array([ticks], pa.timestamp(unit, "UTC")))
    # A millisecond before midnight of a Wednesday, or a whole second: neither is the next day, and neither is at night.
    assert card_fraud().transform(table)["night"].to_pylist() == [False]


def test_a_table_with_a_features_name_is_refused() -> None:
    with pytest.raises(HistoryError, match="has a column 'night' already"):
        card_fraud().transform(table_of(event()).with_columns(night=True))


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(HistoryError, match="list is no table; wanted one of polars, pandas or pyarrow"):
        card_fraud().transform([event()])


def test_a_guard_needs_the_time_of_arrival(tmp_path: Path) -> None:
    guard = {"lateness_ms=hours(1)": "lateness_ms=hours(1), guard=Guard(oldest_ms=hours(1), ahead_ms=hours(1))"}
    bound = bound_pipeline(tmp_path, guard)
    with pytest.raises(HistoryError, match="the guard of entity 'customer' needs the time each record arrived at"):
        bound.transform(table_of(event()))
    arrived = table_of(event(), event(event_time=START + timedelta(days=9))).with_columns(came=START)
    assert bound.transform(arrived, arrived="came")["timing"].to_list() == ["on_time", "too_late"]


def nested(tmp_path: Path) -> Bound:
    place = {
        "type": "record",
        "name": "Place",
        "fields": [{"name": "country", "type": "string"}, {"name": "floor", "type": ["null", "int"]}],
    }
    more = {
        "place": ["null", place],
        "tags": {"type": "array", "items": "string"},
        "kind": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]},
        "price": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        "extra": {"type": "map", "values": "long"},
        "digest": {"type": "fixed", "name": "Digest", "size": 2},
    }
    return bound_pipeline(tmp_path, {'in_range("amount", 0, 50_000)': 'valency("tags", 1, 2), one_of("kind", ("A",))'}, more)


def rich(**changes: Any) -> Table:
    one = {
        "place": {"country": "NL", "floor": None},
        "tags": ["x"],
        "kind": "A",
        "price": Decimal("-1.25"),
        "extra": [("a", 1)],
        "digest": b"ab",
        **event(),
    }
    types = pa.schema(
        {
            "place": pa.struct({"country": pa.string(), "floor": pa.int64()}),
            "tags": pa.list_(pa.string()),
            "kind": pa.dictionary(pa.int8(), pa.string()),
            "price": pa.decimal128(12, 4),
            "extra": pa.map_(pa.string(), pa.int32()),
            "digest": pa.binary(),
            "payment_id": pa.large_string(),
            "event_time": pa.timestamp("us", "UTC"),
            "customer_id": pa.string(),
            "terminal_id": pa.string(),
            "amount": pa.float32(),
            "currency": pa.string(),
        }
    )
    return pa.Table.from_pylist([one, {**one, **changes}], schema=types)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"place": None}, None),
        ({"place": {"country": "BE", "floor": 2}, "tags": ["x", "y"]}, None),
        ({"tags": []}, "tags_valency"),
        ({"kind": "B"}, "kind_one_of"),
    ],
)
def test_records_arrays_maps_enums_and_decimals_are_read(tmp_path: Path, changes: dict[str, Any], refused: str | None) -> None:
    table = rich(**changes)
    for whole in (table, pa.concat_tables([table[:0], table[0:1], table[1:]])):
        assert nested(tmp_path).transform(whole)["refused"].to_pylist() == [None, refused]
    # A slice shares its table's buffers from somewhere in the middle.
    assert nested(tmp_path).transform(table[1:])["refused"].to_pylist() == [refused]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "C"}, "row 1: kind is 'C', wanted one of A, B"),
        ({"digest": b"abc"}, "row 1: digest is 3 bytes, wanted fixed"),
        ({"place": {"country": None, "floor": 1}}, "row 1: place.country is null, wanted string"),
        ({"place": {"country": "NL", "floor": 1 << 40}}, "place.floor, wanted int: .*1099511627776"),
    ],
)
def test_a_value_that_is_none_of_its_types_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(HistoryError, match=words):
        nested(tmp_path).transform(rich(**changes))


def test_a_field_may_be_left_out_where_the_schema_has_a_default(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path)
    definition: Any = bound.schema.definition
    fields = [{**each, "default": 3.5} if each["name"] == "amount" else each for each in definition["fields"]]
    (tmp_path / "payments.avsc").write_text(json.dumps({**definition, "fields": fields}))
    found = load_bound(tmp_path / "pipeline.py").transform(table_of(event(), event()).drop("amount"))
    assert found["customer_amount_mean_1d"].to_list() == [3.5, 3.5]


def test_dotted_names_stand_for_the_fields_of_a_record(tmp_path: Path) -> None:
    place = {"type": "record", "name": "Place", "fields": [{"name": "country", "type": "string"}]}
    bound = bound_pipeline(tmp_path, {'in_range("amount", 0, 50_000)': 'one_of("place.country", ("NL",))'}, {"place": place})
    dotted = table_of(event(), event()).with_columns(pl.Series("place.country", ["NL", "BE"]))
    assert bound.transform(dotted)["refused"].to_list() == [None, "place_country_one_of"]


def test_the_masks_of_nullable_columns_are_kept(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path, {'in_range("amount", 0, 50_000)': 'present("note")'}, {"note": ["null", "string"]})
    noted = table_of(event(), event()).with_columns(pl.Series("note", [None, "x"]))
    assert bound.transform(noted)["refused"].to_list() == ["note_present", None]
