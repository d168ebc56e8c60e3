"""Nothing lost, nothing twice, nothing wrong, under as many faults as fit in: ``python -m benchmarks.faults --minutes 30 --seed 1``.

Round after round a broker and a Redis of its own are started, a pipeline of one or of two stages is run on them by one to three workers,
and all of it is killed, stopped, frozen, cut off, emptied, cut short and filled up, until the round is over; then the pipeline reads
what there is, and the history checker recomputes every answer. While one round is checked the next one runs. The exit code is 1 if
anything was found.

The results file says what was done how often, and how soon every partition came further again. A round can be played again by its seed:
``--seed N --rounds 1``. The times at which faults happen are the machine's, so another run is alike, not the same.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.faults.pipelines import pipeline_of
from schemas.errors import LocalServiceError
from streams.faults.checker import Verdict
from streams.faults.nursery import Nursery, Overdue
from streams.faults.play import Account, Played, forget, judge, play, seeds

RESULTS = Path(__file__).parents[1] / "results"
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run, write the results file, and fail if anything was found."""
    wanted = _arguments()
    seed = wanted.seed if wanted.seed is not None else time.time_ns() % 1_000_000
    account, kinds = Account(seed), dict[str, int]()
    began = time.time()
    base = Path(tempfile.mkdtemp(prefix="millrace-faults-"))
    print(f"seed {seed}; logs and data of rounds in which something is found stay in {base}", flush=True)
    nursery = Nursery(python_path=[str(ROOT)])
    ended_by = ""
    with ProcessPoolExecutor(1, get_context("spawn")) as checkers:
        under_way: tuple[Played, Future[Verdict]] | None = None
        try:
            for number, each in enumerate(seeds(seed)):
                if time.time() > began + wanted.minutes * 60 or (wanted.rounds and number >= wanted.rounds):
                    break
                folder = base / f"round-{each}"
                kind, file = pipeline_of(each, base / f"pipeline-{each}")
                kinds[kind] = kinds.get(kind, 0) + 1
                try:
                    played = play(file, None, folder, nursery, each, wanted.rate, wanted.round_seconds)
                except (LocalServiceError, Overdue) as error:  # the harness's own trouble: the round says nothing
                    account.spoiled.append(f"seed {each}: {error}")
                    print(f"round {each} is void: {error}", flush=True)
                    continue
                closing, under_way = under_way, None
                _close(account, closing)
                if played.history is None:
                    account.add(played, None)
                    print(f"round {each}: {' '.join(map(str, played.findings))}", flush=True)
                else:
                    under_way = played, checkers.submit(judge, file, None, played.history, folder / "schemas")
        except BaseException as error:
            ended_by = f"{type(error).__name__}: {error}"
            raise
        finally:
            nursery.close()
            try:
                _close(account, under_way)
            finally:
                facts = {
                    **_circumstances(wanted, seed),
                    "pipelines": kinds,
                    **account.facts(),
                    "minutes": round((time.time() - began) / 60, 1),
                }
                _keep(wanted, facts | ({"ended_by": ended_by} if ended_by else {}))
    sys.exit(0 if account.holds else 1)


def _keep(wanted: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Write the results file, of a run that was ended too, and say what it says."""
    if not wanted.no_file:
        file = RESULTS / f"faults-{datetime.now(UTC):%Y-%m-%dT%H%M}.json"
        file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        print(f"written to {file}")
    print(_words(facts))


def _close(account: Account, under_way: tuple[Played, Future[Verdict]] | None) -> None:
    if under_way is None:
        return
    played, checked = under_way
    verdict = checked.result()
    account.add(played, verdict)
    forget(played, kept=bool(verdict.findings or played.findings))
    found = [*played.findings, *verdict.findings]
    print(
        f"round {played.seed}: {verdict.scored:,} outputs, {len(played.hurts)} faults, {len(found)} findings; "
        f"{account.scored:,} outputs and {sum(account.faults.values()):,} faults so far",
        flush=True,
    )
    for finding in found[:5]:
        print(f"  {finding}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45.0, help="no round begins later than that")
    parser.add_argument("--rounds", type=int, default=0, help="and no more rounds than that; 0 = as many as there is time for")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--rate", type=float, default=1_000.0, help="events a second")
    parser.add_argument("--round-seconds", type=float, default=45.0, help="of faults in each round")
    parser.add_argument("--no-file", action="store_true", help="write no results file")
    return parser.parse_args()


def _circumstances(wanted: argparse.Namespace, seed: int) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "benchmark": "faults",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "tree_changed": bool(changed),
        "machine": {"python": platform.python_version(), "system": platform.platform()},
        "settings": {"seed": seed, "rate": wanted.rate, "round_seconds": wanted.round_seconds, "minutes": wanted.minutes},
    }


def _words(facts: dict[str, Any]) -> str:
    found = ", ".join(f"{kind} {count}" for kind, count in facts["found"].items())
    took = facts["recovery_seconds"]
    back = f"back after {took['p50']} s (p50), {took['p99']} s (p99)" if took else "never back"
    return (
        f"{facts['outputs']:,} outputs and {facts['dead_letters']:,} dead letters under {facts['faults']:,} faults "
        f"in {facts['minutes']} min; "
        f"{facts['replayed_offsets']:,} offsets replayed; {back}\n{found}"
    )


if __name__ == "__main__":
    main()
