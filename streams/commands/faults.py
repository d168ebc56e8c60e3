"""`millrace test faults`: a user's own pipeline under faults, on services of its own, its answers recomputed."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import DefinitionError
from schemas.features import Json
from streams.commands.common import AsJson, PipelineFile, Which, bound_of, say

if TYPE_CHECKING:
    from streams.definition.bound import Bound

ROUND_SECONDS = 45.0
SEEDS = 1_000_000

app = typer.Typer(help="Prove a pipeline.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Prove a pipeline."""


@app.command("faults")
def faults(
    pipeline: PipelineFile,
    which: Which = None,
    minutes: Annotated[float, typer.Option(help="How long faults are done; the last round is finished and checked.")] = 5.0,
    seed: Annotated[int | None, typer.Option(help="To play a run again; default: a new one, which is printed.", show_default=False)] = None,
    rate: Annotated[float, typer.Option(help="Events a second.")] = 500.0,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline on a Kafka and a Redis of its own, hurt all of them, and recompute every answer; exit code 1 if one is not right."""
    facts = prove(pipeline, which, minutes, time.time_ns() % SEEDS if seed is None else seed, rate)
    say(facts, as_json, faults_words)
    sys.exit(0 if facts["holds"] else 1)


def _refuse_framings(bound: Bound) -> None:
    """The events made up here are Avro, and their checker reads no more."""
    from schemas.framing import framing_words

    for topic in (bound.input, *([] if bound.labels is None else [bound.labels.topic])):
        if topic.framing not in ("confluent", "bare"):
            found = framing_words(topic.framing)
            raise DefinitionError(f"topic {topic.name!r} is {found}; this command makes events in framing 'confluent' or 'bare' only")


def prove(pipeline: Path, which: str | None, minutes: float, seed: int, rate: float) -> dict[str, Json]:
    """What a run of faults comes to.

    Raises:
        Refused: the pipeline can't be run.
        MissingProgram: Java, Maven or Redis is needed and not there.
    """
    from streams.faults.nursery import Nursery
    from streams.faults.play import Account, forget, judge, play, seeds
    from streams.local.redis import find_server

    _refuse_framings(bound_of(pipeline, which))  # what is wrong with it is said before anything is started
    find_server()
    account = Account(seed)
    base = Path(tempfile.mkdtemp(prefix="millrace-faults-"))
    print(f"seed {seed}", file=sys.stderr)
    end = time.monotonic() + minutes * 60
    nursery = Nursery()
    try:
        for each in seeds(seed):
            left = end - time.monotonic()
            if account.rounds and left <= 0:
                break
            folder = base / f"round-{each}"
            played = play(pipeline, which, folder, nursery, each, rate, min(ROUND_SECONDS, max(left, 5.0)))
            verdict = None if played.history is None else judge(pipeline, which, played.history, folder / "schemas")
            account.add(played, verdict)
            found = [*played.findings, *(verdict.findings if verdict else ())]
            forget(played, kept=bool(found))
            print(f"round {len(account.rounds)}: {len(played.hurts)} faults, {len(found)} findings", file=sys.stderr)
    finally:
        nursery.close()
        if account.holds:
            shutil.rmtree(base, ignore_errors=True)
    facts: dict[str, Json] = {"pipeline": str(pipeline), **account.facts(), "kept_in": None if account.holds else str(base)}
    return facts


def faults_words(facts: Mapping[str, Any]) -> str:
    """A few lines for a person."""
    took = facts["recovery_seconds"]
    lines = [
        f"{facts['inputs']:,} events: {facts['outputs']:,} scored, {facts['dead_letters']:,} dead letters; {facts['labels']:,} labels",
        f"{facts['faults']:,} faults: " + ", ".join(f"{kind} {count}" for kind, count in facts["faults_by_kind"].items()),
        f"{facts['replayed_offsets']:,} offsets replayed"
        + (f"; every partition went on after {took['p50']} s (p50), {took['p99']} s (p99)" if took else ""),
        ", ".join(f"{kind} {count}" for kind, count in facts["found"].items()),
        *facts["examples"],
        *(f"a worker ended by itself: {words}" for words in facts["workers_ended_by_themselves"]),
        f"seed {facts['seed']}: " + ("every answer is right" if facts["holds"] else f"NOT right; logs and data are in {facts['kept_in']}"),
    ]
    return "\n".join(lines)
