"""Sends payments at a constant rate from a process of its own, each at its time or as soon after as it can."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.pace import send_paced
from benchmarks.peers.peer import PeerError
from streams.kafka import plain_producer
from streams.settings import KafkaSettings

LEAD_SECONDS = 0.5
START_SECONDS = 60.0  # for the process to be there, with all it has to send
END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Feeder:
    """The process, and when it begins."""

    begin: float  # seconds since the epoch: when the first payment is due
    report: Any

    def late_p99_ms(self) -> float:
        """How late it was itself, once it has ended.

        Raises:
            PeerError: it does not end.
        """
        return _told(self.report, END_SECONDS, "end") * 1e3


@contextmanager
def feeder(bootstrap_servers: str, topic: str, values: list[bytes], keys: list[bytes], rate: float) -> Iterator[Feeder]:
    """Feed all the values, the i-th due at `begin` + i / rate, from when the process is ready.

    Raises:
        PeerError: it does not get ready.
    """
    context = multiprocessing.get_context("spawn")
    start, report = context.Queue(), context.Queue()
    process = context.Process(target=feed, args=(bootstrap_servers, topic, values, keys, rate, start, report), daemon=True)
    process.start()
    try:
        _told(report, START_SECONDS, "get ready")
        begin = time.time() + LEAD_SECONDS
        start.put(begin)
        yield Feeder(begin, report)
    finally:
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _told(report: Any, seconds: float, what: str) -> float:
    try:
        return float(report.get(timeout=seconds))
    except queue.Empty:
        raise PeerError(f"the feeder did not {what} within {seconds:.0f} s: this machine has too much to do") from None


def feed(bootstrap_servers: str, topic: str, values: list[bytes], keys: list[bytes], rate: float, start: Any, report: Any) -> None:
    """What the process does. It says when it is ready, is told when to begin, and says how late the first of each tick was sent (p99)."""
    producer = plain_producer(KafkaSettings(bootstrap_servers=bootstrap_servers))
    producer.list_topics(topic, START_SECONDS)
    report.put(0.0)
    begin = start.get(timeout=START_SECONDS)
    report.put(send_paced(producer, topic, values, keys, rate, begin))
