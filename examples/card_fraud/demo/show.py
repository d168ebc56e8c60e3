"""Show it: set up, stream, watch, check the sums, clean up. What ``millrace demo`` runs."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.card_fraud.demo import records
from examples.card_fraud.demo.checklist import Checklist
from examples.card_fraud.demo.counters import Counters, read_counters
from examples.card_fraud.demo.feeder import Feeder, FeederFailed, Load, input_encoder, preload
from examples.card_fraud.demo.reader import Reader, Stream
from examples.card_fraud.demo.reports import Reports, label_encoder, labels_of, reports
from examples.card_fraud.demo.scoreboard import Scoreboard, Snapshot
from examples.card_fraud.demo.stand import OWN_SERVICES, Stand, compile_kernels, model_of, stand
from examples.card_fraud.demo.summary import Run, facts_of, words
from examples.card_fraud.demo.tally import ReportTally, Tally
from examples.card_fraud.demo.view import View, plain_line
from examples.card_fraud.demo.worker_process import WorkerEnded, WorkerProcess
from examples.card_fraud.history import REPORTED_AFTER_DAYS
from examples.card_fraud.simulate import Simulator
from inference.model_card import ModelCard
from schemas.errors import LocalServiceError
from streams.definition.load import load_bound
from streams.local.addresses import state_dir

ROOT = Path(__file__).resolve().parents[3]
PIPELINE = ROOT / "examples" / "card_fraud" / "labelled.py"
TITLE = "millrace demo: card payments, scored as they come"

FIRST_SCORE_SECONDS = 120.0
CATCH_UP_SECONDS = 300.0
FEEDER_SECONDS = 60.0
LAST_ANSWER_SECONDS = 30.0
FRAME_SECONDS = 0.25
COUNTERS_SECONDS = 1.0  # between two looks at the worker's page
PLAIN_SECONDS = 5.0
SWITCH_SECONDS = 0.0005  # so that drawing hardly delays the reader, whose clock the latencies are read from
BROKEN, INTERRUPTED = 1, 130


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    seconds: float
    rate: float
    seed: int
    plain: bool
    keep: bool
    as_json: bool


def show(options: Options) -> int:
    """Run the demo; the exit code is 0 if all sums hold, 1 if one does not, 130 if Ctrl-C ended the stream early.

    Raises:
        MillraceError: a part could not be started, or ended before its time. What was started is ended either way.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    console = Console(stderr=options.as_json, highlight=False)
    plain = options.plain or options.as_json or not console.is_terminal
    folder = state_dir().resolve() / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), ExitStack() as stack:
        stack.enter_context(_ended_in_good_order())
        try:
            run, interrupted = Demo(options, folder, console, plain, stack).run()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was started is ended now, whoever is in a hurry
        facts = facts_of(run)
    console.print()
    if options.as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print_rows(console, words(facts))
    if options.keep and run.is_real_broker:
        console.print(_how_to_look_on(folder), soft_wrap=True)
    return INTERRUPTED if interrupted else 0 if facts["holds"] else BROKEN


class Demo:
    """One run."""

    def __init__(self, options: Options, folder: Path, console: Console, plain: bool, stack: ExitStack) -> None:
        self._options, self._folder, self._console, self._plain, self._stack = options, folder, console, plain, stack
        self._checklist = Checklist(console, plain)
        self._simulator = Simulator(seed=options.seed)
        self._stand: Stand
        self._worker: WorkerProcess
        self._past_reports: Reports
        self._feeder: Feeder
        self._reader: Reader
        self._tally: Tally
        self._report_tally = ReportTally()
        self._counters, self._counters_at = Counters(), 0.0
        self._board: Scoreboard

    def run(self) -> tuple[Run, bool]:
        """Everything, from nothing to the end of the stream; whether it was ended early."""
        bound = load_bound(PIPELINE)
        compile_kernels(self._checklist)
        card = model_of(bound, self._checklist)
        self._stand = self._stack.enter_context(stand(self._folder, bound, self._checklist, self._console, keep=self._options.keep))
        past = self._send_history()
        self._start(len(past))
        caught_up = self._catch_up(len(past))
        self._past_reports = self._report_history()
        begun_at, cpu_seconds, interrupted = self._stream()
        live_cpu_seconds = self._worker.cpu_seconds - cpu_seconds
        self._worker.stop()
        self._reader.finish()
        return self._result(past, card, begun_at, live_cpu_seconds, caught_up), interrupted

    def _send_history(self) -> records.Records:
        with self._checklist.step("history") as step:
            days = self._stand.history_days
            step.say(f"simulating {days} days")
            past = records.history(self._simulator, input_encoder(self._stand.bound, self._stand.schema_id), days)
            step.say(f"sending {len(past):,} payments")
            preload(self._stand.settings.kafka.bootstrap_servers, self._stand.bound.input.name, past)
            full = "so that every window is full" if self._stand.is_real_broker else "since the stand-in holds no more"
            step.say(f"{len(past):,} payments of {days} days, {full}")
        return past

    def _start(self, history: int) -> None:
        """Start worker, feeder and reader; each is ended whatever happens."""
        bound, settings = self._stand.bound, self._stand.settings
        load = Load(
            PIPELINE,
            settings.kafka.bootstrap_servers,
            self._stand.schema_id,
            self._stand.label_schema_id,
            self._simulator,
            self._stand.history_days,
            self._options.rate,
            self._options.seconds,
        )
        self._worker = WorkerProcess(ROOT, PIPELINE, self._stand.settings_file, self._folder, settings.health.port)
        self._stack.callback(self._worker.end)
        self._feeder = Feeder(load, history, self._folder / "feeder.log")
        self._stack.callback(self._feeder.end)
        self._tally = Tally(history + load.records)
        self._board = Scoreboard(load.records, time.time)
        stream = Stream(history, self._feeder.sheet)
        self._reader = Reader(bound, settings.kafka, self._stand.registry, self._tally, self._report_tally, self._board, stream)
        self._stack.callback(self._reader.stop)

    def _look(self) -> None:
        """See that all that was started still runs."""
        self._worker.look()
        self._reader.look()

    def _catch_up(self, history: int) -> tuple[float, float, int]:
        """Wait until the history is scored: worker CPU and time that took from the first score on, and the scores in that time."""
        with self._checklist.step("worker") as step:

            def has_begun() -> bool:
                self._look()
                step.say(self._worker.last_line)
                return self._tally.scored > 0

            late = f"no score came within {FIRST_SCORE_SECONDS:.0f} seconds; the worker's log: {self._worker.log}"
            self._checklist.wait(step, has_begun, FIRST_SCORE_SECONDS, lambda: WorkerEnded(late))
            step.say(f"first score; http://127.0.0.1:{self._stand.settings.health.port}/metrics")
        before, cpu_seconds, begun = self._tally.scored, self._worker.cpu_seconds, time.monotonic()
        with self._checklist.step("catching up") as step:

            def is_done() -> bool:
                self._look()
                done = self._tally.scored + self._tally.refused
                step.say(f"{done:,} of {history:,} payments of the history scored")
                return done >= history

            late = f"the history was not scored within {CATCH_UP_SECONDS:.0f} seconds; the worker's log: {self._worker.log}"
            self._checklist.wait(step, is_done, CATCH_UP_SECONDS, lambda: WorkerEnded(late))
            result = self._worker.cpu_seconds - cpu_seconds, time.monotonic() - begun, history - before
            self._checklist.wait(step, lambda: self._feeder.sheet.is_ready or self._feeder.is_done, FEEDER_SECONDS, _feeder_is_late)
            step.say(f"{history:,} payments scored")
        return result

    def _report_history(self) -> Reports:
        """Report the frauds of the history that are known by its end, now that their payments have scores; and see them arrive."""
        with self._checklist.step("reported frauds") as step:
            encoder = label_encoder(self._stand.bound, self._stand.label_schema_id)
            days = self._stand.history_days
            first_day = max(days - records.LOOK_BACK_DAYS, 0)
            known = reports(self._simulator, encoder, first_day, days - REPORTED_AFTER_DAYS - first_day)
            preload(self._stand.settings.kafka.bootstrap_servers, labels_of(self._stand.bound).topic.name, known)

            def is_done() -> bool:
                self._look()
                self._read_counters()
                step.say(f"{self._counters.labels_done:,} of {len(known):,} labels taken")
                return self._counters.labels_done >= len(known)

            late = f"the labels were not taken within {LAST_ANSWER_SECONDS:.0f} seconds; the worker's log: {self._worker.log}"
            self._checklist.wait(step, is_done, LAST_ANSWER_SECONDS, lambda: WorkerEnded(late))
            step.say(f"{len(known):,} labels of the history; from now on, each a week after its payment")
        return known

    def _read_counters(self) -> None:
        self._counters_at = time.monotonic()
        self._counters = read_counters(self._stand.settings.health.port, self._counters)

    @property
    def _reported(self) -> int:
        """Labels sent so far."""
        return len(self._past_reports) + self._feeder.sheet.reported

    def _stream(self) -> tuple[float, float, bool]:
        """Let the feeder send, and watch until all has an answer: when it began, the worker's CPU until then, whether it was cut short."""
        cpu_seconds, interrupted = self._worker.cpu_seconds, False
        begun_at = time.time() + FRAME_SECONDS
        self._feeder.sheet.begin(begun_at)
        self._console.print(
            f"\nstreaming {self._options.rate:,.0f} payments a second for {self._options.seconds:,.0f} s; Ctrl-C ends it early\n"
        )
        with self._screen() as screen:
            while True:
                try:
                    if self._watch(begun_at, screen):
                        return begun_at, cpu_seconds, interrupted
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    self._feeder.sheet.stop()

    def _watch(self, begun_at: float, screen: Live | None) -> bool:
        """Show how things stand until all has an answer; or for as long as it may take."""
        shown, done_at = time.monotonic(), 0.0
        while True:
            self._look()
            is_over = self._feeder.is_done
            if is_over or time.monotonic() - self._counters_at >= COUNTERS_SECONDS:
                self._read_counters()
            now = self._snapshot(begun_at)
            if screen is not None:
                screen.update(View(now, TITLE), refresh=True)
            elif time.monotonic() - shown >= PLAIN_SECONDS:
                shown = time.monotonic()
                self._console.print(plain_line(now), soft_wrap=True)
            if is_over:
                done_at = done_at or time.monotonic()
                is_answered = now.waiting <= 0 and now.counters.labels_done >= now.reported
                if is_answered or time.monotonic() - done_at > LAST_ANSWER_SECONDS:
                    return True
            time.sleep(FRAME_SECONDS)

    def _snapshot(self, begun_at: float) -> Snapshot:
        sheet = self._feeder.sheet
        sent = sheet.sent
        elapsed_seconds = max(time.time() - begun_at, 0.0)
        return self._board.snapshot(
            elapsed_seconds,
            self._options.seconds,
            sheet.kinds[:sent],
            sheet.event_ms[:sent],
            self._worker.cpu_seconds,
            self._reported,
            self._counters,
        )

    @contextmanager
    def _screen(self) -> Iterator[Live | None]:
        """The whole terminal, given back as it was; None where nobody watches."""
        if self._plain:
            yield None
            return
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            yield live

    def _result(
        self, past: records.Records, card: ModelCard, begun_at: float, cpu_seconds: float, caught_up: tuple[float, float, int]
    ) -> Run:
        sheet = self._feeder.sheet
        sent = sheet.sent
        threshold = self._stand.bound.model.threshold
        return Run(
            account=self._tally.account(np.concatenate((past.kinds, sheet.kinds[:sent])), len(past)),
            reports=self._report_tally.account(np.concatenate((self._past_reports.kinds, sheet.report_kinds)), self._counters.labels),
            history=len(past),
            begun_at=begun_at,
            sent_at=sheet.sent_at[:sent],
            latency_seconds=self._board.latency_seconds[:sent],
            set_up_seconds=self._checklist.seconds,
            live_cpu_seconds=cpu_seconds,
            history_cpu_seconds=caught_up[0],
            history_answers=caught_up[2],
            history_seconds=caught_up[1],
            broker=self._stand.broker,
            is_real_broker=self._stand.is_real_broker,
            model=f"{card.name} {card.version}",
            threshold=card.threshold if threshold is None else threshold,
            rate=self._options.rate,
            seed=self._options.seed,
        )


def _print_rows(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Aligned, and as wide as the terminal; a row is a line where there is none."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows:
        style = "bold red" if name == "BROKEN" else ""
        if console.is_terminal:
            table.add_row(Text(name, style or "bold"), Text(text, style))
        else:
            console.print(f"{name:<16}{text}", soft_wrap=True)
    if console.is_terminal:
        console.print(table)


def _feeder_is_late() -> Exception:
    return FeederFailed(f"the feeder was not ready within {FEEDER_SECONDS:.0f} seconds")


def _how_to_look_on(folder: Path) -> str:
    command = "millrace" if shutil.which("millrace") else _shown(Path(sys.argv[0]))
    pipeline, settings, services = _shown(PIPELINE), _shown(folder / "settings.toml"), _shown(folder / OWN_SERVICES)
    return (
        f"\nKafka and Redis were left running. To look on, and to end them:\n"
        f"  {command} dlq ls {pipeline} --settings {settings}\n"
        f"  {command} run {pipeline} --settings {settings}\n"
        f"  MILLRACE_STATE_DIR={services} {command} down --erase"
    )


def _shown(path: Path) -> str:
    """From where we are, if it is below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One demo at a time in a folder.

    Raises:
        LocalServiceError: another one runs there.
    """
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LocalServiceError(f"another demo runs in {folder}; wait for it, or set MILLRACE_STATE_DIR for this one") from error
        yield


@contextmanager
def _ended_in_good_order() -> Iterator[None]:
    """SIGTERM and a closed terminal end us as Ctrl-C does: by way of all that is to be ended first. Afterwards, signals are as before."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[int, Any] = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
