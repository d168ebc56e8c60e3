"""State goes on under another definition, and from a dump taken beside its owner, with the bits that a state from the beginning has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.oracles.play import SHARD, Event, assert_same_bits, columns_of, expected
from tests.transforms.test_kernel import logs
from transforms.aggregate import Count, Max, Std, Sum
from transforms.archive import Dump
from transforms.entity import Entity, Guard, suffices
from transforms.fixed_point import FixedPoint
from transforms.memory_store import Memory, MemoryStore
from transforms.shard import ShardState
from transforms.store import Store, Writes
from transforms.window import Window, days, hours

AMOUNT = FixedPoint("amount", 1, 5_000)
GRIDS = ((1,), (1, 5), (5,), (2, 4, 20), (10,))


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, ...]:
    grids = draw(st.sampled_from(GRIDS))
    made = []
    for _ in range(draw(st.integers(1, 3))):
        grid = draw(st.sampled_from(grids))
        made.append(Window(grid * draw(st.integers(1, 12)), draw(st.sampled_from([0, 0, 1, 3, 17])), grid, draw(st.booleans())))
    return tuple({window.suffix: window for window in made}.values())


def entity(looks: tuple[Window, ...], lateness_ms: int = 0, guard: Guard | None = None) -> Entity:
    return Entity("e", "key", looks, (Count(), Sum(AMOUNT), Std(AMOUNT), Max(AMOUNT)), lateness_ms, 1_000, guard)


def advance(log: Sequence[Event], one: Entity, store: Store, cuts: Sequence[int], max_keys: int = 100) -> Iterator[NDArray[np.float64]]:
    """Let the rows from the first cut to the last pass, batch by batch, with a new state; positions are rows of the whole log."""
    store.claim(SHARD, {})
    state = ShardState(SHARD, [one], store, "t", max_keys)
    for first, end in pairwise(sorted(set(cuts))):
        part = log[first:end]
        usable, arrived = np.array([e.usable for e in part]), np.array([e.arrived for e in part], np.int64)
        done = state.advance(columns_of(part, 1), usable, np.arange(first, end), arrived)
        store.write(SHARD, done.writes, end)
        store.settle(SHARD)
        state.acknowledge(end)
        yield done.features


def features(log: Sequence[Event], one: Entity, store: Store, cuts: Sequence[int], max_keys: int = 100) -> NDArray[np.float64]:
    return np.concatenate([np.zeros((0, len(one.features))), *advance(log, one, store, cuts, max_keys)])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_state_that_suffices_goes_on_under_other_windows(data: st.DataObject) -> None:
    lateness = data.draw(st.sampled_from([0, 1, 7, 40]))
    guard = Guard(data.draw(st.integers(0, 80)), 5) if data.draw(st.booleans()) else None
    before, after = (entity(data.draw(windows()), lateness, guard) for _ in range(2))
    if not suffices(before.describe_state(), after.describe_state()):
        before, after = after, before
    assume(suffices(before.describe_state(), after.describe_state()))
    log = data.draw(logs(AMOUNT.largest_units))
    n = data.draw(st.integers(0, len(log)))
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=6))
    store = MemoryStore()
    features(log, before, store, [0, n, *(cut for cut in cuts if cut < n)])
    found = features(log, after, store, [n, len(log), *(cut for cut in cuts if cut > n)], data.draw(st.sampled_from([1, 100])))
    assert_same_bits(found, expected(log, [after])[0][n:], after.feature_names)


def test_a_window_within_what_is_kept_needs_no_other_state() -> None:
    before = entity((Window(days(1)), Window(days(30))))
    one_more = entity((Window(days(1)), Window(days(7)), Window(days(30)), Window(days(23), days(7))))
    assert one_more.state_fingerprint == before.state_fingerprint


def test_the_grid_of_a_delayed_window_counts_among_what_it_looks_back_on() -> None:
    # What the event at 58 sees, 20 ms later and 20 ms long:
    #
    #     t        10 ........ 18 ........ 30 ........ 38 ........ 58
    #     exact                 (18 ----------------- 38]
    #     grid 10  [10 ------------------- 30)                        whole cells at or before 38
    exact, cells = entity((Window(20, 20),)), entity((Window(20, 20, 10),))
    assert cells.state_fingerprint != exact.state_fingerprint
    assert not suffices(exact.describe_state(), cells.describe_state())
    assert suffices(cells.describe_state(), exact.describe_state())
    log = [Event(0, 10, 1), Event(0, 58, 1)]
    assert expected(log, [cells])[0][1, 0] == 1
    assert expected(log, [exact])[0][1, 0] == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (entity((Window(days(7)),)), entity((Window(days(8)),))),
        (entity((Window(days(7)),)), entity((Window(days(7)),), lateness_ms=hours(1))),
        (entity((Window(days(7)),)), entity((Window(days(7)),), guard=Guard(days(1), 0))),
        (entity((Window(days(7)),)), Entity("e", "key", (Window(days(7)),), (Count(),))),
        (entity((Window(days(7)),)), Entity("f", "key", (Window(days(7)),), (Sum(AMOUNT),))),
        (entity((Window(days(7)),)), Entity("e", "shop", (Window(days(7)),), (Sum(AMOUNT),))),
    ],
)
def test_a_state_that_holds_too_little_or_something_else_does_not_suffice(before: Entity, after: Entity) -> None:
    assert not suffices(before.describe_state(), after.describe_state())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_log_read_into_a_dump_taken_beside_its_owner_gives_the_state(data: st.DataObject) -> None:
    one = entity(data.draw(windows()), data.draw(st.sampled_from([0, 1, 7, 40])))
    log = data.draw(logs(AMOUNT.largest_units))
    p, q = sorted(data.draw(st.tuples(st.integers(1, max(len(log), 1)), st.integers(1, max(len(log), 1)))))
    assume(len(log) > 1)
    cuts = [0, p, q, *data.draw(st.lists(st.integers(0, q), max_size=12))]
    memory = Memory()
    dump: Dump | None = None
    kept: list[Writes] = []
    owner = MemoryStore(memory)
    edges = sorted(set(cuts))
    for (_, end), _ in zip(pairwise(edges), advance(log, one, owner, cuts, data.draw(st.sampled_from([1, 100]))), strict=True):
        if end < p:
            continue
        dump = dump or MemoryStore(memory).dump(SHARD)
        if dump is not None and "e" in dump.keys:
            keys = dump.keys["e"]
            # A block may be read at any time: now and then some are read once more, and the last reading holds.
            wanted = keys[data.draw(st.lists(st.integers(0, len(keys) - 1), unique=True))] if kept else keys
            kept.append(Writes.whole("e", wanted, dump.blocks("e", wanted)))
    assert dump is not None
    assert (dump.position, dump.end()) == (p, q)

    store = MemoryStore()
    store.claim(SHARD, {})
    store.load(SHARD, kept, p)
    found = features(log, one, store, [p, q, len(log)])
    assert_same_bits(found[q - p :], expected(log, [one])[0][q:], one.feature_names)
