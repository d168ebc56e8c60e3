"""The worker's metrics: every name with its kind, unit and meaning, in one list.

Labels come from small fixed sets (topic, partition, reason, step, model version), never from events. Each stage of a worker counts for
itself; the page shows them together, each sample with its `stage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)
RECORDS = (1, 10, 30, 100, 300, 1_000, 2_000, 4_000, 10_000, 100_000)
CONTENT_TYPE = "text/plain"


class BulkHistogram(Collector):
    """A histogram that takes a batch of values at a time."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        registry.register(self)

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count values, shape (n,)."""
        self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        self._sum += float(values.sum())

    def quantile(self, share: float) -> float:
        """The upper bound of the bucket in which this share of all values is reached; NaN before the first."""
        total = self._counts.sum()
        if total == 0:
            return float("nan")
        bucket = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return float(self._bounds[min(bucket, len(self._bounds) - 1)])

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the exposition."""
        upper = [*map(str, self._bounds.tolist()), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=list(zip(upper, np.cumsum(self._counts).tolist(), strict=True)), sum_value=self._sum
        )


class Metrics:
    """What a stage counts and times. One registry a stage, so that two in one process don't mix."""

    def __init__(self, pipeline: str, model: str, model_version: str, feature_fingerprint: str) -> None:
        self.registry = registry = CollectorRegistry()
        self.read = Counter(
            "millrace_records_read_total",
            "Records polled and made final: scored, refused or filtered",
            ["topic", "partition"],
            registry=registry,
        )
        self.scored = Counter("millrace_events_scored_total", "Scored events made final", ["model", "model_version"], registry=registry)
        self.positive = Counter(
            "millrace_events_positive_total", "Scored events at or above the threshold", ["model", "model_version"], registry=registry
        )
        self.refused = Counter(
            "millrace_records_refused_total", "Records made final as dead letters", ["refused_by", "reason"], registry=registry
        )
        self.by_schema = Counter(
            "millrace_records_by_schema_total",
            "Records read with a schema that is known, by its id",
            ["topic", "schema_id"],
            registry=registry,
        )
        self.constraint_records = Counter(
            "millrace_constraint_records_total",
            "Records made final that a constraint of many records looked at",
            ["constraint"],
            registry=registry,
        )
        self.constraint_broken = Counter(
            "millrace_constraint_broken_total", "Of these, records that were not as it wants them", ["constraint"], registry=registry
        )
        self.timing = Counter("millrace_events_by_timing_total", "Scored events by on_time, late, too_late", ["timing"], registry=registry)
        self.passed_on = Counter("millrace_records_passed_on_total", "Records made final in the next stage's topic", registry=registry)
        self.labels = Counter(
            "millrace_labels_total", "Labels made final, by matched, repeated and unmatched", ["outcome"], registry=registry
        )
        self.replayed = Counter(
            "millrace_records_replayed_total", "Records read again into the state only", ["topic", "partition"], registry=registry
        )
        self.started_over = Counter(
            "millrace_starts_over_total", "Partitions taken over again after a fault", ["reason"], registry=registry
        )
        self.partitioner_checked = Counter(
            "millrace_partitioner_checked_total", "Keys whose partition was looked at, a sample of each batch", ["topic"], registry=registry
        )
        self.partitioner_mismatches = Counter(
            "millrace_partitioner_mismatches_total",
            "Of these, keys that belong in another partition (murmur2)",
            ["topic"],
            registry=registry,
        )
        self.step_seconds = Histogram("millrace_step_seconds", "Time a step took for a batch", ["step"], buckets=SECONDS, registry=registry)
        self.batch_records = Histogram("millrace_batch_records", "Records of a batch", buckets=RECORDS, registry=registry)
        self.commit_seconds = Histogram(
            "millrace_commit_seconds", "Time a transaction took, from the first output to its commit", buckets=SECONDS, registry=registry
        )
        self.store_seconds = Histogram(
            "millrace_store_seconds", "Time a call to the state store took", ["call"], buckets=SECONDS, registry=registry
        )
        self.event_to_score = BulkHistogram(
            "millrace_event_to_score_seconds", "From a record's timestamp to its scored event's commit", SECONDS, registry
        )
        self.lag = Gauge(
            "millrace_lag_records",
            "Offsets between the committed one and the end of the partition",
            ["topic", "partition"],
            registry=registry,
        )
        self.owned = Gauge("millrace_partitions_owned", "Partitions taken over and being read", registry=registry)
        self.resident_keys = Gauge("millrace_resident_keys", "Keys whose state is in memory", ["entity"], registry=registry)
        self.info = Gauge(
            "millrace_worker_info", "Always 1", ["pipeline", "model", "model_version", "feature_fingerprint"], registry=registry
        )
        self.info.labels(pipeline, model, model_version, feature_fingerprint).set(1)

    def step_took(self, step: str, seconds: float, records: int) -> None:
        """Time one step of one batch."""
        self.step_seconds.labels(step).observe(seconds)
        if step == "extract":
            self.batch_records.observe(records)

    def store_took(self, call: str, seconds: float) -> None:
        """Time one call to the state store."""
        self.store_seconds.labels(call).observe(seconds)


def expose(stages: Mapping[str, Metrics]) -> bytes:
    """The exposition text of a worker's stages, by name."""
    together = CollectorRegistry()
    together.register(_Together(stages))
    return generate_latest(together)


class _Together(Collector):
    """The families of several stages as one of each name, every sample labelled with its stage."""

    def __init__(self, stages: Mapping[str, Metrics]) -> None:
        self._stages = stages

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for stage, metrics in self._stages.items():
            for family in metrics.registry.collect():
                shown = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                shown.samples += [sample._replace(labels={"stage": stage, **sample.labels}) for sample in family.samples]
        return iter(families.values())
