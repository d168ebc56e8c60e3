"""A session: one load on one stand, from full windows to a checked answer, run after run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil

from benchmarks.load import latency
from benchmarks.load.check import check
from benchmarks.load.events import Events
from benchmarks.load.generator import MOST_BEHIND_SECONDS, Generators, Order, Sent
from benchmarks.load.knee import Verdict, find_knee
from benchmarks.load.reader import Answers, Arrivals
from benchmarks.load.shape import Shape
from benchmarks.load.stand import Stand, WorkerEnded, await_answered
from benchmarks.load.verdict import blame, generator_facts, troubles
from benchmarks.load.warm_up import warm_up_seconds
from benchmarks.load.watch import Watch, taken, wire
from schemas.codec import Encoder
from schemas.columns import Floats

LEAD_IN_SECONDS = 10.0  # before what is not steady, and before a search
LEAD_SECONDS = 1.0  # from the order to the first event
HISTORY_SECONDS = 1_800.0
LOOK_SECONDS = 0.25
WORDS_SECONDS = 5.0
SAMPLED_ROWS = 512
PATIENCE_SECONDS = 30.0  # for answers after the last event
HOLD_LATENCIES = 20.0  # a probe that is so many limits behind will not come back below one


class Interrupted(Exception):
    """The run was ended before its time; `partial` is what it came to until then."""

    def __init__(self, partial: dict[str, Any]) -> None:
        super().__init__("interrupted")
        self.partial = partial


@dataclass
class Session:
    """A load on a stand.

    Attributes:
        stand: where it is.
        events: what is sent.
        generators: send it.
        say: told what goes on.
        next_row: of the first event that was not sent yet.
        probes: what looking for the knee has come to so far.
    """

    stand: Stand
    events: Events
    generators: Generators
    say: Callable[[str], None]
    next_row: int = 0
    probes: list[dict[str, Any]] = field(default_factory=list)

    def send_history(self) -> None:
        """Fill the topic with what fills the windows."""
        rows = self.events.traffic.history
        self.say(f"sending {rows:,} events that fill the windows")
        self.generators.begin(Order(0, rows))
        self._sent(HISTORY_SECONDS)
        self.next_row = rows

    def drain(self) -> dict[str, float | None]:
        """Wait until the workers have read the history; from its first tenth on, how fast, and at what cost."""
        rows = self.next_row
        self.say(f"draining {rows:,} events")
        begun, tenth = time.monotonic(), None
        processes = self.stand.processes
        for now, done in await_answered(self.stand, rows, HISTORY_SECONDS, lambda: None):
            if tenth is None and done > rows / 10:
                tenth = now, done, {name: _cpu(group) for name, group in processes.items()}
                batches = self.stand.batches()
        if tenth is None or tenth[1] >= rows:
            return {"seconds": round(time.monotonic() - begun, 3)}  # too little to tell a speed from
        seen, seconds = rows - tenth[1], now - tenth[0]
        costs = {f"cpu_us_per_event {name}": round((_cpu(group) - tenth[2][name]) / seen * 1e6, 3) for name, group in processes.items()}
        size = _batch_size(batches, self.stand.batches())
        return {"events": rows, "events_per_second": round(seen / seconds, 1), **costs, "records_per_batch": size}

    def run(self, shape: Shape, most_behind_seconds: float = np.inf) -> dict[str, Any]:
        """Send a load, and measure what becomes of it.

        Args:
            shape: the load.
            most_behind_seconds: with more than that much to do, no more is sent.

        Raises:
            Interrupted: by Ctrl-C or SIGTERM.
            MillraceError: a part of it failed.
        """
        first, rows = self.next_row, shape.expected_events
        due, arrivals = shape.due_seconds(), Arrivals(first, rows)
        ours = {"generators": [psutil.Process(pid) for pid in self.generators.pids], "reader": [psutil.Process()]}
        processes = {**self.stand.processes, **ours}
        watch = Watch(processes, lambda: max(self.generators.sent - arrivals.answered, 0), self.stand.folder)
        interrupted = False
        with (
            self.stand.redis() as client,
            contextlib.closing(Answers(self.stand.bound, self.stand.settings.kafka, self.stand.registry, from_beginning=False)) as answers,
        ):
            before, spent, batches = wire(client, self.stand.kafka_data), self.stand.spent_seconds(), self.stand.batches()
            begin = time.time() + LEAD_SECONDS
            self.next_row = first + rows
            self.generators.begin(Order(first, rows, shape, begin))
            with watch:
                try:
                    self._read(answers, arrivals, watch, begin + shape.seconds, shape.highest_rate * most_behind_seconds)
                except KeyboardInterrupt:
                    interrupted = True
                    self.generators.stop()
            sent = self._sent(PATIENCE_SECONDS)
            after, spent_after, batches_after = wire(client, self.stand.kafka_data), self.stand.spent_seconds(), self.stand.batches()
        seen = ~np.isnan(arrivals.at)
        if not seen.any():
            if interrupted:
                raise Interrupted({})
            log = self.stand.workers[0].log_tail()
            raise WorkerEnded(f"none of {sum(each.rows for each in sent):,} events was answered; a worker's log ends with:\n{log}")
        found = _summary(shape, due[seen], (arrivals.at[seen] - (begin + due[seen])) * 1e3, sent, arrivals)
        cut = found["warm_up_seconds"] or 0.0
        timed = int(np.count_nonzero(due >= cut))
        cost = taken(watch.looks, begin + cut, begin + shape.seconds, timed)
        steps = {step: round((seconds - spent.get(step, 0.0)) / arrivals.answered * 1e6, 3) for step, seconds in spent_after.items()}
        found |= cost | after.since(before, arrivals.answered)
        found["output_bytes_per_event"] = round(answers.bytes_read / arrivals.answered, 1)
        found["us_per_event_by_step"] = steps
        found["records_per_batch"] = _batch_size(batches, batches_after)
        found["input_bytes_per_event"] = self._input_bytes()
        found["behind"] = [[round(look.at - begin, 1), look.behind] for look in watch.looks]
        found["bottleneck"] = blame(cost, psutil.cpu_count() or 1)
        found["invalid"] = troubles(found, shape)
        if interrupted:
            raise Interrupted(found | {"invalid": ["interrupted", *found["invalid"]]})
        return found

    def knee(self, p99_ms: float, hold_seconds: float, first_rate: float) -> dict[str, Any]:
        """Find the highest rate that holds the p99 below a limit for some time."""
        whole: dict[float, dict[str, Any]] = {}

        def probe(rate: float) -> Verdict:
            self.say(f"probing {rate:,.0f} events/s for {hold_seconds:.0f} s")
            found = self.run(Shape("constant", rate, hold_seconds), max(HOLD_LATENCIES * p99_ms / 1e3, 2.0))
            self.probes.append(_short(found))
            verdict = verdict_of(found, p99_ms)
            if verdict == "held":
                whole[rate] = found
            self.say(f"  {verdict}: p99 {found['latency']['p99_ms']:,.1f} ms; {found['bottleneck']}")
            return verdict

        def probe_fairly(rate: float) -> Verdict:
            """Once more if it did not hold: what others do on the machine for a moment is not to decide."""
            first = probe(rate)
            return first if first == "held" else probe(rate)

        self.say(f"leading in with {first_rate:,.0f} events/s for {LEAD_IN_SECONDS:.0f} s")
        self.run(Shape("constant", first_rate, LEAD_IN_SECONDS), max(HOLD_LATENCIES * p99_ms / 1e3, 2.0))
        knee = find_knee(probe_fairly, first_rate)
        found = {**asdict(knee), "p99_limit_ms": p99_ms, "hold_seconds": hold_seconds}
        return found | {"at_the_knee": whole.get(knee.rate), "runs": self.probes}

    def check(self, keys: int) -> dict[str, Any]:
        """Hold all that came out, of all runs, against what was sent."""
        self.say(f"checking {self.next_row:,} answers, and the features of {keys} keys of each entity")
        return asdict(check(self.stand, self.events, self.next_row, keys))

    def _read(self, answers: Answers, arrivals: Arrivals, watch: Watch, end: float, most_behind: float) -> None:
        """Take answers until all that was sent is answered."""
        next_look, last_answer, next_words = 0.0, time.time(), time.time() + WORDS_SECONDS
        while not (self.generators.idle and arrivals.answered >= self.generators.sent):
            got = answers.take(0.05)
            now = time.time()
            if got is not None and len(got[0]):
                arrivals.note(got[0], got[1])
                last_answer = now
            if now < next_look:
                continue
            next_look = now + LOOK_SECONDS
            self.stand.look()
            self.generators.look()
            watch.check()
            behind = self.generators.sent - arrivals.answered
            if now > next_words:
                next_words += WORDS_SECONDS
                self.say(f"  {self.generators.sent:,} sent, {arrivals.answered:,} answered")
            if behind > most_behind:
                self.generators.stop()
            if now > max(end, last_answer) + PATIENCE_SECONDS:
                self.generators.stop()
                return

    def _input_bytes(self) -> float:
        """Of an event's value, on average over some."""
        encoder = Encoder(self.stand.bound.schema, self.stand.bound.input.framing)
        (block,) = self.events.blocks(0, SAMPLED_ROWS)
        return round(len(encoder.encode(block.columns).data) / SAMPLED_ROWS, 1)

    def _sent(self, seconds: float) -> list[Sent]:
        return self.generators.finish(seconds + MOST_BEHIND_SECONDS)


def verdict_of(run: dict[str, Any], p99_ms: float) -> Verdict:
    """Whether a probe held its limit. One whose generators were late says nothing, unless even so it held."""
    if run["unanswered"] == 0 and run["offered_share"] >= 0.99 and run["latency"]["p99_ms"] <= p99_ms:
        return "held"
    return "not made" if run["generator"]["was_the_bottleneck"] else "broke"


def _summary(shape: Shape, due: Floats, latency_ms: Floats, sent: list[Sent], arrivals: Arrivals) -> dict[str, Any]:
    rows = sum(each.rows for each in sent)
    cut = warm_up_seconds(due, latency_ms) if shape.is_steady else 0.0
    timed = due >= (shape.seconds / 2 if cut is None else cut)
    timed = timed if timed.any() else np.ones(len(due), np.bool_)
    quantiles = latency.quantiles(latency_ms[timed])
    return {
        "shape": shape.word,
        "rate": shape.rate,
        "seconds": shape.seconds,
        "events": rows,
        "offered_share": round(rows / shape.expected_events, 4),
        "unanswered": rows - arrivals.answered,
        "repeated": arrivals.repeated,
        "warm_up_seconds": cut,
        "latency": quantiles,
        "curve": latency.curve(latency_ms[timed]),
        "histogram": latency.encoded(latency_ms[timed]),
        "over_time": latency.over_time(due, latency_ms, max(shape.seconds / 120, 0.5)),
        "generator": generator_facts(sent, rows / shape.expected_events, quantiles["p99_ms"]),
    }


def _short(run: dict[str, Any]) -> dict[str, Any]:
    """A probe without what only the best one is looked at for."""
    return {name: value for name, value in run.items() if name not in ("histogram", "curve", "over_time", "behind")}


def _batch_size(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    batches = after[0] - before[0]
    return round((after[1] - before[1]) / batches, 1) if batches else None


def _cpu(processes: list[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))
