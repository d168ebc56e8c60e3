"""Pace: records sent at a constant rate, each when it is due or as soon after as can be; or as fast as the broker takes them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from streams.kafka import Producer

TICK_SECONDS = 0.002
FULL_SECONDS = 1.0  # waited at a time for a full queue


def send_paced(producer: Producer, topic: str, values: Sequence[bytes], keys: Sequence[bytes], rate: float, begin: float) -> float:
    """Send record i at `begin` + i / rate (seconds since the epoch), in ticks; how late the first of a tick was sent, in seconds (p99)."""
    late, sent = [], 0
    while sent < len(values):
        due = min(int((time.time() - begin) * rate) + 1, len(values))
        if due > sent:
            for row in range(sent, due):
                producer.produce(topic, values[row], keys[row])
            late.append(time.time() - (begin + sent / rate))
            sent = due
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    producer.flush()
    return float(np.quantile(late, 0.99))


def send_all(producer: Producer, topic: str, values: Iterable[bytes], keys: Iterable[bytes]) -> None:
    """Send records, and wait until the broker has them."""
    for value, key in zip(values, keys, strict=True):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:  # its queue is full
                producer.poll(FULL_SECONDS)
    producer.flush()
