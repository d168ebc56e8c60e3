"""What the soak, the overload and the recovery begin with: services of their own, full windows, workers that have caught up.

The load itself, its generators and the check of every answer are those of `benchmarks.load`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load.events import Events, Traffic
from benchmarks.load.generator import Generators, Source
from benchmarks.load.session import Session
from benchmarks.load.stand import Stand, own_stand
from benchmarks.result import RESULTS, circumstances, command_line, keep, signals_interrupt

PIPELINE = Path(__file__).resolve().parents[1] / "examples" / "card_fraud" / "pipeline.py"


def arguments(description: str | None, keys: int, live: int) -> argparse.ArgumentParser:
    """The arguments that all of them take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=keys, help="of each entity")
    parser.add_argument("--live", type=int, default=live, help="events that each has in its windows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--no-floors", action="store_true", help="measure only")
    return parser


@contextmanager
def on_trial(
    wanted: argparse.Namespace,
    partitions: int = 1,
    generators: int = 1,
    changes: Mapping[str, str] | None = None,
    environment: Callable[[Stand], Mapping[str, str]] = lambda stand: {},
) -> Iterator[Session]:
    """A session whose history is sent; nobody works yet.

    Args:
        wanted: the arguments.
        partitions: of each topic.
        generators: processes that send.
        changes: of the pipeline's text, what to put in place of what.
        environment: settings of the workers, beside the addresses.
    """
    traffic = Traffic(seed=wanted.seed, keys=wanted.keys, live=wanted.live)
    with signals_interrupt(), own_stand(PIPELINE, None, partitions, say) as stand:
        text = stand.file.read_text(encoding="utf-8")
        for old, new in (changes or {}).items():
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {stand.file.name}"
            text = text.replace(old, new)
        stand.file.write_text(text, encoding="utf-8")
        stand.environment |= environment(stand)
        source = Source(stand.file, None, stand.settings.kafka, traffic, stand.schema_id)
        with contextlib.closing(Generators(source, generators)) as sending:
            session = Session(stand, Events(stand.bound, traffic), sending, say)
            session.send_history()
            yield session


def told(kind: str, wanted: argparse.Namespace, found: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """A result, what was found and under which circumstances, and its file beside the others."""
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(wanted).items() if name != "results"}
    result = {"kind": kind, **circumstances(command_line()), "settings": settings, **found}
    file = keep(kind, result, wanted.results)
    say(f"result: {file}")
    return result, file


def judged(wanted: argparse.Namespace, missed: list[str]) -> None:
    """Fail if a floor is missed, unless none was to be held."""
    for each in missed:
        print(f"  missed: {each}")
    if missed and not wanted.no_floors:
        raise SystemExit("; ".join(missed))


def say(words: str) -> None:
    """What goes on, on standard error."""
    print(f"{time.strftime('%H:%M:%S')}  {words}", file=sys.stderr, flush=True)
