"""Constraints as rules: against a plain reading of each record, and what can't be meant in one line."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro import AvroSchema, write_value
from schemas.codec import Decoder
from schemas.columns import Columns, PackedBytes
from schemas.constraints import Constraints
from schemas.constraints_check import field_types
from schemas.constraints_file import find_constraints, load_constraints
from schemas.constraints_pattern import BadPattern, compile_pattern
from schemas.constraints_rules import constraint_rules
from schemas.constraints_watch import Seen, Watch, hashes
from schemas.errors import DefinitionError, SchemaError
from schemas.json_record import as_it_travels
from schemas.rules import check

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid_at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        {"name": "status", "type": "string"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["web", "till"]}},
        {"name": "country", "type": ["null", "string"], "default": None},
        {"name": "quantity", "type": "long"},
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "address", "type": {"type": "record", "name": "Address", "fields": [{"name": "zip", "type": "string"}]}},
        {"name": "returned", "type": ["null", "boolean"], "default": None},
    ],
}
HEAD = "format: 1\nversion: 1\nowner: us\ndescription: words\n"


def loaded(folder: Path, text: str, environment: str = "SERVING") -> Constraints:
    file = folder / "orders.constraints.yaml"
    file.write_text(HEAD + text)
    return load_constraints(file, AvroSchema.parse(ORDER), environment)


def an_order(**changes: Any) -> dict[str, Any]:
    return {
        "id": "O1",
        "at": 1_000,
        "paid_at": None,
        "status": "paid",
        "kind": "web",
        "country": None,
        "quantity": 1,
        "price": None,
        "total": b"\x64",
        "tags": [],
        "address": {"zip": "1000"},
        "returned": None,
        **changes,
    }


@cache
def _codec() -> tuple[Decoder, Any]:
    schema = AvroSchema.parse(ORDER)
    return Decoder(schema, "bare"), as_it_travels(schema)


def columns_of(orders: list[dict[str, Any]]) -> Columns:
    decoder, plain = _codec()
    return decoder.decode(PackedBytes.pack([write_value(order, plain) for order in orders])).columns


def broken(constraints: Constraints, orders: list[dict[str, Any]]) -> list[str]:
    """By order: the first constraint it breaks, or nothing."""
    rules = constraint_rules(constraints, field_types(AvroSchema.parse(ORDER)))
    codes = check(rules, columns_of(orders), np.zeros(len(orders), np.uint8))
    return [rules[code - 128].name if code else "" for code in codes.tolist()]


@given(
    st.sampled_from(
        [
            "a+b*",
            "[A-Z]{2,3}",
            r"O\d{1,3}",
            r"\w+-\W",
            "(a|bc)*d?",
            "[^x]y",
            "é+|日",
            ".*",
            "",
            "^ab$",
            "(?:ab|a)(?:c|bcd)d*",
            "[a-ÿ]{2}",
            r"\S\s\D",
        ]
    ),
    st.text(st.sampled_from("abcdxyABO019-é日ÿ \n\U0001d4b3"), max_size=6),
)
def test_a_pattern_matches_what_python_says_it_does(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).matches(text.encode()) == bool(re.fullmatch(pattern, text, re.ASCII))


characters = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from([0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]).map(chr),
)


@given(characters, characters, st.lists(characters, max_size=5), st.integers(-1, 1))
def test_a_range_of_characters_is_that_of_their_bytes(one: str, other: str, more: list[str], beside: int) -> None:
    low, high = sorted((one, other))
    automaton = compile_pattern(f"[{re.escape(low)}-{re.escape(high)}]")
    edges = [chr(place) for edge in (low, high) if not 0xD800 <= (place := max(min(ord(edge) + beside, 0x10FFFF), 0)) <= 0xDFFF]
    for each in (low, high, *more, *edges):
        assert automaton.matches(each.encode()) == (low <= each <= high), each


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=a)b", r"a\bb", "(?i)a", "[", "a{2000}", "(a|b)*a(a|b){20}", "a^b"])
def test_a_pattern_that_would_need_a_memory_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        compile_pattern(pattern)


values = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["O1", "O12", "X", ""]),
        "at": st.integers(0, 5),
        "status": st.sampled_from(["paid", "open", "cancelled", "pai", "paidd"]),
        "kind": st.sampled_from(["web", "till"]),
        "country": st.sampled_from([None, "NO", "DE", "XX"]),
        "quantity": st.integers(-2, 4),
        "price": st.sampled_from([None, 0.0, 1.5, -1.0, float("nan")]),
        "total": st.sampled_from([b"\x00", b"\x64", b"\x03\xe8", b"\xff"]),
        "tags": st.lists(st.just("t"), max_size=3),
        "address": st.fixed_dictionaries({"zip": st.sampled_from(["1000", "x"])}),
        "returned": st.sampled_from([None, True]),
    }
)

ALL = """
fields:
  returned: {environments: [TRAINING]}
  country: {presence: required, domain: ["NO", DE]}
  id: {regex: "O[0-9]+"}
  status: {domain: [paid, open, cancelled]}
  kind: {domain: [web]}
  quantity: {range: [0, null], domain: [0, 1, 2, 4]}
  price: {range: [0, 2]}
  total: {range: [0.5, 10]}
  tags: {valency: [0, 2]}
  address.zip: {regex: "[0-9]{4}"}
relations:
  - {name: sums, holds: quantity * 2 <= at + 4}
  - {name: empty, holds: status != "cancelled" or quantity == 0}
"""


def troubles(order: dict[str, Any]) -> list[str]:
    """The slow and obvious reading of `ALL`: every constraint that an order breaks."""
    cents = int.from_bytes(order["total"], "big", signed=True)
    said = (
        ("returned_absent", order["returned"] is None),
        ("country_presence", order["country"] is not None),
        ("country_domain", order["country"] in (None, "NO", "DE")),
        ("id_regex", re.fullmatch("O[0-9]+", order["id"])),
        ("status_domain", order["status"] in ("paid", "open", "cancelled")),
        ("kind_domain", order["kind"] == "web"),
        ("quantity_domain", order["quantity"] in (0, 1, 2, 4)),
        ("quantity_range", order["quantity"] >= 0),
        ("price_range", order["price"] is None or 0 <= order["price"] <= 2),
        ("total_range", 50 <= cents <= 1_000),
        ("tags_valency", len(order["tags"]) <= 2),
        ("address_zip_regex", order["address"]["zip"] == "1000"),
        ("sums", order["quantity"] * 2 <= order["at"] + 4),
        ("empty", order["status"] != "cancelled" or order["quantity"] == 0),
    )
    return [name for name, good in said if not good]


@pytest.fixture(scope="module")
def all_of_them(tmp_path_factory: pytest.TempPathFactory) -> Constraints:
    return loaded(tmp_path_factory.mktemp("constraints"), ALL)


@given(orders=st.lists(values, min_size=1, max_size=30))
def test_a_record_breaks_what_a_plain_reading_says(all_of_them: Constraints, orders: list[dict[str, Any]]) -> None:
    orders = [an_order(**order) for order in orders]
    assert broken(all_of_them, orders) == [next(iter(troubles(order)), "") for order in orders]
    columns = columns_of(orders)
    for rule in constraint_rules(all_of_them, field_types(AvroSchema.parse(ORDER))):
        assert rule.holds(columns).tolist() == [rule.name not in troubles(order) for order in orders], rule.name


def test_a_null_breaks_presence_and_nothing_else(tmp_path: Path) -> None:
    said = "fields:\n  price: {range: [0, 1]}\n  country: {regex: D.}\nrelations:\n  - {name: r, holds: price > quantity}\n"
    assert broken(loaded(tmp_path, said), [an_order(price=None, country=None)]) == [""]
    assert broken(loaded(tmp_path, said + "  - {name: s, holds: quantity == 2 and price == 1}\n"), [an_order(price=None)]) == ["s"]


def test_ends_of_times_are_in_the_unit_that_the_rules_see(tmp_path: Path) -> None:
    said = "fields:\n  at: {range: [1970-01-01, '1970-01-01T00:00:02Z']}\n  paid_at: {range: ['1970-01-01T00:00:00.5Z', null]}\n"
    constraints = loaded(tmp_path, said)
    assert broken(constraints, [an_order(at=2_000), an_order(at=2_001), an_order(at=-1)]) == ["", "at_range", "at_range"]
    assert broken(constraints, [an_order(paid_at=500_000), an_order(paid_at=499_999)]) == ["", "paid_at_range"]
    types = field_types(AvroSchema.parse(ORDER))
    in_ms = constraint_rules(constraints, types, ("paid_at",))[-1]
    assert in_ms.holds({"paid_at": np.array([499, 500])}).tolist() == [False, True]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("fields: {quantitty: {range: [0, 1]}}", "no field 'quantitty'; did you mean 'quantity'?"),
        ("fields: {address: {presence: required}}", "'address' is a record; wanted one of its fields, such as 'address.zip'"),
        ("fields: {quantity: {rnge: [0, 1]}}", "fields.quantity has 'rnge'; did you mean 'range'?"),
        ("fields: {quantity: {range: [3, 1]}}", "quantity contradicts itself: nothing is from 3 to 1"),
        ("fields: {quantity: {range: 3}}", "has range 3, wanted two ends"),
        ("fields: {quantity: {range: [.nan, 1]}}", "wanted null for an open end"),
        ("fields: {quantity: {domain: [1, 7], range: [0, 5]}}", "quantity contradicts itself: 7 is in its domain and outside of its range"),
        ("fields: {status: {domain: [paid], regex: '[A-Z]+'}}", "'paid' is in its domain and does not match '[A-Z]+'"),
        ("fields: {status: {regex: '(a)\\1'}}", "has a back-reference"),
        ("fields: {country: {domain: [NO, DE]}}", "country is string: its domain has false, which is no text; write it in quotes"),
        ("fields: {kind: {domain: [shop]}}", "'shop', which is no symbol of its; there are web, till"),
        ("fields: {status: {range: [0, 1]}}", "status is string: a range is for numbers and times"),
        ("fields: {quantity: {regex: x}}", "quantity is long: a regex is for text"),
        ("fields: {quantity: {valency: [0, 1]}}", "valency counts the items of an array"),
        ("fields: {tags: {valency: [2, 1]}}", "tags contradicts itself"),
        ("event_time: at\nfields: {tags: {unique: 1h}}", "unique needs a value that tells one thing from another"),
        ("fields: {id: {unique: 1h}}", "unique id needs event_time"),
        ("fields: {id: {unique: 1 hour}}", "wanted a number with d, h, m, s or ms"),
        ("event_time: quantity", "event_time 'quantity' is long, wanted timestamp-millis"),
        ("fields: {id: {environments: [TRAINING]}}", "id is not there, and the schema demands it"),
        ("fields: {returned: {environments: [TRANING]}}", "names environment 'TRANING'; did you mean 'TRAINING'?"),
        ("fields: {id: {presence: 2}}", "has presence 2, wanted 'required', or a share from 0 to 1"),
        ("fields: {country: {default: 7}}", "the default of country is 7, which is no union"),
        ("fields: {id: {presence: 1, presence: 0.5}}", "'presence' stands twice"),
        ("relations: [{name: r, holds: quantity < status}]", "relation r compares number < text"),
        ("relations: [{name: r, holds: quantity < stock}]", "relation r: the schema has no field 'stock'"),
        ("relations: [{name: r, holds: at < paid_at}]", "compares milliseconds with microseconds"),
        ("relations: [{name: r, holds: quantity}]", "'quantity' is no comparison"),
        ("relations: [{name: r, holds: __import__('os').getpid() == 1}]", "wanted fields, numbers, texts"),
        ("relations: [{name: r, holds: quantity < price}, {name: s, holds: price <= quantity}]", "relations r and s contradict each other"),
        (
            "fields: {quantity: {range: [5, 9]}, price: {range: [0, 4]}}\nrelations: [{name: r, holds: quantity < price}]",
            "relation r contradicts the ranges of its fields",
        ),
        (
            "fields: {returned: {environments: [TRAINING]}}\nrelations: [{name: r, holds: returned == 1}]",
            "relation r names 'returned', which only TRAINING has",
        ),
        ("thresholds: {drift: {psy: 1}}", "thresholds.drift has 'psy'; did you mean 'psi'?"),
        (
            "environments: {TRAINING: {fields: {quantity: {range: [9, 1]}}}, SERVING: {}}",
            "environment TRAINING: quantity contradicts itself",
        ),
        ("[", "are no YAML"),
        ("owner: ''", "'owner' stands twice"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, said: str, words: str) -> None:
    with pytest.raises(SchemaError) as found:
        loaded(tmp_path, said)
    assert words in str(found.value)
    assert "\n" not in str(found.value)


def test_one_file_has_several_environments(tmp_path: Path) -> None:
    said = (
        "environments: {SERVING: {}, TRAINING: {fields: {quantity: {range: [0, 9]}}}, SHADOW: {}}\n"
        "fields:\n  quantity: {range: [0, 5], domain: [1, 7]}\n".replace(", domain: [1, 7]", "")
        + "  returned: {environments: [TRAINING], presence: required}\n"
    )
    serving, training = (loaded(tmp_path, said, environment) for environment in ("SERVING", "TRAINING"))
    orders = [an_order(quantity=7), an_order(returned=True), an_order()]
    assert broken(serving, orders) == ["quantity_range", "returned_absent", ""]
    assert broken(training, orders) == ["returned_presence", "", "returned_presence"]
    assert serving.fingerprint != training.fingerprint
    with pytest.raises(SchemaError, match="no environment 'SHADE'; did you mean 'SHADOW'"):
        loaded(tmp_path, said, "SHADE")


def test_constraints_are_found_beside_the_schema(tmp_path: Path) -> None:
    schema = tmp_path / "1-orders-value.avsc"
    assert find_constraints(schema, "orders") is None
    (tmp_path / "orders.constraints.yaml").touch()
    assert find_constraints(schema) == tmp_path / "orders.constraints.yaml"
    (tmp_path / "shop.constraints.yaml").touch()
    with pytest.raises(SchemaError, match="both constraints"):
        find_constraints(schema, "shop")


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 40), st.booleans()), max_size=60),
    st.integers(1, 15),
    st.integers(1, 5),
)
def test_a_repetition_is_one_within_the_window_of_its_last_time(rows: list[tuple[int, int, bool]], window: int, cuts: int) -> None:
    values, times, which = (np.array([row[place] for row in rows], np.int64) for place in range(3))
    newest: dict[int, int] = {}
    wanted = []
    for value, at, looked in rows:
        wanted.append(looked and value in newest and abs(at - newest[value]) < window)
        if looked:
            newest[value] = max(newest.get(value, at), at)
    seen, found = Seen(window, most=16), []
    for part in np.array_split(np.arange(len(rows)), cuts):
        found += seen.look(hashes(values[part]), times[part], which[part].astype(np.bool_)).tolist()
    assert found == wanted


def test_unique_remembers_what_its_window_needs_and_no_more_than_it_may() -> None:
    seen = Seen(window_ms=1_000, most=64)
    for turn in range(50):
        values = np.arange(turn * 20, turn * 20 + 20)
        times = np.full(20, turn * 1_000, np.int64)
        assert not seen.look(hashes(values), times, np.ones(20, np.bool_)).any()
        assert seen.look(hashes(values), times + 999, np.ones(20, np.bool_)).all(), "they came in this window"
        assert seen.room <= 128
    many = np.arange(10_000)
    seen.look(hashes(many), np.full(10_000, 10**6), np.ones(10_000, np.bool_))
    assert seen.room == 64, "what does not fit is forgotten, the oldest first"
    assert seen.look(hashes(many[-5:]), np.full(5, 10**6), np.ones(5, np.bool_)).all()


def test_what_is_watched_is_counted_and_told(tmp_path: Path) -> None:
    said = (
        "event_time: at\nfreshness: {within: 10s, ahead: 1s}\nfields:\n  country: {presence: 0.75, domain: {values: [DE], share: 0.9}}\n"
        "  id: {unique: 1h}\n"
    )
    watch = Watch(loaded(tmp_path, said), field_types(AvroSchema.parse(ORDER)))
    about = {"country_presence_share": "country", "country_domain_share": "country", "id_unique": "id", "freshness": "at"}
    assert watch.fields == about
    orders = [an_order(id=f"O{n % 3}", at=n * 1_000, country=None if n < 2 else "DE" if n < 3 else "FR") for n in range(4)]
    columns = columns_of(orders)
    found = watch.look(columns, np.array([True, True, True, True]), np.array([0, -1, 12_001, 4_000]))
    assert {name: (each.looked, each.broken.tolist()) for name, each in found.items()} == {
        "country_presence_share": (4, [True, True, False, False]),
        "country_domain_share": (2, [False, False, False, True]),
        "id_unique": (4, [False, False, False, True]),
        "freshness": (4, [False, True, True, False]),
    }
    told = watch.broken()
    assert told["country_presence_share"] == "50.000% have a value, wanted 75.000%"
    assert told["country_domain_share"] == "50.000% of the values are in the domain, wanted 90.000%"
    assert set(told) == set(about)


def test_odd_schemas_are_one_line_or_taken(tmp_path: Path) -> None:
    def types(*fields: dict[str, Any]) -> dict[str, Any]:
        return dict(field_types(AvroSchema.parse({"type": "record", "name": "R", "fields": list(fields)})))

    inner: dict[str, Any] = {"type": "record", "name": "A", "fields": [{"name": "b", "type": "long"}]}
    for fields in ([{"name": "a", "type": "long"}] * 2, [{"name": "a", "type": inner}, {"name": "a.b", "type": "long"}]):
        with pytest.raises(SchemaError, match="two fields are called"):
            types(*fields)
    assert len(types(*({"name": f"f{number}", "type": "double"} for number in range(10_000)))) == 10_000
    found = types({"name": "v", "type": "long"}, {"name": "next", "type": ["null", "R"], "default": None})
    assert found["next"].kind == "opaque"
    said = "fields:\n  next: {range: [0, 1]}\n"
    (tmp_path / "r.yaml").write_text(HEAD + said)
    recursive: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"], "default": None}]}
    with pytest.raises(SchemaError, match="next is opaque: a range is for numbers"):
        load_constraints(tmp_path / "r.yaml", AvroSchema.parse(recursive))
    both: list[dict[str, Any]] = [{"name": "a", "type": inner}, {"name": "a_b", "type": "long"}]
    (tmp_path / "r.yaml").write_text(HEAD + "fields: {a.b: {range: [0, 1]}, a_b: {range: [0, 1]}}\n")
    schema = AvroSchema.parse({"type": "record", "name": "R", "fields": both})
    with pytest.raises(DefinitionError, match="two constraints are called 'a_b_range'"):
        constraint_rules(load_constraints(tmp_path / "r.yaml", schema), field_types(schema))
