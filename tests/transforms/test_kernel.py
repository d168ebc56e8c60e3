"""The kernel equals the definition to the last bit, whatever the log and however it is cut."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.play import Event, assert_same_bits, expected, play
from transforms.aggregate import Aggregate, Count, Distinct, Last, Max, Mean, Min, RatePerDay, RatioToMean, Std, Sum
from transforms.entity import Entity, Guard
from transforms.fixed_point import FixedPoint
from transforms.window import Window

_SCALES = (1, 100)


@st.composite
def entities(draw: st.DrawFn, amount: FixedPoint, name: str) -> Entity:
    """An entity with short windows, so that a small log reaches over their edges."""
    exact = draw(st.booleans())
    grids = (1,) if exact else draw(st.sampled_from([(1, 5), (5,), (2, 4, 20), (10,)]))
    windows = []
    for _ in range(draw(st.integers(1, 3))):
        grid = draw(st.sampled_from(grids))
        length = grid * draw(st.integers(1, 12))
        delay = draw(st.sampled_from([0, 0, 1, 3, 17]))
        windows.append(Window(length, delay, grid, draw(st.booleans())))
    windows = list({w.suffix: w for w in windows}.values())  # one for each name
    pool: list[Aggregate] = [Count(), RatePerDay(), Mean(amount), Sum(amount), Std(amount), Min(amount), Max(amount, empty=-3.5)]
    pool += [Last(amount), RatioToMean(amount, empty=-1.0)]
    if exact or grids == (1,):
        pool += [Distinct(amount), Distinct("shop")]
    chosen = draw(st.lists(st.sampled_from(pool), min_size=1, unique_by=repr))
    guard = Guard(draw(st.integers(0, 80)), draw(st.integers(0, 10))) if draw(st.integers(0, 3)) == 0 else None
    return Entity(name, "key", tuple(windows), tuple(chosen), draw(st.sampled_from([0, 1, 7, 40])), 1_000, guard)


@st.composite
def logs(draw: st.DrawFn, largest_units: int) -> list[Event]:
    """Events that mostly go forward, often tie, and sometimes fall back a little or a lot; before and after the epoch."""
    now = draw(st.sampled_from([-25, 0, 1_000_000_000_000]))
    events = []
    for step, jump, key, units, delay, kind in draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 1, 1, 2, 5]),
                st.integers(-60, 60),
                st.integers(0, 3),
                st.integers(-largest_units, largest_units),
                st.integers(-20, 90),
                st.integers(0, 19),
            ),
            max_size=120,
        )
    ):
        now += step
        t = now + jump if kind < 4 else now  # every fifth event isn't where the others are
        events.append(Event(key, t, units, arrived=now + delay, usable=kind != 19))
    return events


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_the_kernel_agrees_with_the_definition(data: st.DataObject) -> None:
    scale = data.draw(st.sampled_from(_SCALES))
    amount = FixedPoint("amount", scale, data.draw(st.sampled_from([3, 5_000])))
    asked = [data.draw(entities(amount, name)) for name in ("one", "two")]
    log = data.draw(logs(amount.largest_units))
    cuts = data.draw(st.lists(st.integers(0, max(len(log), 1)), max_size=12))
    restarts = data.draw(st.lists(st.sampled_from(cuts), max_size=3)) if cuts else []
    max_keys = data.draw(st.sampled_from([1, 2, 100]))
    lag = data.draw(st.integers(0, 2))
    if restarts:
        lag = 0
    found, timing = play(log, asked, cuts, scale=scale, max_keys=max_keys, restarts=restarts, lag=lag) if log else (None, None)
    if found is None or timing is None:
        return
    wanted, judged = expected(log, asked)
    assert_same_bits(found, wanted, [*asked[0].feature_names, *asked[1].feature_names])
    assert timing.tolist() == judged.tolist()


_FULL_HEAP = """
import transforms.slab
transforms.slab._FIRST_RECORDS = 24  # six keys with a block of four records each
from tests.oracles.play import Event, expected, play
from transforms.aggregate import Count
from transforms.entity import Entity
from transforms.window import Window
entity = Entity("e", "key", (Window(5), Window(5, 1)), (Count(),))
log = [Event(key, t, 1) for t in range(12) for key in range(6)]
found, _ = play(log, [entity], range(6, len(log), 6))
assert found.tolist() == expected(log, [entity])[0].tolist()
"""


def test_the_kernel_looks_at_nothing_behind_its_heap() -> None:
    # As Python, a row too far is an IndexError; compiled, it is read from whatever stands there.
    done = subprocess.run(
        [sys.executable, "-c", _FULL_HEAP], env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
