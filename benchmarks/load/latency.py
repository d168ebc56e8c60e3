"""Latencies: an HdrHistogram of microseconds, and how its quantiles went over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from schemas.columns import Floats

LONGEST_US = 3_600_000_000
DIGITS = 3  # each quantile is within 0.1 %
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999)


def histogram(latency_ms: Floats) -> Any:
    """All of them; one below a microsecond counts as one."""
    found = HdrHistogram(1, LONGEST_US, DIGITS)
    values, counts = np.unique(np.maximum(np.rint(latency_ms * 1e3), 1).astype(np.int64), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        found.record_value(min(value, LONGEST_US), count)
    return found


def quantiles(latency_ms: Floats) -> dict[str, float]:
    """``p50_ms`` ... ``p99.9_ms``, ``max_ms``."""
    found = histogram(latency_ms)
    named = {f"p{share:g}_ms": round(found.get_value_at_percentile(share) / 1e3, 3) for share in PERCENTILES}
    return named | {"max_ms": round(found.get_max_value() / 1e3, 3)}


def curve(latency_ms: Floats) -> list[list[float]]:
    """Pairs of percentile and milliseconds, for a plot."""
    found = histogram(latency_ms)
    return [[share, round(found.get_value_at_percentile(share) / 1e3, 3)] for share in CURVE]


def encoded(latency_ms: Floats) -> str:
    """The histogram in HdrHistogram's own base64, which its tools in other languages read."""
    text: bytes = histogram(latency_ms).encode()
    return text.decode()


def over_time(due_seconds: Floats, latency_ms: Floats, slice_seconds: float = 1.0) -> list[dict[str, float]]:
    """By slice of the time at which events were due: how many, and their quantiles."""
    slices = (due_seconds / slice_seconds).astype(np.int64)
    found = []
    for number in np.unique(slices).tolist():
        inside = latency_ms[slices == number]
        p50, p99 = np.percentile(inside, (50, 99))
        found.append(
            {
                "second": round(number * slice_seconds, 3),
                "events": len(inside),
                "p50_ms": round(float(p50), 3),
                "p99_ms": round(float(p99), 3),
                "max_ms": round(float(inside.max()), 3),
            }
        )
    return found
