"""A long run at a steady rate: ``python -m benchmarks.soak --minutes 30 --rate 5000``.

Once the windows are full, as much leaves them as comes, so nothing has a reason to grow. Looked at once a second: the worker's
memory (RSS) and open file handles, Redis's memory; and the latency of every event, from when it was due until its score was in
the hands of a read_committed reader.

Each is *flat* if the line through what was seen after the first fifth of the run rises, over the run, by no more than
`bounds.json` allows. The line is the one with the median of the slopes between all pairs of points (Theil and Sen), which a few
outliers do not move. The result is a JSON file and a plot, `soak-*.svg`.

The answer is asserted: every event scored once, and the features of some keys as the slow definition says.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.load.shape import Shape
from benchmarks.load.stand import Stand
from benchmarks.on_trial import arguments, judged, on_trial, say, told
from schemas.columns import Floats

BOUNDS = Path(__file__).with_name("bounds.json")
LOOK_SECONDS = 1.0
CUT = 0.2  # of the run, left out: memory is asked for as it is needed first
MOST_POINTS = 240  # of a line; more are put together


@dataclass
class Trends:
    """What is looked at over time, in a thread of its own: by name, one number a look."""

    ask: dict[str, Callable[[], float]]
    at: list[float] = field(default_factory=list)
    seen: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trends", daemon=True)

    def __enter__(self) -> Trends:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(LOOK_SECONDS):
            try:
                numbers = {name: ask() for name, ask in self.ask.items()}
            except (psutil.Error, OSError):
                return  # whoever waits for the worker finds out
            self.at.append(time.monotonic() - begun)
            for name, number in numbers.items():
                self.seen.setdefault(name, []).append(number)


def slope(at: Sequence[float], numbers: Sequence[float]) -> float:
    """Units a second, of the line with the median of all slopes between two points (Theil-Sen)."""
    x, y = _thinned(np.asarray(at, np.float64)), _thinned(np.asarray(numbers, np.float64))
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    return float(np.median((y[second] - y[first])[apart > 0] / apart[apart > 0])) if len(x) > 1 else 0.0


def growth(at: Sequence[float], numbers: Sequence[float]) -> dict[str, float]:
    """How much the line through all but the first part rises over the whole run: in units, and as a share of the middle."""
    kept = [i for i, second in enumerate(at) if second >= CUT * at[-1]]
    x, y = [at[i] for i in kept], [numbers[i] for i in kept]
    risen, middle = slope(x, y) * at[-1], float(np.median(y))
    return {
        "middle": round(middle, 3),
        "grown": round(risen, 3),
        "grown_share": round(risen / middle, 4) if middle else 0.0,
        "highest": round(max(y), 3),
    }


def _thinned(numbers: Floats) -> Floats:
    """Not more than some, each the mean of its neighbours."""
    if len(numbers) <= MOST_POINTS:
        return numbers
    return np.array([part.mean() for part in np.array_split(numbers, MOST_POINTS)])


def questions(stand: Stand) -> dict[str, Callable[[], float]]:
    """What is looked at, of one worker and its Redis."""
    worker, client = stand.workers[0].process, stand.redis()

    def redis_mb() -> float:
        facts: Any = client.info("memory")
        return float(facts["used_memory"]) / 1e6

    return {
        "rss_mb": lambda: worker.memory_info().rss / 1e6,
        "file_handles": lambda: float(worker.num_fds()),
        "threads": lambda: float(worker.num_threads()),
        "redis_mb": redis_mb,
    }


def plot(file: Path, title: str, panels: Sequence[tuple[str, Sequence[float], dict[str, Sequence[float]]]]) -> None:
    """Draw panels below each other: a heading, minutes, and lines by name."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "millrace"  # the same picture has the same bytes
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 2.1 * len(panels)), sharex=True, layout="constrained")
    for axis, (heading, minutes, lines) in zip(np.atleast_1d(axes), panels, strict=True):
        for name, numbers in lines.items():
            axis.plot(minutes, numbers, linewidth=1.0, label=name)
        axis.set_ylim(0, 1.15 * max(max(numbers, default=0.0) for numbers in lines.values()) or 1.0)
        axis.set_title(heading, fontsize=9, loc="left")
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend(fontsize=8, loc="lower right")
    np.atleast_1d(axes)[-1].set_xlabel("minutes")
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Run, keep what was seen, plot it, and fail if anything has grown."""
    parser = arguments(__doc__, keys=10_000, live=60)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=5_000)
    wanted = parser.parse_args()
    found: dict[str, Any] = {}
    with on_trial(wanted) as session, session.stand.working(1):
        found["drain"] = session.drain()
        say(f"{wanted.rate:,.0f} events/s for {wanted.minutes:g} minutes")
        with Trends(questions(session.stand)) as trends:
            run = session.run(Shape("constant", wanted.rate, wanted.minutes * 60))
        found["answers"] = session.check(20)
    slices = run["over_time"]
    latency_at = [each["second"] for each in slices]
    found["run"] = {
        name: run[name] for name in ("events", "unanswered", "repeated", "offered_share", "latency", "generator", "rss_mb", "bottleneck")
    }
    found["growth"] = {name: growth(trends.at, numbers) for name, numbers in trends.seen.items()} | {
        name: growth(latency_at, [each[name] for each in slices]) for name in ("p50_ms", "p99_ms")
    }
    found["seen"] = {
        "at_seconds": [round(each, 1) for each in trends.at],
        **{name: [round(n, 2) for n in each] for name, each in trends.seen.items()},
    }
    found["latency_over_time"] = slices
    result, file = told("soak", wanted, found)
    picture = file.with_suffix(".svg")
    minutes = [each / 60 for each in trends.at]
    plot(
        picture,
        f"{wanted.rate:,.0f} events/s for {wanted.minutes:g} minutes, {run['events']:,} events, commit {result['commit']}",
        [
            ("worker's memory (RSS), MB", minutes, {"rss": trends.seen["rss_mb"]}),
            (
                "worker's file handles and threads",
                minutes,
                {"file handles": trends.seen["file_handles"], "threads": trends.seen["threads"]},
            ),
            ("Redis's memory, MB", minutes, {"used": trends.seen["redis_mb"]}),
            (
                "due to scored, ms",
                [each / 60 for each in latency_at],
                {name: [each[f"{name}_ms"] for each in slices] for name in ("p50", "p99")},
            ),
        ],
    )
    say(f"plot: {picture}")
    for name, each in found["growth"].items():
        risen = f"{each['grown']:+9,.2f} over the run ({each['grown_share']:+.1%})"
        print(f"  {name:13} {each['middle']:10,.2f} in the middle, {risen}, at most {each['highest']:,.2f}")
    print(f"  {run['events']:,} events, {found['answers']['answered']:,} answered once; p99 {run['latency']['p99_ms']:.1f} ms")
    judged(wanted, missed(found["growth"], run["unanswered"]))


def missed(grown: dict[str, dict[str, float]], unanswered: int) -> list[str]:
    """What is not flat."""
    floors = json.loads(BOUNDS.read_text())["soak"]
    wrong = [f"{unanswered:,} events were not answered"] if unanswered else []
    for name, allowed in floors["grown_share"].items():
        if grown[name]["grown_share"] > allowed:
            wrong.append(f"{name} has grown by {grown[name]['grown_share']:.1%} over the run, the floor is {allowed:.0%}")
    return wrong


if __name__ == "__main__":
    main()
