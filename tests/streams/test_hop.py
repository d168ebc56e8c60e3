"""Hop records: what goes in comes out, events and labels, nulls and all, and nothing is read as what it is not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import Column, Columns, Constant, Nullable, PackedBytes, Symbols
from schemas.errors import StateError
from schemas.reject import Reject
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.hop import HopRows, HopSchema, Origins, record_keys
from streams.planning.stage import stages
from tests.streams.staged import TWO_STAGES, staged
from transforms.keys import key_ids

COUNTRIES = ("AT", "DE", "FR")


@cache
def two_stages() -> Bound:
    return load_bound(TWO_STAGES / "pipeline.py")


def hop(name: str, bound: Bound | None = None) -> HopSchema:
    """The records that a stage reads."""
    bound = bound or two_stages()
    return HopSchema.of(bound, next(stage for stage in stages(bound, 4) if stage.name == name))


ids = st.text(max_size=8).map(str.encode)
longs = st.integers(-(2**63), 2**63 - 1)
ints = st.integers(-(2**31), 2**31 - 1)
doubles = st.floats(width=64)
events = st.fixed_dictionaries(
    {
        "payment_id": ids,
        "event_time": longs,
        "customer_id": ints,
        "device_id": st.none() | ids,
        "merchant.terminal_id": ids,
        "country": st.sampled_from(COUNTRIES),
        "amount": doubles,
        "rank": st.none() | ints,
        "night": doubles,
        "customer_count_1d": doubles,
        "customer_amount_mean_1d": doubles,
        "device_count_7d": doubles,
        "device_country_distinct_7d": doubles,
    }
)
labels = st.fixed_dictionaries({"payment_id": ids, "event_time": longs, "merchant.terminal_id": ids, "fraud": st.booleans()})
origin = st.tuples(ints, longs, longs, ints, st.integers(0, 2))
NUMBERS: dict[str, type[np.generic]] = {"event_time": np.int64, "customer_id": np.int32, "rank": np.int32, "fraud": np.bool_}


def column(name: str, values: list[Any]) -> Column:
    """A column as the decoder of the original gives it."""
    if None in values:
        filler: Any = b"" if name == "device_id" else 0
        return Nullable(column(name, [filler if v is None else v for v in values]), np.array([v is not None for v in values]))
    if name == "country":
        return Symbols(np.array([COUNTRIES.index(v) for v in values], np.int32), COUNTRIES)
    if name.endswith("_id") and name != "customer_id":
        return PackedBytes.pack(values)
    return np.array(values, NUMBERS.get(name, np.float64))


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Column]:
    return {name: column(name, [row[name] for row in rows]) for name in rows[0]}


def origins_of(rows: list[tuple[int, int, int, int, int]]) -> Origins:
    partitions, offsets, arrived, ids_, timing = (list(each) for each in zip(*rows, strict=True))
    return Origins(
        np.array(partitions, np.int32), np.array(offsets, np.int64), np.array(arrived, np.int64), np.array(ids_, np.int32),
        np.array(timing, np.uint8),
    )  # fmt: skip


def values_of(found: Column) -> list[Any]:
    """A column's values, None where it has none."""
    if isinstance(found, Nullable):
        return [v if there else None for v, there in zip(values_of(found.values), found.valid.tolist(), strict=True)]
    if isinstance(found, Symbols):
        return [found.symbols[code] for code in found.codes]
    if isinstance(found, PackedBytes):
        return list(found)
    assert isinstance(found, np.ndarray)
    return [value.tobytes() for value in found] if found.dtype.kind == "f" else found.tolist()


def bits(value: Any) -> Any:
    return np.float64(value).tobytes() if isinstance(value, float) else value


def where(row: int) -> str:
    return f"row {row}"


def assert_same_origins(found: Origins, wanted: list[tuple[int, int, int, int, int]]) -> None:
    read = (found.partitions, found.offsets, found.arrived_ms, found.schema_ids, found.timing)
    assert list(zip(*(each.tolist() for each in read), strict=True)) == wanted


# --- round trips ---


@settings(max_examples=25)
@given(st.lists(st.tuples(events, origin), min_size=1, max_size=6), st.sampled_from(["by-device", "by-terminal"]))
def test_events_come_out_as_they_went_in(rows: list[tuple[dict[str, Any], Any]], name: str) -> None:
    schema = hop(name)
    given_columns = columns_of([row for row, _ in rows])
    raw = schema.encoder().encode(schema.columns(given_columns, origins_of([at for _, at in rows])))
    found = schema.decode(schema.decoder(), raw, where)
    assert not found.rejected.any()
    assert not found.is_label.any()
    assert not found.labels.any()
    assert_same_origins(found.origins, [at for _, at in rows])
    carried = {"payment_id", "event_time", *schema.key_columns, *schema.event_columns, *schema.derived, *schema.features}
    assert set(found.columns) == carried
    for each in carried:
        assert values_of(found.columns[each]) == [bits(row[each]) for row, _ in rows], each


@settings(max_examples=25)
@given(st.lists(st.tuples(events | labels, origin), min_size=1, max_size=6))
def test_labels_stand_among_events_and_leave_them_alone(rows: list[tuple[dict[str, Any], Any]]) -> None:
    schema = hop("by-terminal")
    raw = PackedBytes.pack([one_record(schema, row, at) for row, at in rows])
    found = schema.decode(schema.decoder(), raw, where)
    assert not found.rejected.any()
    assert found.is_label.tolist() == ["fraud" in row for row, _ in rows]
    assert found.labels.tolist() == [int(row.get("fraud", 0)) for row, _ in rows]
    assert_same_origins(found.origins, [at for _, at in rows])
    for each in ("payment_id", "event_time", "merchant.terminal_id"):
        assert values_of(found.columns[each]) == [row[each] for row, _ in rows]
    amounts = values_of(found.columns["amount"])
    assert [amounts[n] for n, (row, _) in enumerate(rows) if "amount" in row] == [bits(r["amount"]) for r, _ in rows if "amount" in r]


def one_record(schema: HopSchema, row: dict[str, Any], at: Any) -> bytes:
    make = schema.label_columns if "fraud" in row else schema.columns
    return schema.encoder().encode(make(columns_of([row]), origins_of([at])))[0]


def test_only_chosen_rows_are_encoded_so_refused_ones_may_hold_anything() -> None:
    schema = hop("by-terminal")
    rows = [dict(EVENT, payment_id=b"p%d" % n) for n in range(3)]
    columns = columns_of(rows) | {"amount": Nullable(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]))}
    raw = schema.encoder().encode(schema.columns(columns, origins_of([AT] * 3)), np.array([0, 2]))
    assert values_of(schema.decode(schema.decoder(), raw, where).columns["payment_id"]) == [b"p0", b"p2"]


# --- what is carried ---

EVENT: dict[str, Any] = {
    "payment_id": b"p1",
    "event_time": 1_700_000_000_000,
    "customer_id": 7,
    "device_id": None,
    "merchant.terminal_id": b"t1",
    "country": "DE",
    "amount": 9.5,
    "rank": 3,
    "night": 1.0,
    "customer_count_1d": 1.0,
    "customer_amount_mean_1d": 9.5,
    "device_count_7d": 0.0,
    "device_country_distinct_7d": 0.0,
}
LABEL: dict[str, Any] = {"payment_id": b"p1", "event_time": 1_700_000_000_000, "merchant.terminal_id": b"t1", "fraud": True}
AT = (3, 1042, 1_700_000_000_500, 1, 0)


def test_a_hop_carries_what_later_stages_need_and_not_more() -> None:
    device, terminal = hop("by-device"), hop("by-terminal")
    assert device.event_columns == ("customer_id", "merchant.terminal_id", "country", "amount", "rank")
    assert terminal.event_columns == ("customer_id", "amount", "rank")  # no note, no city, no country, no device
    assert device.features == ("customer_count_1d", "customer_amount_mean_1d")
    assert terminal.features == (*device.features, "device_count_7d", "device_country_distinct_7d")
    assert device.derived == terminal.derived == ("night",)


def test_a_feature_that_the_model_does_not_take_stays_behind(tmp_path: Path) -> None:
    bound = staged(tmp_path, {"*customer.feature_names": '"customer_count_1d"', '"night", "rank", ': '"rank", '})
    assert hop("by-device", bound).features == ("customer_count_1d",)
    assert hop("by-device", bound).derived == ()


def test_a_record_is_small() -> None:
    schema = hop("by-terminal")
    head = 30 + 3  # where it came from, which event it is; its key
    assert len(one_record(schema, EVENT, AT)) == head + (1 + 1 + 8 + 2) + (1 + 8) + (1 + 4 * 8)  # columns, derived ones, features
    assert len(one_record(schema, LABEL, AT)) == head + 3


def test_labels_go_to_stages_that_count_them_alone() -> None:
    with pytest.raises(ValueError, match="stage by-device counts no labels"):
        one_record(hop("by-device"), LABEL, AT)


def test_a_stage_that_reads_the_input_has_no_hop() -> None:
    with pytest.raises(ValueError, match="stage by-customer reads payments, which is no internal topic"):
        hop("by-customer")


def test_where_an_original_stands_follows_from_what_it_is() -> None:
    assert hop("by-terminal").source_topic(is_label=False) == "payments"
    assert hop("by-terminal").source_topic(is_label=True) == "payment-labels"


def test_columns_that_are_the_same_in_every_row_are_taken() -> None:
    schema = hop("by-device")
    columns: Columns = columns_of([EVENT, EVENT]) | {"night": Constant(True, 2), "customer_count_1d": Constant(2, 2)}
    found = schema.decode(schema.decoder(), schema.encoder().encode(schema.columns(columns, origins_of([AT, AT]))), where)
    assert values_of(found.columns["night"]) == [bits(1.0)] * 2
    assert values_of(found.columns["customer_count_1d"]) == [bits(2.0)] * 2


# --- records that are not ours ---


def decoded(values: list[bytes], **also: Any) -> HopRows:
    schema = hop("by-terminal")
    return schema.decode(schema.decoder(), PackedBytes.pack(values), where, **also)


@pytest.mark.parametrize(
    "change",
    [
        {'"rank", ': ""},  # another column
        {"Window(days(1))": "Window(days(2))"},  # another feature
        {'Derived("night", night)': 'Derived("night", night, version=2)'},  # another meaning under the same name
        {"Count(), Mean(amount)": "Count(empty=1.0), Mean(amount)"},
    ],
)
def test_a_record_of_another_definition_is_refused_and_named(tmp_path: Path, change: dict[str, str]) -> None:
    other = hop("by-terminal", staged(tmp_path, change))
    assert other.layout != hop("by-terminal").layout
    row = {**EVENT, "customer_count_2d": 1.0, "customer_amount_mean_2d": 1.0}
    with pytest.raises(StateError, match="row 1 was written by another definition of pipeline 'fraud'") as caught:
        decoded([one_record(hop("by-terminal"), EVENT, AT), one_record(other, row, AT)])
    assert "\n" not in str(caught.value)


def test_the_layout_does_not_know_what_it_does_not_carry(tmp_path: Path) -> None:
    other = staged(
        tmp_path, {'path="fraud.onnx"': 'path="other.onnx", threshold=0.5', "Window(days(7), delay_ms": "Window(days(14), delay_ms"}
    )
    assert hop("by-terminal", other).layout == hop("by-terminal").layout


def test_bytes_that_are_no_record_are_rejected_by_the_decoder() -> None:
    good = one_record(hop("by-terminal"), EVENT, AT)
    found = decoded([good, good[:-1], good + b"\0", b"", good[:4], good], absent=np.array([False] * 5 + [True]))
    assert [Reject(int(code)) for code in found.rejected] == [
        Reject.USABLE,
        Reject.TRUNCATED,
        Reject.TRAILING_BYTES,
        Reject.EMPTY_VALUE,
        Reject.TRUNCATED,
        Reject.TOMBSTONE,
    ]


# --- keys ---


def test_a_key_is_the_text_of_its_column_and_none_where_there_is_none() -> None:
    texts = PackedBytes.pack([b"a", b"", b"c"])
    assert record_keys({"k": texts}, ("k",)) == [b"a", None, b"c"]
    assert record_keys({"k": Nullable(texts, np.array([False, True, True]))}, ("k",)) == [None, None, b"c"]
    assert record_keys({"k": np.array([1, -22])}, ("k",)) == [b"1", b"-22"]
    assert record_keys({"k": Symbols(np.array([1, 0], np.int32), ("x", "y"))}, ("k",)) == [b"y", b"x"]
    assert record_keys({"k": Constant(b"z", 2)}, ("k",)) == [b"z", b"z"]


def test_a_key_of_several_columns_tells_them_apart() -> None:
    columns: Columns = {
        "a": PackedBytes.pack([b"ab", b"a", b"x"]),
        "b": Nullable(PackedBytes.pack([b"c", b"bc", b""]), np.array([True] * 3)),
    }
    keys = record_keys(columns, ("a", "b"))
    assert keys[0] != keys[1]
    assert keys[0] == key_ids(["a", "b"], [columns["a"], columns["b"]])[0]
    assert keys[2] is None


def test_a_key_that_may_be_absent_crosses_as_null(tmp_path: Path) -> None:
    schema = hop("by-device")
    raw = schema.encoder().encode(schema.columns(columns_of([EVENT, {**EVENT, "device_id": b"d"}]), origins_of([AT, AT])))
    found = schema.decode(schema.decoder(), raw, where)
    assert schema.keys(found.columns) == [None, b"d"]
    strict = hop("by-device", staged(tmp_path, {', missing_key="absent"': ""}))
    with pytest.raises(ValueError, match="is null in row 0"):
        strict.encoder().encode(strict.columns(columns_of([EVENT, {**EVENT, "device_id": b"d"}]), origins_of([AT, AT])))


def test_hops_of_one_pipeline_differ_in_layout() -> None:
    assert hop("by-device").layout != hop("by-terminal").layout
    assert replace(two_stages(), folder=Path("elsewhere")).fingerprint == two_stages().fingerprint
