"""Random logs of events and their labels, and entities that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hypothesis import strategies as st

from tests.oracles.play import Event
from transforms.aggregate import Aggregate, Count, LabelCount, LabelRate, Max, Std
from transforms.entity import Entity, Guard
from transforms.fixed_point import FixedPoint
from transforms.window import Window

AMOUNT = FixedPoint("amount", 1, 1_000)


@st.composite
def entities(draw: st.DrawFn) -> list[Entity]:
    """One to three entities of one key, with short windows; some keep labels, and some take events that lack the key."""
    return [draw(_entity(name)) for name in ("one", "two", "three")[: draw(st.integers(1, 3))]]


@st.composite
def _entity(draw: st.DrawFn, name: str) -> Entity:
    grids = draw(st.sampled_from([(1,), (1, 5), (5,), (2, 4, 20)]))
    windows = []
    for _ in range(draw(st.integers(1, 2))):
        grid = draw(st.sampled_from(grids))
        windows.append(Window(grid * draw(st.integers(1, 12)), draw(st.sampled_from([0, 1, 3, 17])), grid, draw(st.booleans())))
    pool: list[Aggregate] = [LabelCount(), LabelRate(empty=-2.5), Count(), Std(AMOUNT), Max(AMOUNT, empty=7.0)]
    chosen = draw(st.lists(st.sampled_from(pool), min_size=1, unique_by=repr))
    guard = Guard(draw(st.integers(0, 80)), draw(st.integers(0, 10))) if draw(st.integers(0, 4)) == 0 else None
    lateness_ms = draw(st.sampled_from([0, 1, 7, 40]))
    missing: Literal["absent", "refuse"] = "absent" if draw(st.integers(0, 2)) else "refuse"
    return Entity(name, "key", tuple({w.suffix: w for w in windows}.values()), tuple(chosen), lateness_ms, 1_000, guard, missing)


@st.composite
def labelled_logs(draw: st.DrawFn, asked: Sequence[Entity]) -> list[Event]:
    """Events of few keys, some late, some too late, some without a key, some that come back; among them labels in any relation to them.

    Labels come before their event, right after it or much later, twice, corrected, for unknown ids, under other keys and at other times.
    """
    keys = [0, 1, 2, None] if all(entity.missing_key == "absent" for entity in asked) else [0, 1, 2]
    now = draw(st.sampled_from([-25, 0, 1_000_000_000_000]))
    events: list[Event] = []
    log: list[Event] = []
    steps = st.tuples(
        st.sampled_from([0, 0, 1, 1, 2, 5]),  # on the clock
        st.integers(0, 19),  # what kind of a row
        st.sampled_from(keys),
        st.integers(-60, 60),  # a jump in time, or which event a label is for
        st.integers(-9, 9),
        st.integers(-20, 90),  # arrival
    )
    for step, kind, key, jump, units, delay in draw(st.lists(steps, max_size=120)):
        now += step
        if kind < 11 or not events:  # an event
            t = now + jump if kind < 2 else now
            again = events[jump % len(events)].id if kind == 2 and events else len(events)
            event = Event(key, t, units, arrived=now + delay, usable=kind != 3, id=again)
            if kind == 4 and events:  # sent a second time as it was
                event = events[jump % len(events)]
            events.append(event)
            log.append(event)
            continue
        about = events[max(len(events) - 1 - abs(jump), 0)]
        if kind == 15:
            first = about.first if about.first >= 0 else next(row for row, each in enumerate(log) if each is about)
            log.append(replace(about, first=first, usable=True))
            continue
        # A label, as a rule for one of the last events.
        told = Event(about.key, about.t, 0, arrived=now + delay, id=about.id, label=units % 2)
        if kind == 11:
            told = Event(key, about.t, 0, arrived=now, id=about.id, label=units % 2)  # maybe of another key
        elif kind == 12:
            told = Event(about.key, about.t + units, 0, arrived=now, id=about.id, label=units % 2)  # maybe at another time
        elif kind == 13:
            told = Event(about.key, now, 0, arrived=now, id=len(events), label=units % 2)  # of an event to come, if it has this key
        elif kind == 14:
            told = Event(about.key, about.t, 0, arrived=now, usable=False, id=about.id, label=units % 2)
        log.append(told)
    return log
