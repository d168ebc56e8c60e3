"""What a window means, as the slowest obvious program. Every kernel must equal it.

One key's events pass in the order of the log. The oracle keeps them all in a list, and for each new one looks at every event
before it. Times are integers (ms); values are integers (fixed point); sums are Python's, which never overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transforms.aggregate import Aggregate
from transforms.entity import Guard
from transforms.fixed_point import FixedPoint
from transforms.window import Window

ON_TIME, LATE, TOO_LATE = 0, 1, 2


@dataclass
class Seen:
    """What a window holds for one event: the members' times and values, oldest first, ties in the order of the log."""

    times: list[int]
    values: list[int]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def s1(self) -> int:
        return sum(self.values)

    @property
    def s2(self) -> int:
        return sum(v * v for v in self.values)


@dataclass
class Past:
    """One key's remembered events, in the order of the log."""

    windows: Sequence[Window]
    lateness_ms: int
    guard: Guard | None = None
    events: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def look(self, t: int, values: tuple[int, ...], arrived: int | None = None) -> tuple[int, list[list[Seen]]]:
        """Let one event pass. Gives its timing, and for each window what it holds of each value."""
        newest = max((past for past, _ in self.events), default=None)
        believed = True
        if self.guard is not None:
            assert arrived is not None
            believed = arrived - self.guard.oldest_ms <= t <= arrived + self.guard.ahead_ms
        accepted = believed and (newest is None or t >= newest - self.lateness_ms)
        if accepted:
            at: int | None = t
        elif newest is not None:
            at = newest - self.lateness_ms
        else:
            at = None  # nothing is known and this can't be believed: the event stands alone
        seen = [self._through(window, at, values) for window in self.windows]
        if accepted:
            self.events.append((t, values))
        if not accepted:
            return TOO_LATE, seen
        return (ON_TIME if newest is None or t >= newest else LATE), seen

    def _through(self, window: Window, at: int | None, values: tuple[int, ...]) -> list[Seen]:
        g = window.grid_ms
        members: list[tuple[int, tuple[int, ...]]] = []
        if at is not None:
            newest_cell = at // g if window.delay_ms == 0 else (at - window.delay_ms + 1) // g - 1
            oldest_cell = newest_cell - window.length_ms // g + 1
            members = [(t, v) for t, v in self.events if oldest_cell <= t // g <= newest_cell]
        if window.delay_ms == 0 and window.include_self:
            members.append((at if at is not None else 0, values))
        members.sort(key=lambda member: member[0])  # stable: ties stay in the order of the log
        times = [t for t, _ in members]
        if not values:
            return [Seen(times, [0] * len(times))]
        return [Seen(times, [v[c] for _, v in members]) for c in range(len(values))]


def feature(aggregate: Aggregate, window: Window, seen: Seen, own: int) -> float:
    """One feature of the integers in a window; `own` is the event's value."""
    n = seen.n
    scale = float(aggregate.value.scale) if isinstance(aggregate.value, FixedPoint) else 1.0
    self_inside = window.delay_ms == 0 and window.include_self
    if n == 0:
        return aggregate.empty
    match aggregate.word:
        case "count":
            return float(n)
        case "rate_per_day":
            return n / (window.length_ms / 86_400_000.0)
        case "sum":
            return float(seen.s1) / scale
        case "mean":
            return float(seen.s1) / (float(n) * scale)
        case "std":
            if n < 2:
                return aggregate.empty
            spread = n * seen.s2 - seen.s1 * seen.s1
            return float(np.sqrt(float(spread) / (float(n) * (float(n) - 1.0)))) / scale
        case "min":
            return min(seen.values) / scale
        case "max":
            return max(seen.values) / scale
        case "distinct":
            return float(len(set(seen.values)))
        case "last":
            return seen.values[-1] / scale
        case "ratio_to_mean":
            others = n - 1 if self_inside else n
            rest = seen.s1 - own if self_inside else seen.s1
            if others == 0 or rest == 0:
                return aggregate.empty
            return float(own) / (float(rest) / float(others))
    raise AssertionError(aggregate.word)
