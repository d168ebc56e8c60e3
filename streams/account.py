"""The account of what a stage made final: scored or passed on + labels taken + refused = read, by reason, with the time it took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from schemas.errors import MillraceError
from schemas.reject import Reject, label, stage
from streams.batch import Batch
from streams.health import Health
from streams.metrics import Metrics
from streams.ownership import Tokens
from streams.partitioner import misplaced
from streams.scored_event import TIMINGS

log = logging.getLogger(__name__)


class Account:
    """Tells metrics and health what happened.

    Args:
        metrics: counts.
        health: watches progress.
        rules: names of the pipeline's rules.
        model, version: of the scores.
        threshold: of the decision.
        resident_keys: keys in memory, by entity.
        partitions: of each topic; keys of one that is not named here are not looked at.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        rules: Sequence[str],
        model: str,
        version: str,
        threshold: float,
        resident_keys: Callable[[], Mapping[str, int]],
        partitions: Mapping[str, int] | None = None,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._metrics, self._health, self._rules = metrics, health, rules
        self._model = (model, version)
        self._threshold = np.float32(threshold)
        self._resident_keys = resident_keys
        self._partitions = partitions or {}
        self._misplaced: set[str] = set()  # topics said to have been written by another partitioner
        self._now_seconds = now_seconds
        self._owned: set[int] = set()

    def final(self, batch: Batch, seconds: float) -> None:
        """A batch is final; its transaction took so long."""
        metrics = self._metrics
        counter = metrics.replayed if batch.replay else metrics.read
        for span in batch.spans:
            counter.labels(span.topic, span.partition).inc(span.stop - span.start)
            self._health.moved(span.partition, span.next_offset)
        if batch.replay:
            return
        metrics.commit_seconds.observe(seconds)
        for code, rows in enumerate(np.bincount(batch.rejected).tolist()):
            if code and rows:
                metrics.refused.labels(stage(code), label(code, self._rules)).inc(rows)
        self._count_schemas(batch)
        self._labels(batch)
        self._sent(batch)
        self._look_where_keys_lie(batch)
        for entity, keys in self._resident_keys().items():
            metrics.resident_keys.labels(entity).set(keys)

    def _count_schemas(self, batch: Batch) -> None:
        """Which versions come: only ids that the registry knows become labels, and the numbers of schemas that have no id."""
        if batch.schema_ids is None or batch.origins is not None or not len(batch):
            return
        known = (batch.rejected == Reject.USABLE) | (batch.rejected > Reject.UNKNOWN_SCHEMA)
        ids, counts = np.unique(batch.schema_ids[known], return_counts=True)
        for schema_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if schema_id != -1:
                self._metrics.by_schema.labels(batch.spans[0].topic, schema_id).inc(count)

    def _labels(self, batch: Batch) -> None:
        if batch.labels is None or batch.repeated is None or not batch.labels.is_label.any():
            return
        usable = batch.labels.is_label & batch.usable
        for outcome, rows in (
            ("matched", usable & ~batch.repeated),
            ("repeated", usable & batch.repeated),
            ("unmatched", batch.rejected == Reject.UNMATCHED_LABEL),
        ):
            self._metrics.labels.labels(outcome).inc(int(np.count_nonzero(rows)))

    def _sent(self, batch: Batch) -> None:
        rows = np.flatnonzero(batch.outgoing)
        metrics = self._metrics
        if batch.scores is None or batch.timing is None:
            metrics.passed_on.inc(len(rows))
            return
        if not len(rows):
            return
        metrics.scored.labels(*self._model).inc(len(rows))
        metrics.positive.labels(*self._model).inc(int(np.count_nonzero(batch.scores[rows] >= self._threshold)))
        for timing, count in zip(TIMINGS, np.bincount(batch.timing[rows], minlength=len(TIMINGS)).tolist(), strict=True):
            metrics.timing.labels(timing).inc(count)
        metrics.event_to_score.observe(self._now_seconds() - batch.arrived_ms[rows] / 1_000)

    def _look_where_keys_lie(self, batch: Batch) -> None:
        for span in batch.spans:
            partitions = self._partitions.get(span.topic, 0)
            if not partitions or span.start == span.stop:
                continue
            checked, elsewhere = misplaced(batch.keys[span.rows], span.partition, partitions)
            self._metrics.partitioner_checked.labels(span.topic).inc(checked)
            if elsewhere:
                self._metrics.partitioner_mismatches.labels(span.topic).inc(elsewhere)
                if span.topic not in self._misplaced:
                    self._misplaced.add(span.topic)
                    log.warning(
                        "misplaced_keys at=%s records=%d of=%d: murmur2 of the key, as Java's client has it, says another partition; is "
                        "one entity's key in two partitions, it has two pasts (librdkafka's producers: partitioner=murmur2_random)",
                        span, elsewhere, checked,
                    )  # fmt: skip

    def started_over(self, tokens: Tokens, error: MillraceError) -> None:
        """Partitions are taken over again."""
        self._metrics.started_over.labels(type(error).__name__).inc()
        for partition in tokens:
            self._health.trouble(partition, str(error))

    def owns(self, partition: int, next_offset: int) -> None:
        """A partition was taken over, maybe again, and is read from there."""
        self._owned.add(partition)
        self._health.owns(partition, next_offset)
        self._metrics.owned.set(len(self._owned))

    def waits(self, partition: int, why: str) -> None:
        """A partition is ours to take over, and something it needs does not answer."""
        self._owned.discard(partition)
        self._health.waits(partition, why)
        self._metrics.owned.set(len(self._owned))

    def looked(self) -> None:
        """The source has just looked where the partitions end."""
        self._health.looked()

    def held(self, partition: int) -> None:
        """A partition's records wait for what they must not overtake."""
        self._health.held(partition)

    def gone(self, partition: int) -> None:
        """A partition left."""
        self._owned.discard(partition)
        self._health.gone(partition)
        self._metrics.owned.set(len(self._owned))
