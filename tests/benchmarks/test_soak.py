"""What counts as flat, and the picture of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.overload import missed as missed_in_overload
from benchmarks.soak import growth, missed, plot, slope

AT = list(range(1_800))
NOISE = np.random.default_rng(7).normal(0.0, 3.0, len(AT))


def test_a_line_is_found_through_noise_and_outliers() -> None:
    numbers = 200.0 + 0.01 * np.array(AT) + NOISE
    numbers[::50] += 500.0
    assert slope(AT, numbers.tolist()) == pytest.approx(0.01, rel=0.1)


def test_memory_that_is_asked_for_at_first_and_then_stays_is_flat() -> None:
    numbers = 300.0 - 100.0 * np.exp(-np.array(AT) / 60.0) + NOISE
    assert abs(growth(AT, numbers.tolist())["grown_share"]) < 0.02


def test_a_leak_of_a_tenth_over_the_run_is_no_noise() -> None:
    numbers = (300.0 + 30.0 * np.array(AT) / len(AT) + NOISE).tolist()
    found = {name: growth(AT, [10.0] * len(AT)) for name in ("file_handles", "threads", "redis_mb", "p50_ms", "p99_ms")}
    assert missed({"rss_mb": growth(AT, [300.0] * len(AT)), **found}, 0) == []
    (words,) = missed({"rss_mb": growth(AT, numbers), **found}, 0)
    assert words.startswith(("rss_mb has grown by 9", "rss_mb has grown by 10"))
    assert missed({"rss_mb": growth(AT, [300.0] * len(AT)), **found}, 3) == ["3 events were not answered"]


def test_the_same_run_gives_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot(
            tmp_path / name, "a run", [("memory", AT[:50], {"rss": NOISE[:50].tolist()}), ("ms", AT[:50], {"p50": AT[:50], "p99": AT[:50]})]
        )
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"offered": 1_200.0}, "no overload"),
        ({"unanswered": 2}, "2 events unanswered"),
        ({"repeated": 1}, "1 answered twice"),
        ({"rss_mb_highest": 900.0}, "memory went from 300 to 900 MB"),
        ({"evictions": 1}, "1 evictions"),
        ({"assignments": 2}, "2 assignments of 1"),
    ],
)
def test_an_overload_that_did_harm_is_told(change: dict[str, Any], words: str) -> None:
    found = {
        "capacity": 1_000.0, "offered": 2_000.0, "unanswered": 0, "repeated": 0, "rss_mb_before": 300.0, "rss_mb_highest": 400.0,
        "evictions": 0, "assignments": 1, "partitions": 1,
    }  # fmt: skip
    wrong = missed_in_overload({**found, **change})
    assert ([] if not words else [True]) == [words in each for each in wrong]
