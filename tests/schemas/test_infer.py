"""Draft schemas: what the data is mostly, what may be missing, and what does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.infer import MOST_FIELDS, MOST_VALUES, Profile
from schemas.json_record import record_of_json


def profile_of(*records: dict[str, Any]) -> Profile:
    profile = Profile()
    for record in records:
        profile.add(record)
    return profile


def types(*records: dict[str, Any]) -> dict[str, Any]:
    definition: Any = profile_of(*records).schema("shop.Order").definition
    return {each["name"]: each["type"] for each in definition["fields"]}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
)
RECORDS = st.dictionaries(
    st.sampled_from("abc"),
    st.one_of(VALUES, st.lists(VALUES, max_size=3), st.dictionaries(st.sampled_from("xy"), VALUES, max_size=2)),
    max_size=3,
)


@given(st.lists(RECORDS, min_size=1, max_size=6))
def test_the_draft_takes_all_records_unless_it_says_what_is_odd(records: list[dict[str, Any]]) -> None:
    profile = profile_of(*records)
    odd = any(seen.odd or (seen.items is not None and seen.items.odd) for _, seen, _ in profile._leaves(profile.root, "", 0))
    schema = profile.schema("R")
    if not odd:
        for record in records:
            record_of_json(schema)(json.loads(json.dumps(record)))


def test_each_field_gets_the_type_that_most_of_it_has() -> None:
    first = {"id": "a", "at": "2026-01-01T10:00:00Z", "n": 1, "price": 1, "paid": True, "tags": ["x"], "who": {"name": "A", "age": 3}}
    second = {"id": "b", "at": "2026-01-01T10:00:01Z", "n": 2, "price": 1.5, "paid": False, "tags": [], "who": {"name": "B"}}
    found = types(first | {"note": None}, second)
    assert found == {
        "id": "string",
        "at": {"type": "long", "logicalType": "timestamp-millis"},
        "n": "long",
        "price": "double",
        "paid": "boolean",
        "tags": {"type": "array", "items": "string"},
        "who": {
            "type": "record",
            "name": "shop.Order_who",
            "fields": [{"name": "name", "type": "string"}, {"name": "age", "type": ["null", "long"], "default": None}],
        },
        "note": ["null", "string"],
    }


def test_what_does_not_fit_is_told_with_its_first_record() -> None:
    records: list[dict[str, Any]] = [{"quantity": n} for n in range(99)]
    told: Any = profile_of(*records, {"quantity": "many"}, {}).fields()
    assert told[0]["kind"] == "long"
    assert told[0]["odd"] == [{"kind": "string", "values": 1, "first_row": 100}]
    assert (told[0]["missing"], told[0]["low"], told[0]["high"]) == (1, 0, 98)


def test_rules_are_suggested_for_what_all_of_the_data_meets() -> None:
    records: list[dict[str, Any]] = [{"currency": "EUR" if n % 2 else "USD", "amount": n / 2, "id": f"i{n}", "odd": n} for n in range(200)]
    assert profile_of(*records[:-1], records[-1] | {"odd": "x"}).rules() == [
        'one_of("currency", ("EUR", "USD"))',
        'in_range("amount", 0.0, 99.5)',
    ]


def test_memory_does_not_grow_with_the_records() -> None:
    profile = Profile()
    for n in range(10 * MOST_VALUES):
        profile.add({"id": f"i{n}"})
    assert profile.root.fields["id"].values is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"unit price": 1}, "field 'unit price': Avro's names are letters"),
        ({f"f{n}": 1 for n in range(MOST_FIELDS + 1)}, f"more than {MOST_FIELDS} different fields"),
        (json.loads('{"a":' * 30 + "1" + "}" * 30), "nested more than 20 deep"),
    ],
)
def test_what_no_schema_should_hold_is_refused_in_words(record: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        profile_of(record).schema("R")
