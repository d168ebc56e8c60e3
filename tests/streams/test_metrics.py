"""Metrics of several stages on one page."""

from __future__ import annotations

import numpy as np

from streams.metrics import Metrics, expose


def page(**stages: Metrics) -> list[str]:
    return expose(stages).decode().splitlines()


def made() -> Metrics:
    return Metrics("card_fraud", "model", "7", "f" * 16)


def test_every_sample_says_its_stage_and_a_metric_is_declared_once() -> None:
    first, last = made(), made()
    first.read.labels("payments", 0).inc(3)
    last.read.labels("hop", 1).inc(2)
    lines = page(first=first, last=last)
    assert 'millrace_records_read_total{partition="0",stage="first",topic="payments"} 3.0' in lines
    assert 'millrace_records_read_total{partition="1",stage="last",topic="hop"} 2.0' in lines
    assert sum(line.startswith("# TYPE millrace_records_read_total ") for line in lines) == 1


def test_a_refused_records_reason_is_told_apart_from_its_stage() -> None:
    metrics = made()
    metrics.refused.labels("rule", "null_key").inc()
    assert 'millrace_records_refused_total{reason="null_key",refused_by="rule",stage="score"} 1.0' in page(score=metrics)


def test_histograms_keep_their_buckets() -> None:
    metrics = made()
    metrics.event_to_score.observe(np.array([0.004, 0.5]))
    lines = page(score=metrics)
    assert 'millrace_event_to_score_seconds_bucket{le="0.005",stage="score"} 1.0' in lines
    assert 'millrace_event_to_score_seconds_bucket{le="+Inf",stage="score"} 2.0' in lines
