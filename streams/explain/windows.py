"""The windows of one event: where each begins and ends, and which events are inside."""

from __future__ import annotations

import numpy as np

from schemas.features import Json
from streams.batch import Address
from streams.definition.bound import Bound
from streams.explain.moment import moment
from streams.explain.remake import Remade, Remembered
from transforms.fixed_point import FixedPoint, numbers
from transforms.past import Edges, edges, evaluated_at
from transforms.window import Window


def event_ms(bound: Bound, made: Remade) -> int:
    """When the event happened."""
    return int(numbers(bound.event_time.column, made.batch.columns[bound.event_time.column])[0])


def entity_facts(bound: Bound, made: Remade, remembered: Remembered) -> dict[str, Json]:
    """One entity's view of the event: what its key remembered, and each window with its events and features."""
    entity, past = remembered.entity, remembered.past
    at_ms = evaluated_at(entity, past.newest_ms, event_ms(bound, made), int(made.batch.arrived_ms[0]))
    windows: list[Json] = [_window(made, remembered, window, at_ms) for window in entity.windows]
    return {
        "entity": entity.name,
        "key": dict(remembered.key),
        "remembered": len(past),
        "newest": None if past.newest_ms is None else moment(past.newest_ms),
        "evaluated_at": moment(at_ms),
        "evaluated_at_ms": at_ms,
        "windows": windows,
    }


def _window(made: Remade, remembered: Remembered, window: Window, at_ms: int) -> dict[str, Json]:
    entity, past = remembered.entity, remembered.past
    span = edges(window, at_ms)
    inside = span.members(past)
    held = made.came_back_from >= 0 and made.came_back_from in past.positions[inside]
    events: list[Json] = [_event(made, remembered, row) for row in range(inside.start, inside.stop)]
    place = entity.windows.index(window) * len(entity.aggregates)
    names = entity.feature_names[place : place + len(entity.aggregates)]
    return {
        "window": window.suffix,
        "span": _span(span, window),
        "from_ms": span.from_ms,
        "to_ms": span.to_ms,
        "events": events,
        "itself": window.holds_self and not held,
        "features": {name: float(numbers(name, made.batch.columns[name])[0]) for name in names},
    }


def _span(span: Edges, window: Window) -> str:
    """From where to where, in mathematicians' brackets: exact windows hold their newer end, those on a grid their older one."""
    if window.grid_ms == 1:
        return f"({moment(span.from_ms - 1)}, {moment(span.to_ms - 1)}]"
    return f"[{moment(span.from_ms)}, {moment(span.to_ms)})"


def _event(made: Remade, remembered: Remembered, row: int) -> dict[str, Json]:
    entity, past = remembered.entity, remembered.past
    offset = int(past.positions[row])
    name = made.names.get(offset)
    said: dict[str, Json] = {
        "at": str(Address(made.at.topic, made.at.partition, offset)),
        "event_id": None if name is None else name.event_id,
        "source": None if name is None else str(name.source),
        "event_time": moment(int(past.times[row])),
        "event_ms": int(past.times[row]),
    }
    for place, value in enumerate(entity.values):
        if isinstance(value, FixedPoint):
            said[value.column] = float(np.float64(past.values[row, place]) / value.scale)
    if past.labels is not None:
        label = int(past.labels[row])
        said["label"] = None if label < 0 else label
    return said
