"""Forecasts of bikes at stations through the stream: ``python -m examples.bikes --data FOLDER``.

The folder holds bikes.parquet. Without it, counts are made up. The published learner is given the features that the stream served, and
must come to the published errors; beside it stands a model of the same features that is fitted now and then and served live.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from examples.bikes.learner import linear, mean_error, weights
from examples.bikes.pipeline import LATE
from examples.bikes.status import WEATHER, columns_of, made_up, published
from examples.replay import Replay, Scored, replay
from schemas.columns import Floats

PIPELINE = Path(__file__).with_name("pipeline.py")
DAY_MS = 86_400_000
REFITTED_AFTER_DAYS = (2, 8, 32, 96)
BEFORE, LATER = len(WEATHER), len(WEATHER) + 1  # where the two running means stand among the features
PUBLISHED = {"weather": 5.563893, "weather, mean": 3.933498, "weather, mean half an hour late": 4.024939}


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, learn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of bikes.parquet")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args(arguments)
    table = published(wanted.data) if wanted.data else made_up()
    with replay(PIPELINE, ["bikes"]) as stream:
        scored = served(stream, table)
    errors = learned(table, scored.features)
    live = float(np.abs(scored.scores - table["bikes"].to_numpy()).mean())
    if wanted.json:
        print(json.dumps({"counts": len(table), "learned": errors, "live": live, "published": PUBLISHED if wanted.data else None}))
        return
    print(f"{len(table):,} counts; mean absolute error".ljust(62) + f"{'here':>10}" + f"{'published':>12}" * bool(wanted.data))
    for name, error in errors.items():
        print(f"learns from every answer: {name}".ljust(62) + f"{error:10.6f}" + f"{PUBLISHED[name]:12.6f}" * bool(wanted.data))
    print(f"served live, fitted {len(REFITTED_AFTER_DAYS)} times".ljust(62) + f"{live:10.6f}")


def served(stream: Replay, table: pl.DataFrame) -> Scored:
    """Features and forecasts by the live path; the model is fitted anew after some days, to what was served by then.

    Raises:
        WorkerStopped: the worker ended, or stands still.
    """
    bikes, day = table["bikes"].to_numpy().astype(np.float64), ((table["time_ms"] - table["time_ms"][0]) // DAY_MS).to_numpy()
    edges = [0, *np.searchsorted(day, REFITTED_AFTER_DAYS).tolist(), len(table)]
    usual = np.zeros(LATER + 2)
    usual[LATER] = 1.0  # until there is something to fit, the running mean is the answer
    parts: list[Scored] = []
    with stream.running({"bikes": linear(usual)}):
        for first, end in pairwise(edges):
            if parts and end > first:
                rows = _late(np.concatenate([part.features for part in parts]))
                found = weights(rows, bikes[:first])
                stream.replace({"bikes": linear(np.insert(found, BEFORE, 0.0))})
            if end > first:
                stream.send(columns_of(table[first:end], first))
                parts.append(stream.players["bikes"].read(end - first))
    return Scored(np.concatenate([part.scores for part in parts]), np.concatenate([part.features for part in parts]))


def learned(table: pl.DataFrame, features: Floats) -> dict[str, float]:
    """The errors of the published learner on features that were served."""
    bikes, times = table["bikes"].to_numpy().astype(np.float64), table["time_ms"].to_numpy()
    weather, now, late = features[:, :BEFORE], features[:, : BEFORE + 1], _late(features)
    return {
        "weather": mean_error(weather, weather, bikes, times, rate=0.001),
        "weather, mean": mean_error(now, now, bikes, times, rate=0.001),
        # By the time an answer is known, so are those before it.
        "weather, mean half an hour late": mean_error(late, now, bikes, times, rate=0.01, delay_ms=LATE),
    }


def _late(features: Floats) -> Floats:
    return np.delete(features, BEFORE, axis=1)


if __name__ == "__main__":
    main()
