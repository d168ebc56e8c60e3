"""A scene about orders, with constraints beside their schema; and dirty orders, of which the test knows what is wrong with each."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro

from schemas.avro import AvroSchema
from schemas.json_record import as_it_travels, record_of_json
from tests.live.scene import Scene

START_MS = 1_704_067_200_000
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid_at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
        {"name": "customer", "type": "string"},
        {"name": "status", "type": "string"},
        {"name": "country", "type": ["null", "string"], "default": None},
        {"name": "quantity", "type": "long"},
        {"name": "price", "type": "double"},
        {"name": "returned", "type": ["null", "boolean"], "default": None},
    ],
}
CONSTRAINTS = """\
format: 1
version: 1
owner: orders@shop.example
description: What an order has to be.
event_time: ordered_at
freshness: {ahead: 5m}
fields:
  order_id: {regex: "O[0-9]{1,9}", unique: 1h}
  status: {domain: [paid, open, cancelled]}
  country: {presence: 0.99, domain: ["NO", DE, FR]}
  quantity: {range: [0, 100]}
  price: {range: [0, null]}
  returned: {environments: [TRAINING], presence: required}
relations:
  - {name: paid_after_order, holds: ordered_at <= paid_at}
  - {name: cancelled_is_empty, holds: status != "cancelled" or quantity == 0}
"""
PIPELINE = """\
from millrace import Count, Entity, Model, Pipeline, Topic, Window, hours

customer = Entity("customer", key="customer", windows=(Window(hours(1)),), aggregates=(Count(),))
pipeline = Pipeline(
    "NAME",
    input=Topic("NAME", schema="schemas/1-NAME-value.avsc", key="customer", event_time="ordered_at", event_id="order_id"),
    entities=(customer,),
    model=Model("orders", path="models/orders.onnx", inputs=("quantity", "price", *customer.feature_names)),
    output=Topic("NAME.scored"),
)
"""


class OrderScene(Scene):
    """Orders in place of the example's payments."""

    def write_pipeline(self, changes: Mapping[str, str]) -> None:
        (self.folder / "schemas" / f"1-{self.name}-value.avsc").write_text(json.dumps(SCHEMA))
        self.schemas[1] = fastavro.parse_schema(SCHEMA)
        self.constraints.write_text(CONSTRAINTS)
        self.file.write_text(PIPELINE.replace("NAME", self.name))
        self.reload()

    @property
    def constraints(self) -> Path:
        return self.folder / "schemas" / f"{self.name}.constraints.yaml"

    def record(self, order: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Key and value as a producer sends them."""
        schema = AvroSchema.parse(SCHEMA)
        return str(order["customer"]).encode(), self.encode(record_of_json(schema)(dict(order)))

    def encode(self, payment: Mapping[str, Any], schema_id: int = 1) -> bytes:
        import io
        import struct

        out = io.BytesIO()
        fastavro.schemaless_writer(out, as_it_travels(AvroSchema.parse(SCHEMA)), dict(payment))
        return b"\0" + struct.pack(">i", schema_id) + out.getvalue()


def an_order(number: int, **changes: Any) -> dict[str, Any]:
    """A good one."""
    at = START_MS + number * 1_000
    return {
        "order_id": f"O{number}",
        "ordered_at": at,
        "paid_at": at + 5_000,
        "customer": f"c{number % 50}",
        "status": "paid",
        "country": ("NO", "DE", "FR")[number % 3],
        "quantity": number % 9 + 1,
        "price": (number % 900 + 100) / 100,
        **changes,
    }


@dataclass(frozen=True)
class Dirty:
    """An order, and the reason it would be refused under; empty if it is good."""

    order: dict[str, Any]
    reason: str
    corrupt: str = ""  # how its bytes are broken


def dirty_orders(count: int, seed: int) -> list[Dirty]:
    """Orders of a shop in a bad week: about one in twelve is wrong in one way."""
    source = random.Random(seed)
    found = []
    for number in range(count):
        good = an_order(number)
        wrong = [
            Dirty({**good, "order_id": ""}, "order_id_given"),
            Dirty({**good, "order_id": f"order {number}"}, "order_id_regex"),
            Dirty({**good, "quantity": -good["quantity"]}, "quantity_range"),
            Dirty({**good, "status": "cancelled"}, "cancelled_is_empty"),
            Dirty({**good, "status": "Paid"}, "status_domain"),
            Dirty({**good, "paid_at": good["ordered_at"] - 1}, "paid_after_order"),
            Dirty({**good, "returned": True}, "returned_absent"),
            Dirty(good, "truncated", "truncated"),
            Dirty(good, "bad_utf8", "bad_utf8"),
            Dirty(good, "key_mismatch", "other_key"),
        ]
        kind = source.randrange(100)
        found.append(wrong[kind] if kind < len(wrong) else Dirty({**good, **({"country": None} if kind > 97 else {})}, ""))
    return found
