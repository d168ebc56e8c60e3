"""Sends payments at a constant rate from a process of its own, each at its time or as soon after as it can."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.kafka import plain_producer
from streams.settings import KafkaSettings

TICK_SECONDS = 0.002
LEAD_SECONDS = 2.0  # for the process to be there
END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Feeder:
    """The process, and when it begins."""

    begin: float  # seconds since the epoch: when the first payment is due
    report: Any

    def late_p99_ms(self) -> float:
        """How late it was itself, once it has ended."""
        return float(self.report.get(timeout=END_SECONDS)) * 1e3


@contextmanager
def feeder(bootstrap_servers: str, topic: str, values: list[bytes], keys: list[bytes], rate: float) -> Iterator[Feeder]:
    """Feed all the values, the i-th due at `begin` + i / rate."""
    context = multiprocessing.get_context("spawn")
    report: Any = context.Queue()
    begin = time.time() + LEAD_SECONDS + len(values) / 500_000  # they have to get there, too
    process = context.Process(target=feed, args=(bootstrap_servers, topic, values, keys, rate, begin, report), daemon=True)
    process.start()
    try:
        yield Feeder(begin, report)
    finally:
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def feed(bootstrap_servers: str, topic: str, values: list[bytes], keys: list[bytes], rate: float, begin: float, report: Any) -> None:
    """What the process does; it reports the 99th percentile of how late the first of each tick was sent."""
    producer = plain_producer(KafkaSettings(bootstrap_servers=bootstrap_servers))
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
    report.put(float(np.quantile(late, 0.99)))
