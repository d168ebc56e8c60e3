"""Constraints on a live batch: ``python -m benchmarks.constraints``.

Microseconds of CPU a field and record, in batches of 5,000 decoded records, for each kind of constraint as a worker holds it, beside the
same question asked of

- *numpy*: the values as plain arrays, texts as fixed-width bytes, the pattern by `re` over each value;
- *pandas*: a frame of the same values, by its vectorised methods.

Reading the batch is no part of it: the worker's columns are what the decoder gives, the others' are made beforehand in the form they like
best. All take turns within each round; medians over the rounds. The answers are asserted: all find the same rows.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.result import circumstances, command_line, keep
from schemas.avro import AvroSchema, write_value
from schemas.codec import Decoder
from schemas.columns import Mask, PackedBytes
from schemas.constraints import Constraints, FieldConstraints, Relation
from schemas.constraints_check import field_types, hold_against
from schemas.constraints_rules import constraint_rules
from schemas.constraints_watch import Watch
from schemas.json_record import as_it_travels

BOUNDS = Path(__file__).with_name("bounds.json")
ROWS = 5_000
PATTERN = "[A-Z]{2}[0-9]{6}-(web|till|phone)"
COUNTRIES = [f"{first}{second}" for first in "ABCDEFGH" for second in "KLMNO"]
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid_at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
        {"name": "country", "type": "string"},
        {"name": "quantity", "type": "long"},
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
CONSTRAINTS = Constraints(
    "benchmark", 1, "us", "one of each kind", "SERVING", ("SERVING",), event_time="ordered_at",
    fields={each.name: each for each in (
        FieldConstraints("id", regex=PATTERN, unique_ms=3_600_000),
        FieldConstraints("country", domain=tuple(COUNTRIES)),
        FieldConstraints("quantity", low=0, high=100),
        FieldConstraints("price", presence=1.0, low=0),
        FieldConstraints("tags", least_items=0, most_items=5),
    )},
    relations=(Relation("paid_after_order", "ordered_at <= paid_at"),),
)  # fmt: skip


def orders(count: int) -> list[dict[str, Any]]:
    """Seeded orders, one in a hundred wrong in each of its ways."""
    random = np.random.default_rng(11)
    wrong = random.random((count, 8)) < 0.01
    made = []
    for row in range(count):
        at = 1_700_000_000_000 + row * 50
        number = row - 1 if wrong[row, 6] else row
        made.append(
            {
                "id": f"AB{number:06d}-{'shop' if wrong[row, 0] else ('web', 'till', 'phone')[number % 3]}",
                "ordered_at": at,
                "paid_at": None if row % 5 == 0 else at + (-1 if wrong[row, 1] else 5_000),
                "country": "XX" if wrong[row, 2] else COUNTRIES[int(random.integers(len(COUNTRIES)))],
                "quantity": -1 if wrong[row, 3] else int(random.integers(0, 100)),
                "price": None if wrong[row, 4] else (-1 if wrong[row, 7] else 1) * float(random.integers(1, 10_000)) / 100,
                "tags": ["t"] * (6 if wrong[row, 5] else row % 4),
            }
        )
    return made


def measure(rounds: int) -> dict[str, Any]:
    """Make the batch, check that all find the same rows, and time them."""
    schema = AvroSchema.parse(SCHEMA)
    hold_against(CONSTRAINTS, schema)
    made = orders(ROWS)
    plain = as_it_travels(schema)
    columns = dict(Decoder(schema, "bare").decode(PackedBytes.pack([write_value(each, plain) for each in made])).columns)
    types = field_types(schema)
    rules = {rule.name: rule for rule in constraint_rules(CONSTRAINTS, types)}
    usable = np.ones(ROWS, np.bool_)

    def unique() -> Mask:
        return Watch(CONSTRAINTS, types).look(columns, usable)["id_unique"].broken

    # By kind: how many fields it looks at, and the worker's, numpy's and pandas' way to the rows that break it.
    ours: dict[str, tuple[int, Callable[[], Mask]]] = {
        name: (max(len(rule.columns), 1), lambda rule=rule: ~rule.holds(columns))  # type: ignore[misc]
        for name, rule in rules.items()
    }
    ours["id_unique"] = (1, unique)
    others = {"numpy": _numpy(made), "pandas": _pandas(made)}
    for name, (_, call) in ours.items():
        found = call()
        if not found.any():
            raise AssertionError(f"{name} finds nothing")
        for library, calls in others.items():
            if not np.array_equal(found, np.asarray(calls[name](), np.bool_)):
                raise AssertionError(f"{name}: {library} finds other rows")
    figures: dict[str, dict[str, float]] = {}
    for name, (fields, call) in ours.items():
        figures[name] = _compare({"millrace": call, **{library: calls[name] for library, calls in others.items()}}, fields, rounds)
    return {"us_per_field": figures}


def _numpy(made: list[dict[str, Any]]) -> dict[str, Callable[[], NDArray[Any]]]:
    quantity = np.array([each["quantity"] for each in made])
    there = np.array([each["price"] is not None for each in made])
    price = np.array([each["price"] or 0.0 for each in made])
    paid = np.array([each["paid_at"] or 0 for each in made])
    has_paid = np.array([each["paid_at"] is not None for each in made])
    ordered = np.array([each["ordered_at"] for each in made])
    country = np.array([each["country"].encode() for each in made])
    known = np.array([each.encode() for each in COUNTRIES])
    ids = [each["id"] for each in made]
    packed = np.array([each.encode() for each in ids])
    tags = np.array([len(each["tags"]) for each in made])
    pattern = re.compile(PATTERN, re.ASCII)

    def unique() -> NDArray[Any]:
        again = np.ones(len(packed), np.bool_)
        again[np.unique(packed, return_index=True)[1]] = False
        return again

    return {
        "id_regex": lambda: np.fromiter((pattern.fullmatch(each) is None for each in ids), np.bool_, len(ids)),
        "country_domain": lambda: ~np.isin(country, known),
        "quantity_range": lambda: ~((quantity >= 0) & (quantity <= 100)),
        "price_presence": lambda: ~there,
        "price_range": lambda: ~((price >= 0) | ~there),
        "tags_valency": lambda: ~((tags >= 0) & (tags <= 5)),
        "paid_after_order": lambda: ~((ordered <= paid) | ~has_paid),
        "id_unique": unique,
    }


def _pandas(made: list[dict[str, Any]]) -> dict[str, Callable[[], Any]]:
    frame = pd.DataFrame(made)
    frame["price"] = frame["price"].astype("Float64")
    frame["paid_at"] = frame["paid_at"].astype("Int64")
    frame["items"] = frame["tags"].map(len)
    return {
        "id_regex": lambda: ~frame["id"].str.fullmatch(PATTERN),
        "country_domain": lambda: ~frame["country"].isin(COUNTRIES),
        "quantity_range": lambda: ~frame["quantity"].between(0, 100),
        "price_presence": lambda: frame["price"].isna(),
        "price_range": lambda: (frame["price"] < 0).fillna(False),
        "tags_valency": lambda: ~frame["items"].between(0, 5),
        "paid_after_order": lambda: (frame["ordered_at"] > frame["paid_at"]).fillna(False),
        "id_unique": lambda: frame["id"].duplicated(),
    }


def _compare(calls: dict[str, Callable[[], object]], fields: int, rounds: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first one warms up
        for name, call in calls.items():
            repeats = 20 if name == "millrace" else 3
            begun = time.thread_time_ns()
            for _ in range(repeats):
                call()
            took[name].append((time.thread_time_ns() - begun) / (ROWS * fields * repeats) / 1e3)
    return {name: round(float(np.median(times[1:])), 4) for name, times in took.items()}


def _missed(result: dict[str, Any]) -> list[str]:
    most = json.loads(BOUNDS.read_text())["constraints"]["us_per_field"]
    return [
        f"{name} takes {found['millrace']} us, at most {most} is wanted"
        for name, found in result["us_per_field"].items()
        if found["millrace"] > most
    ]


def main() -> None:
    """Measure, show, keep the result, and hold it against the floors."""
    parser = argparse.ArgumentParser(description="Microseconds a field of each kind of constraint.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    wanted = parser.parse_args()
    result = circumstances(command_line()) | measure(wanted.rounds)
    print(f"us of CPU a field and record, batches of {ROWS:,}, medians of {wanted.rounds} rounds")
    print(f"{'constraint':20}{'millrace':>10}{'numpy':>10}{'pandas':>10}")
    for name, found in result["us_per_field"].items():
        print(f"{name:20}{found['millrace']:>10}{found['numpy']:>10}{found['pandas']:>10}")
    if wanted.keep:
        keep("constraints", result)
    if missed := _missed(result):
        raise SystemExit("; ".join(missed))


if __name__ == "__main__":
    main()
