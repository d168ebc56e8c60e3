"""The knee: the highest rate at which the p99 stays below a limit, found by bisection.

First the rate doubles until it no longer holds; then the interval is halved, on a scale of ratios, until its ends are within
`WITHIN`. A rate that the generators could not make counts for neither side: the knee then lies at or above the highest rate that held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

WITHIN = 1.06
Verdict = Literal["held", "broke", "not made"]


@dataclass(frozen=True, slots=True)
class Knee:
    """What bisection came to.

    Attributes:
        rate: the highest that held, events/s; 0 = not even the first.
        broke_at: the lowest that did not; None = none was found that the generators could make.
        probes: what was tried, and how it went.
    """

    rate: float
    broke_at: float | None
    probes: tuple[tuple[float, Verdict], ...]

    @property
    def is_bound_by_the_generators(self) -> bool:
        """Whether the system may bear more than could be sent."""
        return self.broke_at is None


def find_knee(probe: Callable[[float], Verdict], first_rate: float, most_probes: int = 12) -> Knee:
    """Look for the knee.

    Args:
        probe: runs the load at a rate, and says how it went.
        first_rate: where to begin.
        most_probes: then the search ends with what is known.
    """
    held, broke = 0.0, None
    out_of_reach: float | None = None
    probes: list[tuple[float, Verdict]] = []
    rate = first_rate
    while len(probes) < most_probes:
        verdict = probe(rate)
        probes.append((rate, verdict))
        if verdict == "held":
            held = max(held, rate)
        elif verdict == "broke":
            broke = rate if broke is None else min(broke, rate)
        else:
            out_of_reach = rate if out_of_reach is None else min(out_of_reach, rate)
        above = min((each for each in (broke, out_of_reach) if each is not None), default=None)
        if above is None:
            rate = held * 2
        elif held == 0:
            rate = above / 2
        elif above / held <= WITHIN:
            break
        else:
            rate = (held * above) ** 0.5
    return Knee(held, broke, tuple(probes))
