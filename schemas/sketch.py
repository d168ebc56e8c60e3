"""Sketches: what a million values were like, in a few kilobytes. The door to Apache DataSketches.

- `Quantiles`: a KLL sketch (Karnin, Lang, Liberty 2016). Exact up to a few hundred values, then within about 0.8 % of ranks, 99 times
  in 100.
- `Distinct`: HyperLogLog with 4,096 registers; within about 3 %, 95 times in 100. Exact for a few.
- `Top`: frequent items (Misra and Gries, as improved by Anderson et al. 2017). Exact up to some three thousand different values; beyond
  that a count may be too low by at most `Top.error`.

All three can be merged and written out. KLL flips coins: two runs over much data differ a little.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import datasketches
import numpy as np
from numpy.typing import NDArray

_KLL_K = 400
_HLL_LG = 12
_TOP_LG = 12


class Quantiles:
    """Ranks of numbers."""

    def __init__(self, sketch: Any = None) -> None:
        self._sketch = datasketches.kll_doubles_sketch(_KLL_K) if sketch is None else sketch

    @property
    def count(self) -> int:
        """How many numbers it has seen."""
        return int(self._sketch.n)

    def add(self, values: NDArray[np.float64]) -> None:
        """Look at numbers, shape (n,); none of them NaN."""
        self._sketch.update(np.ascontiguousarray(values, np.float64))

    def at(self, ranks: Sequence[float]) -> list[float]:
        """The numbers at some ranks from 0 to 1."""
        return [float(value) for value in self._sketch.get_quantiles(list(ranks))]

    def shares(self, edges: Sequence[float]) -> NDArray[np.float64]:
        """Shape (len(edges) + 1,): the share up to the first edge, itself included, between each and the next, and above the last."""
        if not edges:
            return np.ones(1)
        return np.array(self._sketch.get_pmf(list(edges), True))

    def merge(self, other: Quantiles) -> None:
        """Take another's in."""
        self._sketch.merge(other._sketch)

    def written(self) -> str:
        """As text."""
        return base64.b64encode(self._sketch.serialize()).decode()

    @classmethod
    def read(cls, text: str) -> Quantiles:
        """From text.

        Raises:
            ValueError: it is none.
        """
        return cls(_read(datasketches.kll_doubles_sketch, text))


class Distinct:
    """How many different values there were."""

    def __init__(self, sketch: Any = None) -> None:
        self._sketch = datasketches.hll_sketch(_HLL_LG, datasketches.tgt_hll_type.HLL_8) if sketch is None else sketch

    @property
    def estimate(self) -> int:
        """About so many."""
        return round(float(self._sketch.get_estimate()))

    def add(self, values: Iterable[Any]) -> None:
        """Look at texts or numbers."""
        for value in values:
            self._sketch.update("\0" if value == "" else value)  # it passes over empty texts

    def merge(self, other: Distinct) -> None:
        """Take another's in."""
        union = datasketches.hll_union(_HLL_LG)
        union.update(self._sketch)
        union.update(other._sketch)
        self._sketch = union.get_result(datasketches.tgt_hll_type.HLL_8)

    def written(self) -> str:
        """As text."""
        return base64.b64encode(self._sketch.serialize_compact()).decode()

    @classmethod
    def read(cls, text: str) -> Distinct:
        """From text.

        Raises:
            ValueError: it is none.
        """
        return cls(_read(datasketches.hll_sketch, text))


class Top:
    """The values that came most often."""

    def __init__(self, sketch: Any = None) -> None:
        self._sketch = datasketches.frequent_strings_sketch(_TOP_LG) if sketch is None else sketch

    @property
    def error(self) -> int:
        """By how much a count may be too low; 0 = they are all exact, and all values are there."""
        first = self._items()[:1]
        return int(first[0][3] - first[0][2]) if first else 0

    def add(self, counts: Iterable[tuple[str, int]]) -> None:
        """Look at texts, each so many times."""
        for value, count in counts:
            self._sketch.update(value, count)

    def items(self, most: int) -> list[tuple[str, int]]:
        """The most frequent values with their counts, most first; ties by value."""
        found = sorted(self._items(), key=lambda item: (-item[1], item[0]))[:most]
        return [(value, int(count)) for value, count, _, _ in found]

    def merge(self, other: Top) -> None:
        """Take another's in."""
        self._sketch.merge(other._sketch)

    def written(self) -> str:
        """As text."""
        return base64.b64encode(self._sketch.serialize()).decode()

    @classmethod
    def read(cls, text: str) -> Top:
        """From text.

        Raises:
            ValueError: it is none.
        """
        return cls(_read(datasketches.frequent_strings_sketch, text))

    def _items(self) -> list[Any]:
        return list(self._sketch.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES, 0))


def _read(kind: Any, text: str) -> Any:
    try:
        return kind.deserialize(base64.b64decode(text, validate=True))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"no sketch: {error}") from error
