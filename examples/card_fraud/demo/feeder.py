"""The feeder: sends the live stream at a steady rate, from a process of its own, and notes when each record went out.

    record    0    1    2    3    4    5    6    7    8
    due at    0        1/rate   ...                              seconds after the beginning
    tick      │         │         │         │         │          every few milliseconds: sends all that is due by then

It sleeps between ticks, so that it starves nobody; a tick that comes late sends more, and the rate holds.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.demo.records import Records, live
from examples.card_fraud.simulate import Simulator
from schemas.codec import Encoder
from schemas.columns import Floats, Ints
from schemas.errors import MillraceError
from streams.bound import Bound
from streams.kafka import KafkaError, Message, Producer, plain_producer
from streams.load import load_bound
from streams.settings import KafkaSettings

TICK_SECONDS = 0.004
FLUSH_SECONDS = 30.0
END_SECONDS = 5.0

_spawn = multiprocessing.get_context("spawn")


class FeederFailed(MillraceError):
    """The stream of payments broke off."""


def due(elapsed_seconds: float, rate: float, total: int) -> int:
    """How many records have to be out by now: record i is due i / rate seconds after the beginning."""
    return min(int(elapsed_seconds * rate) + 1, total) if elapsed_seconds >= 0 else 0


def input_encoder(bound: Bound, schema_id: int) -> Encoder:
    """Encodes payments as the pipeline's input wants them."""
    return Encoder(bound.schema, bound.input.framing, schema_id)


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be sent, where to, and how fast."""

    pipeline: Path
    bootstrap_servers: str
    schema_id: int
    simulator: Simulator
    first_day: int
    rate: float
    seconds: float

    @property
    def records(self) -> int:
        """How many there will be."""
        return max(int(self.rate * self.seconds), 1)


class Sheet:
    """What the feeder's process and ours both see: when each record was sent, what it was, and how far the feeder is."""

    def __init__(self, records: int) -> None:
        self._sent_at: Any = _spawn.RawArray(ctypes.c_double, records)
        self._event_ms: Any = _spawn.RawArray(ctypes.c_int64, records)
        self._kinds: Any = _spawn.RawArray(ctypes.c_int8, records)
        # Plain numbers, each with one writer.
        self._sent = _spawn.RawValue(ctypes.c_int64, 0)
        self._ready = _spawn.RawValue(ctypes.c_int8, 0)
        self._begin_at = _spawn.RawValue(ctypes.c_double, 0.0)
        self._stop = _spawn.RawValue(ctypes.c_int8, 0)
        self._parent = os.getpid()

    @property
    def sent_at(self) -> Floats:
        """Shape (records,): seconds since the epoch; 0 = not sent yet."""
        return np.frombuffer(self._sent_at, np.float64)

    @property
    def event_ms(self) -> Ints:
        """Shape (records,): event times of the records sent."""
        return np.frombuffer(self._event_ms, np.int64)

    @property
    def kinds(self) -> NDArray[np.int8]:
        """Shape (records,): what the records sent are."""
        return np.frombuffer(self._kinds, np.int8)

    @property
    def sent(self) -> int:
        """How many are out."""
        return int(self._sent.value)

    @property
    def is_ready(self) -> bool:
        """Whether the feeder waits for its time to begin."""
        return bool(self._ready.value)

    def begin(self, at_seconds: float) -> None:
        """Let the feeder begin at this moment, in seconds since the epoch."""
        self._begin_at.value = at_seconds

    def stop(self) -> None:
        """Let it end early: what was sent is confirmed, nothing more follows."""
        self._stop.value = 1

    # --- the feeder's side ---

    def await_begin(self) -> float:
        """Say that we are ready, and wait to be told when to begin; 0 = never."""
        self._ready.value = 1
        while not self._begin_at.value and not self.stopped:
            time.sleep(TICK_SECONDS)
        return float(self._begin_at.value)

    def note(self, place: int, records: Records, first: int, last: int) -> None:
        """Records `first` to `last` of these go out now, as number `place` and following."""
        end = place + last - first
        self.kinds[place:end] = records.kinds[first:last]
        self.event_ms[place:end] = records.event_ms[first:last]
        self.sent_at[place:end] = time.time()

    def advance(self, sent: int) -> None:
        """So many are out."""
        self._sent.value = sent

    @property
    def stopped(self) -> bool:
        """Whether to end: on demand, or because whoever wanted us is gone."""
        return bool(self._stop.value) or os.getppid() != self._parent


class Feeder:
    """The feeder's process, seen from outside."""

    def __init__(self, load: Load, log: Path) -> None:
        self.load = load
        self.sheet = Sheet(load.records)
        self._log = log
        self._process: Any = _spawn.Process(target=feed, args=(load, self.sheet, log), daemon=True)
        self._process.start()

    @property
    def is_done(self) -> bool:
        """Whether it sent everything, and the broker confirmed it.

        Raises:
            FeederFailed: it ended otherwise.
        """
        code = self._process.exitcode
        if code:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise FeederFailed(f"the feeder ended with exit code {code}: {said[-1] if said else 'no word'} (log: {self._log})")
        return code is not None

    def end(self) -> None:
        """End it, whatever it does."""
        self.sheet.stop()
        self._process.join(END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def feed(load: Load, sheet: Sheet, log: Path) -> None:
    """Send a load: what the feeder's process runs. Its errors go to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our parent, which tells us
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    bound = load_bound(load.pipeline)
    days = live(load.simulator, input_encoder(bound, load.schema_id), load.first_day)
    first = next(days)
    with _Sending(load.bootstrap_servers, bound.input.name) as sending:
        begin_at = sheet.await_begin()
        if begin_at:
            _send_all(first, days, load, sheet, sending, begin_at)


def _send_all(records: Records, days: Iterator[Records], load: Load, sheet: Sheet, sending: _Sending, begin_at: float) -> None:
    place, row = 0, 0  # the number of the next record, and its row in the day's records
    while place < load.records and not sheet.stopped:
        wanted = due(time.time() - begin_at, load.rate, load.records) - place
        while wanted > 0:
            end = min(row + wanted, len(records))
            sheet.note(place, records, row, end)
            sending.send(records, row, end)
            place, wanted, row = place + end - row, wanted - (end - row), end
            sheet.advance(place)
            if row == len(records):
                records, row = next(days), 0
        sending.serve()
        time.sleep(TICK_SECONDS)


class _Sending:
    """Hands records to the client; on leaving, the broker has confirmed them all."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self._producer: Producer = plain_producer(settings, **{"delivery.report.only.error": True})
        self._topic = topic
        self._failure: KafkaError | None = None

    def __enter__(self) -> _Sending:
        return self

    def __exit__(self, *_: object) -> None:
        left = self._producer.flush(FLUSH_SECONDS)
        if left:
            raise FeederFailed(f"the broker did not confirm {left} payments within {FLUSH_SECONDS:.0f} seconds")
        self._look()

    def send(self, records: Records, first: int, last: int) -> None:
        for row in range(first, last):
            self._producer.produce(self._topic, records.values[row], records.keys[row], 0, on_delivery=self._failed)

    def serve(self) -> None:
        self._producer.poll(0)
        self._look()

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        self._failure = error or self._failure

    def _look(self) -> None:
        if self._failure is not None:
            raise FeederFailed(f"the broker does not take payments: {self._failure.str()}")


def preload(bootstrap_servers: str, topic: str, records: Records) -> None:
    """Send records as fast as the broker takes them.

    Raises:
        FeederFailed: it does not.
    """
    with _Sending(bootstrap_servers, topic) as sending:
        for first in range(0, len(records), 1_000):
            sending.send(records, first, min(first + 1_000, len(records)))
            sending.serve()
