"""An explanation as a page: the same facts, with each entity's past drawn over time and what moved the score as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streams.explain.moment import moment
from streams.offline.page import render

WIDTH, LEFT, RIGHT = 880, 130, 20
STEMS, ROW, BAR = 90, 22, 20  # heights
MOST_STEMS = 2_000
MOST_BARS = 16
NAMES = 345  # where the names of features end, and their bars' room begins


def explain_page(facts: Mapping[str, Any]) -> str:
    """The page, as HTML without anything to load."""
    now_ms = facts["event"]["event_ms"]
    timelines = [{"stage": stage["stage"], **_timeline(entity, now_ms)} for stage in facts["stages"] for entity in stage["entities"]]
    return render("explain.html", facts=facts, timelines=timelines, bars=_bars(facts["contributions"]))


def _timeline(entity: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Where everything of an entity's picture goes: a stem for each event, as high as what it brought, and a band for each window."""
    windows: Sequence[Mapping[str, Any]] = entity["windows"]
    events = {each["at"]: each for window in windows for each in window["events"]}
    first_ms = min(window["from_ms"] for window in windows)
    last_ms = max(now_ms, *(window["to_ms"] for window in windows))
    scale = (WIDTH - LEFT - RIGHT) / max(last_ms - first_ms, 1)

    def x(time_ms: int) -> float:
        return float(round(LEFT + (time_ms - first_ms) * scale, 2))

    shown = list(events.values())[-MOST_STEMS:]
    value = next((name for name in (shown[0] if shown else {}) if name not in _PLACE), None)
    highest = max((abs(each[value] or 0.0) for each in shown), default=0.0) if value else 0.0
    stems = [
        {
            "x": x(each["event_ms"]),
            "top": round(STEMS - (STEMS - 14) * (abs(each[value] or 0.0) / highest if value and highest else 0.4), 2),
            "label": each.get("label"),
            "title": _title(each),
        }
        for each in shown
    ]
    rows = [
        {
            "y": STEMS + 12 + place * ROW,
            "x": x(window["from_ms"]),
            "width": max(round((window["to_ms"] - window["from_ms"]) * scale, 2), 1),
            "name": window["window"],
            "count": len(window["events"]),
            "itself": window["itself"],
            "title": window["span"],
            "ticks": [x(each["event_ms"]) for each in window["events"][-MOST_STEMS:]],
        }
        for place, window in enumerate(windows)
    ]
    return {
        "entity": entity,
        "value": value,
        "highest": highest,
        "stems": stems,
        "rows": rows,
        "now": x(now_ms),
        "floor": STEMS,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "width": WIDTH,
        "height": STEMS + 12 + len(rows) * ROW + 22,
        "from": moment(first_ms),
        "to": moment(last_ms),
    }


def _title(event: Mapping[str, Any]) -> str:
    brought = (f"{name} {value}" for name, value in event.items() if name not in _PLACE)
    return "  ".join(str(part) for part in (event["event_time"], event["event_id"], event["at"], *brought) if part)


_PLACE = ("at", "source", "event_id", "event_time", "event_ms", "label")


def _bars(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The contributions as bars around zero, the largest first."""
    if found is None:
        return None
    shown = list(found["features"][:MOST_BARS])
    rest = found["features"][MOST_BARS:]
    if rest:
        total = sum(each["contribution"] for each in rest)
        shown.append({"name": f"{len(rest)} others", "value": None, "contribution": total, "error": 0.0})
    widest = max((abs(each["contribution"]) for each in shown), default=0.0) or 1.0
    middle, half = NAMES + 245, 180
    rows = []
    for place, each in enumerate(shown):
        width = round(half * abs(each["contribution"]) / widest, 2)
        rows.append({**each, "y": place * BAR, "x": middle if each["contribution"] >= 0 else middle - width, "width": width})
    return {"rows": rows, "names": NAMES, "middle": middle, "width": WIDTH, "height": len(rows) * BAR + 4, "bar": BAR}
