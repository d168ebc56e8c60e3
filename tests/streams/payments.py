"""Payments for tests of the worker's steps: the example's pipeline, bound, and batches of its events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from schemas.avro import AvroSchema, load_schema
from schemas.codec import Encoder
from schemas.columns import Column, Constant, PackedBytes
from streams.batch import Batch
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from tests.streams.batches import batch_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "card_fraud"
SCHEMA_FILE = EXAMPLE / "schemas" / "1-payments-value.avsc"
SOME_DAY_MS = 1_700_000_000_000


class Schemas:
    """A registry that knows what it is told."""

    def __init__(self, *ids: int) -> None:
        self.known = {schema_id: load_schema(SCHEMA_FILE) for schema_id in ids}
        self.asked = 0

    def schema(self, schema_id: int) -> AvroSchema | None:
        self.asked += 1
        return self.known.get(schema_id)

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        return None

    def register(self, subject: str, schema: AvroSchema) -> int:
        raise AssertionError("a worker never registers a schema")


@cache
def card_fraud() -> Bound:
    """The example's pipeline."""
    return load_bound(EXAMPLE / "pipeline.py")


def payment_values(amounts: Sequence[float], *, schema_id: int = 1, customer: str = "C1", first: int = 0) -> list[bytes]:
    """Encoded payments of one customer at one terminal, a minute apart."""
    n = len(amounts)
    columns: dict[str, Column] = {
        "payment_id": PackedBytes.pack([b"P%d" % (first + row) for row in range(n)]),
        "event_time": np.arange(first, first + n, dtype=np.int64) * 60_000 + SOME_DAY_MS,
        "customer_id": Constant(customer.encode(), n),
        "terminal_id": Constant(b"T1", n),
        "amount": np.array(amounts, np.float64),
        "currency": Constant(b"EUR", n),
    }
    return list(Encoder(load_schema(SCHEMA_FILE), "confluent", schema_id).encode(columns))


def payments_batch(amounts: Sequence[float], *, schema_id: int = 1, first_offset: int = 0, token: int = 1, replay: bool = False) -> Batch:
    """Payments of customer C1, keyed so, at consecutive offsets of partition 3."""
    values = payment_values(amounts, schema_id=schema_id, first=first_offset)
    return batch_of(values, [b"C1"] * len(values), first_offset=first_offset, token=token, replay=replay)
