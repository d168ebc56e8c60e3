"""Statistics against plain counting: exact where data is small, within the sketches' bounds where it is not."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import Nullable, PackedBytes, Ragged
from schemas.constraints_check import FieldType
from schemas.errors import SchemaError
from schemas.statistics import FieldStatistics, Statistics
from schemas.statistics_distance import distance, jensen_shannon, l_infinity, psi


def of_numbers(values: list[float | None], cuts: int = 1) -> FieldStatistics:
    found = FieldStatistics(FieldType("double", nullable=True))
    for part in np.array_split(np.arange(len(values)), cuts):
        some = [values[row] for row in part]
        valid = np.array([value is not None for value in some], np.bool_)
        found.add(Nullable(np.array([value or 0.0 for value in some], np.float64), valid))
    return found


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50).map(float)), max_size=200), st.integers(1, 5))
def test_a_small_field_is_counted_exactly(values: list[float | None], cuts: int) -> None:
    found = of_numbers(values, cuts)
    there = [value for value in values if value is not None]
    assert (found.rows, found.missing, found.zeros) == (len(values), values.count(None), there.count(0.0))
    if there:
        assert (found.low, found.high) == (min(there), max(there))
        assert found.mean == pytest.approx(np.mean(there), abs=1e-9)
        assert found.std == pytest.approx(np.std(there), abs=1e-9)
        shares = [share for _, _, share in found.histogram()]
        assert sum(shares) == pytest.approx(1.0)
        assert found.numbers.at([0.5])[0] in there


@given(st.lists(st.sampled_from(["a", "b", "c", "é", ""]), max_size=200), st.integers(1, 4))
def test_texts_are_counted_exactly(values: list[str], cuts: int) -> None:
    found = FieldStatistics(FieldType("string"))
    for part in np.array_split(np.arange(len(values)), cuts):
        found.add(PackedBytes.pack([values[row].encode() for row in part]))
    assert dict(found.values()) == Counter(values)
    assert found.distinct.estimate == len(set(values))


def test_what_was_written_is_read_and_merged() -> None:
    first, second = of_numbers([1.0, 2.0, None]), of_numbers([5.0, 9.0])
    whole = of_numbers([1.0, 2.0, None, 5.0, 9.0])
    read = FieldStatistics.from_json(json.loads(json.dumps(first.to_json())))
    assert read.describe() == first.describe()
    read.merge(second)
    assert read.describe() == whole.describe()


def test_memory_does_not_grow_with_the_data() -> None:
    source = np.random.default_rng(3)
    small, large = (Statistics.of({"text": FieldType("string"), "number": FieldType("double")}) for _ in range(2))
    for statistics, turns in ((small, 3), (large, 30)):
        for _ in range(turns):
            numbers = source.normal(size=5_000)
            texts = PackedBytes.pack([b"%d" % each for each in source.integers(0, 1 << 40, 5_000).tolist()])
            statistics.add({"text": texts, "number": numbers}, 5_000)
    sizes = [len(json.dumps(each.to_json())) for each in (small, large)]
    assert sizes[1] < 1.5 * sizes[0] < 300_000
    field = large.fields["number"]
    for rank, value in zip((0.05, 0.5, 0.95), field.numbers.at((0.05, 0.5, 0.95)), strict=True):
        assert abs(0.5 * math.erfc(-value / math.sqrt(2)) - rank) < 0.02
    assert abs(large.fields["text"].distinct.estimate / 150_000 - 1) < 0.1


def test_broken_statistics_are_one_line() -> None:
    with pytest.raises(SchemaError, match="x holds no statistics of ours"):
        Statistics.from_json({}, "x")
    said = Statistics.of({"a": FieldType("long")}).to_json()
    said["fields"]["a"]["quantiles"] = "????"  # type: ignore[index, call-overload]
    with pytest.raises(SchemaError, match="x holds broken statistics"):
        Statistics.from_json(said, "x")


def test_items_of_arrays_are_counted_and_numbers_that_are_none_stand_apart() -> None:
    arrays = FieldStatistics(FieldType("array"))
    arrays.add(Ragged(np.zeros(5), np.array([0, 2, 2]), np.array([2, 2, 5])))
    assert (arrays.low, arrays.high, arrays.zeros) == (0, 3, 1)
    broken = of_numbers([1.0, math.nan, math.inf])
    assert (broken.nan, broken.high, broken.histogram()) == (1, math.inf, [])
    assert json.loads(json.dumps(broken.describe(), allow_nan=False))["nan"] == 1


def test_distances_are_what_their_definitions_say() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    middle = (p + q) / 2
    relative = [sum(a * math.log2(a / m) for a, m in zip(each, middle, strict=True) if a) for each in (p, q)]
    assert jensen_shannon(p, q) == pytest.approx(sum(relative) / 2)
    assert l_infinity(p, q) == 0.5
    assert psi(p, q) == pytest.approx(2 * (0.25 - 0.5) * math.log(0.5) + (0.5 - 1e-4) * math.log(0.5 / 1e-4))
    assert (jensen_shannon(p, p), l_infinity(p, p), psi(p, p)) == (0, 0, 0)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_a_shift_is_seen_and_two_halves_of_one_thing_are_alike() -> None:
    source = np.random.default_rng(5)
    one, two, other = (of_numbers(source.normal(mean, 1, 3_000).tolist(), 3) for mean in (0, 0, 0.7))
    alike, apart = distance(one, two), distance(one, other)
    assert all(alike.measures[name] < 3 * alike.by_chance[name] + 0.02 for name in alike.measures)
    assert apart.measures["psi"] > 0.3 and apart.measures["jensen_shannon"] > 0.05 and apart.measures["l_infinity"] > 0.1
    assert distance(one, of_numbers([None] * 10)).measures == {"presence": 1.0}
