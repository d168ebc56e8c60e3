"""A session: one load on one stand, from full windows to a checked answer, run after run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil
import redis

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
from benchmarks.load.watch import Watch, Wire, taken, wire
from schemas.codec import Encoder
from schemas.columns import Floats, Ints
from schemas.errors import MillraceError

LEAD_IN_SECONDS = 10.0  # before what is not steady, and before a search
LEAD_SECONDS = 1.0  # from the order to the first event
HISTORY_SECONDS = 1_800.0
LOOK_SECONDS = 0.25
WORDS_SECONDS = 5.0
SAMPLED_ROWS = 512
PATIENCE_SECONDS = 30.0  # for answers after the last event
HOLD_LATENCIES = 20.0  # a probe that is so many limits behind will not come back below one


class Ended(Exception):
    """A run ended before its time; `partial` is what it came to until then, `reason` what ended it."""

    def __init__(self, partial: dict[str, Any], reason: BaseException) -> None:
        super().__init__(str(reason) or "interrupted")
        self.partial, self.reason = partial, reason


@dataclass(frozen=True, slots=True)
class Counters:
    """What services and workers have counted by some moment."""

    wire: Wire
    spent_seconds: dict[str, float]
    batches: tuple[float, float]  # and the records in them

    def since(self, before: Counters, events: int) -> dict[str, Any]:
        """What came of so many events."""
        steps = {step: seconds - before.spent_seconds.get(step, 0.0) for step, seconds in self.spent_seconds.items()}
        return {
            **self.wire.since(before.wire, events),
            "us_per_event_by_step": {step: round(seconds / events * 1e6, 3) for step, seconds in steps.items()},
            "records_per_batch": _batch_size(before.batches, self.batches),
        }


@dataclass
class Session:
    """A load on a stand.

    Attributes:
        stand: where it is.
        events: what is sent.
        generators: send it.
        say: told what goes on.
        next_row: the first that no order had in it yet.
        sent: for each order, which of its rows were sent: one that was ended left some out.
        probes: what looking for the knee has come to so far.
    """

    stand: Stand
    events: Events
    generators: Generators
    say: Callable[[str], None]
    next_row: int = 0
    sent: list[Ints] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)

    def send_history(self) -> None:
        """Fill the topic with what fills the windows."""
        rows = self.events.traffic.history
        self.say(f"sending {rows:,} events that fill the windows")
        self._finish(self._begin(Order(0, rows)), HISTORY_SECONDS)

    def drain(self) -> dict[str, float | None]:
        """Wait until the workers have read the history; from its first tenth on, how fast, and at what cost."""
        rows = self.next_row
        self.say(f"draining {rows:,} events")
        begun, tenth = time.monotonic(), None
        processes = self.stand.processes
        for now, done in await_answered(self.stand, rows, HISTORY_SECONDS):
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
            Ended: by Ctrl-C, SIGTERM, or because a part of it failed.
            MillraceError: it did not come to anything.
        """
        first, rows = self.next_row, shape.expected_events
        due, arrivals = shape.due_seconds(), Arrivals(first, rows)
        ours = {"generators": [psutil.Process(pid) for pid in self.generators.pids], "reader": [psutil.Process()]}
        processes = {**self.stand.processes, **ours}
        watch = Watch(processes, lambda: max(self.generators.sent - arrivals.answered, 0), self.stand.folder)
        ended: BaseException | None = None
        with contextlib.closing(Answers(self.stand.bound, self.stand.settings.kafka, self.stand.registry, from_beginning=False)) as answers:
            before = self._counters()
            begin = time.time() + LEAD_SECONDS
            order = self._begin(Order(first, rows, shape, begin))
            with watch:
                try:
                    self._read(answers, arrivals, watch, begin + shape.seconds, shape.highest_rate * most_behind_seconds)
                except (KeyboardInterrupt, MillraceError) as error:
                    ended = error
                    self.generators.stop()
            try:
                sent, after = self._finish(order, PATIENCE_SECONDS), self._counters()
            except (MillraceError, redis.RedisError) as error:
                raise Ended({}, ended or error) from error
        seen = ~np.isnan(arrivals.at)
        if not seen.any():
            log = self.stand.workers[0].log_tail()
            silence = WorkerEnded(f"none of {sum(each.rows for each in sent):,} events was answered; a worker's log ends with:\n{log}")
            raise Ended({}, ended or silence)
        found = _summary(shape, due[seen], (arrivals.at[seen] - (begin + due[seen])) * 1e3, sent, arrivals)
        cut = found["warm_up_seconds"] or 0.0
        timed = int(np.count_nonzero(due[seen] >= cut))
        cost = taken(watch.looks, begin + cut, begin + float(due[seen].max()), timed)
        found |= cost | after.since(before, arrivals.answered)
        found["output_bytes_per_event"] = round(answers.bytes_read / arrivals.answered, 1)
        found["input_bytes_per_event"] = self._input_bytes()
        found["behind"] = [[round(look.at - begin, 1), look.behind] for look in watch.looks]
        found["bottleneck"] = blame(cost, psutil.cpu_count() or 1)
        found["invalid"] = troubles(found, shape)
        if ended is not None:
            raise Ended(found | {"invalid": [str(ended) or "interrupted", *found["invalid"]]}, ended)
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

    def settle(self) -> None:
        """Wait until all that was sent is final: an overload may have left some of it undone."""
        for _ in await_answered(self.stand, sum(map(len, self.sent)), HISTORY_SECONDS):
            pass

    def check(self, keys: int) -> dict[str, Any]:
        """Hold all that came out, of all runs, against what was sent."""
        sent = np.zeros(self.next_row, np.bool_)
        for rows in self.sent:
            sent[rows] = True
        self.say(f"checking {np.count_nonzero(sent):,} answers, and the features of {keys} keys of each entity")
        return asdict(check(self.stand, self.events, sent, keys))

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

    def _begin(self, order: Order) -> Order:
        self.next_row = order.first_row + order.rows
        self.generators.begin(order)
        return order

    def _finish(self, order: Order, seconds: float) -> list[Sent]:
        """Wait for the generators, and note which rows each of them has sent: the first ones of its own."""
        found = self.generators.finish(seconds + MOST_BEHIND_SECONDS)
        for place, each in enumerate(found):
            own = order.first_row + (place - order.first_row) % len(found)
            self.sent.append(np.arange(own, order.first_row + order.rows, len(found))[: each.rows])
        return found

    def _counters(self) -> Counters:
        """What services and workers have counted so far."""
        with self.stand.redis() as client:
            return Counters(wire(client, self.stand.kafka_data), self.stand.spent_seconds(), self.stand.batches())


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
