"""Peers on the same work, from the results of ``benchmarks.peers``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.read import Result
from benchmarks.report.table import NONE, Row, code, number, share, table, times

PREFIX = "peers-"
WORDS = (
    "One entity, three windows, a forest of 100 trees, exact features: the same events on the same broker, each peer drained in the same "
    "minutes as Millrace. *CPU* says how many times as much an event costs there, *speed* how many times as fast Millrace drains."
)


def peers(results: Mapping[str, Result], plots: str) -> list[str]:
    """Ratios first, then what each came to, then what it can't do."""
    shown = sorted(
        (result for kind, result in results.items() if kind.startswith(PREFIX)),
        key=lambda result: (result.data.get("cpu_us_per_event") or float("inf"), result.kind),
    )
    if not shown:
        return []
    compared = [result for result in shown if result.data.get("beside_millrace") and result.kind != f"{PREFIX}millrace"]
    beside = [_beside(result) for result in sorted(compared, key=_ratio)]
    lines = ["## Beside peers", "", WORDS, ""]
    lines += table(("peer", "how", "guarantee", "CPU", "speed", "features right to the bit", "measured"), beside)
    if any(result.data.get("cpu_us_per_event") for result in shown):
        lines += [f"![CPU an event, by peer]({plots}/peers.svg)", ""]
    head = ("peer", "how", "events/s", "CPU us", "p50 / p99 ms at 1,000/s", "at half its best", "MB", "features right", "lines of code")
    lines += table((*head, "measured", "again with"), [_alone(result) for result in shown])
    cannot = [_cannot(result) for result in shown if result.data.get("cannot")]
    return [*lines, *(["What they can't do as the job says:", "", *cannot, ""] if cannot else [])]


def _name(data: Mapping[str, Any], kind: str) -> str:
    name = " ".join(str(data[each]) for each in ("peer", "version") if data.get(each)) or kind.removeprefix(PREFIX)
    return name if data.get("complete", True) else f"{name} (not complete)"


def _ratio(result: Result) -> float:
    return float(result.data["beside_millrace"].get("cpu_times") or 0.0)


def _beside(result: Result) -> Row:
    data, ratio = result.data, result.data["beside_millrace"]
    right = data.get("features_right") or {}
    told = (times(ratio.get("cpu_times")), times(ratio.get("speed_times")), share(right.get("to_the_bit")))
    return (_name(data, result.kind), data.get("how") or NONE, data.get("guarantee") or NONE, *told, result.date)


def _alone(result: Result) -> Row:
    data = result.data
    right = data.get("features_right") or {}
    return (
        _name(data, result.kind),
        data.get("how") or data.get("guarantee") or NONE,
        number(data.get("events_per_s"), 0),
        number(data.get("cpu_us_per_event")),
        _latency(data, "at_1000"),
        _latency(data, "at_half_best"),
        number(data.get("rss_mb"), 0),
        share(right.get("share")),
        number(data.get("lines_of_user_code"), 0),
        result.date,
        code(result.command),
    )


def _latency(data: Mapping[str, Any], at: str) -> str:
    p50, p99 = ((data.get(name) or {}).get(at) for name in ("p50_ms", "p99_ms"))
    return NONE if p50 is None and p99 is None else f"{number(p50)} / {number(p99)}"


def _cannot(result: Result) -> str:
    sentences = "; ".join(str(each).rstrip(".") for each in result.data["cannot"])
    return f"- **{_name(result.data, result.kind)}**, {result.data.get('how') or result.data.get('guarantee')}: {sentences}."
