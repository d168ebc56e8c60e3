"""The counters: what the worker's page of metrics says of labels, and of how far each stage is behind."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ANSWER_SECONDS = 2.0
_LABELS = re.compile(r'^millrace_labels_total\{.*outcome="(\w+)".*\} (\S+)$', re.MULTILINE)
_LAG = re.compile(r'^millrace_lag_records\{.*stage="([\w-]+)".*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counters:
    """What a worker has counted since it started, and its lag at the moment."""

    labels: Mapping[str, int] = field(default_factory=dict)  # by outcome: matched, repeated, unmatched
    lag: Mapping[str, int] = field(default_factory=dict)  # by stage, in records

    @property
    def labels_done(self) -> int:
        """Labels that something has become of."""
        return sum(self.labels.values())


def read_counters(port: int, last: Counters) -> Counters:
    """The counters now; the last ones where the page does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ANSWER_SECONDS) as answer:
            return parsed(answer.read().decode())
    except OSError:
        return last


def parsed(page: str) -> Counters:
    """The counters on a page of metrics."""
    return Counters(_summed(_LABELS.findall(page)), _summed(_LAG.findall(page)))


def _summed(samples: Iterable[tuple[str, str]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, value in samples:
        sums[name] = sums.get(name, 0) + int(float(value))
    return sums
