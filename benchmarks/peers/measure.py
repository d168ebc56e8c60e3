"""One run of one row: start it, drain the topic, feed it at two rates, end it, and judge its answers."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.peers.answers import Answers, Reader, scored_schema
from benchmarks.peers.arithmetic import Drained, Sample, drained, latencies_ms, missing_and_twice
from benchmarks.peers.definition import Compared, compare
from benchmarks.peers.events import SCHEMAS, Log
from benchmarks.peers.feeder import feeder
from benchmarks.peers.peer import HERE, Peer, PeerError, Row
from benchmarks.peers.peer_process import PeerProcess
from benchmarks.peers.stand import Stand
from inference.load_model import load_model
from schemas.avro import AvroSchema
from schemas.columns import Floats
from streams.kafka import KafkaException

AT_1000, AT_HALF_BEST = "at_1000", "at_half_best"
SAMPLE_SECONDS = 0.1
LOOK_SECONDS = 0.02
START_SECONDS = 150.0  # for the first answer
PATIENCE_SECONDS = 60.0  # for the next one
DRAIN_SECONDS = 240.0  # history and all
OVERRUN_SECONDS = 30.0  # for the last answers of an open loop
HELD_SHARE = 0.9  # of its best that a peer may be asked for
EVERY_CUSTOMER = 10  # of so many one is checked
SCORE_TOLERANCE = 1e-5
FEEDER_SHARE = 0.5  # of a p99 that may be the feeder's own lateness


@dataclass
class Measured:
    """What came of a run; what was not measured is None."""

    start_s: float | None = None
    drain: Drained | None = None
    rss_mb: float | None = None
    half_best_per_s: float | None = None
    p50_ms: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys((AT_1000, AT_HALF_BEST)))
    p99_ms: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys((AT_1000, AT_HALF_BEST)))
    feeder_late_p99_ms: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys((AT_1000, AT_HALF_BEST)))
    features: Compared | None = None
    scores_right: float | None = None
    missing: int | None = None
    twice: int | None = None
    complete: bool = False
    interrupted: bool = False
    command: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """What all peers of a run are given."""

    log: Log
    model: Path
    millrace_schema: AvroSchema  # of Millrace's own scored events


def run_row(stand: Stand, job: Job, peer: Peer, row: Row, python: Path, events: int, seconds: float) -> Measured:
    """Run a row and measure it. What goes wrong is in the notes, beside what was measured before.

    Args:
        python: the interpreter of a Python peer.
        events: to drain after the history.
        seconds: of each open loop; 0 = the drain alone.
    """
    measured = Measured()
    try:
        _Run(stand, job, peer, row, measured, python).all(events, seconds)
        measured.complete = True
    except (PeerError, KafkaException) as error:
        measured.notes.append(str(error))
    except KeyboardInterrupt:
        measured.interrupted = True
        measured.notes.append("interrupted")
    return measured


@dataclass(frozen=True, slots=True)
class _OpenLoop:
    name: str
    first: int  # number of its first payment
    count: int
    begin: float  # seconds since the epoch: when that was due
    rate: float


class _Run:
    """The parts of a run, and what they share."""

    def __init__(self, stand: Stand, job: Job, peer: Peer, row: Row, measured: Measured, python: Path) -> None:
        self.stand, self.job, self.row, self.measured = stand, job, row, measured
        self.sent = 0
        self.loops: list[_OpenLoop] = []
        self.tag = secrets.token_hex(4)  # in the name of everything it makes; Millrace runs several times on one broker
        name = f"{row.name}.{self.tag}"
        self.state = stand.folder / name
        self.input, self.output = f"{name}.payments", f"{name}.payments.scored"
        self.schema = job.millrace_schema if peer.library == "millrace" else scored_schema()
        self.folder = peer.folder
        words = [word.replace("{folder}", str(peer.folder)).replace("{python}", str(python)) for word in row.command]
        measured.command = [word.replace("{folder}", str(peer.folder.relative_to(HERE.parents[1]))) for word in row.command]
        places = {"bootstrap-servers": stand.bootstrap_servers, "redis-url": stand.redis_url, "input": self.input, "output": self.output}
        places |= {"model": str(job.model), "group": f"peer-{name}", "schemas": str(SCHEMAS), "state-dir": str(self.state)}
        self.command = [*words, *(word for name, place in places.items() for word in (f"--{name}", place))]

    def all(self, events: int, seconds: float) -> None:
        """Everything, in order; services are left as they were found."""
        self.state.mkdir()
        self.stand.fresh_topics(self.input, self.output)
        self._send(self.job.log.history + events)
        reader = Reader(self.stand, self.output, self.schema)
        began = time.monotonic()
        process = PeerProcess(self.command, self.stand.folder / f"{self.row.name}.log", {"PYTHONPATH": str(HERE.parents[1])}, self.folder)
        try:
            self._drain(process, reader, began)
            if seconds:
                self._open_loops(process, reader, seconds)
            self.measured.rss_mb = process.rss_bytes() / 1e6
            process.stop()
        except BaseException:
            process.kill()
            raise
        finally:
            try:
                self._judge(reader.answers())
            finally:
                reader.close()
                shutil.rmtree(self.state, ignore_errors=True)
                self.stand.clear(self.tag)

    def _send(self, last: int) -> None:
        payments = self.job.log.rows(self.sent, last)
        self.stand.send(self.input, payments.values(), payments.keys())
        self.sent = last

    def _drain(self, process: PeerProcess, reader: Reader, began: float) -> None:
        samples: list[Sample] = []
        rose = began
        while reader.count < self.sent:
            came, now = reader.look(LOOK_SECONDS), time.monotonic()
            if came:
                rose = now
                if self.measured.start_s is None:
                    self.measured.start_s = now - began
            if came and (not samples or now - samples[-1].at > SAMPLE_SECONDS or reader.count >= self.sent):
                samples.append(
                    Sample(now, reader.count, process.cpu_seconds(), self.stand.kafka_cpu_seconds(), self.stand.redis_cpu_seconds())
                )
                self.measured.drain = drained(samples, self.job.log.history)
            process.check()
            if now - rose > (patience := PATIENCE_SECONDS if reader.count else START_SECONDS):
                raise PeerError(f"no answer for {patience:.0f} s after {reader.count:,} of {self.sent:,}; log:\n{process.tail()}")
            if now - began > DRAIN_SECONDS:
                raise PeerError(f"{reader.count:,} of {self.sent:,} answers within {DRAIN_SECONDS:.0f} s; give it fewer events")
        self.measured.drain = drained(samples, self.job.log.history)

    def _open_loops(self, process: PeerProcess, reader: Reader, seconds: float) -> None:
        if self.measured.drain is None:
            raise PeerError("too few events to tell how fast it is; give it more")
        best = self.measured.drain.events_per_s
        self.measured.half_best_per_s = best / 2
        for name, rate in ((AT_1000, 1_000.0), (AT_HALF_BEST, best / 2)):
            if rate > HELD_SHARE * best:
                self.measured.notes.append(f"{rate:,.0f}/s is more than it can hold: it drains {best:,.0f}/s")
                continue
            self._open_loop(name, rate, process, reader, seconds)

    def _open_loop(self, name: str, rate: float, process: PeerProcess, reader: Reader, seconds: float) -> None:
        first, count = self.sent, int(rate * seconds)
        payments = self.job.log.rows(first, first + count)
        with feeder(self.stand.bootstrap_servers, self.input, payments.values(), payments.keys(), rate) as fed:
            self.sent += count
            deadline = fed.begin + seconds + OVERRUN_SECONDS
            while reader.count < self.sent and time.time() < deadline:
                reader.look(LOOK_SECONDS)
                process.check()
            late_ms = fed.late_p99_ms()
        self.measured.feeder_late_p99_ms[name] = late_ms
        if reader.count < self.sent:
            raise PeerError(
                f"{self.sent - reader.count:,} answers are missing {OVERRUN_SECONDS:.0f} s after the last of {rate:,.0f}/s was due"
            )
        self.loops.append(_OpenLoop(name, first, count, fed.begin, rate))

    def _judge(self, answers: Answers) -> None:
        for loop in self.loops:
            name = loop.name
            latency = latencies_ms(answers.number, answers.seen_at, loop.first, loop.count, loop.begin, loop.rate)
            self.measured.p50_ms[name], self.measured.p99_ms[name] = (float(np.percentile(latency, share)) for share in (50, 99))
            late_ms, p99_ms = self.measured.feeder_late_p99_ms[name], self.measured.p99_ms[name]
            if late_ms is not None and p99_ms is not None and late_ms > FEEDER_SHARE * p99_ms:
                self.measured.notes.append(f"{name}: the feeder was {late_ms:,.0f} ms late itself (p99): not to be believed")
        self.measured.missing, self.measured.twice = missing_and_twice(answers.number, self.sent)
        if not len(answers.number):
            return
        if not 0 <= int(answers.number.min()) <= int(answers.number.max()) < self.sent:
            raise PeerError(f"there are answers to payments {answers.number.min()} to {answers.number.max()}, and {self.sent:,} were sent")
        found: Floats = np.full((self.sent, answers.features.shape[1]), np.nan)
        found[answers.number] = answers.features
        customers = np.arange(0, self.job.log.customers, EVERY_CUSTOMER)
        self.measured.features = compare(self.job.log.rows(0, self.sent), found, customers)
        again = load_model(self.job.model).score(answers.features.astype(np.float32))
        self.measured.scores_right = float(np.mean(np.abs(again - answers.score) <= SCORE_TOLERANCE))
