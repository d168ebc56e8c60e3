"""Windows: which past events one event looks at."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import DefinitionError
from schemas.features import Json

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
LONGEST_MS = 1 << 50  # some 35,000 years: far from where sums of times would leave an int64


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of event time (t - length, t]: the event at t is inside, one exactly `length` older is not.

    With `delay_ms` the window ends that much earlier: (t - delay - length, t - delay].

    With `grid_ms` = g above 1, time is cut into cells [k g, (k + 1) g) and the window is made of whole cells: the newest is the
    cell of t itself (with a delay, the last cell that lies wholly at or before t - delay), the oldest is length / g - 1 cells
    before it. So the window is never longer than declared, and at most one cell shorter.

    Attributes:
        length_ms: how far back it reaches; a multiple of the grid.
        delay_ms: how long an event must have been known before it is looked at; 0 = at once.
        grid_ms: resolution of the old edge; 1 = exact.
        include_self: whether an event is in its own window. Of no meaning with a delay, where it never is.
    """

    length_ms: int
    delay_ms: int = 0
    grid_ms: int = 1
    include_self: bool = True

    def __post_init__(self) -> None:
        if self.length_ms <= 0 or self.grid_ms <= 0 or self.delay_ms < 0:
            raise DefinitionError(f"{self}: length and grid must be above 0 and the delay not below it")
        if self.length_ms % self.grid_ms:
            raise DefinitionError(f"{self}: the length must be a multiple of the grid")
        if self.length_ms + self.delay_ms > LONGEST_MS:
            raise DefinitionError(f"{self}: length and delay together may not pass {LONGEST_MS} ms")

    @property
    def reach_ms(self) -> int:
        """How far before an event its window begins."""
        return self.length_ms + self.delay_ms

    @property
    def looks_back_ms(self) -> int:
        """How far before an event the oldest it may see can be: (t - this, t]. With a delay the grid may push the window's end back."""
        return self.reach_ms + (self.grid_ms - 1 if self.delay_ms else 0)

    @property
    def holds_self(self) -> bool:
        """Whether an event is in its own window."""
        return self.include_self and self.delay_ms == 0

    @property
    def suffix(self) -> str:
        """What the window adds to a feature's name: ``7d``, ``7d_delay_7d``, ``1h_before`` (without the event itself)."""
        text = duration(self.length_ms)
        if self.delay_ms:
            return f"{text}_delay_{duration(self.delay_ms)}"
        return text if self.include_self else f"{text}_before"

    def describe(self) -> Json:
        """The definition, for a fingerprint."""
        return {
            "length_ms": self.length_ms,
            "delay_ms": self.delay_ms,
            "grid_ms": self.grid_ms,
            "include_self": self.holds_self,
        }


def days(n: int) -> int:
    """So many days in milliseconds."""
    return n * 86_400_000


def hours(n: int) -> int:
    """So many hours in milliseconds."""
    return n * 3_600_000


def minutes(n: int) -> int:
    """So many minutes in milliseconds."""
    return n * 60_000


def seconds(n: int) -> int:
    """So many seconds in milliseconds."""
    return n * 1_000


def duration(span_ms: int) -> str:
    """A span in the largest unit that divides it: ``7d``, ``90m``, ``1500ms``."""
    for unit, size_ms in _UNITS_MS:
        if span_ms % size_ms == 0:
            return f"{span_ms // size_ms}{unit}"
    raise AssertionError("a millisecond divides every whole number of them")
