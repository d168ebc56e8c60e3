"""Anomaly scores of 58 series through the stream, judged by the Numenta Anomaly Benchmark: ``python -m examples.anomaly --data FOLDER``.

The folder holds series.parquet, windows.parquet and published_final_scores.json. Without it, series are made up.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from examples.anomaly.benchmark import PROFILES, Result, evaluate, judge
from examples.anomaly.model import deviations
from examples.anomaly.readings import Series, columns_of, made_up, published, published_scores
from examples.replay import Replay, replay
from schemas.columns import Floats, Ints

PIPELINE = Path(__file__).with_name("pipeline.py")
SHOWN = ("numenta", "contextOSE", "randomCutForest", "windowedGaussian", "null")


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the benchmark's data")
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args(arguments)
    series = published(wanted.data) if wanted.data else made_up()
    with replay(PIPELINE, ["anomaly"], wanted.partitions) as stream:
        began = time.monotonic()
        scores = score(stream, series)
        seconds = time.monotonic() - began
    results = judged(series, scores)
    others = published_scores(wanted.data) if wanted.data else {}
    readings = sum(len(one.times) for one in series)
    if wanted.json:
        ours = {name: {"score": result.score, "threshold": result.threshold} for name, result in results.items()}
        print(json.dumps({"readings": readings, "seconds": round(seconds, 1), "scores": ours, "published": others}))
    else:
        print(f"{readings:,} readings of {len(series)} series scored in {seconds:.0f} s\n" + table(results, others))


def score(stream: Replay, series: Sequence[Series]) -> list[Floats]:
    """The score of each reading of each series, by the live path.

    Raises:
        WorkerStopped: the worker ended, or stands still.
    """
    columns = columns_of(series)
    with stream.running({"anomaly": deviations()}):
        stream.send(columns)
        scored = stream.players["anomaly"].read(len(columns["reading_id"]))
    ends: Ints = np.cumsum([len(one.times) for one in series])
    return [part.astype(np.float64) for part in np.split(scored.scores, ends[:-1])]


def judged(series: Sequence[Series], scores: Sequence[Floats]) -> dict[str, Result]:
    """The benchmark's score by profile."""
    worth = [judge(one.times, one.windows) for one in series]
    return {name: evaluate(worth, scores, profile) for name, profile in PROFILES.items()}


def table(results: Mapping[str, Result], others: Mapping[str, Mapping[str, float]]) -> str:
    """Ours above what the benchmark has published of others."""
    heads = {"standard": "standard", "reward_low_FP_rate": "few false alarms", "reward_low_FN_rate": "few misses"}
    lines = [f"{'':18}" + "".join(f"{head:>18}" for head in heads.values())]
    lines.append(f"{'this pipeline':18}" + "".join(f"{results[name].score:18.3f}" for name in heads))
    lines += [f"{name:18}" + "".join(f"{others[name][profile]:18.3f}" for profile in heads) for name in SHOWN if name in others]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
