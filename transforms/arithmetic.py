"""From a window's integers to a feature: one elementwise function of +, -, *, / and sqrt.

Each of these is exactly rounded on every machine, so equal integers give equal bits, online and offline.
"""

from __future__ import annotations

from typing import Final

# What an aggregate wants from the records of its window.
NEEDS_SUM: Final = 1
NEEDS_SQUARES: Final = 2
NEEDS_EXTREMES: Final = 4
NEEDS_DISTINCT: Final = 8
NEEDS_LAST: Final = 16

# Which arithmetic makes a feature of them.
COUNT: Final = 0
SUM: Final = 1
MEAN: Final = 2
STD: Final = 3
MIN: Final = 4
MAX: Final = 5
RATE_PER_DAY: Final = 6
RATIO_TO_MEAN: Final = 7
DISTINCT: Final = 8
LAST: Final = 9
