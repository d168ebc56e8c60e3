"""The generators: processes that send each event when it is due, whatever became of those before it.

    due      │  │  │  │  │  │  │  │  │        by the shape, in no relation to what the system does
    tick     ┃        ┃        ┃             every `TICK_SECONDS`: sends all that is due by then

Of n generators each sends every n-th event. One measures how late it is itself: of each tick, how long the first event that it sends
was due already. Events are made and encoded a little ahead, in the time between ticks.

The processes live as long as the harness, since starting one takes seconds; orders reach them over a pipe.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load.events import POISON, Events, Traffic
from benchmarks.load.shape import Shape
from schemas.codec import Encoder
from schemas.columns import Floats, Ints, rows_of
from schemas.errors import MillraceError
from streams.definition.load import load_bound
from streams.kafka import KafkaError, Producer, plain_producer
from streams.settings import KafkaSettings

TICK_SECONDS = 0.001
LONGEST_SLEEP_SECONDS = 0.05  # so that an end is heard of
AHEAD = 2  # pieces of a block that are made before they are due
START_SECONDS = 120.0
FLUSH_SECONDS = 30.0
MOST_BEHIND_SECONDS = 10.0  # then the rate is out of reach, and to go on would only fill the disk
SENT, LATE = 0, 1  # places on the sheet


class GeneratorFailed(MillraceError):
    """A generator ended, or the broker did not take what it sent."""


@dataclass(frozen=True, slots=True)
class Source:
    """What generators make events of."""

    pipeline: Path
    which: str | None
    kafka: KafkaSettings
    traffic: Traffic
    schema_id: int


@dataclass(frozen=True, slots=True)
class Order:
    """Rows to be sent: as fast as can be, or each at its moment."""

    first_row: int
    rows: int
    shape: Shape | None = None  # None = at once
    begin: float = 0.0  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of an order.

    Attributes:
        rows: how many were sent.
        late_ms: shape (ticks,): how late each tick's first event was sent.
        weights: shape (ticks,): events of each tick.
        last_late_ms: how late the last event was sent.
        given_up: whether it fell so far behind that it stopped.
    """

    rows: int
    late_ms: Floats
    weights: Ints
    last_late_ms: float = 0.0
    given_up: bool = False


class Generators:
    """Some generator processes.

    Args:
        source: what they send.
        count: how many.

    Raises:
        GeneratorFailed: one did not start.
    """

    def __init__(self, source: Source, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.sheet: Any = context.RawArray("d", 2 * count)  # by process: sent so far, seconds behind
        self._stop = context.Event()
        self._pipes: list[Connection] = []
        self._processes = []
        try:
            for place in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(source, place, count, theirs, self.sheet, self._stop), daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            self._answers(START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    @property
    def sent(self) -> int:
        """Events sent so far of the present order."""
        return int(sum(self.sheet[2 * place + SENT] for place in range(len(self._pipes))))

    @property
    def behind_seconds(self) -> float:
        """How late the latest of them is now."""
        return float(max(self.sheet[2 * place + LATE] for place in range(len(self._pipes))))

    def begin(self, order: Order) -> None:
        """Let them send; `finish` waits for it."""
        self._stop.clear()
        for place, pipe in enumerate(self._pipes):
            self.sheet[2 * place + SENT] = self.sheet[2 * place + LATE] = 0.0
            pipe.send(order)

    @property
    def idle(self) -> bool:
        """Whether all have carried out their order."""
        return all(pipe.poll(0) for pipe in self._pipes)

    def finish(self, seconds: float) -> list[Sent]:
        """Wait until all is sent and taken by the broker.

        Raises:
            GeneratorFailed: a process ended, the broker refused something, or it takes longer than this.
        """
        return self._answers(seconds)

    def look(self) -> None:
        """See that all are alive.

        Raises:
            GeneratorFailed: one is not.
        """
        for process in self._processes:
            if not process.is_alive():
                raise GeneratorFailed(f"a generator ended with exit code {process.exitcode}")

    def stop(self) -> None:
        """Let them send no more of the present order."""
        self._stop.set()

    def close(self) -> None:
        """End the processes."""
        self._stop.set()
        for pipe in self._pipes:
            pipe.close()  # what waits for an order ends with this
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()

    def _answers(self, seconds: float) -> list[Any]:
        end = time.monotonic() + seconds
        found = []
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            while not pipe.poll(0.1):
                if not process.is_alive() and not pipe.poll(0):
                    raise GeneratorFailed(f"a generator ended with exit code {process.exitcode}")
                if time.monotonic() > end:
                    raise GeneratorFailed(f"a generator did not answer within {seconds:.0f} seconds")
            try:
                found.append(pipe.recv())
            except EOFError:
                raise GeneratorFailed("a generator ended before it answered") from None
        for each in found:
            if isinstance(each, str):
                raise GeneratorFailed(each)
        return found


def _serve(source: Source, place: int, count: int, pipe: Connection, sheet: Any, stop: Any) -> None:
    """A generator's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the harness, which then tells us
    try:
        maker = _Maker(source, place, count)
        pipe.send(None)
    except MillraceError as error:
        pipe.send(str(error))
        return
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_Sending(maker, order, sheet, stop).run())
        except MillraceError as error:
            pipe.send(str(error))


class _Maker:
    """Makes a generator's events, and has its producer."""

    def __init__(self, source: Source, place: int, count: int) -> None:
        bound = load_bound(source.pipeline, source.which)
        self.place, self.count = place, count
        self.topic = bound.input.name
        self.refused: list[str] = []
        # A report for each event that arrived would cost more than the event.
        extra: dict[str, Any] = {"delivery.report.only.error": True, "on_delivery": self._note, "batch.num.messages": 100_000}
        self.producer: Producer = plain_producer(source.kafka, **extra)
        self._events = Events(bound, source.traffic)
        self._encoder = Encoder(bound.schema, bound.input.framing, source.schema_id)
        next(self.pieces(0, 1), None)  # kernels are loaded before there is a hurry

    def _note(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self.refused.append(error.str())

    def pieces(self, first_row: int, end_row: int) -> Iterator[tuple[Ints, list[bytes], list[bytes]]]:
        """Rows of this generator with their values and keys, a piece of a block at a time."""
        for block in self._events.blocks(first_row, end_row):
            mine = slice((self.place - block.first_row) % self.count, None, self.count)
            rows = block.first_row + np.arange(len(block), dtype=np.int64)[mine]
            values = list(self._encoder.encode({name: rows_of(column, mine) for name, column in block.columns.items()}))
            for at in np.flatnonzero(block.poison[mine]).tolist():
                values[at] = POISON % rows[at]
            yield rows, values, list(block.keys.take(mine))


class _Sending:
    """One order being carried out."""

    def __init__(self, maker: _Maker, order: Order, sheet: Any, stop: Any) -> None:
        self._maker, self._order, self._sheet, self._stop = maker, order, sheet, stop
        self._pieces = maker.pieces(order.first_row, order.first_row + order.rows)
        self._ready: deque[tuple[Ints, list[bytes], list[bytes]]] = deque()
        self._sent = 0
        self._late_ms: list[float] = []
        self._weights: list[int] = []

    def run(self) -> Sent:
        self._maker.refused.clear()
        given_up = self._at_once() if self._order.shape is None else self._when_due(self._order.shape)
        left = self._maker.producer.flush(FLUSH_SECONDS)
        if left or self._maker.refused:
            why = f": {self._maker.refused[0]}" if self._maker.refused else ""
            raise GeneratorFailed(f"the broker did not take {left + len(self._maker.refused):,} of {self._sent:,} events{why}")
        last = self._late_ms[-1] if self._late_ms else 0.0
        return Sent(self._sent, np.array(self._late_ms), np.array(self._weights, np.int64), last, given_up)

    def _at_once(self) -> bool:
        for _, values, keys in self._pieces:
            if self._stop.is_set():
                break
            self._produce(values, keys, 0, len(values))
            self._note(0.0)
        return False

    def _when_due(self, shape: Shape) -> bool:
        due_at = self._order.begin + shape.due_seconds()
        while not self._stop.is_set() and (self._ready or self._make_one()):
            rows, values, keys = self._ready[0]
            due = due_at[rows - self._order.first_row]
            at = 0
            while at < len(rows) and not self._stop.is_set():
                now = time.time()
                end = int(np.searchsorted(due, now, "right"))
                if end > at:
                    self._produce(values, keys, at, end)
                    self._late_ms.append((time.time() - float(due[at])) * 1e3)
                    self._weights.append(end - at)
                    at = end
                    self._note(self._late_ms[-1] / 1e3)
                    if self._late_ms[-1] > MOST_BEHIND_SECONDS * 1e3:
                        return True
                elif len(self._ready) >= AHEAD or not self._make_one():
                    self._maker.producer.poll(0)
                    time.sleep(min(max(float(due[at]) - now, TICK_SECONDS), LONGEST_SLEEP_SECONDS))
            self._ready.popleft()
        return False

    def _make_one(self) -> bool:
        """Make the next piece that has rows of this generator; whether there is one."""
        for piece in self._pieces:
            if len(piece[0]):
                self._ready.append(piece)
                return True
        return False

    def _produce(self, values: list[bytes], keys: list[bytes], begin: int, end: int) -> None:
        producer, topic = self._maker.producer, self._maker.topic
        for at in range(begin, end):
            while True:
                try:
                    producer.produce(topic, values[at], keys[at])
                    break
                except BufferError:
                    producer.poll(0.001)  # the broker takes less than this; how late that makes us is measured
        self._sent += end - begin
        producer.poll(0)

    def _note(self, behind_seconds: float) -> None:
        self._sheet[2 * self._maker.place + SENT] = self._sent
        self._sheet[2 * self._maker.place + LATE] = behind_seconds
