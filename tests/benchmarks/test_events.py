"""The events of a load: the same for whoever asks, good by the pipeline's rules, and told apart by their ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.events import BLOCK_ROWS, POISON, START_MS, Events, Traffic, row_of_poison, rows_of_ids
from schemas.codec import Decoder, Encoder
from schemas.columns import PackedBytes, Symbols
from schemas.errors import DefinitionError, Refused
from schemas.registry import open_registry
from schemas.rules import one_of
from streams.definition.bound import Bound, bind
from streams.definition.load import load_bound
from tests.live.scene import EXAMPLE
from transforms.entity import Guard


@pytest.fixture(scope="module")
def bound() -> Bound:
    return load_bound(EXAMPLE / "pipeline.py")


def ids_of(events: Events, first: int, end: int) -> list[int]:
    found: list[int] = []
    for block in events.blocks(first, end):
        column = block.columns["payment_id"]
        assert isinstance(column, PackedBytes)
        found += rows_of_ids(column).tolist()
    return found


def test_a_row_is_the_same_event_however_it_is_asked_for(bound: Bound) -> None:
    events, others = Events(bound, Traffic(keys=50, zipf=1.0, late_share=0.1)), Events(bound, Traffic(keys=50, zipf=1.0, late_share=0.1))
    (whole,) = events.blocks(0, BLOCK_ROWS)
    (part,) = others.blocks(700, 710)
    assert part.event_ms.tolist() == whole.event_ms[700:710].tolist()
    assert list(part.keys) == list(whole.keys)[700:710]
    assert ids_of(events, BLOCK_ROWS - 3, BLOCK_ROWS + 3) == list(range(BLOCK_ROWS - 3, BLOCK_ROWS + 3))
    assert (
        Events(bound, Traffic(seed=1, keys=50)).key_numbers(bound.pipeline.entities[0], 100).tolist()
        != events.key_numbers(bound.pipeline.entities[0], 100).tolist()
    )


def test_the_key_of_a_row_is_the_one_that_is_sent(bound: Bound) -> None:
    events = Events(bound, Traffic(keys=30, zipf=0.7))
    for entity in bound.pipeline.entities:
        numbers = events.key_numbers(entity, 50)
        (block,) = events.blocks(0, 50)
        column = block.columns[entity.key_columns[0]]
        assert isinstance(column, PackedBytes)
        assert [int(text[-7:]) for text in column] == numbers.tolist()


def test_what_is_encoded_decodes_to_the_same_rows(bound: Bound) -> None:
    (block,) = Events(bound, Traffic(keys=30)).blocks(10, 40)
    decoded = Decoder(bound.schema, "bare").decode(Encoder(bound.schema, "bare").encode(block.columns))
    assert not decoded.rejected.any()
    ids = decoded.columns["payment_id"]
    assert isinstance(ids, PackedBytes)
    assert rows_of_ids(ids).tolist() == list(range(10, 40))


def test_a_window_holds_as_many_events_of_a_key_as_asked_for(bound: Bound) -> None:
    traffic = Traffic(keys=20, live=40)
    events = Events(bound, traffic)
    longest = max(w.length_ms + w.delay_ms for e in bound.pipeline.entities for w in e.windows)
    times = np.concatenate([block.event_ms for block in events.blocks(0, 3 * traffic.history)])
    inside = np.count_nonzero((times > times[-1] - longest) & (times <= times[-1]))
    assert inside == pytest.approx(traffic.history, rel=0.01)
    assert times[0] == START_MS


def test_hot_keys_follow_zipf(bound: Bound) -> None:
    numbers = Events(bound, Traffic(keys=100, zipf=1.0)).key_numbers(bound.pipeline.entities[0], 50_000)
    counts = np.bincount(numbers, minlength=100)
    shares = 1 / np.arange(1, 101)
    assert counts[:5] == pytest.approx(50_000 * shares[:5] / shares.sum(), rel=0.1)


def test_shares_of_late_and_poisoned_records_are_as_asked_for(bound: Bound) -> None:
    traffic = Traffic(keys=100, late_share=0.2, too_late_share=0.1, poison_share=0.05)
    events = Events(bound, traffic)
    even = START_MS + (np.arange(20 * BLOCK_ROWS) * events.step_ms).astype(np.int64)
    blocks = list(events.blocks(0, 20 * BLOCK_ROWS))
    behind = even - np.concatenate([block.event_ms for block in blocks])
    hour = 3_600_000
    assert np.count_nonzero((behind > 0) & (behind < hour)) == pytest.approx(0.2 * len(even), rel=0.1)
    assert np.count_nonzero(behind > hour) == pytest.approx(0.1 * len(even), rel=0.1)
    assert sum(int(block.poison.sum()) for block in blocks) == pytest.approx(0.05 * len(even), rel=0.1)


def test_no_decoder_takes_a_poisoned_record_and_its_row_is_known(bound: Bound) -> None:
    value = POISON % 42
    for decoder in (Decoder(bound.schema, "confluent", open_registry(bound.schema_folder)), Decoder(bound.schema, "bare")):
        assert decoder.decode(PackedBytes.pack([value])).rejected.all()
    assert row_of_poison(value) == 42
    assert row_of_poison(b"something else") == row_of_poison(None) == -1


def test_ids_of_others_are_none_of_ours() -> None:
    assert rows_of_ids(PackedBytes.pack([b"P000410000017", b"load-000000000007", b""])).tolist() == [-1, 7, -1]
    assert rows_of_ids(PackedBytes.pack([])).tolist() == []


def test_a_pipeline_whose_rules_no_made_up_event_meets_is_refused_by_the_rule(bound: Bound) -> None:
    never = replace(one_of("payment_id", ("only-this",)), name="only_one", definition=None)
    strict = bind(replace(bound.pipeline, rules=(*bound.pipeline.rules, never)), bound.folder)
    with pytest.raises(DefinitionError, match="rule only_one refuses 512 of 512 events"):
        Events(strict, Traffic(keys=10))


def test_an_entity_with_a_guard_is_refused(bound: Bound) -> None:
    customer, terminal = bound.pipeline.entities
    guarded = bind(replace(bound.pipeline, entities=(replace(customer, guard=Guard(1_000, 1_000)), terminal)), bound.folder)
    with pytest.raises(DefinitionError, match="'customer' has a guard"):
        Events(guarded, Traffic(keys=10))


def test_columns_of_every_kind_are_filled(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "1-things-value.avsc").write_text(
        """{"type": "record", "name": "Thing", "fields": [
        {"name": "id", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["a", "b", "c"]}},
        {"name": "who", "type": {"type": "record", "name": "W", "fields": [{"name": "number", "type": "int"}]}},
        {"name": "note", "type": ["null", "string"]}, {"name": "flag", "type": "boolean"}, {"name": "small", "type": "float"},
        {"name": "tags", "type": ["null", {"type": "array", "items": "string"}]}]}"""
    )
    (tmp_path / "things.py").write_text(
        "from millrace import *\n"
        'things = Topic("things", schema="schemas/1-things-value.avsc", key="who.number", event_time="at", event_id="id")\n'
        'thing = Entity("thing", key="who.number", windows=(Window(days(1)),), aggregates=(Count(),))\n'
        'kind = Entity("kind", key="kind", windows=(Window(days(1)),), aggregates=(Count(),))\n'
        'pipeline = Pipeline("things", input=things, rules=(one_of("kind", ("c", "a")), in_range("small", 3, 5)), '
        'entities=(thing, kind), model=Model("m", path="m.onnx", inputs=(*thing.feature_names, *kind.feature_names)), '
        'output=Topic("things.out"))\n'
    )
    bound = load_bound(tmp_path / "things.py")
    events = Events(bound, Traffic(keys=5, live=10))
    (block,) = events.blocks(0, 30)
    decoded = Decoder(bound.schema, "bare").decode(Encoder(bound.schema, "bare").encode(block.columns))
    assert not decoded.rejected.any()
    kinds = decoded.columns["kind"]
    assert isinstance(kinds, Symbols)
    assert {kinds.symbols[code] for code in kinds.codes} == {"a", "c"}
    small = np.asarray(decoded.columns["small"])
    assert small.min() >= 3
    assert small.max() <= 5
    assert (np.asarray(decoded.columns["at"]) // 1_000 == block.event_ms).all()
    assert list(block.keys) == [b"%d" % number for number in events.key_numbers(bound.pipeline.entities[0], 30).tolist()]


@pytest.mark.parametrize("wrong", [{"keys": 0}, {"zipf": -1.0}, {"late_share": 0.6, "poison_share": 0.5}, {"poison_share": -0.1}])
def test_traffic_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Refused):
        Traffic(**wrong)  # type: ignore[arg-type]
