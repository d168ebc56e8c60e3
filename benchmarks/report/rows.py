"""Rows of the page that are a figure each: ratios to the nearest alternative, Millrace alone, and where it all comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.report.read import Result
from benchmarks.report.table import NONE, Row, code, number, table, times

Data = Mapping[str, Any]
LARGEST = "5000"  # records in a batch of `benchmarks.codec`


@dataclass(frozen=True, slots=True)
class Figure:
    """A row: which result it is taken from, what it is, beside what or in which unit, and how to find it there."""

    kind: str
    what: str
    beside: str  # for a ratio the alternative, else the unit
    take: Callable[[Data], float | None]
    digits: int = 1

    def find(self, results: Mapping[str, Result]) -> tuple[Result, float] | None:
        """The figure, if there is a result that has it: those of older revisions may not."""
        result = results.get(self.kind)
        if result is None:
            return None
        try:
            found = self.take(result.data)
        except (KeyError, IndexError, TypeError, ZeroDivisionError):
            return None
        return None if found is None else (result, found)


def _offline(peer: str) -> Figure:
    return Figure(
        "offline", "features over history, CPU", peer, lambda d: d["us_per_event"][peer]["cpu"] / d["us_per_event"]["build"]["cpu"]
    )


def _steady(kind: str, name: str, rate: str) -> Figure:
    return Figure(kind, f"{name} from due to scored, {rate}", "ms", lambda d: d["steady"][f"{name}_ms"])


def _grown(what: str, name: str) -> Figure:
    return Figure("growth", what, "bytes a key", lambda d: [case for case in d["cases"] if case["records_a_key"] == 60][-1][name], 0)


RATIOS = (
    Figure("codec", "decoding, CPU a record", "fastavro", lambda d: d["us_per_record"][LARGEST]["decode_ratio"]),
    Figure("codec", "encoding, CPU a record", "fastavro", lambda d: d["us_per_record"][LARGEST]["encode_ratio"]),
    Figure("scoring", "100 trees, 1,000 rows a call", "ONNX Runtime, the same file", lambda d: d["us_per_row"]["1000"]["ratio"]),
    Figure(
        "scoring",
        "100 trees, 1,000 rows a call",
        "ONNX Runtime, a row a call",
        lambda d: d["us_per_row"]["1"]["runtime"] / d["us_per_row"]["1000"]["loop"],
    ),
    Figure("store", "windows kept in Redis, time", "sorted sets in a redis-py pipeline", lambda d: d["times_faster_than_sorted_sets"]),
    Figure("store", "windows kept in Redis, CPU", "sorted sets in a redis-py pipeline", lambda d: d["times_less_cpu_than_sorted_sets"]),
    Figure("store", "windows kept in Redis, time", "sorted sets in a Lua script", lambda d: d["times_faster_than_lua"]),
    Figure("store", "windows kept in Redis, CPU", "sorted sets in a Lua script", lambda d: d["times_less_cpu_than_lua"]),
    Figure("kernel", "windows event by event, CPU", "polars' rolling, all at once", lambda d: d["polars_us"] / d["us_per_event"]),
    _offline("polars"),
    _offline("duckdb"),
    _offline("pandas"),
)

ALONE = (
    Figure("worker", "drained by one worker: two entities, 100 trees", "events/s", lambda d: d["drain"]["events_per_second"], 0),
    Figure("worker", "the worker's CPU meanwhile", "us an event", lambda d: d["drain"]["cpu_us_per_event"]),
    Figure("worker", "start to first score", "s", lambda d: d["drain"]["start_seconds"]),
    Figure("worker", "start to first score beside its state in Redis", "s", lambda d: d["again"]["start_seconds"]),
    Figure("worker", "idle", "% of a core", lambda d: 100 * d["idle"]["cores"]),
    Figure("worker", "idle", "MB", lambda d: d["idle"]["rss_bytes"] / 1e6, 0),
    _steady("worker", "p50", "10,000/s"),
    _steady("worker", "p99", "10,000/s"),
    _steady("worker", "p99.9", "10,000/s"),
    Figure("stages", "two stages with labels in one process: drained", "events/s", lambda d: d["drain"]["events_per_second"], 0),
    Figure("stages", "two stages with labels, a process each: drained", "events/s", lambda d: d["apart"]["events_per_second"], 0),
    Figure(
        "stages",
        "the CPU of all its processes meanwhile",
        "us an event",
        lambda d: sum(used for name, used in d["apart"].items() if name.startswith("cpu_us_per_event")),
    ),
    _steady("stages", "p99", "5,000/s over two stages"),
    Figure("stages", "p99 from due to scored, 5,000/s over two stages, a process each", "ms", lambda d: d["apart, steady"]["p99_ms"]),
    Figure("stages-led-in", "the same by a broker whose JVM has optimised for minutes", "ms", lambda d: d["apart, steady"]["p99_ms"]),
    Figure("load-knee", "knee: the highest rate that holds its p99", "events/s", lambda d: d["knee"]["rate"], 0),
    Figure("codec", "decoding", "us a record", lambda d: d["us_per_record"][LARGEST]["decode"], 3),
    Figure("kernel", "windows of one entity", "us an event", lambda d: d["us_per_event"], 3),
    Figure("scoring", "100 trees", "us a row", lambda d: d["us_per_row"]["1000"]["loop"], 3),
    _grown("Redis, 60 records a key", "redis_bytes_a_key"),
    _grown("the worker's memory, 60 records a key", "worker_bytes_a_key"),
)


def ratios(results: Mapping[str, Result]) -> list[str]:
    """How many times less than the nearest alternative, in the same run."""
    rows: list[Row] = []
    for figure in RATIOS:
        if (found := figure.find(results)) is not None:
            rows.append((figure.what, times(found[1]), figure.beside, found[0].date, code(found[0].command)))
    words = "How many times less Millrace takes: each beside its alternative, in turns, on the same input, with answers asserted."
    return ["## Ratios", "", words, "", *table(("what", "less", "beside", "measured", "again with"), rows)] if rows else []


def alone(results: Mapping[str, Result]) -> list[str]:
    """What one machine came to."""
    rows: list[Row] = []
    for figure in ALONE:
        if (found := figure.find(results)) is not None:
            rows.append((figure.what, number(found[1], figure.digits), figure.beside, found[0].date, code(found[0].command)))
    words = "Exactly once, everything on one machine."
    return ["## Millrace alone", "", words, "", *table(("what", "figure", "unit", "measured", "again with"), rows)] if rows else []


def provenance(results: Mapping[str, Result]) -> list[str]:
    """Where every figure of the page comes from."""
    rows: list[Row] = []
    versions: Mapping[str, str] = {}
    for kind, result in results.items():
        data, machine = result.data, result.data.get("machine") or {}
        versions = data.get("versions") or versions
        load = machine.get("load_average") or data.get("load_average")
        cores, processor = machine.get("cpus"), machine.get("processor") or "processor not told"
        rows.append(
            (
                f"[{kind}](../benchmarks/results/{result.file.name})",
                result.date,
                data.get("commit") or NONE,
                f"{cores} cores, {processor}" if cores else NONE,
                machine.get("python") or NONE,
                number(load[0]) if load else NONE,
                "yes" if result.counts else "no",
            )
        )
    head = ("raw numbers", "measured", "commit", "machine", "Python", "load average", "counts")
    told = ["Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".", ""] if versions else []
    return ["## Where the figures come from", "", *table(head, rows), *told]
