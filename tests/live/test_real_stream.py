"""Fifty thousand simulated payments through a worker's process: every feature and score equals the slow computation, to the bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from examples.card_fraud.simulate import Simulator
from tests.live.scene import Scene, at_ms

PAYMENTS = 50_000
HOUR_MS = 3_600_000


def simulated(count: int, seed: int) -> list[dict[str, Any]]:
    """Payments as a producer sends them: some late, some far too late, some of one customer at one time."""
    random = np.random.default_rng(seed)
    made = Simulator(seed=seed, customers=800, terminals=400).days(0, 40)
    assert len(made) > count
    picked = slice(0, count)
    event_ms = made.event_ms[picked].copy()
    customers = made.customer[picked]
    last: dict[int, int] = {}
    for row in np.flatnonzero(random.random(count) < 0.05).tolist():
        if int(customers[row]) in last:
            event_ms[row] = event_ms[last[int(customers[row])]]  # a tie with this customer's last such payment
        last[int(customers[row])] = row
    sent_ms = event_ms + np.where(random.random(count) < 0.03, random.integers(0, HOUR_MS, count), 0)
    sent_ms += np.where(random.random(count) < 0.01, random.integers(HOUR_MS, 30 * 24 * HOUR_MS, count), 0)
    ids, people, shops = list(made.payment_id), list(made.customer_id), list(made.terminal_id)
    return [
        {
            "payment_id": ids[row].decode(),
            "event_time": at_ms(int(event_ms[row])),
            "customer_id": people[row].decode(),
            "terminal_id": shops[row].decode(),
            "amount": int(made.amount_cents[row]) / 100,
            "currency": "EUR",
        }
        for row in np.argsort(sent_ms, kind="stable").tolist()
    ]


def test_features_and_scores_of_the_real_stream_equal_the_slow_computation(scene: Scene) -> None:
    random = np.random.default_rng(7)
    records = [(each["customer_id"].encode(), scene.encode(each)) for each in simulated(PAYMENTS, seed=7)]
    for row in random.choice(PAYMENTS, 500, replace=False).tolist():  # poison: a byte less, or another magic
        key, value = records[row]
        records[row] = (key, value[:-1]) if row % 2 else (key, b"\1" + value[1:])
    scene.send(records)
    worker = scene.worker(WORKER__BATCH_RECORDS="2000")
    scene.drained(worker)

    evidence = scene.evidence()
    assert [str(fault) for fault in scene.judge.faults(evidence)[:10]] == []
    assert (len(evidence.inputs), len(evidence.letters)) == (PAYMENTS, 500)
    timings = Counter(event["timing"] for _, event in scene.judge.expected(evidence.inputs) if event)
    assert min(timings[timing] for timing in ("on_time", "late", "too_late")) >= 100, timings

    # What the worker says of itself adds up as well: read = scored + refused.
    assert worker.metric("millrace_records_read_total{") == PAYMENTS
    assert worker.metric("millrace_events_scored_total{") == PAYMENTS - 500
    assert worker.metric("millrace_records_refused_total{") == 500
    assert worker.stop() == 0
    assert scene.positions() == scene.committed(), "a clean stop leaves the state where the offsets are"
