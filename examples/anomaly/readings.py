"""Readings of several series: the Numenta Anomaly Benchmark's, or made up ones with anomalies planted in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from examples.anomaly.benchmark import WARM_UP_ROWS, WARM_UP_SHARE
from examples.anomaly.pipeline import LARGEST
from schemas.columns import Columns, Floats, Ints, PackedBytes

DIGITS = 5  # of a reading that is as large as those of the warm-up
STEP_MS = 300_000


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one metric, in the order they came in, which need not be that of their times.

    Attributes:
        name: of the series.
        times: shape (n,), in milliseconds.
        values: shape (n,).
        windows: first and last time of each anomaly, both inside.
    """

    name: str
    times: Ints
    values: Floats
    windows: Sequence[tuple[int, int]]

    def units(self) -> Ints:
        """Shape (n,): the readings as a meter of five digits counts them.

        Its resolution is a power of ten that the warm-up decides, as whoever sets up a meter would; what is far off its scale reads as
        the most it can show.
        """
        warm_up = self.values[: max(1, min(int(WARM_UP_SHARE * len(self.values)), WARM_UP_ROWS))]
        largest = float(np.abs(warm_up).max())
        resolution = 10.0 ** (np.ceil(np.log10(largest)) - DIGITS) if largest > 0 else 0.001
        return np.clip(np.rint(self.values / resolution), -LARGEST, LARGEST).astype(np.int64)


def published(folder: Path) -> list[Series]:
    """The benchmark's series, each in the order of its file."""
    readings = pl.read_parquet(folder / "series.parquet").sort("series", "row")
    windows = pl.read_parquet(folder / "windows.parquet").sort("series", "start")
    of_series: dict[str, list[tuple[int, int]]] = {}
    for name, start, end in windows.select("series", pl.col("start", "end").dt.epoch("ms")).iter_rows():
        of_series.setdefault(name, []).append((start, end))
    return [
        Series(str(name), part["timestamp"].dt.epoch("ms").to_numpy(), part["value"].to_numpy(), of_series.get(str(name), ()))
        for (name,), part in readings.partition_by("series", as_dict=True, maintain_order=True).items()
    ]


def published_scores(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """What the benchmark's repository says of its detectors: by detector and profile."""
    scores: Mapping[str, Mapping[str, float]] = json.loads((folder / "published_final_scores.json").read_text())
    return scores


def made_up(count: int = 6, rows: int = 1_200, seed: int = 0) -> list[Series]:
    """Daily waves with noise, in each a stretch that stands out; some readings come late, and some twice."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        place = np.arange(rows)
        times = 1_700_000_000_000 + place * STEP_MS
        values = np.sin(place * (2 * np.pi / 288)) + random.normal(0, 0.2, rows) + 3.0
        first = int(random.integers(rows // 2, rows - 100))
        values[first + 20 : first + 30] += 4.0
        times[200:210] = times[190:200]  # the clock steps back
        scale = 10.0 ** float(random.integers(-2, 6))
        found.append(Series(f"made up {number}", times, values * scale, [(int(times[first]), int(times[first + 60]))]))
    return found


def columns_of(series: Sequence[Series]) -> Columns:
    """All readings as events, numbered from 0; series after series, each in its own order."""
    names = [one.name.encode() for one in series for _ in range(len(one.times))]
    return {
        "reading_id": PackedBytes.pack([b"%d" % number for number in range(len(names))]),
        "event_time": np.concatenate([one.times for one in series]),
        "series": PackedBytes.pack(names),
        "value": np.concatenate([one.units() for one in series]),
    }
