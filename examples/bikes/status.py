"""Counts of bikes at stations: Toulouse's, or made up ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from schemas.columns import Columns, PackedBytes

WEATHER = ("clouds", "humidity", "pressure", "temperature", "wind")


def published(folder: Path) -> pl.DataFrame:
    """Toulouse's counts, in the order of their source. Times have no zone; they are taken as UTC, which nothing here depends on."""
    return pl.read_parquet(folder / "bikes.parquet").sort("row").with_columns(pl.col("moment").dt.epoch("ms").alias("time_ms"))


def made_up(rows: int = 3_000, seed: int = 0) -> pl.DataFrame:
    """Three stations with daily waves of their own, and a weather that matters little."""
    random = np.random.default_rng(seed)
    time_ms = 1_460_000_000_000 + np.sort(random.integers(12 * 86_400_000, size=rows))
    station = random.integers(3, size=rows)
    hour = time_ms // 3_600_000 % 24
    wave = 10 + 6 * np.sin(hour * (2 * np.pi / 24) + station * 2.0)
    temperature = 15 + random.normal(0, 3, rows).round(2)
    return pl.DataFrame(
        {
            "time_ms": time_ms,
            "moment": pl.Series(time_ms).cast(pl.Datetime("ms")),
            "station": [f"station {number}" for number in station],
            "bikes": np.rint(wave + 0.2 * (temperature - 15) + random.normal(0, 1, rows)).astype(np.int64).clip(0),
            "clouds": random.integers(100, size=rows),
            "humidity": random.integers(20, 100, size=rows),
            "pressure": 1_000 + random.integers(30, size=rows).astype(np.float64),
            "temperature": temperature,
            "wind": random.integers(10, size=rows).astype(np.float64),
        }
    )


def columns_of(table: pl.DataFrame, first: int) -> Columns:
    """Rows as events, numbered from `first`."""
    return {
        "status_id": PackedBytes.pack([b"%d" % (first + row) for row in range(len(table))]),
        "event_time": table["time_ms"].to_numpy(),
        "station": PackedBytes.pack([name.encode() for name in table["station"]]),
        "hour": table["moment"].dt.hour().to_numpy().astype(np.int64),
        "bikes": table["bikes"].to_numpy().astype(np.int64),
        **{name: table[name].to_numpy().astype(np.int64) for name in ("clouds", "humidity")},
        **{name: table[name].to_numpy().astype(np.float64) for name in ("pressure", "temperature", "wind")},
    }
