"""How far two samples of a field are apart.

Values that are told apart are compared value by value, all but the most frequent together; numbers in the ten bars that the deciles of the
first sample make, which is how PSI is computed wherever it is used.

- `jensen_shannon`: the divergence to the mean of both, in bits: 0 = alike, 1 = nothing in common (Lin 1991).
- `l_infinity`: the largest difference of a share.
- `psi`: sum of (q - p) ln(q / p), a share of nothing counted as 1e-4 (population stability index).
- `presence`: the difference of the shares of records that have a value.

Two samples of one thing differ by chance, the more so the smaller they are. `by_chance` is what each measure is then about, from the
chi-squared statistic that the first three are multiples of for small differences; what is below it says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.statistics import FieldStatistics

MOST_VALUES = 50
_DECILES = tuple(place / 10 for place in range(1, 10))
_NOTHING = 1e-4

Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distance:
    """Two samples of a field.

    Attributes:
        measures: by name.
        by_chance: by name: what two samples of these sizes from one source would differ by, about.
        bars: what was compared: a word for each bar, and its shares; the page's plot.
    """

    measures: dict[str, float]
    by_chance: dict[str, float]
    bars: list[tuple[str, float, float]]


def distance(first: FieldStatistics, second: FieldStatistics) -> Distance:
    """How far the second sample is from the first."""
    names, p, q = _bars(first, second)
    n, m = max(first.count, 1), max(second.count, 1)
    size = 1 / n + 1 / m
    freedom = max(int(np.count_nonzero(p + q)) - 1, 0)
    measures = {"presence": abs(first.presence - second.presence)}
    share = (first.count + second.count) / max(first.rows + second.rows, 1)
    chance = {"presence": 2 * math.sqrt(share * (1 - share) * (1 / max(first.rows, 1) + 1 / max(second.rows, 1)))}
    if first.count and second.count:
        measures |= {"jensen_shannon": jensen_shannon(p, q), "l_infinity": l_infinity(p, q), "psi": psi(p, q)}
        widest = float(((p + q) / 2 * (1 - (p + q) / 2)).max(initial=0.0))
        chance |= {
            "jensen_shannon": freedom * size / (8 * math.log(2)),
            "l_infinity": 2 * math.sqrt(widest * size),
            "psi": freedom * size,
        }
    return Distance(measures, chance, list(zip(names, p.tolist(), q.tolist(), strict=True)))


def jensen_shannon(p: Shares, q: Shares) -> float:
    """The divergence of two distributions over the same bars, in bits: 0 to 1."""
    middle = (p + q) / 2
    return max((_relative(p, middle) + _relative(q, middle)) / 2, 0.0)


def l_infinity(p: Shares, q: Shares) -> float:
    """The largest difference of a share."""
    return float(np.abs(p - q).max(initial=0.0))


def psi(p: Shares, q: Shares) -> float:
    """The population stability index."""
    p, q = np.maximum(p, _NOTHING), np.maximum(q, _NOTHING)
    return float(((q - p) * np.log(q / p)).sum())


def _relative(p: Shares, q: Shares) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


def _bars(first: FieldStatistics, second: FieldStatistics) -> tuple[list[str], Shares, Shares]:
    if first.is_category and second.is_category:
        return _values(first, second)
    if not first.numbers.count or not second.numbers.count:
        return [], np.zeros(0), np.zeros(0)
    edges = sorted(set(first.numbers.at(_DECILES)))
    ends = [
        f"up to {edges[0]:.6g}",
        *(f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)),
        f"above {edges[-1]:.6g}",
    ]
    return ends, first.numbers.shares(edges), second.numbers.shares(edges)


def _values(first: FieldStatistics, second: FieldStatistics) -> tuple[list[str], Shares, Shares]:
    counts = [dict(each.values(1_000)) for each in (first, second)]
    sizes = [max(each.count, 1) for each in (first, second)]
    heaviest = sorted({*counts[0], *counts[1]}, key=lambda v: (-sum(c.get(v, 0) / n for c, n in zip(counts, sizes, strict=True)), v))
    names = heaviest[:MOST_VALUES]
    shares = [np.array([c.get(name, 0) / n for name in names]) for c, n in zip(counts, sizes, strict=True)]
    rest = [max(1.0 - float(each.sum()), 0.0) for each in shares]
    if max(rest) < 1e-9:
        return names, shares[0], shares[1]
    return [*names, "all others"], np.append(shares[0], rest[0]), np.append(shares[1], rest[1])
