"""Did a change make a part slower? ``python -m benchmarks.compare OLD_REV [NEW_REV] [--parts decode,windows]``

Each revision is checked out in a temporary worktree (without NEW_REV the new one is this checkout as it stands). The parts of
`benchmarks.parts` run for both, measured by this checkout's benchmarks, **paired and interleaved**: two processes, a round of one, a
round of the other, and in the next pair the other way round, so that what else the machine does falls on both alike. Since where a
process's memory happens to lie makes it faster or slower for all its life, there are several launches, each with processes of their own.

The rule, on the ratios new / old of the CPU time a unit takes, pair by pair:

- the estimate is the median over launches of each launch's median;
- its interval comes from a bootstrap of two levels, launches and then the pairs within: 99 % of 1,000 resamples lie in it;
- **slower** is what has its whole interval above 1 + margin, and the median of every single launch above 1; **faster** likewise below;
- anything else is **no difference that is more than noise**, and the width of the interval says how much would have been.

With the default margin of 2 % and 5 launches a revision beside itself is called slower less than once in a hundred parts (tests/benchmarks/
test_compare.py plays it through). The new revision is also held against the floors in `bounds.json`.

Ends with 1 if a part is slower or misses its floor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.parts import BROKER, NEED_A_BROKER, PARTS
from benchmarks.result import circumstances, keep, signals_interrupt
from schemas.errors import MillraceError, Refused
from streams.local import services as local

ROOT = Path(__file__).resolve().parents[1]
BOUNDS = Path(__file__).with_name("bounds.json")
RESAMPLES = 1_000
CONFIDENCE = 0.99
WARM_ROUNDS = 3
# Where `bounds.json` has a part's floor, in microseconds a unit.
FLOORS = {
    "decode": ("codec", "decode_us"),
    "encode": ("codec", "encode_us"),
    "windows": ("kernel", "advance_us_per_event"),
    "forest": ("scoring", "us_per_row"),
}
Word = Literal["slower", "faster", "no difference"]


class NotComparable(Refused):
    """A revision is not there, or a part does not run on it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a part.

    Attributes:
        word: by the rule.
        ratio: new / old, CPU time a unit.
        low, high: ends of its interval.
        old_us, new_us: medians, microseconds of CPU a unit.
        least_us: the new revision's tenth percentile, which is hardly disturbed: it is held against the floor.
        floor_us: None = it has none.
    """

    word: Word
    ratio: float
    low: float
    high: float
    old_us: float
    new_us: float
    least_us: float
    floor_us: float | None = None

    @property
    def misses_floor(self) -> bool:
        """Whether the new revision takes longer than its floor allows."""
        return self.floor_us is not None and self.least_us > self.floor_us


def judge(old_us: NDArray[np.float64], new_us: NDArray[np.float64], margin: float, floor_us: float | None = None) -> Verdict:
    """Apply the rule.

    Args:
        old_us: shape (launches, pairs): microseconds a unit.
        new_us: likewise, pair by pair.
        margin: a smaller difference is of no interest.
        floor_us: of the part.
    """
    ratios = new_us / old_us
    by_launch = np.median(ratios, axis=1)
    ratio = float(np.median(by_launch))
    random = np.random.default_rng(0)
    launches, pairs = ratios.shape
    chosen = random.integers(launches, size=(RESAMPLES, launches, 1))
    within = random.integers(pairs, size=(RESAMPLES, launches, pairs))
    resampled = np.median(np.median(ratios[chosen, within], axis=2), axis=1)
    low, high = np.quantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)).tolist()
    word: Word = "no difference"
    if low > 1 + margin and (by_launch > 1).all():
        word = "slower"
    elif high < 1 - margin and (by_launch < 1).all():
        word = "faster"
    return Verdict(word, ratio, low, high, float(np.median(old_us)), float(np.median(new_us)), float(np.percentile(new_us, 10)), floor_us)


class Side:
    """A process that runs one part with one revision's code."""

    def __init__(self, name: str, tree: Path, part: str, environment: Mapping[str, str]) -> None:
        self._name, self._part = name, part
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.parts", part],
            cwd=tree,
            env={**environment, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answer()

    def round(self) -> float:
        """Microseconds of CPU a unit took."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer()["cpu_us"])

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it said nothing"])[-1]
            raise NotComparable(f"{self._part} does not run on {self._name}: {last}")
        return json.loads(line)


def measure(
    names: tuple[str, str], trees: tuple[Path, Path], part: str, launches: int, pairs: int, environment: Mapping[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Microseconds a unit of the old and the new revision, shape (launches, pairs) each.

    Raises:
        NotComparable: the part does not run on one of them.
    """
    found = np.zeros((2, launches, pairs))
    for launch in range(launches):
        with ExitStack() as stack:
            sides: list[Side] = [None, None]  # type: ignore[list-item]
            for place in (0, 1) if launch % 2 == 0 else (1, 0):
                sides[place] = Side(names[place], trees[place], part, environment)
                stack.callback(sides[place].close)
            for _ in range(WARM_ROUNDS):
                for side in sides:
                    side.round()
            for pair in range(pairs):
                for place in (0, 1) if (pair + launch) % 2 == 0 else (1, 0):
                    found[place, launch, pair] = sides[place].round()
    return found[0], found[1]


@contextmanager
def checked_out(revision: str | None, folder: Path) -> Iterator[Path]:
    """A revision's files, with this checkout's benchmarks over its own; without a revision, this checkout.

    Raises:
        NotComparable: there is no such revision.
    """
    if revision is None:
        yield ROOT
        return
    tree = folder / f"tree-{len(list(folder.iterdir()))}"
    done = subprocess.run(
        ["git", "worktree", "add", "--detach", str(tree), revision], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotComparable(f"no revision {revision!r}: {done.stderr.strip().splitlines()[-1]}")
    try:
        shutil.copytree(
            ROOT / "benchmarks", tree / "benchmarks", dirs_exist_ok=True, ignore=shutil.ignore_patterns("results", "__pycache__")
        )
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, capture_output=True, check=False)


@contextmanager
def environment_for(parts: Sequence[str], folder: Path) -> Iterator[dict[str, str]]:
    """For the processes; with a broker if a part needs one."""
    if not set(parts) & set(NEED_A_BROKER):
        yield dict(os.environ)
        return
    services = local.up(folder / "services", say=lambda words: print(f"  {words}", file=sys.stderr))
    try:
        yield {**os.environ, BROKER: services.bootstrap_servers}
    finally:
        local.down(folder / "services")


def floor_of(part: str) -> float | None:
    """Microseconds a unit that the part may take."""
    if part not in FLOORS:
        return None
    section, name = FLOORS[part]
    return float(json.loads(BOUNDS.read_text())[section][name])


def verdict_words(part: str, verdict: Verdict) -> str:
    """A line."""
    floor = "" if verdict.floor_us is None else f"  floor {verdict.floor_us:g}" + (": MISSED" if verdict.misses_floor else "")
    return (
        f"{part:12} {verdict.old_us:9.3f} -> {verdict.new_us:9.3f} us  x{verdict.ratio:.3f}  [{verdict.low:.3f}, {verdict.high:.3f}]  "
        f"{verdict.word}{floor}"
    )


def compare(wanted: argparse.Namespace, parts: Sequence[str]) -> dict[str, Verdict]:
    """Compare the parts of two revisions, and say a line of each."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-compare-"))
    names = wanted.old, wanted.new or "this checkout"
    found = {}
    try:
        with checked_out(wanted.old, folder) as old, checked_out(wanted.new, folder) as new, environment_for(parts, folder) as environment:
            for part in parts:
                old_us, new_us = measure(names, (old, new), part, wanted.launches, wanted.pairs, environment)
                found[part] = judge(old_us, new_us, wanted.margin, floor_of(part))
                print(verdict_words(part, found[part]), file=sys.stderr if wanted.json else sys.stdout, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, capture_output=True, check=False)
    return found


def main() -> int:
    """Compare, print, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD_REV")
    parser.add_argument("new", metavar="NEW_REV", nargs="?", help="without it: this checkout as it stands")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=15, help="in a launch")
    parser.add_argument("--margin", type=float, default=0.02, help="a smaller difference is of no interest")
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    parts = [part.strip() for part in wanted.parts.split(",") if part.strip()]
    unknown = [part for part in parts if part not in PARTS]
    if unknown or wanted.launches < 1 or wanted.pairs < 1:
        parser.error(
            f"no part is called {', '.join(unknown)}; wanted some of {', '.join(PARTS)}"
            if unknown
            else "wanted at least one launch and pair"
        )
    try:
        with signals_interrupt():
            verdicts = compare(wanted, parts)
    except KeyboardInterrupt:
        print("compare: interrupted; what had been compared stands above", file=sys.stderr)
        return 130
    except MillraceError as error:
        print(f"compare: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, Refused) else 1
    facts = {part: {**asdict(verdict), "misses_floor": verdict.misses_floor} for part, verdict in verdicts.items()}
    if wanted.json:
        print(json.dumps(facts, indent=1))
    if wanted.keep:
        command = " ".join(["python -m benchmarks.compare", *sys.argv[1:]])
        keep("compare", circumstances(command) | {"kind": "compare", "old": wanted.old, "new": wanted.new, "parts": facts})
    return int(any(verdict.word == "slower" or verdict.misses_floor for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
