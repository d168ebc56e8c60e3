"""Entities: whose past is looked at, through which windows, for which numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from schemas.errors import DefinitionError
from schemas.features import Feature, FeatureSet, Json, fingerprint
from transforms import arithmetic
from transforms.aggregate import Aggregate, Distinct, column_of, describe
from transforms.fixed_point import FixedPoint
from transforms.window import LONGEST_MS, Window

RECORD_FORMAT = 1  # of the records in a block; a change makes every stored state unreadable
LABEL_FORMAT = 1  # of the event id and the label in such a record
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Guard:
    """Which event times are believed: from `oldest_ms` before the record's arrival to `ahead_ms` after it.

    An event outside is scored as a late one and not remembered, so that a clock set to 2099 can't push its key's time ahead
    for good. It needs the broker's arrival time of each record, and it makes a replay of older history late as a whole.
    """

    oldest_ms: int
    ahead_ms: int

    def __post_init__(self) -> None:
        if not (0 <= self.oldest_ms <= LONGEST_MS and 0 <= self.ahead_ms <= LONGEST_MS):
            raise DefinitionError(f"{self}: both spans must lie between 0 and {LONGEST_MS} ms")


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing with a past: a customer, a terminal, a device.

    Attributes:
        name: the first word of its features' names.
        key: the column (or columns) that tell one from another.
        windows: each aggregate is computed over each window.
        aggregates: what is computed.
        lateness_ms: how far an event may be behind the newest of its key and still be remembered.
        max_records: most events of one key that may be held at once; one more stops the worker, by name.
        guard: which event times are believed; None = all.
        missing_key: what becomes of an event without its key (null or empty): "refuse" makes it a dead letter; "absent" gives it
            the values declared for no events, and it is no part of anything's past.
    """

    name: str
    key: str | tuple[str, ...]
    windows: tuple[Window, ...]
    aggregates: tuple[Aggregate, ...]
    lateness_ms: int = 0
    max_records: int = 100_000
    guard: Guard | None = None
    missing_key: Literal["refuse", "absent"] = "refuse"
    _features: tuple[Feature, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple(self.windows))
        object.__setattr__(self, "aggregates", tuple(self.aggregates))
        if not self.name.isidentifier():
            raise DefinitionError(f"an entity's name must be an identifier, not {self.name!r}")
        if not self.key_columns or not self.windows or not self.aggregates:
            raise DefinitionError(f"entity {self.name!r} needs a key, a window and an aggregate")
        if not 0 <= self.lateness_ms <= LONGEST_MS or not 1 <= self.max_records <= 1 << 31:
            raise DefinitionError(f"entity {self.name!r}: lateness {self.lateness_ms} ms or max_records {self.max_records} is out of range")
        if self.missing_key not in ("refuse", "absent"):
            raise DefinitionError(f"entity {self.name!r}: missing_key must be 'refuse' or 'absent', not {self.missing_key!r}")
        self._check_grids()
        self._check_sums()
        object.__setattr__(self, "_features", self._name_features())
        FeatureSet(self._features)  # no two with one name

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of the key, in order."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def values(self) -> tuple[FixedPoint | str, ...]:
        """The distinct values a record carries, in the order they are first named."""
        return tuple(dict.fromkeys(a.value for a in self.aggregates if a.value is not None))

    @property
    def has_labels(self) -> bool:
        """Whether its records keep an event id and a label."""
        return any(a.needs & arithmetic.NEEDS_LABELS for a in self.aggregates)

    @property
    def columns_needed(self) -> tuple[str, ...]:
        """The columns read from a batch, beside the event time."""
        columns = (column_of(a) for a in self.aggregates)
        return tuple(dict.fromkeys((*self.key_columns, *(c for c in columns if c is not None))))

    @property
    def features(self) -> tuple[Feature, ...]:
        """Window by window, the aggregates in their order."""
        return self._features

    @property
    def feature_names(self) -> tuple[str, ...]:
        """``customer_count_7d``, ``customer_amount_mean_7d``, ``terminal_count_7d_delay_7d`` ..."""
        return tuple(feature.name for feature in self._features)

    @property
    def empty_features(self) -> tuple[float, ...]:
        """What stands for its features where there are no events."""
        return tuple(float(aggregate.empty) for _ in self.windows for aggregate in self.aggregates)

    @property
    def reach_ms(self) -> int:
        """How far before a key's newest accepted event a record may still be looked at."""
        return self.lateness_ms + max(w.reach_ms + 2 * w.grid_ms for w in self.windows)

    @property
    def retention_ms(self) -> int:
        """How far back the log must reach to rebuild the state: windows, delay, lateness and what the guard lets in."""
        believed_ms = self.guard.oldest_ms + self.guard.ahead_ms if self.guard else 0
        return max(w.looks_back_ms for w in self.windows) + self.lateness_ms + believed_ms

    @property
    def state_fingerprint(self) -> str:
        """Names what is stored: another key, value, acceptance or retention makes another state, and so do labels.

        Windows are not part of it but for how far they look back together: one more that looks no further needs no other state.
        """
        return fingerprint(self.describe_state())

    def describe_state(self) -> dict[str, Json]:
        """What is stored, for a fingerprint."""
        stored: dict[str, Json] = {
            "entity": self.name,
            "key": list(self.key_columns),
            "values": [v.describe() if isinstance(v, FixedPoint) else v for v in self.values],
            "acceptance": self._acceptance(),
            "retention_ms": self.retention_ms,
            "record_format": RECORD_FORMAT,
        }
        if self.has_labels:
            stored["labels"] = {"record_format": LABEL_FORMAT}
        return stored

    def _acceptance(self) -> Json:
        guard = {"oldest_ms": self.guard.oldest_ms, "ahead_ms": self.guard.ahead_ms} if self.guard else None
        return {"lateness_ms": self.lateness_ms, "guard": guard}

    def _check_grids(self) -> None:
        grids = sorted({w.grid_ms for w in self.windows})
        for finer, coarser in pairwise(grids):
            if coarser % finer:
                raise DefinitionError(f"entity {self.name!r}: grid {coarser} ms is no multiple of grid {finer} ms, and must be")
        if grids[-1] > 1 and any(isinstance(a, Distinct) for a in self.aggregates):
            raise DefinitionError(f"entity {self.name!r}: Distinct needs exact windows (grid_ms=1)")

    def _check_sums(self) -> None:
        for aggregate in self.aggregates:
            value = aggregate.value
            if not math.isfinite(aggregate.empty):
                raise DefinitionError(f"entity {self.name!r}: {aggregate.word} needs a finite value for too few events")
            if not isinstance(value, FixedPoint):
                continue
            square = bool(aggregate.needs & arithmetic.NEEDS_SQUARES)
            term = value.largest_units ** (2 if square else 1)
            if aggregate.needs & arithmetic.NEEDS_SUM and term * (self.max_records + 1) >= _INT64:
                raise DefinitionError(
                    f"entity {self.name!r}: {aggregate.word} of {value.column!r} may pass 2^63: {value.largest_units} units"
                    f"{' squared' if square else ''} x {self.max_records} records; choose a coarser scale, a smaller largest "
                    f"or fewer max_records"
                )

    def _name_features(self) -> tuple[Feature, ...]:
        return tuple(self._feature(window, aggregate) for window in self.windows for aggregate in self.aggregates)

    def _feature(self, window: Window, aggregate: Aggregate) -> Feature:
        column = column_of(aggregate)
        words = (self.name, *((column.replace(".", "_"),) if column else ()), aggregate.word, window.suffix)
        definition: dict[str, Json] = {
            "entity": self.name,
            "key": list(self.key_columns),
            "window": window.describe(),
            "what": describe(aggregate),
            "acceptance": self._acceptance(),
        }
        if self.missing_key != "refuse":
            definition["missing_key"] = self.missing_key
        return Feature("_".join(words), aggregate.unit or column or "1", definition)


def suffices(stored: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    """Whether a state holds every record that an entity may look at, in the format it reads; both as `describe_state` says.

    It may hold older ones as well: windows do not see them, and the next event of their key lets them go.
    """
    kept_ms, looked_back_ms = stored.get("retention_ms"), wanted["retention_ms"]
    if not isinstance(kept_ms, int) or not isinstance(looked_back_ms, int) or kept_ms < looked_back_ms:
        return False
    return {**stored, "retention_ms": None} == {**wanted, "retention_ms": None}
