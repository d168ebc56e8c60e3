"""The feeder: sends the live stream at a steady rate, from a process of its own, and notes when each record went out.

    record    0    1    2    3    4    5    6    7    8
    due at    0        1/rate   ...                              seconds after the beginning
    tick      │         │         │         │         │          every few milliseconds: sends all that is due by then

It sleeps between ticks, so that it starves nobody; a tick that comes late sends more, and the rate holds. A fraud is reported as the
stream's event time comes to a week after its payment, and never before that payment has its score, however late the worker is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.demo.records import Records, live
from examples.card_fraud.demo.reports import Reports, label_encoder, labels_of, reports
from examples.card_fraud.history import REPORTED_AFTER_DAYS
from examples.card_fraud.simulate import Simulator
from schemas.codec import Encoder
from schemas.columns import Floats, Ints
from schemas.errors import MillraceError
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import KafkaError, Message, Producer, plain_producer
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
    label_schema_id: int
    simulator: Simulator
    first_day: int
    rate: float
    seconds: float

    @property
    def records(self) -> int:
        """How many there will be."""
        return max(int(self.rate * self.seconds), 1)


class Sheet:
    """What the feeder's process and ours both see: when each record was sent, what it was, and how far feeder and worker are.

    Args:
        records: the most payments that will be sent.
        reports: the most reports.
    """

    def __init__(self, records: int, reports: int) -> None:
        self._sent_at: Any = _spawn.RawArray(ctypes.c_double, records)
        self._event_ms: Any = _spawn.RawArray(ctypes.c_int64, records)
        self._kinds: Any = _spawn.RawArray(ctypes.c_int8, records)
        self._report_kinds: Any = _spawn.RawArray(ctypes.c_int8, reports)
        # Plain numbers, each with one writer.
        self._sent = _spawn.RawValue(ctypes.c_int64, 0)
        self._reported = _spawn.RawValue(ctypes.c_int64, 0)
        self._scored = _spawn.RawValue(ctypes.c_int64, 0)
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
    def report_kinds(self) -> NDArray[np.int8]:
        """Shape (reported,): what the reports sent are."""
        return np.frombuffer(self._report_kinds, np.int8)[: self.reported]

    @property
    def reported(self) -> int:
        """How many reports are out."""
        return int(self._reported.value)

    def scored(self, before: int) -> None:
        """The payments that have a score are before this number; what is refused between them counts as done."""
        self._scored.value = max(self._scored.value, before)

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

    def note_reports(self, kinds: NDArray[np.int8]) -> None:
        """These reports go out now."""
        sent = self.reported
        np.frombuffer(self._report_kinds, np.int8)[sent : sent + len(kinds)] = kinds
        self._reported.value = sent + len(kinds)

    @property
    def scored_before(self) -> int:
        """The number that `scored` was told last."""
        return int(self._scored.value)

    @property
    def stopped(self) -> bool:
        """Whether to end: on demand, or because whoever wanted us is gone."""
        return bool(self._stop.value) or os.getppid() != self._parent


class Feeder:
    """The feeder's process, seen from outside."""

    def __init__(self, load: Load, history: int, log: Path) -> None:
        self.load = load
        self.sheet = Sheet(load.records, 2 * (history + load.records))  # a payment is reported twice at most
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
    with Sending(load.bootstrap_servers) as sending:
        reporting = Reporting(load, bound, sheet, sending)
        begin_at = sheet.await_begin()
        if begin_at:
            _send_all(bound.input.name, first, days, load, sheet, sending, reporting, begin_at)


def _send_all(
    topic: str,
    records: Records,
    days: Iterator[Records],
    load: Load,
    sheet: Sheet,
    sending: Sending,
    reporting: Reporting,
    begin_at: float,
) -> None:
    place, row = 0, 0  # the number of the next record, and its row in the day's records
    while place < load.records and not sheet.stopped:
        wanted = due(time.time() - begin_at, load.rate, load.records) - place
        while wanted > 0:
            end = min(row + wanted, len(records))
            sheet.note(place, records, row, end)
            sending.send(topic, records, row, end)
            place, wanted, row = place + end - row, wanted - (end - row), end
            sheet.advance(place)
            if row == len(records):
                reporting.day_sent(place)
                records, row = next(days), 0
        if row:
            reporting.tell(int(records.event_ms[:row].max()))
        sending.serve()
        time.sleep(TICK_SECONDS)


class Reporting:
    """Reports the frauds of one day after the other as they become known.

    Args:
        load: what is sent, from which day on.
        bound: the pipeline.
        sheet: is told of the reports.
        sending: sends them.
    """

    def __init__(self, load: Load, bound: Bound, sheet: Sheet, sending: Sending) -> None:
        encoder, first_day = label_encoder(bound, load.label_schema_id), load.first_day - REPORTED_AFTER_DAYS
        self._topic, self._sheet, self._sending = labels_of(bound).topic.name, sheet, sending
        self._days = (reports(load.simulator, encoder, day) for day in count(first_day))
        self._scored_at = [0] * REPORTED_AFTER_DAYS  # by day: from which number on all its payments have scores; the history's have
        self._day, self._row = 0, 0
        self._reports = next(self._days)

    def day_sent(self, place: int) -> None:
        """A day's payments are out; the next one's begin with this number."""
        self._scored_at.append(place)

    def tell(self, now_ms: int) -> None:
        """Send the reports of all that is known by this event time."""
        while self._day < len(self._scored_at) and self._sheet.scored_before >= self._scored_at[self._day]:
            end = int(np.searchsorted(self._reports.known_ms, now_ms, side="right"))
            if end > self._row:
                self._sheet.note_reports(self._reports.kinds[self._row : end])
                self._sending.send(self._topic, self._reports, self._row, end)
                self._row = end
            if end < len(self._reports):
                return
            self._reports, self._day, self._row = next(self._days), self._day + 1, 0


class Sending:
    """Hands records to the client; on leaving, the broker has confirmed them all."""

    def __init__(self, bootstrap_servers: str) -> None:
        settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self._producer: Producer = plain_producer(settings, **{"delivery.report.only.error": True})
        self._failure: KafkaError | None = None

    def __enter__(self) -> Sending:
        return self

    def __exit__(self, *_: object) -> None:
        left = self._producer.flush(FLUSH_SECONDS)
        if left:
            raise FeederFailed(f"the broker did not confirm {left} records within {FLUSH_SECONDS:.0f} seconds")
        self._look()

    def send(self, topic: str, records: Records | Reports, first: int, last: int) -> None:
        """Send rows `first` to `last` of these."""
        for row in range(first, last):
            self._producer.produce(topic, records.values[row], records.keys[row], 0, on_delivery=self._failed)

    def serve(self) -> None:
        """Let the client work.

        Raises:
            FeederFailed: the broker does not take what was sent.
        """
        self._producer.poll(0)
        self._look()

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        self._failure = error or self._failure

    def _look(self) -> None:
        if self._failure is not None:
            raise FeederFailed(f"the broker does not take records: {self._failure.str()}")


def preload(bootstrap_servers: str, topic: str, records: Records | Reports) -> None:
    """Send records as fast as the broker takes them.

    Raises:
        FeederFailed: it does not.
    """
    with Sending(bootstrap_servers) as sending:
        for first in range(0, len(records), 1_000):
            sending.send(topic, records, first, min(first + 1_000, len(records)))
            sending.serve()
