"""What a window means, as the slowest obvious program. Every kernel must equal it.

One key's events pass in the order of the log. The oracle keeps them all in a list, and for each new one looks at every event
before it. Times are integers (ms); values are integers (fixed point); sums are Python's, which never overflow. A label changes what
is said of events that passed before it, and nothing else.
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
UNMATCHED, REPEATED, SET = "unmatched", "repeated", "set"


@dataclass
class Remembered:
    """One event of the past: when it was, what it brought, which one it is, and what it turned out to be so far."""

    t: int
    values: tuple[int, ...]
    event_id: int | None
    label: int | None = None
    place: int = -1


@dataclass
class Seen:
    """What a window holds for one event: the members' times and values, oldest first, ties in the order of the log."""

    times: list[int]
    values: list[int]
    labels: list[int | None]

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
    events: list[Remembered] = field(default_factory=list)

    def look(
        self,
        t: int,
        values: tuple[int, ...],
        arrived: int | None = None,
        event_id: int | None = None,
        place: int = -1,
        first_place: int = -2,
        refused_there: bool = False,
    ) -> tuple[int, list[list[Seen]]]:
        """Let one event pass. Gives its timing, and for each window what it holds of each value.

        One that came before says where it stood: what is remembered is not remembered again, and no window holds it twice. If it was
        refused there, and is not remembered, its place is the one that it has now.
        """
        newest = max((past.t for past in self.events), default=None)
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
        seen = [self._through(window, at, values, (t, first_place)) for window in self.windows]
        if accepted and not any((past.t, past.place) == (t, first_place) for past in self.events):
            self.events.append(Remembered(t, values, event_id, place=first_place if first_place >= 0 and not refused_there else place))
        if not accepted:
            return TOO_LATE, seen
        return (ON_TIME if newest is None or t >= newest else LATE), seen

    def label(self, event_id: int, t: int, label: int) -> str:
        """Let one label pass: it is for the events with its id, at its time if there are such, among those some window may still see."""
        newest = max((past.t for past in self.events), default=0)
        oldest_looker = newest - self.lateness_ms
        in_sight = [past for past in self.events if any(past.t > oldest_looker - _looks_back(window) for window in self.windows)]
        of_that_id = [past for past in in_sight if past.event_id == event_id]
        meant = [past for past in of_that_id if past.t == t] or of_that_id
        if not meant:
            return UNMATCHED
        if all(past.label == label for past in meant):
            return REPEATED
        for past in meant:
            past.label = label
        return SET

    def _through(self, window: Window, at: int | None, values: tuple[int, ...], before: tuple[int, int]) -> list[Seen]:
        g = window.grid_ms
        members: list[Remembered] = []
        if at is not None:
            newest_cell = at // g if window.delay_ms == 0 else (at - window.delay_ms + 1) // g - 1
            oldest_cell = newest_cell - window.length_ms // g + 1
            members = [past for past in self.events if oldest_cell <= past.t // g <= newest_cell]
        if window.delay_ms == 0 and window.include_self and before not in [(past.t, past.place) for past in members]:
            members.append(Remembered(at if at is not None else 0, values, None))
        members.sort(key=lambda member: member.t)  # stable: ties stay in the order of the log
        times, labels = [member.t for member in members], [member.label for member in members]
        if not values:
            return [Seen(times, [0] * len(times), labels)]
        return [Seen(times, [member.values[c] for member in members], labels) for c in range(len(values))]


def _looks_back(window: Window) -> int:
    """An event at t sees nothing at or before t - this. A delayed window ends with the last whole cell: up to a cell less 1 ms earlier."""
    return window.length_ms + window.delay_ms + (window.grid_ms - 1 if window.delay_ms else 0)


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
        case "label_count":
            return float(seen.labels.count(1))
        case "label_rate":
            return float(seen.labels.count(1)) / float(n)
    raise AssertionError(aggregate.word)
