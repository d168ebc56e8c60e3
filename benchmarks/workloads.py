"""Seeded inputs that benchmarks share: made in memory, the same on every machine."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from schemas.avro import AvroSchema, load_schema, write_value
from schemas.columns import Column, Constant, PackedBytes, Ragged, Symbols
from streams.scored_event import DECISIONS, TIMINGS, scored_event_schema

PAYMENTS = Path(__file__).parents[1] / "examples" / "card_fraud" / "schemas" / "1-payments-value.avsc"
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def payments(rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Card payments of 5,000 customers at 1,000 terminals, ten a second, as plain values (times in milliseconds)."""
    random = np.random.default_rng(seed)
    customers, terminals = random.integers(5_000, size=rows).tolist(), random.integers(1_000, size=rows).tolist()
    cents = random.gamma(2.0, 3_000.0, rows).astype(np.int64).tolist()
    return [
        {
            "payment_id": f"{seed:04x}-{row:012d}",
            "event_time": START_MS + row * 100,
            "customer_id": f"customer-{customers[row]}",
            "terminal_id": f"terminal-{terminals[row]}",
            "amount": cents[row] / 100,
            "currency": "EUR",
        }
        for row in range(rows)
    ]


def payment_schemas() -> Mapping[int, AvroSchema]:
    """The payments' schema under id 1, and two that other producers might write: fields in another order, and one more."""
    schema = load_schema(PAYMENTS)
    definition: Any = schema.definition
    extra = {"name": "channel", "type": ["null", "string"], "default": None}
    other = [{**definition, "fields": definition["fields"][::-1]}, {**definition, "fields": [*definition["fields"], extra]}]
    return {1: schema, **{place: AvroSchema.parse(each) for place, each in enumerate(other, 2)}}


def framed(records: list[dict[str, Any]], ids: list[int], schemas: Mapping[int, AvroSchema]) -> PackedBytes:
    """Records in the wire format, each under its id."""
    pairs = zip(records, ids, strict=True)
    return PackedBytes.pack([struct.pack(">bI", 0, schema_id) + write_value(each, schemas[schema_id].parsed) for each, schema_id in pairs])


def scored_events(rows: int, features: int = 20, seed: int = 0) -> tuple[AvroSchema, dict[str, Column]]:
    """The columns of scored payments with one score each, and their schema."""
    random = np.random.default_rng(seed)
    names = [f"customer_amount_mean_{place}d" for place in range(features)]
    places = np.arange(rows, dtype=np.int64)

    def same(value: str | float) -> Constant:
        return Constant(value.encode() if isinstance(value, str) else value, rows)

    score: dict[str, Column] = {"model": same("card_fraud"), "version": same("12"), "role": same("champion")}
    score["score"] = random.random(rows).astype(np.float32)
    columns: dict[str, Column] = {
        "event_id": PackedBytes.pack([f"{seed:04x}-{row:012d}".encode() for row in range(rows)]),
        "event_time": START_MS + places * 100,
        "decision": Symbols(random.integers(2, size=rows).astype(np.int32), DECISIONS),
        "threshold": same(0.5),
        "scores": Ragged(score, places, places + 1),
        "timing": Symbols(np.zeros(rows, np.int32), TIMINGS),
        "pipeline": same("card_fraud"),
        "feature_fingerprint": same("0123456789abcdef"),
        "schema_id": np.ones(rows, np.int32),
        "source_topic": same("payments"),
        "source_partition": np.zeros(rows, np.int32),
        "source_offset": places + 1_000_000,
    }
    columns |= {f"features.{name}": random.gamma(2.0, 30.0, rows) for name in names}
    return AvroSchema.parse(scored_event_schema("card_fraud", names)), columns
