"""Run a load: stand, generators, session and result, and what becomes of them when it ends before its time."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load.events import Events, Traffic
from benchmarks.load.generator import Generators, Source
from benchmarks.load.reader import WrongAnswer
from benchmarks.load.session import LEAD_IN_SECONDS, Ended, Session
from benchmarks.load.shape import Shape, Word
from benchmarks.load.stand import Stand, own_stand, stand_on
from benchmarks.load.watch import LEAST_FREE_BYTES, DiskFull, room_words
from benchmarks.load.words import load_words
from benchmarks.result import RESULTS, circumstances, keep, signals_interrupt
from schemas.errors import MillraceError
from streams.settings import Settings

EVENT_BYTES = 1_500  # of a broker's log, about: input, output, what hops, and the transactions'
MEASURED = ("drain", "run", "knee")
OK, INVALID, INTERRUPTED = 0, 1, 130
INTERRUPTED_WORDS = "interrupted before its end"


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for.

    Attributes:
        pipeline: its file.
        which: its name, if the file defines several.
        settings: where the services are that are to be used; None = the harness brings its own.
        settings_file: where those come from, if from a file.
        shape, rate, seconds: the load.
        traffic: its events.
        partitions, workers, generators: how many.
        p99_ms: find the highest rate that holds this, in place of one run; None = don't.
        hold_seconds: for so long.
        checked_keys: of each entity, held against the slow definition.
        results: folder of the result.
        command: runs this again.
    """

    pipeline: Path
    which: str | None = None
    settings: Settings | None = None
    settings_file: Path | None = None
    shape: Word = "constant"
    rate: float = 1_000.0
    seconds: float = 60.0
    traffic: Traffic = field(default_factory=Traffic)
    partitions: int = 1
    workers: int = 1
    generators: int = 1
    p99_ms: float | None = None
    hold_seconds: float = 60.0
    checked_keys: int = 20
    results: Path = RESULTS
    command: str = field(default_factory=lambda: _command())


def run_load(options: Options, as_json: bool = False) -> int:
    """Run a load and keep its result; returns the exit code: 0, 1 = it does not count or its answer is wrong, 130 = interrupted.

    Raises:
        Refused: it can't be run as it stands.
        RetryLater: broker or Redis don't answer.
        MillraceError: a part of it failed; what was measured until then is kept, and marked.
    """
    shape = Shape(options.shape, options.rate, options.seconds)
    said = {"kind": "load", "complete": False, "counts": False, "settings": _told(options)}
    result: dict[str, Any] = circumstances(options.command) | said
    try:
        with signals_interrupt(), _stand(options) as stand:
            _measure(options, shape, stand, result)
        result["complete"], result["counts"] = True, _counts(result)
    except Ended as error:
        result |= {"run": error.partial} if error.partial else {}
        result["ended"] = str(error.reason) or INTERRUPTED_WORDS
        if isinstance(error.reason, MillraceError):
            _keep(options, result)
            raise error.reason from None
    except KeyboardInterrupt:
        result["ended"] = INTERRUPTED_WORDS
    except WrongAnswer as error:
        result["ended"] = f"its answer is wrong: {error}"
    except MillraceError as error:
        result["ended"] = str(error)
        _keep(options, result)
        raise
    _keep(options, result)
    print(json.dumps(result, indent=1) if as_json else load_words(result))
    if result["complete"]:
        return OK if result["counts"] else INVALID
    print(f"millrace: {result['ended']}", file=sys.stderr)
    return INTERRUPTED if result["ended"] == INTERRUPTED_WORDS else INVALID


def _counts(result: dict[str, Any]) -> bool:
    """Whether the run is valid: of a search, the one at the knee."""
    run = result.get("run") or result["knee"]["at_the_knee"]
    return run is not None and not run["invalid"]


def _measure(options: Options, shape: Shape, stand: Stand, result: dict[str, Any]) -> None:
    events = Events(stand.bound, options.traffic)
    _check_room(stand.folder, options, shape)
    result |= {"pipeline": stand.bound.name, "model": stand.model, "entities": len(stand.bound.pipeline.entities)}
    result["features"] = len(stand.bound.features.names)
    source = Source(stand.file, stand.which, stand.settings.kafka, options.traffic, stand.schema_id)
    with contextlib.closing(Generators(source, options.generators)) as generators:
        session = Session(stand, events, generators, say)
        session.send_history()
        with stand.working(options.workers):
            result["drain"] = session.drain()
            if options.p99_ms is not None:
                result["knee"] = {"runs": session.probes}  # for the case that it ends early
                result["knee"] = session.knee(options.p99_ms, options.hold_seconds, options.rate)
            else:
                result["run"] = _run(session, shape)
            session.settle()
            result["answers"] = session.check(options.checked_keys)


def _run(session: Session, shape: Shape) -> dict[str, Any]:
    """One run; a load that is not steady is led in by one that is."""
    if not shape.is_steady:
        begins_with = float(shape.rates(np.zeros(1))[0])
        session.say(f"leading in with {begins_with:,.0f} events/s for {LEAD_IN_SECONDS:.0f} s")
        session.run(Shape("constant", max(begins_with, 1.0), LEAD_IN_SECONDS))
    session.say(f"{shape.word}: {shape.rate:,.0f} events/s for {shape.seconds:g} s")
    return session.run(shape)


def _stand(options: Options) -> AbstractContextManager[Stand]:
    if options.settings is None:
        return own_stand(options.pipeline, options.which, options.partitions, say)
    return stand_on(options.settings, options.settings_file, options.pipeline, options.which, options.partitions)


def _check_room(folder: Path, options: Options, shape: Shape) -> None:
    """Refuse what the disk has no room for, before it is full."""
    events = options.traffic.history + (shape.expected_events if options.p99_ms is None else 0)
    wanted, free = events * EVENT_BYTES + LEAST_FREE_BYTES, shutil.disk_usage(folder).free
    if options.settings is None and free < wanted:
        raise DiskFull(room_words(folder, free, wanted))


def _keep(options: Options, result: dict[str, Any]) -> None:
    if any(name in result for name in MEASURED):
        kind = "knee" if options.p99_ms is not None else options.shape
        say(f"result: {keep(f'load-{kind}', result, options.results)}")


def _command() -> str:
    """What was typed, but for where the result goes."""
    words = sys.argv[1:]
    if "--results" in words:
        at = words.index("--results")
        words = words[:at] + words[at + 2 :]
    return shlex.join(["millrace", *words])


def _told(options: Options) -> dict[str, Any]:
    """The options, as the result has them."""
    left_out = ("settings", "settings_file", "results", "command")
    told = {name: value for name, value in asdict(options).items() if name not in left_out}
    services = "its own" if options.settings is None else "those of the settings"
    return told | {"pipeline": os.path.relpath(options.pipeline), "services": services}


def say(words: str) -> None:
    """What goes on, on standard error."""
    print(f"{time.strftime('%H:%M:%S')}  {words}", file=sys.stderr, flush=True)
