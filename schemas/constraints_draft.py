"""Constraints drafted from statistics: what all of the data meets.

To be read before it is kept: data shows what came, and not what is meant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from schemas.statistics import FieldStatistics, Statistics

LEAST_ROWS_OF_A_DOMAIN = 100
MOST_VALUES_OF_A_DOMAIN = 20
SLACK = 0.01  # of a share that was seen: the next day's is a little lower or higher


def draft_constraints(statistics: Statistics, description: str) -> dict[str, Any]:
    """The contents of a file of constraints (`schemas/constraints_file.py`)."""
    fields = {name: found for name, each in statistics.fields.items() if (found := draft_field(each))}
    times = [name for name, each in statistics.fields.items() if each.type.logical in ("timestamp-millis", "timestamp-micros")]
    said: dict[str, Any] = {"format": 1, "version": 1, "owner": "nobody yet", "description": description}
    if times:
        said["event_time"] = times[0]
    return {**said, "fields": fields}


def draft_field(found: FieldStatistics) -> dict[str, Any]:
    """What is asked of one field."""
    said: dict[str, Any] = {}
    if found.type.nullable and found.rows:
        said["presence"] = "required" if not found.missing else max(math.floor((found.presence - SLACK) * 100) / 100, 0.0)
        if said["presence"] == 0:
            del said["presence"]
    values = found.values(MOST_VALUES_OF_A_DOMAIN + 1)
    if found.type.kind == "string" and found.top is not None and not found.top.error:
        if found.count >= LEAST_ROWS_OF_A_DOMAIN and 0 < len(values) <= MOST_VALUES_OF_A_DOMAIN:
            said["domain"] = sorted(value for value, _ in values)
    elif found.type.is_number and not found.is_time and found.count and math.isfinite(found.low) and math.isfinite(found.high):
        whole = found.type.kind in ("int", "long")
        said["range"] = [int(found.low) if whole else found.low, int(found.high) if whole else found.high]
    elif found.type.kind in ("array", "map") and found.count and found.high > 0:
        said["valency"] = [int(found.low), int(found.high)]
    return said


def written(said: Mapping[str, Any]) -> str:
    """A file's text."""
    return yaml.safe_dump(dict(said), sort_keys=False, allow_unicode=True, width=130, default_flow_style=None)
