"""Shapes: how the rate runs over the time of a run, and so the moment at which each event is due.

    constant ▔▔▔▔▔▔▔    ramp ▁▂▃▄▅▆▇    step ▁▁▃▃▅▅▇▇    burst ▅▅▅▅▇▇▅▅    wave ▂▃▆▇▆▃▂

An event is due when it is due, whatever became of those before it: a system that stalls is sent no less, and what waited for it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from schemas.columns import Floats
from schemas.errors import Refused

Word = Literal["constant", "ramp", "step", "burst", "wave"]
WORDS: tuple[Word, ...] = get_args(Word)

CALM, BURST = 0.7, 1.1  # of the rate, as Crayfish has it
BURST_BEGINS, BURST_ENDS = 0.6, 0.75  # of the run: of 200 s, 120 s calm, 30 s burst, 50 s to recover
STEPS = 5
RAMP_FROM = 0.1
NIGHT = 0.25  # of the wave's highest rate
GRID_SECONDS = 0.001

# What share of the rate holds at a share of the run.
_SHARES: Mapping[Word, Callable[[Floats], Floats]] = {
    "constant": np.ones_like,
    "ramp": lambda x: RAMP_FROM + (1 - RAMP_FROM) * x,
    "step": lambda x: np.minimum(np.floor(x * STEPS) + 1, STEPS) / STEPS,
    "burst": lambda x: np.where((x >= BURST_BEGINS) & (x < BURST_ENDS), BURST, CALM),
    "wave": lambda x: NIGHT + (1 - NIGHT) * (1 - np.cos(2 * np.pi * x)) / 2,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rate runs.

    Attributes:
        word: which way.
        rate: events/s that the shape's shares are of: for a burst, what the system is thought to bear.
        seconds: how long.
    """

    word: Word
    rate: float
    seconds: float

    def __post_init__(self) -> None:
        if self.word not in WORDS:
            raise Refused(f"no shape is called {self.word!r}; wanted one of {', '.join(WORDS)}")
        if not (0 < self.rate <= 10_000_000 and 0 < self.seconds <= 86_400):
            raise Refused(f"{self.rate:g} events/s for {self.seconds:g} s: wanted up to 10,000,000 events/s and 86,400 s, both above 0")
        if self.expected_events < 1:
            raise Refused(f"{self.rate:g} events/s for {self.seconds:g} s are no whole event")

    @property
    def is_steady(self) -> bool:
        """Whether the rate is one and the same all the time."""
        return self.word == "constant"

    @property
    def highest_rate(self) -> float:
        """Events/s, at the peak."""
        return self.rate * (BURST if self.word == "burst" else 1.0)

    @property
    def expected_events(self) -> int:
        """How many events the run has."""
        return int(self._grid()[1][-1])

    def rates(self, at_seconds: Floats) -> Floats:
        """Events/s at the given moments of the run."""
        return self.rate * _SHARES[self.word](np.clip(at_seconds / self.seconds, 0.0, 1.0))

    def due_seconds(self) -> Floats:
        """When each event is due, in seconds from the beginning, ascending: event i as the rate has come to i events."""
        edges, events = self._grid()
        return np.interp(np.arange(int(events[-1])), events, edges)

    def _grid(self) -> tuple[Floats, Floats]:
        """Moments, and how many events are due before each: the rate is taken as constant within a millisecond."""
        cells = max(round(self.seconds / GRID_SECONDS), 1)
        edges = np.linspace(0.0, self.seconds, cells + 1)
        in_cells = self.rates((edges[:-1] + edges[1:]) / 2) * np.diff(edges)
        # Rounding must not lose the last event of a rate that comes out even.
        return edges, np.concatenate((np.zeros(1), np.cumsum(in_cells) + 1e-6))
