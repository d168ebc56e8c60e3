"""Makes the golden log: simulated payments, and what should come out of them as the slow computation says.

Run as ``python -m tests.golden.make``. Both files are committed. They change only when the meaning of a feature is changed on purpose.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from examples.card_fraud.simulate import Simulator
from tests.oracles.payments import Payments, Record
from tests.streams.payments import SCHEMA_FILE

FOLDER = Path(__file__).parent
EVENTS, EXPECTED = FOLDER / "events.json", FOLDER / "expected.txt"
COUNT = 240
HOUR_MS = 3_600_000


def simulated() -> list[dict[str, Any]]:
    """Payments of six customers over some weeks, in the order a producer sent them: some late, too late, tied, or not to be used."""
    random = np.random.default_rng(3)
    made = Simulator(seed=3, customers=6, terminals=9).days(0, 60)
    event_ms = made.event_ms[:COUNT].copy()
    for row in random.choice(np.arange(1, COUNT), 12, replace=False).tolist():
        event_ms[row] = event_ms[row - 1]  # ties
    sent_ms = event_ms.copy()
    for turn, row in enumerate(random.choice(np.arange(60, COUNT), 15, replace=False).tolist()):
        newest = event_ms[:row][made.customer[:row] == made.customer[row]].max()
        # Late: two of them by just what is admitted, two by a millisecond more.
        event_ms[row] = newest - (HOUR_MS + turn % 2 if turn < 4 else random.integers(1, HOUR_MS))
    sent_ms += np.where(random.random(COUNT) < 0.05, random.integers(HOUR_MS, 72 * HOUR_MS, COUNT), 0)
    ids, people, shops = list(made.payment_id), list(made.customer_id), list(made.terminal_id)
    events = [
        {
            "payment_id": ids[row].decode(),
            "event_time": int(event_ms[row]),
            "customer_id": people[row].decode(),
            "terminal_id": shops[row].decode(),
            "amount": int(made.amount_cents[row]) / 100,
            "currency": "EUR",
        }
        for row in np.argsort(sent_ms, kind="stable").tolist()
    ]
    for row in range(7, COUNT, 40):
        events[row]["currency"] = "USD"
    for row in range(17, COUNT, 60):
        events[row]["amount"] = -1.0
    return events


def encoded(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """The events as Confluent's wire format has them."""
    schema = fastavro.schema.load_schema(str(SCHEMA_FILE))
    values = []
    for event in events:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, event)
        values.append(b"\0\0\0\0\1" + out.getvalue())
    return values


def line(offset: int, timing: str, score: float, features: Iterable[tuple[str, float]]) -> str:
    """A scored event as text; floats as Python writes them, which is to the bit."""
    return " ".join([str(offset), timing, f"score={score!r}", *(f"{name}={value!r}" for name, value in features)])


def expected(events: list[dict[str, Any]]) -> list[str]:
    """What should come out, a line an event."""
    judge = Payments({1: fastavro.schema.load_schema(str(SCHEMA_FILE))}, None, "card_fraud", "1", [])
    values = encoded(events)
    records = [Record(0, n, event["customer_id"].encode(), value) for n, (event, value) in enumerate(zip(events, values, strict=True))]
    return [
        f"{record.offset} refused"
        if event is None
        else line(record.offset, event["timing"], event["scores"][0]["score"], event["features"].items())
        for record, event in judge.expected(records)
    ]


if __name__ == "__main__":
    made = simulated()
    EVENTS.write_text("[\n" + ",\n".join(json.dumps(event) for event in made) + "\n]\n")
    EXPECTED.write_text("\n".join(expected(made)) + "\n")
