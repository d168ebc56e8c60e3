"""A small pipeline of payments for tests: as text, for what is loaded from files, and as objects, for what is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.definition.bound import Bound
from streams.definition.load import load_bound

FIELDS: dict[str, Any] = {
    "payment_id": "string",
    "event_time": {"type": "long", "logicalType": "timestamp-millis"},
    "customer_id": "string",
    "terminal_id": "string",
    "amount": "double",
    "currency": "string",
}

PIPELINE = """
from millrace import *

def night(columns):
    return columns["event_time"] % days(1) // hours(1) <= 6

amount = FixedPoint("amount", scale=100, largest=50_000)
customer = Entity("customer", key="customer_id", windows=(Window(days(1)),), aggregates=(Count(), Mean(amount)), lateness_ms=hours(1))

pipeline = Pipeline(
    "payments",
    input=Topic("payments", schema="payments.avsc", key="customer_id", event_time="event_time", event_id="payment_id"),
    rules=(in_range("amount", 0, 50_000),),
    derived=(Derived("night", night),),
    entities=(customer,),
    model=Model("payments", path="payments.onnx", inputs=("amount", "night", *customer.feature_names)),
    output=Topic("payments.scored"),
)
"""


def write_pipeline(folder: Path, changes: Mapping[str, str] | None = None, fields: Mapping[str, Any] | None = None) -> Path:
    """Write the pipeline file and its schema into a folder; `changes` replaces parts of its text, `fields` types of its schema."""
    text = PIPELINE
    for old, new in (changes or {}).items():
        assert text.count(old) >= 1, f"{old!r} is not in the pipeline"
        text = text.replace(old, new)
    types = {**FIELDS, **(fields or {})}
    schema = {
        "type": "record",
        "name": "Payment",
        "fields": [{"name": name, "type": kind} for name, kind in types.items() if kind is not None],
    }
    (folder / "payments.avsc").write_text(json.dumps(schema))
    file = folder / "pipeline.py"
    file.write_text(text)
    return file


def bound_pipeline(folder: Path, changes: Mapping[str, str] | None = None, fields: Mapping[str, Any] | None = None) -> Bound:
    """The same, loaded and held against its schema."""
    return load_bound(write_pipeline(folder, changes, fields))
